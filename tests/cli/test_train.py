import csv
import json

import pytest

SMALL = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_keeps_a_run_and_never_replaces_it_unasked(hrg, folder):
    result = hrg("train", *SMALL, "--variant", "in", "--epochs", "1", "--seed", "4", "-o", "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("run: test accuracy ")
    assert "epoch 1/1  loss " in result.stderr
    record = json.loads((folder / "run" / "result.json").read_text())
    assert (record["variant"], record["seed"], record["recipe"]["epochs"]) == ("in", 4, 1)
    exported = hrg("compile", *SMALL, "--variant", "in", "--weights", "run/model.safetensors", "-o", "run.pt2")
    assert exported.exit_code == 0, exported.stderr
    misfit = hrg("compile", *SMALL, "width=3", "--weights", "run/model.safetensors", "-o", "other.pt2")
    assert misfit.exit_code == 2 and not (folder / "other.pt2").exists()
    again = hrg("train", *SMALL, "--epochs", "1", "-o", "run")
    assert again.exit_code == 2 and "--force" in again.stderr
    assert json.loads((folder / "run" / "result.json").read_text()) == record
    assert hrg("train", *SMALL, "--epochs", "1", "-o", "run", "--force").exit_code == 0
    assert json.loads((folder / "run" / "result.json").read_text())["seed"] == 0


def test_a_run_that_diverges_is_exit_code_1(hrg):
    result = hrg("train", *SMALL, "--epochs", "1", "--lr", "1e30", "-o", "run")
    assert result.exit_code == 1 and result.stdout.startswith("run: diverged at step ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["unet", "-o", "x"], "10 classes"),
        ([*SMALL, "--data", "digts", "-o", "x"], "digits"),
        ([*SMALL, "--lr", "-1", "-o", "x"], "a number above 0 is wanted"),
        ([*SMALL, "--epochs", "0", "-o", "x"], "--epochs"),
        ([*SMALL], "--output"),
    ],
)
def test_train_mistakes_are_wrong_usage(hrg, folder, args, message):
    result = hrg("train", *args)
    assert result.exit_code == 2 and message in result.stderr
    assert not (folder / "x" / "result.json").exists()


def test_ablate_trains_then_reports_and_trains_nothing_twice(hrg):
    args = ["ablate", *SMALL, "--variants", "none,full", "--epochs", "1", "--jobs", "1", "-o", "study"]
    first = hrg(*args, "--seeds", "1")
    assert first.exit_code == 0, first.stderr
    assert "2 variants x 1 seed, 1 epoch each" in first.stderr and "run 2/2  full, seed 0: " in first.stderr
    second = hrg(*args, "--seeds", "2")
    assert "2 runs of them were there already" in second.stderr and "seed 0" not in second.stderr

    lines = hrg("report", "study").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["none", "full"]
    rows = json.loads(hrg("report", "study", "--format", "json").stdout)["rows"]
    assert [(row["variant"], row["n"]) for row in rows] == [("none", 2), ("full", 2)]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    table = list(csv.DictReader(hrg("report", "study", "-f", "csv").stdout.splitlines()))
    assert [row["parameters"] for row in table] == [str(row["parameters"]) for row in rows]
    assert hrg("report", "study", "-f", "md").stdout.startswith("| variant |")


def test_ablate_dry_run_lists_and_trains_nothing(hrg, folder):
    result = hrg("ablate", *SMALL, "--subsets", "leave-one-out", "-o", "study", "--dry-run")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 9
    assert "7 variants x 5 seeds" in result.stderr and not (folder / "study").exists()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--variants", "none", "--subsets", "all"],
        ["--subsets", "nosuch"],
        ["--variants", "none,none"],
        ["--variants", "none", "--data", "nosuch"],
        ["--variants", "none", "--seeds", "0"],
    ],
)
def test_ablate_mistakes_are_wrong_usage(hrg, folder, args):
    result = hrg("ablate", *SMALL, *args, "-o", "study")
    assert result.exit_code == 2 and result.stdout == ""
    assert not (folder / "study").exists()


def test_report_of_nothing_says_what_makes_one(hrg):
    result = hrg("report", "nosuch")
    assert result.exit_code == 1 and "hrg ablate" in result.stderr
    assert hrg("report", "nosuch", "--format", "xls").exit_code == 2
