import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

Hrg = Callable[..., Result]

FILE = """
name: cheap skips
network: hiresnet18
changes: {input.channels: 1, input.height: 8, input.width: 8}
search:
  space: {edges: full, width: [2, 3], lr: {low: 0.001, high: 0.01, log: true}}
  sampler: random
  seed: 1
  runs: 3
  batch: 2
  limit: {parameters: 5000}
seeds: 1
data: digits
recipe: {epochs: 1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cheap.yaml"
    path.write_text(FILE)
    return path


def test_a_dry_run_describes_the_search_space(hrg: Hrg, file: Path, tmp_path: Path) -> None:
    result = hrg("search", file, "--dry-run", "--runs", "5")
    assert result.exit_code == 0, result.stderr
    space, budget, parameters = result.stdout.splitlines()
    assert space == "Space: endless: 64 edge sets x width (2, 3) x lr from 0.001 to 0.01."
    assert budget == "Budget: 5 runs; random proposes 2 at a time."
    assert parameters.startswith("Parameters: 4,444 (smallest) to 10,045 (largest)")
    assert parameters.endswith("; larger than 5,000 parameters is not trained.")
    assert list(tmp_path.iterdir()) == [file]


def test_a_search_reports_runs_and_skipped_proposals(hrg: Hrg, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = hrg("search", file, "-o", out, "--jobs", "1", "--recipe", "batch_size=800")
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("run ")] == ["1/3", "2/3", "3/3"]
    with closing(sqlite3.connect(out / "ledger.sqlite")) as database:
        (proposals,) = database.execute("SELECT count(*) FROM trials").fetchone()
    assert proposals > 3
    assert f"{proposals} proposals, of which {proposals - 3} too large, so not trained." in lines
    assert lines[-1].endswith(shlex.join(["hrg", "report", str(out)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda:5"), "cuda:5"),
        (("--address", "there:1"), "address 'there:1' belongs to a Ray cluster"),
        (("--slurm", "time=60"), "requires the executor 'slurm'"),
        (("--executor", "rey"), "Did you mean 'ray'"),
    ],
)
def test_a_dry_run_checks_the_options_as_the_search_does(
    hrg: Hrg, file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    real, dry = (hrg("search", file, "-o", out, *options, *extra) for extra in ((), ("--dry-run",)))
    assert (dry.exit_code, dry.stderr) == (real.exit_code, real.stderr)
    assert dry.exit_code == 2 and message in dry.stderr
    assert not out.exists()


def test_a_dry_run_compares_the_search_with_its_folder(hrg: Hrg, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert hrg("search", file, "-o", out, "--jobs", "1", "--recipe", "batch_size=800").exit_code == 0
    before = (out / "ledger.sqlite").read_bytes()
    dry = hrg("search", file, "-o", out, "--jobs", "1", "--recipe", "batch_size=800", "--runs", "9", "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert "3 runs done. 1 worker. Nothing was trained." in dry.stderr.splitlines()
    assert (out / "ledger.sqlite").read_bytes() == before
    for text in (FILE, FILE.replace("seed: 1", "seed: 2")):  # another batch size; another search
        file.write_text(text)
        real, dry = (hrg("search", file, "-o", out, "--jobs", "1", *extra) for extra in ((), ("--dry-run",)))
        assert real.exit_code == dry.exit_code == 2
        reason = next(line for line in real.stderr.splitlines() if "holds a" in line).partition(f"{out} ")[2]
        assert f"Without '--dry-run' this is refused: {out} {reason}" in dry.stderr


def test_download_refers_to_the_data_of_the_file(hrg: Hrg, file: Path) -> None:
    result = hrg("search", file, "--download", "--dry-run")
    assert result.exit_code == 2 and "data 'digits' cannot be downloaded" in result.stderr
    file.write_text(FILE.replace("data: digits", "data: cifar10:root=there"))
    result = hrg("search", file, "--dry-run")
    assert result.exit_code == 2 and "there is no folder 'cifar-10-batches-py'" in result.stderr
    (file.parent / "a file").touch()
    file.write_text(FILE.replace("data: digits", f"data: 'cifar10:root={file.parent / 'a file'}'"))
    result = hrg("search", file, "--download", "--dry-run")
    assert result.exit_code == 1 and "cannot be downloaded" in result.stderr


def test_a_search_requires_a_folder(hrg: Hrg, file: Path) -> None:
    result = hrg("search", file)
    assert result.exit_code == 2 and "the folder is missing: '--output DIR'" in result.stderr
