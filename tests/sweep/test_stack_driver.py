"""The driver with stacks: many runs are one task, and each has a row of its own."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresnet_graph.errors import RunError
from hiresnet_graph.stack.grouping import RunStack, split_evenly
from hiresnet_graph.sweep.driver import Interrupted
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.executors.base import Executor, Lost, Task, TaskReport
from hiresnet_graph.sweep.ledger import Ledger, read_stored
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import Progress, train_all
from hiresnet_graph.train import EpochDone, Finished, Paused, Recipe, Refused, RunEvent, StackEnded, Started
from tests.sweep.works import MACHINE, Inline, Quick, QuickStack, record, study


def in_stacks(plan: StudyPlan, most: int) -> list[RunStack]:
    return [RunStack(keys, "whole", "stacked") for keys in split_evenly(list(plan.requests), most)]


def carried_out(
    folder: Path, plan: StudyPlan, most: int, executor: Executor | None = None, retries: int = 2
) -> list[Progress]:
    """The study is trained in stacks as far as it goes; what was told of the ends of its runs."""
    told: list[Progress] = []
    with Ledger.open(folder) as ledger, executor or Inline() as workers:
        ledger.join(plan)
        execution = ExecutionPlan(backend="stacked", stack=most)
        ledger.freeze_execution(execution)
        how: dict[str, Any] = {"work": Quick, "stack_work": QuickStack, "progress": told.append, "retries": retries}
        train_all(ledger, plan.requests, workers, execution, stacks=in_stacks(plan, most), **how)
    return [step for step in told if step.state != "running"]


def frozen(folder: Path, plan: StudyPlan) -> ExecutionPlan:
    found = read_stored(folder, plan).execution
    assert found is not None
    return found


class Noting(Inline):
    """Remembers the runs of each task."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def submit(self, task: Task) -> None:
        self.seen.append(len(task.work.request.runs) if isinstance(task.work, QuickStack) else 0)
        super().submit(task)


def test_each_run_of_a_stack_has_a_row_of_its_own(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0, 1, 2])
    executor = Noting()
    told = carried_out(tmp_path, plan, 4, executor)
    assert executor.seen == [3, 3, 3]
    assert sorted(step.name for step in told) == sorted(
        f"{v}-seed{i}" for v in ("none", "full", "in") for i in range(3)
    )
    assert [step.done for step in told] == list(range(1, 10))
    results = read_results(tmp_path)
    assert [(row.state, row.attempts) for row in results.rows] == [("complete", 1)] * 9
    assert [row.record for row in results.rows] == [record(request) for request in plan.requests.values()]
    assert all(run.epoch == 2 for run in read_status(tmp_path).runs)
    assert frozen(tmp_path, plan) == ExecutionPlan("cpu", 1, None, False, "stacked", 4)
    assert carried_out(tmp_path, plan, 4) == []


def test_runs_beside_stacks_are_trained_alone(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0])
    executor = Noting()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        stacks = [RunStack(tuple(plan.requests)[1:], "whole", "stacked")]
        train_all(ledger, plan.requests, executor, stacks=stacks, work=Quick, stack_work=QuickStack)
    assert executor.seen == [0, 2]
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}


def test_one_that_is_refused_or_diverges_stops_no_other(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        carried_out(tmp_path, study(["none", "usage", "nan", "full", "other"], [0]), 8)
    lines = str(error.value).splitlines()
    assert "run 'usage-seed0': the network is wrong." in lines and lines[-1].startswith("3 of 5 runs are finished")
    assert any("other-seed0: another run was computed than requested" in line for line in lines)
    states = {run.name: (run.state, run.attempts) for run in read_status(tmp_path).runs}
    assert states == {
        "none-seed0": ("complete", 1),
        "usage-seed0": ("failed", 1),
        "nan-seed0": ("diverged", 1),
        "full-seed0": ("complete", 1),
        "other-seed0": ("failed", 1),
    }


def test_without_memory_stacks_are_halved_and_stay_so(tmp_path: Path) -> None:
    plan = study(["big"], range(7))
    executor = Noting()
    carried_out(tmp_path, plan, 7, executor)
    assert executor.seen == [7, 4, 3, 2, 2]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [("complete", 3)] * 4 + [
        ("complete", 2)
    ] * 3
    assert frozen(tmp_path, plan).stack == 3
    # a size that is asked for is tried once more
    larger, executor = study(["big"], range(14)), Noting()
    carried_out(tmp_path, larger, 7, executor)
    assert executor.seen == [7, 4, 3, 2, 2] and frozen(tmp_path, plan).stack == 3


def test_stacks_that_wait_when_memory_runs_out_are_cut_first(tmp_path: Path) -> None:
    executor = Noting()
    executor.slots = 1
    carried_out(tmp_path, study(["big"], range(18)), 6, executor)
    assert executor.seen == [6, 6, 3, 3, 3, 3, 3, 3]
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}


