"""The driver with stacks: many runs are one task, and each has its own row."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresnet_graph.errors import RunError
from hiresnet_graph.stack.grouping import SupergraphStack
from hiresnet_graph.sweep.driver import Interrupted
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.executors.base import Executor, Lost, Task, TaskReport
from hiresnet_graph.sweep.ledger import Ledger, read_stored
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import Progress, train_all
from hiresnet_graph.train import EpochDone, Finished, Paused, Recipe, Started
from hiresnet_graph.train.events import Refused, RunEvent, StackEnded
from tests.sweep.works import MACHINE, Inline, Quick, QuickStack, record, study


def in_stacks(plan: StudyPlan, limit: int) -> list[SupergraphStack]:
    return list(SupergraphStack(tuple(plan.requests), "whole", "stacked").split(limit))


def trained(
    folder: Path, plan: StudyPlan, limit: int, executor: Executor | None = None, retries: int = 2
) -> list[Progress]:
    """Train a study in stacks as far as possible; returns the reported ends of its runs."""
    reported: list[Progress] = []
    with Ledger.open(folder) as ledger, executor or Inline() as workers:
        ledger.join(plan)
        execution = ExecutionPlan(backend="stacked", stack=limit)
        ledger.freeze_execution(execution)
        how: dict[str, Any] = {"work": Quick, "stack_work": QuickStack, "progress": reported.append, "retries": retries}
        train_all(ledger, plan.requests, workers, execution, stacks=in_stacks(plan, limit), **how)
    return [step for step in reported if step.state != "running"]


def frozen(folder: Path, plan: StudyPlan) -> ExecutionPlan:
    found = read_stored(folder, plan).execution
    assert found is not None
    return found


class Recording(Inline):
    """Records the number of runs of each task; 0 for a run that is not in a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def submit(self, task: Task) -> None:
        self.seen.append(len(task.work.work.request.runs) if isinstance(task.work, QuickStack) else 0)
        super().submit(task)


def test_each_run_of_a_stack_has_its_own_row(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0, 1, 2])
    executor = Recording()
    reported = trained(tmp_path, plan, 4, executor)
    assert executor.seen == [3, 3, 3]
    assert sorted(step.name for step in reported) == sorted(
        f"{v}-seed{i}" for v in ("none", "full", "in") for i in range(3)
    )
    assert [step.done for step in reported] == list(range(1, 10))
    results = read_results(tmp_path)
    assert [(row.state, row.attempts) for row in results.rows] == [("complete", 1)] * 9
    assert [row.record for row in results.rows] == [record(request) for request in plan.requests.values()]
    assert all(run.epoch == 2 for run in read_status(tmp_path).runs)
    assert frozen(tmp_path, plan) == ExecutionPlan("cpu", 1, None, False, "stacked", 4)
    assert trained(tmp_path, plan, 4) == []


def test_runs_beside_stacks_are_trained_alone(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0])
    executor = Recording()
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        stacks = [SupergraphStack(tuple(plan.requests)[1:], "whole", "stacked")]
        train_all(ledger, plan.requests, executor, stacks=stacks, work=Quick, stack_work=QuickStack)
    assert executor.seen == [0, 2]
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}


