import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import make_folder
from hiresnet_graph.sweep.driver import Driver, Interrupted
from hiresnet_graph.sweep.executors.base import Lost, TaskReport
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import Progress, train_all
from hiresnet_graph.train import Finished, Paused, Recipe, Started
from hiresnet_graph.train.record import RESULT
from tests.sweep.works import MACHINE, Inline, Quick, record, study


def trained(folder: Path, plan: StudyPlan, executor: Inline | None = None) -> list[Progress]:
    """Train a study as far as possible; returns the reported ends of its runs."""
    reported: list[Progress] = []
    with Ledger.open(folder) as ledger:
        ledger.join(plan)
        train_all(ledger, plan.requests, executor or Inline(), work=Quick, progress=reported.append)
    return [step for step in reported if step.state != "running"]


def attempts(folder: Path) -> dict[str, int]:
    return {path.name: len(list(path.glob("attempt*"))) for path in sorted((folder / "runs").iterdir())}


def test_runs_are_trained_in_order_and_once(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0, 1])
    reported = trained(tmp_path, plan)
    names = ["none-seed0", "none-seed1", "full-seed0", "full-seed1"]
    assert [(step.done, step.total, step.name, step.state) for step in reported] == [
        (i + 1, 4, name, "complete") for i, name in enumerate(names)
    ]
    results = read_results(tmp_path)
    assert [(row.state, row.attempts) for row in results.rows] == [("complete", 1)] * 4
    assert [row.record for row in results.rows] == [record(request) for request in plan.requests.values()]
    assert trained(tmp_path, plan) == []
    assert [step.name for step in trained(tmp_path, study(["in", "full"], [0, 1]))] == ["in-seed0", "in-seed1"]
    assert set(attempts(tmp_path).values()) == {1}


def test_failures_are_retried_where_useful_and_do_not_stop_others(tmp_path: Path) -> None:
    plan = study(["usage", "fails", "nan", "hungry", "recovers", "other", "none"], [0])
    with pytest.raises(RunError) as error:
        trained(tmp_path, plan)
    lines = str(error.value).splitlines()
    assert "run 'usage-seed0': the network is wrong." in lines
    assert "run 'fails-seed0': the disk is full." in lines
    assert any(line.startswith("run 'hungry-seed0': memory ran out (MemoryError). Train fewer runs") for line in lines)
    assert any("other-seed0: another run was computed than requested" in line for line in lines)
    assert lines[-1].startswith("3 of 7 runs are finished and kept in")
    assert attempts(tmp_path) == {
        "usage-seed0": 1,
        "other-seed0": 1,
        "nan-seed0": 1,
        "none-seed0": 1,
        "fails-seed0": 3,
        "hungry-seed0": 3,
        "recovers-seed0": 3,
    }
    states = {run.name: (run.state, run.attempts) for run in read_status(tmp_path).runs}
    assert states["nan-seed0"] == ("diverged", 1)
    assert states["recovers-seed0"] == ("complete", 3)
    assert states["fails-seed0"] == ("failed", 3)
    # the same call retries the failed runs only
    with pytest.raises(RunError):
        trained(tmp_path, plan)
    assert attempts(tmp_path)["fails-seed0"] == 6
    assert attempts(tmp_path)["usage-seed0"] == 2
    assert attempts(tmp_path)["nan-seed0"] == attempts(tmp_path)["none-seed0"] == 1


