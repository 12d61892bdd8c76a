"""The package works without stacks: their folder and the one function that names it can be removed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hiresnet_graph

PACKAGE = Path(hiresnet_graph.__file__).parent
ABLATE = "ablate hiresnet18 width=4 input.channels=1 input.height=8 input.width=8 --variants none,full --seeds 1"


def test_only_one_function_of_the_program_names_the_folder() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "stack" not in path.relative_to(PACKAGE).parts and "hiresnet_graph.stack" in path.read_text()
    }
    assert users == {"sweep/stacks.py", "testing.py"}  # and the conformance checks for custom kinds


@pytest.mark.slow
def test_studies_run_without_the_folder(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "hiresnet_graph", ignore=shutil.ignore_patterns("stack", "__pycache__"))
    shutil.copytree(PACKAGE.parent / "specs", tmp_path / "specs")
    names = tmp_path / "hiresnet_graph" / "sweep" / "stacks.py"
    text, found = re.subn(
        r'(def find_groups.*?""".*?""")\n.*?\n\n\n', r"\1\n    return ()\n\n\n", names.read_text(), flags=re.S
    )
    assert found == 1
    names.write_text(text)
    command = [
        sys.executable,
        "-c",
        "from hiresnet_graph.cli import main; main()",
        *ABLATE.split(),
        "--epochs",
        "1",
        "--stack",
        "4",
        "-o",
        "study",
    ]
    ended = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Each run is computed by itself" in ended.stderr
    assert sorted(path.parent.name for path in tmp_path.glob("study/runs/*/result.json")) == [
        "full-seed0",
        "none-seed0",
    ]
