"""Training the missing runs of a ledger: what is submitted in which order, and what is reported of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hiresnet_graph.errors import HrgError, RunError
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.database import FINAL, RUNS, State
from hiresnet_graph.sweep.driver import Driver, RunTask, StackTask
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.executors.base import Executor, StackTraining, Training
from hiresnet_graph.sweep.folders import folder_names
from hiresnet_graph.sweep.ledger import Ledger, RunState
from hiresnet_graph.sweep.stacks import RunStack
from hiresnet_graph.train.record import Epoch, RunRecord, read_record
from hiresnet_graph.train.request import RunRequest

_SHOWN_FAILURES = 20


class Progress(NamedTuple):
    """Something that happened to a run.

    Attributes:
        done: Finished runs of the study so far, those of earlier calls included.
        total: Runs of the study; a run that several variants share counts once.
        key: Key of the run.
        name: Name of the run's folder: label, setting and seeds.
        state: `running` for each epoch that was computed; otherwise how the run has ended.
        epoch: The finished epoch.
        record: The record of a complete or diverged run.
        message: Why the run failed.
        reused: Whether the result was found in the folder of the run.
    """

    done: int
    total: int
    key: str
    name: str
    request: RunRequest
    state: State
    epoch: Epoch | None = None
    record: RunRecord | None = None
    message: str = ""
    reused: bool = False


def train_all(
    ledger: Ledger,
    requests: Mapping[str, RunRequest],
    executor: Executor,
    execution: ExecutionPlan | None = None,
    *,
    stacks: Iterable[RunStack] = (),
    work: RunTask = Training,
    stack_work: StackTask = StackTraining,
    submitting: Callable[[str], None] = lambda key: None,
    progress: Callable[[Progress], None] | None = None,
    retries: int = 2,
) -> None:
    """Train the missing runs of the ledger's study, and record them.

    Results that were finished in the folder of a run, but not recorded before the driver ended, are adopted.

    Args:
        requests: By key, in the order of training.
        executor: Entered already; its workers are not ended here.
        execution: How runs are computed.
        stacks: Runs that are computed together; all others are trained alone.
        submitting: Called with the key of each run before it is submitted; a run for which it raises fails.

    Raises:
        RunError: Some runs failed, with the reason of each; all others are finished. Or the ledger cannot be written,
            or no worker stays alive.
        Interrupted: A signal stopped the study. Finished runs are kept, running ones have saved a checkpoint.
    """
    report = _RunReporter(ledger, requests, progress)
    tasks = deque(_tasks(report.adopt_results(), stacks))
    with Driver(
        ledger,
        executor,
        execution,
        work=work,
        stack_work=stack_work,
        epoch_done=lambda key, epoch: report(key, "running", epoch=epoch),
        retries=retries,
    ) as driver:
        while tasks or driver.active_runs:
            while tasks and driver.free_slots > 0:
                task = tasks.popleft()
                keys = [key for key in _keys(task) if report.is_ready(key, submitting)]
                if not keys:
                    continue
                if isinstance(task, str):
                    driver.submit(task, requests[task])
                else:
                    driver.submit_stack(task.of(keys), requests)
            for end in driver.wait():
                report(end.key, end.state, record=end.record, message=end.message)
        ledger.commit()
    report.raise_failures()


class _RunReporter:
    """Counts finished and failed runs, and reports progress."""

    def __init__(
        self, ledger: Ledger, requests: Mapping[str, RunRequest], progress: Callable[[Progress], None] | None
    ) -> None:
        self._ledger, self._requests, self._progress = ledger, requests, progress
        self._runs = {run.key: run for run in ledger.runs()}
        self._done = sum(run.state in FINAL for run in self._runs.values())
        self._failures: list[tuple[str, str]] = []

    def __call__(self, key: str, state: State, **details: Any) -> None:
        """Report what happened to a run."""
        name = self._runs[key].folder.name
        self._done += state in FINAL
        if state == "failed":
            self._failures.append((name, details["message"]))
        if self._progress is not None:
            step = Progress(self._done, len(self._runs), key, name, self._requests[key], state, **details)
            self._progress(step)

    def is_ready(self, key: str, submitting: Callable[[str], None]) -> bool:
        """Whether a run can be submitted; otherwise it counts as failed, and the next call of the study tries again."""
        try:
            submitting(key)
        except HrgError as error:
            self(key, "failed", message=str(error))
            return False
        return True

    def adopt_results(self) -> list[str]:
        """Record results that lie in the folders of runs; returns the keys of the runs that remain."""
        folders = folder_names(self._ledger.folder / RUNS)
        missing = []
        for run in (self._runs[key] for key in self._requests):
            if run.state in FINAL:
                continue
            try:
                record = self._own_record(run) if run.folder.name in folders else None
            except RunError as error:
                self._failures.append((run.folder.name, str(error)))
                continue
            if record is None:
                missing.append(run.key)
                continue
            self._ledger.adopt(run.key, record)
            self(run.key, record.outcome, record=record, reused=True)
        self._ledger.commit()
        return missing

    def _own_record(self, run: RunState) -> RunRecord | None:
        record = read_record(run.folder)
        return record if record is not None and record.key == run.key else None

    def raise_failures(self) -> None:
        """Raise a `RunError` that lists the failed runs, if there are any."""
        if not self._failures:
            return
        lines = [f"run '{name}': {message}" for name, message in self._failures[:_SHOWN_FAILURES]]
        if len(self._failures) > _SHOWN_FAILURES:
            lines.append(f"{len(self._failures) - _SHOWN_FAILURES} more runs failed.")
        runs = len(self._runs)
        verb = "is" if runs == 1 else "are"
        kept = f"{self._done} of {format_count(runs, 'run')} {verb} finished and kept in {self._ledger.folder}."
        raise RunError("\n".join([*lines, f"{kept} The same command tries again."]))


def _keys(task: str | RunStack) -> tuple[str, ...]:
    return (task,) if isinstance(task, str) else task.keys


def _tasks(missing: Iterable[str], stacks: Iterable[RunStack]) -> Iterator[str | RunStack]:
    """The missing runs, each alone or with its stack at the position of the first of them."""
    waiting = dict.fromkeys(missing)
    stack_of = {key: stack for stack in stacks for key in stack.keys}
    for key in tuple(waiting):
        stack = stack_of.get(key)
        if stack is None:
            yield key
        elif key in waiting:
            together = [one for one in stack.keys if one in waiting]
            for one in together:
                del waiting[one]
            yield stack.of(together)