class Losing(Inline):
    """Loses each task until its n-th attempt, and reports its late events during the next one."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if self.tasks and self.tasks[0].attempt <= self.losses:
            task = self.tasks.popleft()
            late = [TaskReport(task.key, task.attempt, event, "there") for event in task.work()]
            self.extra += late
            return [late[0], TaskReport(task.key, task.attempt, Lost("the worker is gone."), "there")]
        return super().reports(timeout_s)


def test_lost_runs_are_retried_and_late_results_refused(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    trained(tmp_path, plan, Losing(2))
    results = read_results(tmp_path)
    assert [(row.state, row.attempts) for row in results.rows] == [("complete", 3)] * 2
    with pytest.raises(RunError, match=r"run 'in-seed0': the worker is gone\."):
        trained(tmp_path, study(["in", "none"], [0]), Losing(3))


def test_a_run_that_makes_progress_is_not_given_up(tmp_path: Path) -> None:
    plan = study(["none"], [0], recipe=Recipe(epochs=8))
    request = next(iter(plan.requests.values()))

    class Fickle(Inline):
        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            task = self.tasks.popleft()
            steps = [TaskReport(task.key, task.attempt, event, "there") for event in task.work()]
            if isinstance(steps[-1].event, Finished):
                return steps
            return [*steps[:-1], TaskReport(task.key, task.attempt, Lost("the machine was taken away."), "there")]

    def one_epoch_more(request: object, folder: Path, until: int | None) -> Quick:
        done = int((folder / "saved").read_text()) if (folder / "saved").exists() else 0
        return Quick(plan.requests[record_key], folder, done + 1)

    record_key = record(request).key
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        train_all(ledger, plan.requests, Fickle(), work=one_epoch_more)
        assert ledger.run(record_key).attempts == 9  # one epoch each, then the rest


def test_workers_that_end_at_once_stop_the_study(tmp_path: Path) -> None:
    class Dying(Inline):
        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            task = self.tasks.popleft()
            return [TaskReport(task.key, task.attempt, Lost("the worker process ended with exit code 1."), "there")]

    with pytest.raises(RunError, match=r"workers end as soon as they start: the worker process ended with exit code 1"):
        trained(tmp_path, study([f"v{i}" for i in range(100)]), Dying())
    assert sum(run.attempts for run in read_status(tmp_path).runs) < 20


def test_unrecorded_results_are_adopted(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    first, second = plan.requests.values()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.start_attempt(record(first).key, 1, "here")
    for request, key in ((first, record(first).key), (second, "0" * 24)):
        folder = make_folder(tmp_path / "runs" / f"{request.label}-seed0")
        (folder / RESULT).write_text(record(request).model_copy(update={"key": key}).model_dump_json())
    reported = trained(tmp_path, plan)
    assert [(step.name, step.reused) for step in reported] == [("none-seed0", True), ("full-seed0", False)]
    assert attempts(tmp_path) == {"none-seed0": 0, "full-seed0": 1}
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [("complete", 1)] * 2
    # a lost ledger is rebuilt from the results of the workers
    (tmp_path / "ledger.sqlite").unlink()
    assert trained(tmp_path, plan) == []
    assert [(row.state, row.record is not None) for row in read_results(tmp_path).rows] == [("complete", True)] * 2


def test_an_unreadable_result_fails_only_its_run(tmp_path: Path) -> None:
    make_folder(tmp_path / "runs" / "none-seed0")
    (tmp_path / "runs" / "none-seed0" / RESULT).write_text("{")
    with pytest.raises(RunError, match=r"run 'none-seed0': .*result\.json: .*delete the folder"):
        trained(tmp_path, study(["none", "full"], [0]))
    assert [row.state for row in read_results(tmp_path).rows] == ["waiting", "complete"]


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    trained(tmp_path, study(["recovers", "none"], [0, 1]))
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}
    assert next(clock) == 10**9  # it was not read


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_lets_running_runs_save(tmp_path: Path, name: str) -> None:
    number, plan = getattr(signal, name), study(["none", "full", "in", "out", "p1"], [0])
    before = signal.getsignal(number)

    class Pausing(Inline):
        is_stopping = False

        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            task = self.tasks[0] if self.tasks else self.last
            if self.is_stopping:
                self.is_stopping = False
                return [TaskReport(self.last.key, self.last.attempt, Paused(1), "here")]
            if task.work.request.label == "full":  # type: ignore[attr-defined]
                self.last = self.tasks.popleft()
                os.kill(os.getpid(), number)
                return [TaskReport(task.key, task.attempt, Started(0, MACHINE), "here")]
            return super().reports(timeout_s)

        def stop(self) -> None:
            self.is_stopping = True
            super().stop()

    with pytest.raises(Interrupted) as error:
        trained(tmp_path, plan, Pausing())
    text = f"Interrupted: 1 of 5 runs are finished and kept in {tmp_path}. The same command trains the other 4."
    assert str(error.value) == text
    assert signal.getsignal(number) == before
    with Ledger.open(tmp_path) as ledger:
        full = ledger.runs()[1]
        assert (full.state, full.attempts, full.paused_at) == ("waiting", 1, 1)
    assert len(trained(tmp_path, plan)) == 4


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    class Stubborn(Inline):
        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            os.kill(os.getpid(), signal.SIGINT)
            if self.tasks:
                task = self.tasks.popleft()
                return [TaskReport(task.key, task.attempt, Started(0, MACHINE), "here")]
            return []

        def stop(self) -> None:
            pass

    start = time.monotonic()
    with pytest.raises(Interrupted, match=r"0 of 1 run is finished and kept in"):
        trained(tmp_path, study(["none"], [0]), Stubborn())
    assert time.monotonic() - start < 5
    with Ledger.open(tmp_path) as ledger:
        assert ledger.counts()["waiting"] == 1


def test_a_run_can_be_paused_and_resumed(tmp_path: Path) -> None:
    plan = study(["none"], [0], recipe=Recipe(epochs=5))
    key, request = next(iter(plan.requests.items()))
    with Ledger.open(tmp_path) as ledger, Driver(ledger, Inline(), work=Quick) as driver:
        ledger.join(plan)
        driver.submit(key, request, until=2)
        (ended,) = driver.wait()
        assert (ended.state, ended.epoch, driver.active_runs) == ("waiting", 2, 0)
        assert ledger.run(key).paused_at == 2
        driver.submit(key, request)
        (ended,) = driver.wait()
        assert ended.state == "complete" and ended.record is not None
        assert ledger.run(key).attempts == 2 and ledger.run(key).paused_at is None


def test_it_works_in_any_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=trained, args=(tmp_path, study()))
    thread.start()
    thread.join()
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}
