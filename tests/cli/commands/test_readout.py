"""`hrg analyze readout`."""

import csv
import json

import pytest

from tests.train.states import TEXT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "states.yaml").write_text(TEXT)
    return tmp_path


def trained(hrg, *changes):
    result = hrg("train", "states.yaml", *changes, "--epochs", "1", "--batch-size", "400", "-o", "run")
    assert result.exit_code == 0, result.stderr


def test_a_run_is_read_out_at_each_step(hrg, folder):
    trained(hrg, "time.readout=all")
    result = hrg("analyze", "readout", "run", "--plot", "curve.svg")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["step", "in", "training", "accuracy", "top-k", "loss"]
    assert [line.split()[:2] for line in lines[2:6]] == [[str(step), "yes"] for step in (1, 2, 3, 4)]
    assert result.stderr == "Wrote curve.svg.\n" and (folder / "curve.svg").read_text().startswith("<svg ")
    assert hrg("analyze", "readout", "run", "--plot", "curve.PNG").exit_code == 0
    assert (folder / "curve.PNG").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "run" / "result.json").read_text())
    assert f"{100 * record['test_accuracy']:.2f}" in lines[5]

    data = json.loads(hrg("analyze", "readout", "run", "--steps", "2-3,6", "--json").stdout)
    assert [(row["step"], row["trained"], row["reason"] is None) for row in data["rows"]] == [
        (2, True, True),
        (3, True, True),
        (6, False, False),
    ]
    rows = list(csv.DictReader(hrg("analyze", "readout", "run", "--steps", "2-3,6", "-f", "csv").stdout.splitlines()))
    assert [row["step"] for row in rows] == ["2", "3", "6"] and rows[2]["accuracy_mean"] == ""
    past = hrg("analyze", "readout", "run", "--steps", "6", "--past", "last", "--part", "validation", "-f", "csv")
    assert past.exit_code == 0 and next(csv.DictReader(past.stdout.splitlines()))["accuracy_mean"] != ""


def test_if_no_step_can_be_read_out_the_reason_and_a_hint_are_printed(hrg, folder):
    trained(hrg)
    result = hrg("analyze", "readout", "run", "--steps", "2-3", "--plot", "curve.svg")
    assert result.exit_code == 2 and result.stdout == ""
    assert "no step can be read out: 'norm' has no copy of its weights for step 2" in result.stderr
    assert "Train with 'time.readout=all'" in result.stderr and "'--past last'" in result.stderr
    assert not (folder / "curve.svg").exists()
    assert hrg("analyze", "readout", "run").exit_code == 0  # the step of training works


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--steps", "3-2"], "--steps 3-2: expected steps counted from 0, like '2-5' or '3,5,9', got '3-2'."),
        (["run", "--steps", "a"], "got 'a'."),
        (["run", "--steps", ""], "got ''."),
        (["run", "--steps", "-1"], "got '-1'."),
        (["run", "--plot", "x.gif"], "'x.gif': a figure is written as .svg, .pdf or .png."),
        (["run", "--part", "train"], "'test', 'validation'"),
    ],
)
def test_errors_are_wrong_usage(hrg, args, message):
    result = hrg("analyze", "readout", *args)
    assert result.exit_code == 2 and message in result.stderr, result.stderr


def test_a_run_without_time_is_wrong_usage_and_a_folder_without_a_run_a_finding(hrg):
    small = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]
    assert hrg("train", *small, "--epochs", "1", "--batch-size", "600", "-o", "run").exit_code == 0
    result = hrg("analyze", "readout", "run")
    assert result.exit_code == 2
    assert result.stderr.startswith("hrg analyze readout: 'hiresnet18' does not run in time")
    missing = hrg("analyze", "readout", "nosuch")
    assert missing.exit_code == 1 and missing.stderr.startswith("hrg analyze readout: nosuch: there is no such folder")


def test_the_group_lists_its_commands(hrg):
    listed = hrg("analyze", "--help")
    assert listed.exit_code == 0 and "readout " in listed.stdout and "lesion " in listed.stdout
    assert "analyze" in hrg("--help").stdout
    assert hrg("analyze", "nosuch").exit_code == 2
