"""Completion in shells: `hrg --install-completion`."""

import os
import subprocess
import sys

import pytest

from hiresnet_graph.shipped import spec_names, study_names


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word, by a program of its own."""
    environment = os.environ | {
        "_HRG_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["hrg", *words]),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'hrg'; from hiresnet_graph.cli import main; main()"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120).stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("va",), ["validate"]),
        (("analyze", "les"), ["lesion"]),
        (("train", "--prec"), []),
        (("train", "--dev"), ["--device"]),
        (("show", "hiresv"), ["hiresvit_tiny"]),
        (("ablate", "table2-hiresv"), ["table2-hiresvit"]),
        (("ablate", "dig"), ["digits"]),
        (("show", "my_file"), []),
    ],
)
def test_commands_options_and_shipped_names_are_completed(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_all_shipped_names_are_offered() -> None:
    assert set(completed("validate", "hires")) == {
        name for name in (*spec_names(), *study_names()) if name.startswith("hires")
    }