def test_a_refused_or_diverged_run_stops_no_other(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        trained(tmp_path, study(["none", "usage", "nan", "full", "other"], [0]), 8)
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


def test_stacks_are_halved_when_memory_runs_out(tmp_path: Path) -> None:
    plan = study(["big"], range(7))
    executor = Recording()
    trained(tmp_path, plan, 7, executor)
    assert executor.seen == [7, 4, 3, 2, 2]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [("complete", 3)] * 4 + [
        ("complete", 2)
    ] * 3
    assert frozen(tmp_path, plan).stack == 3
    # a requested size is tried again
    larger, executor = study(["big"], range(14)), Recording()
    trained(tmp_path, larger, 7, executor)
    assert executor.seen == [7, 4, 3, 2, 2] and frozen(tmp_path, plan).stack == 3


def test_waiting_stacks_are_split_when_memory_runs_out(tmp_path: Path) -> None:
    executor = Recording()
    executor.slots = 1
    trained(tmp_path, study(["big"], range(18)), 6, executor)
    assert executor.seen == [6, 6, 3, 3, 3, 3, 3, 3]
    assert {row.state for row in read_results(tmp_path).rows} == {"complete"}


def test_runs_are_trained_alone_if_no_stack_fits_into_memory(tmp_path: Path) -> None:
    executor = Recording()
    plan = study(["hungry-1", "none-1", "none-2", "hungry-2", "none-3", "none-4"], [0])
    with pytest.raises(RunError) as error:
        trained(tmp_path, plan, 6, executor)
    assert executor.seen == [6, 3, 3] + [0] * 10
    assert str(error.value).count("memory ran out (MemoryError)") == 2
    assert str(error.value).splitlines()[-1].startswith("4 of 6 runs are finished")
    # each run has all of its retries alone
    ends = {run.name.split("-")[0]: (run.state, run.attempts) for run in read_status(tmp_path).runs}
    assert ends == {"none": ("complete", 3), "hungry": ("failed", 5)}
    assert frozen(tmp_path, plan).stack == 3
    once = Recording()
    trained(tmp_path / "once", study(["big"], range(4)), 4, once, retries=0)
    assert once.seen == [4, 2, 2]


def test_splitting_for_memory_does_not_count_as_a_failure(tmp_path: Path) -> None:
    class Losing(Recording):
        is_lost = False

        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            if self.is_lost or len(self.seen) < 7:
                return super().reports(timeout_s)
            self.is_lost = True
            task = self.tasks.popleft()
            key = task.work.work.request.runs[0].key  # type: ignore[attr-defined]
            events = [RunEvent(key, Started(0, MACHINE)), Lost("the worker is gone.")]
            return [TaskReport(task.key, task.attempt, event, "there") for event in events]

    executor = Losing()
    trained(tmp_path, study(["big"], range(12)), 12, executor, retries=1)
    assert executor.seen == [12, 6, 6, 3, 3, 3, 3, 3]  # the lost one is not split


class Scripted(Recording):
    """Reports given events for the first tasks, then works."""

    def __init__(self, *events: Sequence[Any]) -> None:
        super().__init__()
        self.events = list(events)

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if not self.events:
            return super().reports(timeout_s)
        task = self.tasks.popleft()
        return [TaskReport(task.key, task.attempt, event, "here") for event in self.events.pop(0)]


def test_a_run_that_failed_and_then_paused_is_resumed(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    first, second = plan.requests
    paused = [[RunEvent(key, Paused(0)), StackEnded()] for key in (first, second)]
    executor = Scripted([Lost("the worker is gone.")], *paused)
    assert len(trained(tmp_path, plan, 2, executor, retries=0)) == 2
    assert executor.seen == [2, 1, 1, 1, 1]


def test_temporary_refusals_are_retried_and_final_ones_not(tmp_path: Path) -> None:
    plan = study(["none", "full"], [0])
    first, second = plan.requests
    refused = [RunEvent(first, Refused("no.")), RunEvent(second, Refused("not now.", is_final=False)), StackEnded()]
    with pytest.raises(RunError, match=r"run 'none-seed0': no\.\n1 of 2 runs are finished"):
        trained(tmp_path, plan, 2, Scripted(refused))
    assert {run.name: run.attempts for run in read_status(tmp_path).runs} == {"none-seed0": 1, "full-seed0": 2}
    with pytest.raises(RunError, match=r"run 'full-seed0': not now\."):
        trained(tmp_path / "often", plan, 2, Scripted(refused), retries=0)


def test_epochs_of_a_checkpoint_are_not_reported_again(tmp_path: Path) -> None:
    plan = study(["none"], [0])
    (key,) = plan.requests
    result = record(plan.requests[key])
    events = [Started(1, MACHINE), *(EpochDone(epoch) for epoch in result.epochs), Finished(result)]
    reported: list[int] = []
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)

        def progress(step: Progress) -> None:
            reported.extend([step.epoch.epoch] if step.epoch is not None else [])

        executor = Scripted([*(RunEvent(key, event) for event in events), StackEnded()])
        train_all(ledger, plan.requests, executor, stacks=in_stacks(plan, 2), progress=progress)
    assert reported == [2] and read_status(tmp_path).runs[0].epoch == 2


def test_a_failing_run_is_separated_from_the_others(tmp_path: Path) -> None:
    plan = study(["none", "full", "in", "fails", "p1", "recovers"], [0])
    executor = Recording()
    with pytest.raises(RunError) as error:
        trained(tmp_path, plan, 6, executor)
    assert str(error.value).splitlines()[0] == "run 'fails-seed0': the disk is full."
    assert "5 of 6 runs are finished" in str(error.value)
    assert executor.seen[:3] == [6, 6, 6] and max(executor.seen[3:]) <= 3
    assert [run.name for run in read_status(tmp_path).runs if run.state == "failed"] == ["fails-seed0"]
    assert frozen(tmp_path, plan).stack == 6  # memory had not run out


class Losing(Inline):
    """Loses the first tasks after some of their events."""

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


def test_a_lost_worker_loses_its_unfinished_runs(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0], recipe=Recipe(epochs=1))
    executor = Losing(1, events=10)  # three start, train an epoch, and save; one has ended
    reported = trained(tmp_path, plan, 3, executor)
    assert [step.name for step in reported] == ["none-seed0", "full-seed0", "in-seed0"]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [
        ("complete", 1),
        ("complete", 2),
        ("complete", 2),
    ]
    with pytest.raises(RunError, match=r"the worker is gone"):
        trained(tmp_path / "often", plan, 3, Losing(100, events=1))