def test_where_not_even_few_fit_into_memory_each_goes_on_alone(tmp_path: Path) -> None:
    executor = Noting()
    plan = study(["hungry-1", "none-1", "none-2", "hungry-2", "none-3", "none-4"], [0])
    with pytest.raises(RunError) as error:
        carried_out(tmp_path, plan, 6, executor)
    assert executor.seen == [6, 3, 3] + [0] * 10
    assert str(error.value).count("memory ran out (MemoryError)") == 2
    assert str(error.value).splitlines()[-1].startswith("4 of 6 runs are finished")
    # each has all of its tries by itself
    ends = {run.name.split("-")[0]: (run.state, run.attempts) for run in read_status(tmp_path).runs}
    assert ends == {"none": ("complete", 3), "hungry": ("failed", 5)}
    assert frozen(tmp_path, plan).stack == 3
    once = Noting()
    carried_out(tmp_path / "once", study(["big"], range(4)), 4, once, retries=0)
    assert once.seen == [4, 2, 2]


def test_who_was_halved_for_memory_has_all_tries_left(tmp_path: Path) -> None:
    class Losing(Noting):
        is_lost = False

        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            if self.is_lost or len(self.seen) < 7:
                return super().reports(timeout_s)
            self.is_lost = True
            task = self.tasks.popleft()
            key = task.work.request.runs[0].key  # type: ignore[attr-defined]
            events = [RunEvent(key, Started(0, MACHINE)), Lost("the worker is gone.")]
            return [TaskReport(task.key, task.attempt, event, "there") for event in events]

    executor = Losing()
    carried_out(tmp_path, study(["big"], range(12)), 12, executor, retries=1)
    assert executor.seen == [12, 6, 6, 3, 3, 3, 3, 3]  # the one that was lost is not cut


class Told(Noting):
    """Reports what was thought out for each task in turn, then works."""

    def __init__(self, *events: Sequence[Any]) -> None:
        super().__init__()
        self.events = list(events)

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if not self.events:
            return super().reports(timeout_s)
        task = self.tasks.popleft()
        return [TaskReport(task.key, task.attempt, event, "here") for event in self.events.pop(0)]


def test_one_that_failed_and_then_pauses_goes_on(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    first, second = plan.requests
    paused = [[RunEvent(key, Paused(0)), StackEnded()] for key in (first, second)]
    executor = Told([Lost("the worker is gone.")], *paused)
    assert len(carried_out(tmp_path, plan, 2, executor, retries=0)) == 2
    assert executor.seen == [2, 1, 1, 1, 1]


def test_what_may_pass_is_tried_again_and_what_was_refused_is_not(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    first, second = plan.requests
    refused = [RunEvent(first, Refused("no.")), RunEvent(second, Refused("not now.", is_final=False)), StackEnded()]
    with pytest.raises(RunError, match=r"run 'none-seed0': no\.\n1 of 2 runs are finished"):
        carried_out(tmp_path, plan, 2, Told(refused))
    assert {run.name: run.attempts for run in read_status(tmp_path).runs} == {"none-seed0": 1, "full-seed0": 2}
    with pytest.raises(RunError, match=r"run 'full-seed0': not now\."):
        carried_out(tmp_path / "often", plan, 2, Told(refused), retries=0)


def test_epochs_of_a_checkpoint_are_not_told_once_more(tmp_path: Path) -> None:
    plan = study(["none"], [0])
    (key,) = plan.requests
    result = record(plan.requests[key])
    events = [Started(1, MACHINE), *(EpochDone(epoch) for epoch in result.epochs), Finished(result)]
    told: list[int] = []
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)

        def progress(step: Progress) -> None:
            told.extend([step.epoch.epoch] if step.epoch is not None else [])

        executor = Told([*(RunEvent(key, event) for event in events), StackEnded()])
        train_all(ledger, plan.requests, executor, stacks=in_stacks(plan, 2), progress=progress)
    assert told == [2] and read_status(tmp_path).runs[0].epoch == 2


def test_one_that_fails_is_parted_from_the_others(tmp_path: Path) -> None:
    plan = study(["none", "full", "in", "fails", "p1", "recovers"], [0])
    executor = Noting()
    with pytest.raises(RunError) as error:
        carried_out(tmp_path, plan, 6, executor)
    assert str(error.value).splitlines()[0] == "run 'fails-seed0': the disk is full."
    assert "5 of 6 runs are finished" in str(error.value)
    assert executor.seen[:3] == [6, 6, 6] and max(executor.seen[3:]) <= 3
    assert [run.name for run in read_status(tmp_path).runs if run.state == "failed"] == ["fails-seed0"]
    assert frozen(tmp_path, plan).stack == 6  # memory was not the reason


class Losing(Inline):
    """Loses the first tasks after what they had said until then."""

    def __init__(self, losses: int, events: int) -> None:
        super().__init__()
        self.losses, self.events = losses, events

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if not self.losses or not self.tasks:
            return super().reports(timeout_s)
        self.losses -= 1
        task = self.tasks.popleft()
        said = [TaskReport(task.key, task.attempt, event, "there") for event in task.work()]  # type: ignore[arg-type]
        self.extra += said[self.events :]
        return [*said[: self.events], TaskReport(task.key, task.attempt, Lost("the worker is gone."), "there")]


def test_a_lost_worker_loses_all_that_had_not_ended(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0], recipe=Recipe(epochs=1))
    executor = Losing(1, events=10)  # three begin, do an epoch, and save; one has ended
    told = carried_out(tmp_path, plan, 3, executor)
    assert [step.name for step in told] == ["none-seed0", "full-seed0", "in-seed0"]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [
        ("complete", 1),
        ("complete", 2),
        ("complete", 2),
    ]
    with pytest.raises(RunError, match=r"the worker is gone"):
        carried_out(tmp_path / "often", plan, 3, Losing(100, events=1))


