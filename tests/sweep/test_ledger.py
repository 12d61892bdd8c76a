import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.sweep.execution import ExecutionPlan, WorkerLayout
from hiresnet_graph.sweep.folders import run_folder
from hiresnet_graph.sweep.ledger import Ledger, StoredStudy, read_stored
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.train import Recipe, Seeds
from hiresnet_graph.train.lock import is_locked
from hiresnet_graph.train.record import RESULT
from tests.sweep.works import MACHINE, epoch, record, study


def finish_all(ledger: Ledger, plan: StudyPlan) -> None:
    for run in ledger.missing():
        ledger.start_attempt(run.key, run.attempts + 1, "here")
        assert ledger.finish(run.key, run.attempts + 1, record(plan.requests[run.key]))


def states(ledger: Ledger) -> dict[str, str]:
    return {run.folder.name: run.state for run in ledger.runs()}


def test_written_data_survive_reopening(tmp_path: Path) -> None:
    plan = study()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        keys = [run.key for run in ledger.missing()]
        assert keys == list(plan.requests)
        ledger.start_attempt(keys[0], 1, "cpu 0")
        assert ledger.record_start(keys[0], 1, MACHINE, 0)
        for number in (1, 2):
            assert ledger.record_epoch(keys[0], 1, epoch(number))
        assert ledger.finish(keys[0], 1, record(plan.requests[keys[0]]))
        ledger.start_attempt(keys[1], 1, "cpu 1")
        ledger.record_epoch(keys[1], 1, epoch(1))
        ledger.commit()
        assert [row.state for row in read_results(tmp_path).rows] == ["complete", "running", "waiting", "waiting"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.sqlite", "lock"]
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        assert ledger.counts()["complete"] == 1 and ledger.counts()["waiting"] == 3
        # runs of the previous driver wait again, and their attempts count
        assert [run.attempts for run in ledger.runs()] == [1, 1, 0, 0]
        assert [run.key for run in ledger.missing()] == keys[1:]
    results = read_results(tmp_path)
    assert results.rows[0].record == record(plan.requests[keys[0]])
    assert results.networks == plan.networks


def test_reports_of_an_old_attempt_are_refused(tmp_path: Path) -> None:
    plan = study()
    key, request = next(iter(plan.requests.items()))
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(key, 1, "a")
        ledger.fail(key, 1, "gone", state="lost")
        ledger.start_attempt(key, 2, "b")
        assert not ledger.record_start(key, 1, MACHINE, 0)
        assert not ledger.record_epoch(key, 1, epoch(1))
        assert not ledger.pause(key, 1, 1)
        assert not ledger.fail(key, 1, "late")
        assert not ledger.finish(key, 1, record(request))
        assert ledger.run(key).state == "running" and ledger.run(key).attempts == 2
        assert ledger.finish(key, 2, record(request))
        assert not ledger.finish(key, 2, record(request))  # and nothing is counted twice
        assert ledger.counts()["complete"] == 1


def test_curves_of_repeated_epochs_are_replaced(tmp_path: Path) -> None:
    plan = study()
    key = next(iter(plan.requests))
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(key, 1, "a")
        for number in (1, 2, 3):
            ledger.record_epoch(key, 1, epoch(number))
        ledger.fail(key, 1, "gone", state="lost")
        ledger.start_attempt(key, 2, "b")
        ledger.record_start(key, 2, MACHINE, 1)
        ledger.commit()
        assert read_status(tmp_path).runs[0].epoch == 1
        changed = epoch(2).model_copy(update={"validation_accuracy": 0.9})
        ledger.record_epoch(key, 2, changed)
        ledger.record_epoch(key, 2, changed)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        rows = database.execute("SELECT epoch, split, accuracy FROM curves").fetchall()
    assert sorted(rows) == [
        (1, "train", 0.5),
        (1, "validation", 0.5),
        (2, "train", 0.5),
        (2, "validation", 0.9),
    ]


def test_a_study_may_grow_and_shrink_without_loss(tmp_path: Path) -> None:
    small, large = study(["none"]), study(["in", "none"], seeds=[0, 1, 2])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(small)
        finish_all(ledger, small)
        ledger.join(large)
        assert states(ledger) == {
            "in-seed0": "waiting",
            "in-seed1": "waiting",
            "in-seed2": "waiting",
            "none-seed0": "complete",
            "none-seed1": "complete",
            "none-seed2": "waiting",
        }
        finish_all(ledger, large)
        ledger.join(small)
        assert states(ledger) == {"none-seed0": "complete", "none-seed1": "complete"}
        assert read_status(tmp_path).outside == 4
        ledger.join(large)
        assert ledger.missing() == [] and ledger.counts()["complete"] == 6


def test_a_label_of_another_network_is_refused_unless_accepted(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    networks = (dataclasses.replace(plan.networks[0], plan="another"), plan.networks[1])
    rows = (dataclasses.replace(plan.rows[0], key="k" * 24), plan.rows[1])
    requests = {"k" * 24: plan.requests[plan.rows[0].key], plan.rows[1].key: plan.requests[plan.rows[1].key]}
    other = dataclasses.replace(plan, networks=networks, rows=rows, requests=requests)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        finish_all(ledger, plan)
        with pytest.raises(UsageError, match=r"holds another network as 'none'.*'--accept-changes'"):
            ledger.join(other)
        assert [run.state for run in ledger.runs()] == ["complete", "complete"]
        ledger.join(other, accept_changes=True)
        assert states(ledger) == {f"none-seed0-{'k' * 8}": "waiting", "full-seed0": "complete"}
        assert len(read_results(tmp_path).rows) == 2
        ledger.join(plan, accept_changes=True)
        assert ledger.missing() == []


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    plan = study()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        for changed, message in [
            (dataclasses.replace(plan, architecture="large"), r"holds a study of 'tiny', not of 'large'"),
            (dataclasses.replace(plan, data="cifar10"), r"a study on other data \(digits, now cifar10\)"),
            (dataclasses.replace(plan, data_fingerprint="x"), r"now with other images or another split"),
            (study(recipe=Recipe(epochs=3)), r"a study with another recipe \(epochs=2, now 3\)"),
        ]:
            with pytest.raises(UsageError, match=message):
                ledger.join(changed)
        ledger.join(study(recipe=Recipe(epochs=2), labels=["new", "none"]))
        ledger.join(study(recipe=Recipe(epochs=3)), accept_changes=True)
        assert ledger.counts()["waiting"] == 4
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a single run"):
        Ledger.open(tmp_path / "run")
    (tmp_path / "run" / "result.json").rename(tmp_path / "run" / "run.json")  # it is not finished
    with pytest.raises(UsageError, match="holds a single run"):
        Ledger.open(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_study_without_common_runs_is_refused(tmp_path: Path) -> None:
    first, other = study(["none", "full"]), study(["wide"], recipe=Recipe(epochs=3))
    with Ledger.open(tmp_path) as ledger:
        ledger.join(first)
        with pytest.raises(UsageError, match=r"another study \('study': 4 runs, none of which is part of this"):
            ledger.join(other)
        assert len(ledger.runs()) == 4 and read_status(tmp_path).outside == 0
        ledger.join(other, accept_changes=True)
        assert read_status(tmp_path).outside == 0  # no run of the previous study was begun
        ledger.join(first)  # the previous runs are known
        finish_all(ledger, first)
        ledger.join(other)
        assert read_status(tmp_path).outside == 4


def test_comparing_a_folder_changes_nothing(tmp_path: Path) -> None:
    plan, other = study(["none"]), study(["wide"])
    assert read_stored(tmp_path / "nowhere", plan) == StoredStudy() and not (tmp_path / "nowhere").exists()
    assert read_stored(tmp_path, plan) == StoredStudy() and list(tmp_path.iterdir()) == []
    (tmp_path / "ledger.sqlite").touch()
    assert read_stored(tmp_path, plan).refusal == ""
    with Ledger.open(tmp_path) as ledger:
        assert read_stored(tmp_path, plan).refusal == ""
        ledger.join(plan)
        assert (
            "none of which is part of this one" in read_stored(tmp_path, other).refusal
        )  # while a driver is active, too
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert read_stored(tmp_path, study(["none", "more"])).refusal == ""
    changed = study(["none"], recipe=Recipe(epochs=3))
    assert read_stored(tmp_path, changed, accept_changes=True).refusal == ""
    refusal = read_stored(tmp_path, changed).refusal
    assert "another recipe (epochs=2, now 3)" in refusal and "--accept-changes" in refusal
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "result.json").touch()
    assert "holds a single run" in read_stored(tmp_path, plan).refusal


def test_equal_networks_share_a_run(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0, 1])
    twin = dataclasses.replace(plan.networks[0], label="original", same_as="none")
    rows = tuple(dataclasses.replace(row, network=2) for row in plan.rows[:2])
    plan = dataclasses.replace(plan, networks=(*plan.networks, twin), rows=(*plan.rows, *rows))
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        assert list(states(ledger)) == ["none-seed0", "none-seed1", "full-seed0", "full-seed1"]
        finish_all(ledger, plan)
    results = read_results(tmp_path)
    assert len(results.rows) == 6 and results.rows[4].record is results.rows[0].record
    assert results.networks[2].same_as == "none"


def test_the_execution_plan_is_frozen_with_the_first_run(tmp_path: Path) -> None:
    plan = study()
    key, request = next(iter(plan.requests.items()))
    first, other = ExecutionPlan("cpu", 1, None, False), ExecutionPlan("cpu", 4, True, False, workers=2)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.freeze_execution(first)
        ledger.freeze_execution(other)
        assert ledger.execution is None  # no run was started
        ledger.start_attempt(key, 1, "here")
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        frozen = ledger.execution
        assert frozen == dataclasses.replace(other, workers=1)  # the number of workers is free
        assert read_stored(tmp_path, plan).execution == frozen
    resumed, message = frozen.reconciled(first)
    assert resumed == frozen and "threads=4, not 1" in message and "channels_last=True, not None" in message
    applied = resumed.apply(request)
    assert applied.threads == 4 and applied.recipe.channels_last is True
    assert applied.recipe.mathematics() == request.recipe.mathematics()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        (stored,) = database.execute("SELECT execution FROM study").fetchone()
    names = ["device", "threads", "channels_last", "compile", "backend", "stack"]
    assert list(json.loads(stored)) == names and ExecutionPlan.from_json(stored) == frozen


def test_the_size_of_stacks_may_change() -> None:
    large = ExecutionPlan("cpu", 1, None, False, "stacked", 16)
    small, other = dataclasses.replace(large, stack=4), large.using(WorkerLayout(1, 1))
    assert large.reconciled(small) == (small, "")
    resumed, message = small.reconciled(other)
    assert resumed == small and "backend=stacked, not eager" in message
    resumed, message = small.reconciled(dataclasses.replace(large, threads=2))
    assert resumed == large and ": threads=1, not 2. Choose another" in message


HOLDER = """
import sys
from hiresnet_graph.sweep.ledger import Ledger
with Ledger.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_refused_or_waits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert is_locked(tmp_path)
        with pytest.raises(UsageError, match=rf"{tmp_path} is in use: process {holder.pid} on .* is training"):
            Ledger.open(tmp_path)
        timer = threading.Timer(0.3, holder.stdin.close)
        timer.start()
        with Ledger.open(tmp_path, wait=True):
            assert not timer.is_alive()
    assert not is_locked(tmp_path)
    # also after the driver was killed
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    Ledger.open(tmp_path).close()


def test_checking_the_lock_stops_no_driver(tmp_path: Path) -> None:
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            is_locked(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(20):
            Ledger.open(tmp_path).close()
    finally:
        end.set()
        looker.join()


def test_other_files_are_reported_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    advice = "Move the file away and start the same study in this folder"
    for content, message in [(b"no database" * 100, "is damaged"), (b"", None)]:
        path.write_bytes(content)
        if message is None:
            Ledger.open(tmp_path).close()
            continue
        with pytest.raises(RunError, match=message) as error:
            Ledger.open(tmp_path)
        assert advice in str(error.value) and path.read_bytes() == content
        with pytest.raises(RunError, match=message):
            read_results(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    for read in (Ledger.open, read_results, read_status):
        with pytest.raises(RunError, match=r"version 99, this hrg has 1.*Move the file away"):
            read(tmp_path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(RunError, match="not written by hrg"):
        Ledger.open(tmp_path)


def test_a_damaged_page_is_detected(tmp_path: Path) -> None:
    plan = study([f"v{i}" for i in range(50)])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        finish_all(ledger, plan)
    path = tmp_path / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    content[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is damaged .*Move the file away"):
        Ledger.open(tmp_path)


def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file.study: this folder cannot be created"):
        Ledger.open(tmp_path / "file" / "study")
    (tmp_path / "lock").mkdir()
    with pytest.raises(RunError, match=r"lock: cannot be written: .*Choose another folder"):
        Ledger.open(tmp_path)


@pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs to be root, to be somebody else"
)
def test_a_folder_of_another_user_is_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(study())
    code = "import sys; from hiresnet_graph.sweep.ledger import Ledger; Ledger.open(sys.argv[1])"
    reader = (
        "import sys; from hiresnet_graph.sweep.results import read_results; print(len(read_results(sys.argv[1]).rows))"
    )
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c"]
    done = subprocess.run([*nobody, code, tmp_path], capture_output=True, text=True, check=False)
    assert "lock: cannot be written: Permission denied" in done.stderr
    done = subprocess.run([*nobody, reader, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr


def test_joining_a_plan_is_atomic(tmp_path: Path) -> None:
    plan = study()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        broken = dataclasses.replace(study(["in", "none"]), requests={})
        with pytest.raises(KeyError):
            ledger.join(broken)
        assert list(states(ledger)) == ["none-seed0", "none-seed1", "full-seed0", "full-seed1"]


EDITS = {
    "study.recipe": "UPDATE study SET recipe = '{'",
    "study.subsets_of": "UPDATE study SET subsets_of = '{}'",
    "study.execution": "UPDATE study SET execution = '[1'",
    "networks.setting": "UPDATE networks SET setting = '[]'",
    "networks.edges": "UPDATE networks SET edges = 'x'",
    "trials.content": "INSERT INTO trials VALUES (0, '" + "[" * 2_000 + "')",
    "runs.state": "UPDATE runs SET state = 'done'",
    "runs.folder": "UPDATE runs SET folder = '../../x' WHERE folder = 'none-seed0'",
}


@pytest.mark.parametrize("name", EDITS)
def test_a_ledger_changed_by_hand_is_refused(tmp_path: Path, name: str) -> None:
    plan = study(["none"], [0])
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
    database = sqlite3.connect(tmp_path / "ledger.sqlite")
    database.execute(EDITS[name])
    database.commit()
    database.close()
    message = (
        rf"^{re.escape(str(tmp_path))}/ledger\.sqlite: is damaged \(an entry of {re.escape(name)} is wrong\)\. Move"
    )
    for attempt in (read_results, read_status, Ledger.open):
        with pytest.raises(RunError, match=message):
            attempt(tmp_path)


def test_an_empty_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    for attempt in (read_results, read_status):
        with pytest.raises(RunError, match=r"ledger\.sqlite: this ledger is empty\. Move the file away"):
            attempt(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(study(["none"], [0]))
    assert len(read_results(tmp_path).rows) == 1


def write_results(ledger: Ledger, plan: StudyPlan) -> None:
    """Write the result of each run into its folder, as workers do."""
    for run in ledger.runs():
        run.folder.mkdir(parents=True)
        (run.folder / RESULT).write_text(record(plan.requests[run.key]).model_dump_json())


def test_a_new_ledger_finds_each_run_by_its_key(tmp_path: Path) -> None:
    short, long = study(["full"], [0], recipe=Recipe(epochs=2)), study(["full"], [0], recipe=Recipe(epochs=3))
    for plan in (short, long):
        with Ledger.open(tmp_path) as ledger:
            ledger.join(plan, accept_changes=True)
            write_results(ledger, plan)
            finish_all(ledger, plan)
    (key,) = long.requests
    suffixed = f"full-seed0-{key[:8]}"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["full-seed0", suffixed]
    shutil.copytree(tmp_path / "runs" / suffixed, tmp_path / "runs" / "copy of full-seed0")
    (tmp_path / "ledger.sqlite").unlink()
    found = read_stored(tmp_path, long).runs
    assert {run.key: (run.state, run.attempts, run.epochs) for run in found.values()} == {key: ("complete", 0, 3)}
    with Ledger.open(tmp_path) as ledger:
        assert ledger.stored(long).runs == found
        ledger.join(long)
        assert ledger.counts()["complete"] == 1 and ledger.missing() == []
        assert ledger.run(key).folder.name in (suffixed, "copy of full-seed0")
        ledger.join(short, accept_changes=True)  # its folder was never given to another run
        assert states(ledger) == {"full-seed0": "complete"}
    assert read_results(tmp_path).rows[0].record == record(next(iter(short.requests.values())))


def test_a_new_ledger_never_gives_a_folder_with_another_run_away(tmp_path: Path) -> None:
    plan = study(["full", "none"], [0])
    full, none = plan.requests
    (tmp_path / "runs" / "FULL-seed0").mkdir(parents=True)  # some file systems ignore case
    other = next(iter(study(["in"], [5]).requests.values()))
    (tmp_path / "runs" / "FULL-seed0" / RESULT).write_text(record(other).model_dump_json())
    (tmp_path / "runs" / "none-seed0").mkdir()
    (tmp_path / "runs" / "none-seed0" / RESULT).write_text("{}")  # the run itself reports what is wrong
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        assert ledger.run(full).folder.name == f"full-seed0-{full[:8]}"
        assert ledger.run(none).folder.name == "none-seed0"
        assert ledger.counts()["waiting"] == 2


def test_folders_differ_where_file_names_ignore_case(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.join(study(["none", "None"], [0, 1]))
        assert len({run.folder.name.casefold() for run in ledger.runs()}) == len(ledger.runs()) == 4


def test_folder_names_need_no_quoting() -> None:
    assert run_folder("full", {}, Seeds(3, 3)) == "full-seed3"
    assert run_folder("full", {"recipe.lr": 0.003, "width": 8}, Seeds(0, 1)) == "full-lr=0.003-width=8-seed0-1"
    assert run_folder("stem>stage1 + stem>stage2", {}, Seeds(0, 0)) == "stem-to-stage1+stem-to-stage2-seed0"
    odd = {run_folder(label, {}, Seeds(0, 0)) for label in ("a b", "a/b", "a&b", "..", "ä", "x" * 300)}
    assert len(odd) == 6 and all(name.isascii() and "/" not in name and len(name) < 110 for name in odd)


def test_trials_are_stored(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.join(study(), is_search=True)
        ledger.write_trial(1, {"edges": ["a>b"], "value": 0.5})
        ledger.write_trial(0, {"edges": []})
        ledger.write_trial(1, {"edges": ["a>b"], "value": 0.75})
    with Ledger.open(tmp_path) as ledger:
        found = {number: json.loads(content) for number, content in ledger.trials().items()}
        assert found == {0: {"edges": []}, 1: {"edges": ["a>b"], "value": 0.75}}
    assert read_results(tmp_path).is_search
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_epochs_that_were_not_reported_are_those_of_the_result(tmp_path: Path) -> None:
    """A search ranks by them: as when the driver ends between a result and its epochs, or the ledger is made again."""
    plan = study(("none", "full"), (0,))
    first, second = plan.requests
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(first, 1, "here")
        ledger.record_epoch(first, 1, epoch(1))
        ledger.finish(first, 1, record(plan.requests[first]))
        ledger.adopt(second, record(plan.requests[second]))
        ledger.commit()
        best = max(epoch(number).validation_accuracy for number in (1, 2))
        assert [ledger.best_validation(key) for key in (first, second)] == [best, best]
    assert [(run.epoch, run.validation_accuracy) for run in read_status(tmp_path).runs] == [(2, best)] * 2
