"""Shipped studies whose header shows a short run on digits: its command works."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.forked import run_command

STUDIES = sorted((Path(__file__).parents[1] / "specs" / "studies").glob("table2-*.yaml"))


def command(study: Path) -> list[str]:
    """The command in the header of a study, without `hrg`."""
    lines = [line.removeprefix("#").strip() for line in study.read_text().splitlines() if line.startswith("#   ")]
    hrg, *arguments = shlex.split(" ".join(line.removesuffix("\\") for line in lines))
    assert hrg == "hrg"
    return arguments


@pytest.mark.parametrize(
    ("mode", "study"),
    [
        *(("--dry-run", study) for study in STUDIES),
        *(pytest.param("train", study, marks=pytest.mark.slow) for study in STUDIES),
    ],
    ids=lambda value: value if isinstance(value, str) else value.stem,
)
def test_the_short_run_of_a_header(mode: str, study: Path, tmp_path: Path) -> None:
    arguments = [*command(study), "-o", str(tmp_path / "runs")]
    arguments += ["--dry-run", "--no-calibrate"] if mode == "--dry-run" else []
    code, found = run_command(arguments, tmp_path, os.environ, 250)
    assert code == 0, found
    assert ("Nothing was trained" if mode == "--dry-run" else "All runs are finished") in found
    assert not any(word in found for word in ("diverged", "failed"))
