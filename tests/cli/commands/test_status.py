import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.cli.app import app
from hiresnet_graph.cli.commands import status as module
from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.search_trials import Trial
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train.lock import FolderLock
from hiresnet_graph.train.record import METRICS, RESULT, SETTINGS, SPEC, Settings
from hiresnet_graph.train.request import RunRequest
from tests.sweep.works import MACHINE, Inline, Quick, epoch, record, study

Hrg = Callable[..., Result]


def test_the_time_left_is_that_of_machines_like_those_that_train_now(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    done, now = plan.requests
    other = MACHINE.model_copy(update={"platform": "Linux x86_64 AVX512"})
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(done, 1, "cpu 0")
        ledger.record_start(done, 1, other, 0)
        ledger.record_epoch(done, 1, epoch(1))
        ledger.finish(done, 1, record(plan.requests[done]))
        ledger.start_attempt(now, 1, "cpu 0")
        ledger.record_start(now, 1, MACHINE, 0)
        ledger.commit()
        assert hrg("status", tmp_path).stdout.splitlines()[0] == "study: 2 runs; 1 complete, 1 running."
        ledger.record_epoch(now, 1, epoch(1).model_copy(update={"time_s": 120.0}))
        ledger.commit()
        assert "1 running. About 2 min left." in hrg("status", tmp_path).stdout


def test_a_study_that_is_being_trained(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["none", "full"], [0, 1])
    keys = list(plan.requests)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        for key in keys[:2]:
            ledger.start_attempt(key, 1, "cpu 0")
            ledger.record_start(key, 1, MACHINE, 0)
            ledger.record_epoch(key, 1, epoch(1))
        ledger.finish(keys[0], 1, record(plan.requests[keys[0]]))
        ledger.commit()
        result = hrg("status", tmp_path)
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        # one epoch is left of the running run and two of each waiting one, a quarter of a second each
        assert lines[0] == "study: 4 runs; 1 complete, 1 running, 2 waiting. About 1 s left."
        assert lines[1] == "It is being trained now."
        assert [line.split() for line in lines if line.startswith(("none ", "full ", "none-"))] == [
            ["none", "1", "1"],
            ["full", "2"],
            ["none-seed1", "1/2", "50.00", "%", "1", "cpu", "0"],
        ]
        data = json.loads(hrg("status", tmp_path, "--json").stdout)
        assert data["alive"] is True and data["counts"] == {"complete": 1, "running": 1, "waiting": 2}
        assert data["runs"][1] == {
            "name": "none-seed1",
            "key": keys[1],
            "network": "none",
            "setting": {},
            "seeds": {"init": 1, "data": 1},
            "state": "running",
            "attempts": 1,
            "epoch": 1,
            "epochs": 2,
            "validation_accuracy": 0.5,
            "worker": "cpu 0",
            "replicas": 1,
            "message": "",
            "traceback": "",
        }
    after = hrg("status", tmp_path).stdout
    assert "1 complete, 1 paused, 2 waiting." in after and "It is not being trained" in after and "paused" in after


def test_a_checkpoint_in_the_first_epoch_makes_a_run_paused(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        for key in plan.requests:
            ledger.start_attempt(key, 1, "cpu 0")
            ledger.record_start(key, 1, MACHINE, 0)
            ledger.pause(key, 1, 0)
    checkpoints = tmp_path / "runs" / "full-seed0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "0-7.json").touch()
    lines = hrg("status", tmp_path).stdout.splitlines()
    assert lines[0] == "study: 2 runs; 1 paused, 1 waiting."
    assert [line.split() for line in lines if line.startswith("full-seed0")] == [["full-seed0", "0/2", "1", "paused"]]


def test_runs_of_a_stack_share_the_time_of_their_program(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["none", "full"], [0, 1])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        for key in plan.requests:
            ledger.start_attempt(key, 1, "cuda 0")
            ledger.record_start(key, 1, MACHINE.model_copy(update={"backend": "stacked", "replicas": 4}), 0)
            ledger.record_epoch(key, 1, epoch(1).model_copy(update={"time_s": 10.0}))
        ledger.commit()
        data = json.loads(hrg("status", tmp_path, "--json").stdout)
        assert data["left_s"] == pytest.approx(4 * 10.0)  # four epochs of 10 s are left
        assert {run["replicas"] for run in data["runs"]} == {4}
        assert hrg("status", tmp_path).stdout.count("cuda 0, 4 together") == 4


def test_a_study_that_was_just_resumed(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        key = next(iter(plan.requests))
        ledger.start_attempt(key, 1, "cpu 0")
        ledger.record_epoch(key, 1, epoch(1))
        ledger.fail(key, 1, "", state="lost")
        ledger.commit()
        reported = hrg("status", tmp_path).stdout
        assert "The command that trains it is running, but trains no run at the moment." in reported
        assert "paused" not in reported and "being trained now" not in reported


def test_a_narrow_terminal_shows_the_most_important_columns(
    hrg: Hrg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = study(["a>b + b>c + c>d + d>e + e>f + f>g", "nan", "fails", "full"], [0])
    settings = [dataclasses.replace(network, setting={"recipe.lr": 0.0023560190827659894}) for network in plan.networks]
    plan = dataclasses.replace(plan, networks=tuple(settings))
    keys = list(plan.requests)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(keys[0], 1, "cpu 0")
        ledger.finish(keys[0], 1, record(plan.requests[keys[0]]))
        ledger.start_attempt(keys[1], 1, "cpu 0")
        ledger.finish(keys[1], 1, record(plan.requests[keys[1]], outcome="diverged"))
        ledger.start_attempt(keys[2], 1, "cpu 0")
        ledger.fail(keys[2], 1, "the disk is full.", final=True)
        ledger.start_attempt(keys[3], 1, "cpu 0")
        ledger.record_epoch(keys[3], 1, epoch(1))
        ledger.commit()
        monkeypatch.setenv("COLUMNS", "60")
        result = hrg("status", tmp_path)
        (header,) = [line.split() for line in result.stdout.splitlines() if line.startswith("network")]
        assert header == ["network", "complete", "failed", "running"]
        assert "full, lr=0.00236, seed 0" in result.stdout and "0.002356019" not in result.stdout.split("\nfails-")[0]
        assert max(map(len, result.stdout.splitlines()[3:12])) <= 60
        monkeypatch.setenv("COLUMNS", "40")
        header = next(
            line.split() for line in hrg("status", tmp_path).stdout.splitlines() if line.startswith("network")
        )
        assert header[:2] == ["network", "complete"] and "diverged" not in header


def test_failures_are_shown_with_their_reason(hrg: Hrg, tmp_path: Path) -> None:
    plan = study(["fails", "none"], [0])
    with Ledger.open(tmp_path) as ledger, pytest.raises(RunError):
        ledger.join(plan)
        train_all(ledger, plan.requests, Inline(), work=Quick)
    result = hrg("status", tmp_path)
    assert "fails-seed0 (3 attempts): the disk is full." in result.stdout
    assert "--json" in result.stderr
    # not through `hrg`, which fails on any traceback in the output
    data = json.loads(CliRunner().invoke(app, ["status", str(tmp_path), "--json"]).stdout)
    (run,) = [run for run in data["runs"] if run["message"]]
    assert run["state"] == "failed" and 'raise RunError("the disk is full.")' in run["traceback"]


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_ends_with_the_driver(
    hrg: Hrg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """As JSON, each change is one line."""
    monkeypatch.setattr(module, "_PERIOD_S", 0.05)
    plan = study(["none"], [0])
    ledger = Ledger.open(tmp_path)
    ledger.join(plan)
    ledger.commit()
    looks = []

    def nap(time_s: float) -> None:
        looks.append(time_s)
        if len(looks) == 2:
            (key,) = plan.requests
            ledger.start_attempt(key, 1, "here")
            ledger.finish(key, 1, record(plan.requests[key]))
            ledger.close()

    monkeypatch.setattr(module.time, "sleep", nap)
    result = hrg("status", tmp_path, "--watch", *["--json"] * as_json)
    assert result.exit_code == 0 and len(looks) == 2
    if as_json:
        found = [json.loads(line) for line in result.stdout.splitlines()]
        assert [each["counts"] for each in found] == [{"waiting": 1}, {"complete": 1}]
        return
    assert [line for line in result.stdout.splitlines() if line.startswith("study:")] == [
        "study: 1 run; 1 waiting.",
        "study: 1 run; 1 complete.",
    ]


def test_watching_can_be_ended_with_ctrl_c(hrg: Hrg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(time_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupt)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(study())
        ledger.commit()
        assert hrg("status", tmp_path, "--watch").exit_code == 0


def test_a_single_run(hrg: Hrg, tmp_path: Path) -> None:
    request = next(iter(study(["full"], [3]).requests.values()))
    (tmp_path / RESULT).write_text(record(request).model_dump_json())
    (tmp_path / METRICS).write_text(
        '{"epoch": 2, "split": "train", "time_s": 1.5}\n{"epoch": 2, "split": "validation", "accuracy": 0.75}\n'
    )
    assert hrg("status", tmp_path).stdout == "tiny: 1 run; 1 complete.\n"
    (run,) = json.loads(hrg("status", tmp_path, "--json").stdout)["runs"]
    assert (run["state"], run["epoch"], run["validation_accuracy"]) == ("complete", 2, 0.75)


def settings_of(request: RunRequest, key: str, epochs: int) -> Settings:
    return Settings(
        key=key,
        architecture="tiny",
        variant="full",
        plan="plan of full",
        seeds=request.seeds,
        data="digits",
        source={"name": "digits"},
        data_fingerprint="data",
        recipe=request.recipe.model_copy(update={"epochs": epochs}),
        device="cpu",
        threads=1,
        checkpoint_s=0,
        data_workers=0,
    )


def test_a_single_run_that_continues_a_shorter_one(hrg: Hrg, tmp_path: Path) -> None:
    """Its folder has the result of the shorter run until it ends."""
    request = next(iter(study(["full"], [3]).requests.values()))
    (tmp_path / RESULT).write_text(record(request).model_dump_json())
    (tmp_path / SETTINGS).write_text(settings_of(request, "longer", 40).model_dump_json())
    (tmp_path / METRICS).write_text('{"epoch": 2, "split": "validation", "accuracy": 0.75}\n')
    lines = hrg("status", tmp_path).stdout.splitlines()
    assert lines[0] == "tiny: 1 run; 1 paused." and "hrg train --resume" in lines[1]
    with FolderLock(tmp_path):
        found = json.loads(hrg("status", tmp_path, "--json").stdout)
        assert found["alive"] is True
        assert [(run["key"], run["state"], run["epoch"], run["epochs"]) for run in found["runs"]] == [
            ("longer", "running", 2, 40)
        ]
        assert found["networks"][0]["parameters"] == 10  # of the record
    (tmp_path / SETTINGS).write_text(settings_of(request, record(request).key, 2).model_dump_json())
    assert hrg("status", tmp_path).stdout == "tiny: 1 run; 1 complete.\n"


def test_the_size_of_an_unfinished_network_is_counted(hrg: Hrg, tmp_path: Path, tiny: Architecture) -> None:
    request = next(iter(study(["full"], [3]).requests.values()))
    (tmp_path / SETTINGS).write_text(settings_of(request, "key", 40).model_dump_json())
    (tmp_path / SPEC).write_text(tiny.to_yaml())
    (network,) = read_status(tmp_path).networks
    assert (network.parameters, network.macs) == (tiny.cost().parameters, tiny.cost().macs)
    (tmp_path / SPEC).write_text("nodes: [")
    assert json.loads(hrg("status", tmp_path, "--json").stdout)["networks"][0]["parameters"] is None


@pytest.mark.parametrize(
    ("halving", "left_s"), [("", 0.25 * (3 + 18 * 2)), (", halving: {first: 1}", 0.25 * (2 + 9 * 3))]
)
def test_a_search_that_is_being_trained(hrg: Hrg, tmp_path: Path, halving: str, left_s: float) -> None:
    """The time left is that of its budget: 18 further networks of 2 epochs; with halving, 3 epochs for 2 networks."""
    text = f"search: {{space: {{edges: full}}, runs: 20, batch: 2{halving}}}\n"
    plan = dataclasses.replace(study(["none", "full"], [0]), text=text)
    trials = [trial_of(plan.networks[i].label, key) for i, key in enumerate(plan.requests)]
    with Ledger.open(tmp_path) as ledger:
        for number, trial in enumerate(trials):
            ledger.write_trial(number, trial.model_dump(mode="json"))
        ledger.join(plan, is_search=True)
        key = next(iter(plan.requests))
        ledger.start_attempt(key, 1, "cpu 0")
        ledger.record_start(key, 1, MACHINE, 0)
        ledger.record_epoch(key, 1, epoch(1))
        ledger.commit()
        found = json.loads(hrg("status", tmp_path, "--json").stdout)
        assert found["budget"] == {"runs": 20, "ended": False}
        assert found["left_s"] == pytest.approx(left_s)
        first = hrg("status", tmp_path).stdout.splitlines()[0]
        assert first.startswith("study: 2 runs of a budget of 20; 1 running, 1 waiting. About ")
        for key in plan.requests:
            ledger.adopt(key, record(plan.requests[key]))
        ledger.commit()
    lines = hrg("status", tmp_path).stdout.splitlines()
    assert lines[:2] == [
        "study: 2 runs of a budget of 20; 2 complete.",
        "It is not being trained; the command that started it resumes the search.",
    ]
    with Ledger.open(tmp_path) as ledger:
        for number, trial in enumerate(trials):
            ledger.write_trial(number, trial.model_copy(update={"outcome": "complete"}).model_dump(mode="json"))
    assert "resumes" not in hrg("status", tmp_path).stdout
    assert json.loads(hrg("status", tmp_path, "--json").stdout)["budget"] == {"runs": 20, "ended": True}


def trial_of(label: str, key: str) -> Trial:
    return Trial(params={}, outcome="asked", label=label, setting={}, parameters=10, macs=20, keys=(key,))


def test_an_empty_folder(hrg: Hrg, tmp_path: Path) -> None:
    result = hrg("status", tmp_path)
    assert result.exit_code == 1 and "holds no study and no finished run" in result.stderr
    assert hrg("status", tmp_path / "nosuch").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_is_read_while_it_is_written(tmp_path: Path) -> None:
    from hiresnet_graph.sweep.results import read_results

    plan = study([f"v{i}" for i in range(40)], range(5))
    end, seen = threading.Event(), []

    def look() -> None:
        while not end.is_set():
            seen.append((len(read_results(tmp_path).rows), len(read_status(tmp_path).runs)))

    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        looker = threading.Thread(target=look)
        looker.start()
        train_all(ledger, plan.requests, Inline(), work=Quick)
        end.set()
        looker.join()
    assert seen and set(seen) == {(200, 200)}
