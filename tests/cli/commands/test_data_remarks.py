"""What may be unintended in the data is printed once where training starts, and is in the record."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from hiresnet_graph.train.record import read_record

LINE = "Warning: data 'npz:a.npz': equal pixels in several parts: 3 of 12 test images are also in training."
NETWORK = """
name: net
params: {width: 2}
input: {channels: 1, height: 8, width: 8}
nodes: {stem: {block: conv, width: $width}, body: {block: conv, width: 2}, head: {block: classifier, classes: 2}}
flow: stem -> body -> head
variants: {base: {params: {width: 2}}, more: {params: {width: 3}}}
"""
SHORT = ("--epochs", "1", "--batch-size", "10")


@pytest.fixture
def data(folder: Path) -> str:
    """60 training images, of which three are also test images."""
    x = np.random.RandomState(0).randint(0, 256, (60, 8, 8), np.uint8)
    x_test = np.random.RandomState(1).randint(0, 256, (12, 8, 8), np.uint8)
    x_test[:3] = x[3:6]
    np.savez(folder / "a.npz", x_train=x, y_train=np.arange(60) % 2, x_test=x_test, y_test=np.arange(12) % 2)
    (folder / "net.yaml").write_text(NETWORK)
    return "npz:a.npz,split_seed=1"


def test_train_prints_one_line_and_records_the_counts(hrg: Callable[..., Result], folder: Path, data: str) -> None:
    result = hrg("train", "net.yaml", "--data", data, *SHORT, "-o", "run")
    assert result.exit_code == 0 and result.stderr.splitlines().count(LINE) == 1
    record = read_record(folder / "run")
    assert record is not None
    assert record.duplicates == {"validation_in_train": 0, "test_in_train": 3, "test_in_validation": 0}
    assert LINE not in hrg("train", "net.yaml", "--data", data, *SHORT, "-o", "run").stderr, "nothing is trained"


def test_ablate_prints_one_line_at_the_start_and_in_a_dry_run(
    hrg: Callable[..., Result], folder: Path, data: str
) -> None:
    study = ("ablate", "net.yaml", "--variants", "base,more", "--seeds", "1", "--data", data, *SHORT)
    dry = hrg(*study, "--dry-run", "--no-calibrate")
    assert dry.exit_code == 0 and dry.stderr.splitlines().count(LINE) == 1
    assert json.loads(hrg(*study, "--dry-run", "--no-calibrate", "--json").stdout)["remarks"] == [LINE]
    trained = hrg(*study, "-o", "study", "--jobs", "1")
    assert trained.exit_code == 0 and trained.stderr.splitlines().count(LINE) == 1
    records = [read_record(path.parent) for path in (folder / "study").rglob("result.json")]
    assert [record and record.duplicates and record.duplicates["test_in_train"] for record in records] == [3, 3]


def test_search_prints_one_line(hrg: Callable[..., Result], folder: Path, data: str) -> None:
    (folder / "search.yaml").write_text(
        f"network: net.yaml\ndata: '{data}'\nrecipe: {{epochs: 1, batch_size: 10}}\nseeds: 1\n"
        "search: {sampler: random, runs: 2, space: {width: [2, 3]}}\n"
    )
    result = hrg("search", "search.yaml", "--dry-run")
    assert result.exit_code == 0 and result.stderr.splitlines().count(LINE) == 1


def test_skipped_files_are_printed(hrg: Callable[..., Result], folder: Path, data: str) -> None:
    for label, name in enumerate("ab"):
        for number in range(20):
            (folder / "pets" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 100 * label + number).save(folder / "pets" / name / f"{number}.png")
    (folder / "pets" / "a" / "._0.png").touch()
    (folder / "pets" / "a" / "again").symlink_to("..", target_is_directory=True)
    result = hrg("train", "net.yaml", "--data", "imagefolder:pets,channels=1", *SHORT, "-o", "run")
    line = "Data 'imagefolder:pets': skipped 1 hidden file or folder, 1 link to images that are read elsewhere."
    assert result.exit_code == 0 and result.stderr.splitlines().count(line) == 1


def test_a_dry_run_refuses_data_that_are_wrong_but_not_those_that_are_missing(
    hrg: Callable[..., Result], folder: Path, data: str
) -> None:
    study = ("ablate", "net.yaml", "--variants", "base,more", "--seeds", "1", *SHORT, "--dry-run", "--no-calibrate")
    for missing in ("npz:b.npz", "imagefolder:pets"):
        result = hrg(*study, "--data", missing)
        assert result.exit_code == 0 and "The data are missing, so classes were not checked" in result.stderr
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        result = hrg(*study, f"head.classes={classes}", "--data", f"{name}:root=there")
        assert result.exit_code == 0 and "The data are missing, so finished runs are unknown" in result.stderr
        result = hrg(*study, f"head.classes={classes - 1}", "--data", f"{name}:root=there")
        assert result.exit_code == 2 and f"Set 'head.classes={classes}'." in result.stderr
    for name in ("train", "val", "valid"):
        (folder / "parts" / name).mkdir(parents=True)
    (folder / "one" / "a").mkdir(parents=True)
    np.savez(folder / "one.npz", x=np.zeros((20, 8, 8), np.uint8), y=np.zeros(20, int))
    for wrong, message in (
        ("imagefolder:parts", f"data: {folder}/parts has several folders for validation: 'val', 'valid'."),
        ("imagefolder:one", f"data 'imagefolder': {folder}/one must contain at least two class folders"),
        ("npz:one.npz", "data 'npz:one.npz': there is a single class, '0', and training requires two or more."),
    ):
        result = hrg(*study, "--data", wrong)
        assert result.exit_code == 2 and message in result.stderr and "missing" not in result.stderr