def test_workers_that_end_at_once_stop_the_study(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"workers end as soon as they start: the worker is gone"):
        trained(tmp_path, study(["none"], range(40)), 8, Losing(1000, events=0))
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
        trained(tmp_path, plan, 2, Pausing())
    with Ledger.open(tmp_path) as ledger:
        assert [(run.state, run.attempts, run.paused_at) for run in ledger.runs()] == [
            ("waiting", 1, 1),
            ("waiting", 1, 1),
            ("waiting", 0, None),
            ("waiting", 0, None),
        ]
    assert len(trained(tmp_path, plan, 2)) == 4


def test_a_paused_stack_is_resumed_elsewhere(tmp_path: Path) -> None:
    plan = study(["none", "full", "in"], [0])

    class Moving(Recording):
        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            if len(self.seen) > 1:
                return super().reports(timeout_s)
            task = self.tasks.popleft()
            events: Iterator[Any] = iter([*(RunEvent(key, Paused(0)) for key in plan.requests), StackEnded()])
            return [TaskReport(task.key, task.attempt, event, "here") for event in events]

    executor = Moving()
    trained(tmp_path, plan, 3, executor)
    assert executor.seen == [3, 3]
    assert [(row.state, row.attempts) for row in read_results(tmp_path).rows] == [("complete", 2)] * 3


def test_worker_processes_take_stacks(tmp_path: Path) -> None:
    plan = study(["none", "falls", "silent", "full"], [0, 1])
    plan = replace(plan, requests=dict(plan.requests))
    with pytest.raises(RunError) as error:
        trained(tmp_path, plan, 4, LocalExecutor(2))
    lines = str(error.value).splitlines()
    assert "run 'silent-seed0': the stack ended without a result of this run." in lines
    states = {run.name: run.state for run in read_status(tmp_path).runs}
    assert {name for name, state in states.items() if state != "complete"} == {"silent-seed0", "silent-seed1"}