def test_workers_that_all_die_at_once_end_the_study(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"workers end as soon as they start: the worker is gone"):
        carried_out(tmp_path, study(["none"], range(40)), 8, Losing(1000, events=0))
    assert sum(run.attempts for run in read_status(tmp_path).runs) < 100


def test_a_signal_lets_all_runs_of_a_stack_save(tmp_path: Path) -> None:
    plan = study(["none", "full", "in", "out"], [0])
    keys = list(plan.requests)

    class Pausing(Inline):
        is_stopping = False

        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            if self.is_stopping:
                self.is_stopping = False
                events = [*(RunEvent(key, Paused(1)) for key in keys[:2]), StackEnded()]
                return [TaskReport(self.last.key, self.last.attempt, event, "here") for event in events]
            self.last = self.tasks.popleft()
            os.kill(os.getpid(), signal.SIGINT)
            events = [RunEvent(key, Started(0, MACHINE)) for key in keys[:2]]
            return [TaskReport(self.last.key, self.last.attempt, event, "here") for event in events]

        def stop(self) -> None:
            self.is_stopping = True
            super().stop()

    with pytest.raises(Interrupted, match=r"0 of 4 runs are finished"):
        carried_out(tmp_path, plan, 2, Pausing())
    with Ledger.open(tmp_path) as ledger:
        assert [(run.state, run.attempts, run.paused_at) for run in ledger.runs()] == [
            ("waiting", 1, 1),
            ("waiting", 1, 1),
            ("waiting", 0, None),
            ("waiting", 0, None),
        ]
    assert len(carried_out(tmp_path, plan, 2)) == 4


def test_a_stack_whose_worker_was_asked_to_end_goes_on_elsewhere(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0])

    class Moving(Noting):
        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            if len(self.seen) > 1:
                return super().reports(timeout_s)
            task = self.tasks.popleft()
            events: Iterator[Any] = iter([*(RunEvent(key, Paused(0)) for key in plan.requests), StackEnded()])
            return [TaskReport(task.key, task.attempt, event, "here") for event in events]

    executor = Moving()
    carried_out(tmp_path, plan, 3, executor)
    assert executor.seen == [3, 3]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [("complete", 2)] * 3


def test_worker_processes_take_stacks(tmp_path: Path) -> None:
    plan = study(["none", "falls", "silent", "full"], [0, 1])
    plan = replace(plan, requests=dict(plan.requests))
    with pytest.raises(RunError) as error:
        carried_out(tmp_path, plan, 4, LocalExecutor(2))
    lines = str(error.value).splitlines()
    assert "run 'silent-seed0': the stack ended without a result of this run." in lines
    states = {run.name: run.state for run in read_status(tmp_path).runs}
    assert {name for name, state in states.items() if state != "complete"} == {"silent-seed0", "silent-seed1"}
