"""What is built from the checkout, and what the lists of dependencies say."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_has_an_exact_version_and_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text and "@" not in text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {plain(line.split("==")[0]) for line in lines}
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    assert {plain(re.split(r"[<>=;\[ ]", name)[0]) for name in wanted} <= pinned
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= set(lines)


def test_the_version_is_one() -> None:
    import hiresnet_graph

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert hiresnet_graph.__version__ == project["version"]


@pytest.mark.slow
def test_the_wheel_has_the_specs_and_the_mark_of_types(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    specs = {path.relative_to(ROOT / "specs").as_posix() for path in (ROOT / "specs").rglob("*.yaml")}
    assert {name.removeprefix("hiresnet_graph/_specs/") for name in names if "/_specs/" in name} == specs
    assert "hiresnet_graph/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "specs"))]
    code = "import hiresnet_graph as hrg; print(hrg.__file__, hrg.load('hiresnet18').cost().parameters)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "installed", capture_output=True, text=True, check=True
    ).stdout
    assert str(tmp_path / "installed") in out
    assert "273466" in out


@pytest.mark.slow
def test_pyright_finds_the_types_of_what_examples_use() -> None:
    # Those that read data with scikit-learn are left out: it has no types.
    examples = ["brain_score", "compare_edges", "grad_cam", "own_kinds", "small_study"]
    files = [f"examples/{name}.py" for name in examples]
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr
