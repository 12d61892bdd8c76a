"""The driver: keeps an executor busy with the runs of a study, and records in the ledger what happens to them.

Decisions depend on the ledger's record of attempts and the monotonic clock of this process, not on the time of day.
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

from hiresnet_graph.errors import RunError
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.database import FINAL, RUNS, State
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.executors.base import Executor, Failure, Lost, StackTraining, Task, TaskReport, Training
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.stacks import RunStack, StackWork
from hiresnet_graph.train.events import (
    EpochDone,
    Event,
    Finished,
    Paused,
    Refused,
    RunEvent,
    Saved,
    StackEnded,
    Started,
)
from hiresnet_graph.train.record import Epoch, RunRecord, stored_cursors
from hiresnet_graph.train.request import RunRequest

RunTask = Callable[[RunRequest, Path, int | None], Callable[[], Iterator[Event]]]
StackTask = Callable[[StackWork], Callable[[], Iterator[RunEvent | StackEnded]]]
TaskEvent = Event | RunEvent | StackEnded | Failure | Lost

# Time that workers have to save when the study is stopped, for each run that they compute.
GRACE_S = 10.0
_POLL_S = 0.2
_COMMIT_S = 0.5
_SHOWN_RUNS = 4


class Interrupted(KeyboardInterrupt):
    """A study was stopped by Ctrl-C or a signal; the message says what is finished and how to resume.

    Args:
        total: Runs of the study, or the budget of a search.
        saved: Names of the unfinished runs with a checkpoint, and the number of epochs that were finished then.
    """

    def __init__(
        self, done: int, total: int, out: Path, saved: Mapping[str, int] | None = None, *, is_budget: bool = False
    ) -> None:
        self.done, self.saved = done, dict(saved or {})
        finished = f"{done} of {'a budget of ' * is_budget}{format_count(total, 'run')} {'is' if total == 1 else 'are'}"
        states = {name: f"epoch {epoch}" if epoch else "in epoch 1" for name, epoch in self.saved.items()}
        shown = [f"{name} ({state})" for name, state in list(states.items())[:_SHOWN_RUNS]]
        more = len(self.saved) - len(shown)
        names = ", ".join([*shown, *([f"and {more} more"] if more else [])])
        resumable = f" Checkpoints are saved of {names}." if names else ""
        rest = "resumes the search" if is_budget else f"trains the other {total - done}"
        super().__init__(f"Interrupted: {finished} finished and kept in {out}.{resumable} The same command {rest}.")


class RunEnd(NamedTuple):
    """The end of a run, or of a part of it.

    Attributes:
        state: `waiting` if the run was paused.
        record: The record of a complete or diverged run.
        epoch: The epoch after which the run was paused.
        message: Why the run failed.
    """

    key: str
    state: State
    record: RunRecord | None = None
    epoch: int = 0
    message: str = ""


@dataclass
class _Run:
    """A run that was submitted to the executor."""

    request: RunRequest
    name: str
    until: int | None
    attempt: int
    failures: int = 0  # consecutive failures without a new checkpoint
    first_failure: str = ""
    is_training: bool = False
    start_epoch: int = 0  # finished epochs when this attempt started
    stack: _SubmittedStack | None = None

    def failed(self, message: str) -> str:
        """Count a failure; returns its message, with that of the first failure if they differ."""
        self.failures += 1
        if self.failures == 1:
            self.first_failure = message
        return message if message == self.first_failure else f"{message} Before that: {self.first_failure}"


@dataclass(eq=False)
class _SubmittedStack:
    """A stack that was submitted to the executor.

    Attributes:
        name: Name of its task.
        open: Runs that have not ended yet.
        retry: Runs to submit again once the stack has ended.
        is_splittable: Whether its runs may be retried in smaller stacks, or alone.
    """

    name: str
    stack: RunStack
    open: list[str]
    retry: list[str] = field(default_factory=list)
    is_splittable: bool = False


class Driver:
    """Submits runs to an executor, records their events, and retries what was lost.

    As a context manager it handles Ctrl-C, SIGTERM and SIGHUP: running runs save a checkpoint before `wait` raises
    `Interrupted`; a second signal stops at once.

    Args:
        execution: How runs are computed.
        work: Makes the work of a task from a request, a folder, and the epoch after which to pause.
        stack_work: Makes the work of a stack.
        epoch_done: Called with the key and each epoch that was computed, not with those of a checkpoint.
        retries: Retries of a run whose worker was lost or that failed, as long as it makes no progress between them;
            wrong usage is not retried.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        execution: ExecutionPlan | None = None,
        *,
        work: RunTask = Training,
        stack_work: StackTask = StackTraining,
        epoch_done: Callable[[str, Epoch], None] | None = None,
        retries: int = 2,
    ) -> None:
        self._ledger, self._executor, self._execution = ledger, executor, execution or ExecutionPlan()
        self._work, self._stack_work = work, stack_work
        self._epoch_done, self._retries = epoch_done, retries
        self._runs: dict[str, _Run] = {}
        self._stacks: dict[str, _SubmittedStack] = {}
        self._stack_names = (f"stack {number}" for number in itertools.count(1))
        self._max_stack: int | None = None  # once memory has run out
        self._signals = 0
        self._handlers: dict[int, Any] = {}
        self._committed_s = time.monotonic()
        self._consecutive_losses = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # A signal that is ignored, as under `nohup`, stays ignored.
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    @property
    def active_runs(self) -> int:
        """Number of runs that are submitted and have not ended."""
        return len(self._runs)

    @property
    def free_slots(self) -> int:
        """Number of runs or stacks that may be submitted now, so that no worker waits for the next one."""
        tasks = len(self._stacks) + sum(run.stack is None for run in self._runs.values())
        return 2 * max(1, self._executor.slots) - tasks

    def submit(self, key: str, request: RunRequest, *, until: int | None = None) -> None:
        """Train a run of the ledger, or resume it, up to an epoch or to its end."""
        run = self._runs[key] = self._new_run(key, request, until)
        self._send(key, run)

    def submit_stack(self, stack: RunStack, requests: Mapping[str, RunRequest]) -> None:
        """Train or resume runs of the ledger together; in smaller stacks, if memory has run out before."""
        for key in stack.keys:
            self._runs[key] = self._new_run(key, requests[key], None)
        for part in stack.split(self._max_stack or len(stack.keys)):
            self._send_stack(part)

    def _new_run(self, key: str, request: RunRequest, until: int | None) -> _Run:
        state = self._ledger.run(key)
        return _Run(self._execution.apply(request), state.folder.name, until, state.attempts + 1)

    def _send(self, key: str, run: _Run) -> None:
        self._executor.submit(Task(key, run.attempt, self._work(run.request, self._folder(run), run.until)))

    def _send_stack(self, stack: RunStack) -> None:
        runs = {key: self._runs[key] for key in stack.keys}
        requests = {key: run.request for key, run in runs.items()}
        folders = {key: self._folder(run) for key, run in runs.items()}
        task = _SubmittedStack(next(self._stack_names), stack, list(stack.keys))
        for run in runs.values():
            run.stack = task
        self._stacks[task.name] = task
        # Each attempt at a stack has a new name, so the attempt number is always 1.
        self._executor.submit(Task(task.name, 1, self._stack_work(stack.work(requests, folders))))

    def _folder(self, run: _Run) -> Path:
        return (self._ledger.folder / RUNS / run.name).absolute()

    def wait(self) -> list[RunEnd]:
        """The runs that have ended since the last call; waits for one if there is none and runs are active.

        Raises:
            Interrupted: A signal stopped the study; checkpoints are saved.
            RunError: The ledger cannot be written, or workers end as soon as they start.
        """
        ended: list[RunEnd] = []
        try:
            while not ended and self._runs:
                if self._signals:
                    raise KeyboardInterrupt
                reports = self._executor.reports(0 if self._ledger.is_dirty else _POLL_S)
                for report in reports:
                    ended += self._on_report(report)
                # Several reports are committed together, but never late.
                if not reports or time.monotonic() - self._committed_s > _COMMIT_S:
                    self._commit()
        except KeyboardInterrupt:
            self._shut_down()
            counts = self._ledger.counts()
            done, total = sum(counts[state] for state in FINAL), sum(counts.values())
            raise Interrupted(done, total, self._ledger.folder, self._saved()) from None
        return ended

    def _commit(self) -> None:
        self._ledger.commit()
        self._committed_s = time.monotonic()

    def _shut_down(self) -> None:
        """Let the running runs save a checkpoint, and record how far they came."""
        first = self._signals
        self._executor.stop()
        together = max((len(task.open) for task in self._stacks.values()), default=1)
        deadline = time.monotonic() + GRACE_S * together
        while any(run.is_training for run in self._runs.values()):
            if time.monotonic() > deadline or self._signals > max(1, first):
                break
            for report in self._executor.reports(_POLL_S):
                self._on_report(report, is_ending=True)
        for key, run in self._runs.items():
            self._ledger.fail(key, run.attempt, "the study was stopped", state="lost")
        self._runs.clear()
        self._stacks.clear()
        self._commit()

    def _saved(self) -> dict[str, int]:
        """Names of the unfinished runs with a checkpoint, and the number of epochs that were finished then."""
        cursors = {run.folder.name: stored_cursors(run.folder) for run in self._ledger.missing() if run.attempts}
        return {name: stored[0][0] for name, stored in cursors.items() if stored}

    # ---- reports of the executor

    def _on_report(self, report: TaskReport, *, is_ending: bool = False) -> list[RunEnd]:
        """Handle a report of a task; returns the runs that it ends."""
        event, run, stack = report.event, self._runs.get(report.key), self._stacks.get(report.key)
        if stack is None and (run is None or run.attempt != report.attempt):
            return []  # of an attempt that was given up
        self._consecutive_losses = self._consecutive_losses + 1 if isinstance(event, Lost) else 0
        if isinstance(event, Lost) and self._consecutive_losses > 3 * max(1, self._executor.slots) + self._retries:
            raise RunError(f"workers end as soon as they start: {event.reason} No run can be trained.")
        if stack is not None:
            return self._on_stack_event(stack, event, report.worker, is_ending)
        assert run is not None and not isinstance(event, RunEvent | StackEnded)
        return self._on_run_event(report.key, run, event, report.worker, is_ending)

    def _on_stack_event(self, task: _SubmittedStack, event: TaskEvent, worker: str, is_ending: bool) -> list[RunEnd]:
        """Handle an event of one run of a stack, or of all of its open runs."""
        if isinstance(event, RunEvent):
            key, of_run = event.key, event.event
            if key not in task.open:
                return []
            if isinstance(of_run, Finished | Paused | Refused):
                task.open.remove(key)
            if isinstance(of_run, Refused):
                failure = Failure("usage" if of_run.is_final else "error", of_run.message)
                return self._on_run_event(key, self._runs[key], failure, worker, is_ending)
            return self._on_run_event(key, self._runs[key], of_run, worker, is_ending)
        if not isinstance(event, Failure | Lost):
            event = Failure("error", "the stack ended without a result of this run.")
        is_memory = isinstance(event, Failure) and event.kind == "memory"
        together = len(task.open) + len(task.retry)
        # A stack below the minimum takes no less memory, so its runs are retried alone; after another failure any
        # stack is split, since one run may have failed for the others.
        least = task.stack.least if is_memory else 1
        half = max(min(least, together), -(-together // 2))
        task.is_splittable = is_memory or half < together
        ended = [
            end for key in list(task.open) for end in self._on_run_event(key, self._runs[key], event, worker, is_ending)
        ]
        del self._stacks[task.name]
        self._retry_stack(task, half, together, is_memory)
        return ended

    def _retry_stack(self, task: _SubmittedStack, half: int, together: int, is_memory: bool) -> None:
        """Submit the runs of an ended stack again that have not finished; in halves, if that may help."""
        keys = [key for key in task.stack.keys if key in task.retry]
        if not keys:
            return
        size = half if any(self._runs[key].failures > self._retries for key in keys) else together
        if is_memory:
            for key in keys:
                self._runs[key].failures = 0
            if half == together:
                for key in keys:  # checkpoints of a stack are those of single runs
                    self._runs[key].stack = None
                    self._send(key, self._runs[key])
                return
            size = self._max_stack = min(half, self._max_stack or half)
            self._execution = dataclasses.replace(self._execution, stack=min(self._execution.stack, size))
            self._ledger.freeze_execution(self._execution)
        for part in task.stack.of(keys).split(size):
            self._send_stack(part)

    def _on_run_event(
        self, key: str, run: _Run, event: Event | Failure | Lost, worker: str, is_ending: bool
    ) -> list[RunEnd]:
        """Record an event of a run; returns the end of the run, if this was its last."""
        attempt = run.attempt
        if not self._ledger.is_current(key, attempt):
            self._ledger.start_attempt(key, attempt, worker)
        match event:
            case Started():
                run.is_training, run.start_epoch = True, event.epoch
                self._ledger.record_start(key, attempt, event.environment, event.epoch)
            case EpochDone():
                self._ledger.record_epoch(key, attempt, event.epoch)
                if self._epoch_done is not None and event.epoch.epoch > run.start_epoch:
                    self._epoch_done(key, event.epoch)
            case Saved():
                run.failures = 0
            case Finished():
                return self._on_finished(key, run, event, is_ending)
            case Paused():
                return self._on_paused(key, run, event.epoch, is_ending)
            case Failure():
                return self._on_failure(key, run, event, is_ending)
            case Lost():
                return self._on_worker_lost(key, run, event.reason, is_ending)
        return []

    def _on_finished(self, key: str, run: _Run, event: Finished, is_ending: bool) -> list[RunEnd]:
        if event.record.key != key:
            message = (
                f"{run.name}: another run was computed than requested (key {event.record.key[:8]}, not {key[:8]}): the "
                "worker has other data, or another version of hrg or of your blocks."
            )
            return self._on_failure(key, run, Failure("usage", message), is_ending)
        self._ledger.finish(key, run.attempt, event.record)
        del self._runs[key]
        return [RunEnd(key, event.record.outcome, event.record)]

    def _on_paused(self, key: str, run: _Run, epoch: int, is_ending: bool) -> list[RunEnd]:
        self._ledger.pause(key, run.attempt, epoch)
        if is_ending or (run.until is not None and epoch >= run.until):
            del self._runs[key]
            return [RunEnd(key, "waiting", epoch=epoch)]
        # Only this worker was asked to end, by somebody else.
        self._retry(key, run)
        return []

    def _on_failure(self, key: str, run: _Run, failure: Failure, is_ending: bool) -> list[RunEnd]:
        message = run.failed(failure.message)
        is_final = failure.kind == "usage" or (self._is_given_up(run) and not is_ending)
        self._ledger.fail(key, run.attempt, message, final=is_final, traceback=failure.traceback)
        return self._after_failure(key, run, message, is_final, is_ending)

    def _on_worker_lost(self, key: str, run: _Run, reason: str, is_ending: bool) -> list[RunEnd]:
        message = run.failed(reason)
        is_final = self._is_given_up(run) and not is_ending
        self._ledger.fail(key, run.attempt, message, state="lost", final=is_final)
        return self._after_failure(key, run, message, is_final, is_ending)

    def _is_given_up(self, run: _Run) -> bool:
        """Whether a run has failed too often; one of a splittable stack may have failed because of the others."""
        return run.failures > self._retries and not (run.stack is not None and run.stack.is_splittable)

    def _after_failure(self, key: str, run: _Run, message: str, is_final: bool, is_ending: bool) -> list[RunEnd]:
        if is_final or is_ending:
            del self._runs[key]
            return [RunEnd(key, "failed" if is_final else "waiting", message=message)]
        self._retry(key, run)
        return []

    def _retry(self, key: str, run: _Run) -> None:
        run.attempt, run.is_training = run.attempt + 1, False
        if run.stack is None:
            self._send(key, run)
        else:
            run.stack.retry.append(key)
