"""The driver: keeps an executor busy with the runs of a study, and its ledger true.

What decides is the ledger's record of attempts and this process's own clock that only goes forward; no time of day.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep.executors.base import Executor, Failure, Lost, Report, StackTraining, Task, Training
from hiresnet_graph.sweep.ledger import Execution, Ledger
from hiresnet_graph.sweep.results import FINAL, RUNS, State
from hiresnet_graph.sweep.stacks import LEAST, Stack, cut
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
from hiresnet_graph.train.record import Epoch, RunRecord, read_record
from hiresnet_graph.train.request import RunRequest, StackRequest

Work = Callable[[RunRequest, Path, int | None], Callable[[], Iterator[Event]]]
StackWork = Callable[[StackRequest], Callable[[], Iterator[RunEvent | StackEnded]]]
Told = Event | RunEvent | StackEnded | Failure | Lost

# How long workers have to save when the study is stopped, for each run that they compute.
GRACE_S = 10.0
_POLL_S = 0.2
_COMMIT_S = 0.5
_TOLD_FAILURES = 20


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a signal to end, has stopped a study; its text says what is there and how to go on.

    Args:
        total: Runs of the study, or those that a search may have.
    """

    def __init__(self, done: int, total: int, out: Path, *, is_budget: bool = False) -> None:
        self.done = done
        told = f"{done} of a budget of {total}" if is_budget else f"{done} of {total}"
        rest = "goes on with the search" if is_budget else f"trains the other {total - done}"
        super().__init__(f"Interrupted: {told} runs are finished and kept in {out}. The same command {rest}.")


class Ended(NamedTuple):
    """A run has come to an end for now.

    Attributes:
        state: `waiting` if it was paused.
        record: Of a run that is complete or has diverged.
        epoch: After which it was paused.
        message: Why it failed.
    """

    key: str
    state: State
    record: RunRecord | None = None
    epoch: int = 0
    message: str = ""


class Progress(NamedTuple):
    """Something has happened to a run.

    Attributes:
        done: Finished runs of the study so far, those of earlier calls included.
        total: Runs of the study; one that several variants share counts once.
        key: Of the run.
        name: Of the run's folder: label, setting and seeds.
        state: `running` with each epoch that was computed; otherwise how the run has ended.
        epoch: The one that was done.
        record: Of a run that is complete or has diverged.
        message: Why it failed.
        reused: Its result was there, and only had to be noted.
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


@dataclass
class _Run:
    """A run that an executor has."""

    request: RunRequest
    name: str
    until: int | None
    attempt: int
    failures: int = 0  # in a row, without a new checkpoint between them
    reason: str = ""  # of the first of these
    is_training: bool = False
    begun: int = 0  # epochs that were done when it began or went on
    group: _Group | None = None  # the stack that it is computed in

    def told(self, message: str) -> str:
        """What to say of one more failure: also how it began, if that was something else."""
        self.failures += 1
        if self.failures == 1:
            self.reason = message
        return message if message == self.reason else f"{message} Before that: {self.reason}"


@dataclass(eq=False)
class _Group:
    """A stack that an executor has."""

    name: str  # of its task
    stack: Stack
    open: list[str]  # runs that have not said their last
    again: list[str] = field(default_factory=list)  # runs that are to be gone on with once it has ended
    can_part: bool = False  # its runs can go on in parts, or alone


class Driver:
    """Hands runs to an executor, notes what comes back, and tries again what was lost.

    As a context it sees to it that Ctrl-C, SIGTERM and SIGHUP let the runs at work save before `wait` raises
    `Interrupted`; a second one ends at once.

    Args:
        work: Makes the work of a task of a request, a folder, and the epoch after which to pause.
        stack_work: Makes that of a stack.
        execution: How runs are computed, as the ledger has settled it; if left out, as the first one asks for.
        epoch_done: Called with the key and each epoch that was computed; not with those of a checkpoint.
        retries: How often a run is tried again after its worker was lost or it failed, if it came no further meanwhile;
            wrong usage is not tried again.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        *,
        work: Work = Training,
        stack_work: StackWork = StackTraining,
        execution: Execution | None = None,
        epoch_done: Callable[[str, Epoch], None] | None = None,
        retries: int = 2,
    ) -> None:
        self._ledger, self._executor, self._work, self._stack_work = ledger, executor, work, stack_work
        self._epoch_done, self._retries = epoch_done, retries
        self._out: dict[str, _Run] = {}
        self._groups: dict[str, _Group] = {}
        self._names = (f"stack {number}" for number in itertools.count(1))
        self._most: int | None = None  # runs of a stack, once memory has run out
        self._execution = execution
        self._signals = 0
        self._handlers: dict[int, Any] = {}
        self._committed = time.monotonic()
        self._lost_in_a_row = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # Who ignores a signal, as `nohup` does, goes on ignoring it.
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._note_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    @property
    def busy(self) -> int:
        """How many runs the executor has."""
        return len(self._out)

    @property
    def room(self) -> int:
        """How many more runs or stacks may be submitted now, so that no worker waits for the next one."""
        tasks = len(self._groups) + sum(run.group is None for run in self._out.values())
        return 2 * max(1, self._executor.slots) - tasks

    def submit(self, key: str, request: RunRequest, *, until: int | None = None) -> None:
        """Have a run of the ledger trained, or gone on with, up to an epoch or to its end."""
        run = self._out[key] = self._run(key, request, until)
        self._send(key, run)

    def submit_stack(self, stack: Stack, requests: Mapping[str, RunRequest]) -> None:
        """Have runs of the ledger trained together, or gone on with; in parts, if memory was too small for as many."""
        for key in stack.keys:
            self._out[key] = self._run(key, requests[key], None)
        for keys in cut(stack.keys, self._most or len(stack.keys)):
            self._send_stack(stack.of(keys))

    def _run(self, key: str, request: RunRequest, until: int | None) -> _Run:
        if self._execution is None:
            self._execution, _ = self._ledger.settle(Execution.of(request))
        state = self._ledger.run(key)
        return _Run(self._execution.applied(request), state.folder.name, until, state.attempts + 1)

    def _send(self, key: str, run: _Run) -> None:
        self._executor.submit(Task(key, run.attempt, self._work(run.request, self._folder(run), run.until)))

    def _send_stack(self, stack: Stack) -> None:
        runs = {key: self._out[key] for key in stack.keys}
        requests = {key: run.request for key, run in runs.items()}
        folders = {key: self._folder(run) for key, run in runs.items()}
        group = _Group(next(self._names), stack, list(stack.keys))
        for run in runs.values():
            run.group = group
        self._groups[group.name] = group
        # Each attempt has a name of its own.
        self._executor.submit(Task(group.name, 1, self._stack_work(stack.request(requests, folders))))

    def _folder(self, run: _Run) -> Path:
        return (self._ledger.folder / RUNS / run.name).absolute()

    def wait(self) -> list[Ended]:
        """The runs that have ended since the last call; waits for one if there is none, and the executor has any.

        Raises:
            Interrupted: A signal asked for the end; what could be saved is.
            RunError: The ledger cannot be written, or workers end as soon as they begin.
        """
        ended: list[Ended] = []
        try:
            while not ended and self._out:
                if self._signals:
                    raise KeyboardInterrupt
                reports = self._executor.reports(0 if self._ledger.is_dirty else _POLL_S)
                for report in reports:
                    ended += self._hear(report)
                # Together with what else is at hand, but never late.
                if not reports or time.monotonic() - self._committed > _COMMIT_S:
                    self._commit()
        except KeyboardInterrupt:
            self._wind_down()
            counts = self._ledger.counts()
            raise Interrupted(
                sum(counts[state] for state in FINAL), sum(counts.values()), self._ledger.folder
            ) from None
        return ended

    def _commit(self) -> None:
        self._ledger.commit()
        self._committed = time.monotonic()

    def _wind_down(self) -> None:
        """Let the runs at work save; note what they came to."""
        first = self._signals
        self._executor.stop()
        together = max((len(group.open) for group in self._groups.values()), default=1)
        deadline = time.monotonic() + GRACE_S * together
        while any(run.is_training for run in self._out.values()):
            if time.monotonic() > deadline or self._signals > max(1, first):
                break
            for report in self._executor.reports(_POLL_S):
                self._hear(report, is_ending=True)
        for key, run in self._out.items():
            self._ledger.fail(key, run.attempt, "the study was stopped", state="lost")
        self._out.clear()
        self._groups.clear()
        self._commit()

    # ---- what is reported

    def _hear(self, report: Report, *, is_ending: bool = False) -> list[Ended]:
        """Note what a task says; the runs that have said their last word."""
        event, run, group = report.event, self._out.get(report.key), self._groups.get(report.key)
        if group is None and (run is None or run.attempt != report.attempt):
            return []  # stale: of an attempt that was given up
        self._lost_in_a_row = self._lost_in_a_row + 1 if isinstance(event, Lost) else 0
        if isinstance(event, Lost) and self._lost_in_a_row > 3 * max(1, self._executor.slots) + self._retries:
            raise RunError(f"workers end as soon as they begin: {event.reason} Nothing can be trained like this.")
        if group is not None:
            return self._hear_stack(group, event, report.worker, is_ending)
        assert run is not None and not isinstance(event, RunEvent | StackEnded)
        return self._hear_run(report.key, run, event, report.worker, is_ending)

    def _hear_stack(self, group: _Group, event: Told, worker: str, is_ending: bool) -> list[Ended]:
        """Note what a stack says: of one of its runs, or of all that are left."""
        if isinstance(event, RunEvent):
            key, said = event.key, event.event
            if key not in group.open:
                return []
            if isinstance(said, Finished | Paused | Refused):
                group.open.remove(key)
            told = Failure("usage" if said.is_final else "error", said.message) if isinstance(said, Refused) else said
            return self._hear_run(key, self._out[key], told, worker, is_ending)
        if not isinstance(event, Failure | Lost):
            event = Failure("error", "the stack ended without a result of this run.")
        is_memory = isinstance(event, Failure) and event.kind == "memory"
        together = len(group.open) + len(group.again)
        # Fewer than are computed at least take no less memory, and then each goes on alone; but one may have failed
        # for the others.
        least = LEAST[group.stack.backend] if is_memory else 1
        half = max(min(least, together), -(-together // 2))
        group.can_part = is_memory or half < together
        left = list(group.open)
        ended = [done for key in left for done in self._hear_run(key, self._out[key], event, worker, is_ending)]
        del self._groups[group.name]
        again = [key for key in group.stack.keys if key in group.again]
        size = half if any(self._out[key].failures > self._retries for key in again) else together
        if is_memory and again:
            for key in again:
                self._out[key].failures = 0
            if half == together:
                self._send_alone(again)
                return ended
            size = self._most = min(half, self._most or half)
            self._execution = self._ledger.limit_stack(self._most)
        for keys in cut(again, size) if again else ():
            self._send_stack(group.stack.of(keys))
        return ended

    def _send_alone(self, keys: Iterable[str]) -> None:
        """Have runs that were in a stack trained each by itself; checkpoints are the same."""
        for key in keys:
            run = self._out[key]
            run.group = None
            self._send(key, run)

    def _hear_run(
        self, key: str, run: _Run, event: Event | Failure | Lost, worker: str, is_ending: bool
    ) -> list[Ended]:
        """Note what a run says, or what has happened to it; the run, if that was its last word."""
        attempt = run.attempt
        if not self._ledger.is_at_work(key, attempt):
            self._ledger.begin(key, attempt, worker)
        match event:
            case Started():
                run.is_training, run.begun = True, event.epoch
                self._ledger.note_start(key, attempt, event.machine, event.epoch)
            case EpochDone():
                self._ledger.note_epoch(key, attempt, event.epoch)
                if self._epoch_done is not None and event.epoch.epoch > run.begun:
                    self._epoch_done(key, event.epoch)
            case Saved():
                run.failures = 0
            case Finished():
                return self._finish(key, run, event, is_ending)
            case Paused():
                return self._pause(key, run, event.epoch, is_ending)
            case Failure():
                return self._fail(key, run, event, is_ending)
            case Lost():
                return self._lose(key, run, event.reason, is_ending)
        return []

    def _finish(self, key: str, run: _Run, event: Finished, is_ending: bool) -> list[Ended]:
        if event.record.key != key:
            message = (
                f"{run.name}: another run was computed than was asked for (key {event.record.key[:8]}, not {key[:8]}): "
                "the worker has other data or another version of hrg or of your blocks."
            )
            return self._fail(key, run, Failure("usage", message), is_ending)
        self._ledger.finish(key, run.attempt, event.record)
        del self._out[key]
        return [Ended(key, event.record.outcome, event.record)]

    def _pause(self, key: str, run: _Run, epoch: int, is_ending: bool) -> list[Ended]:
        self._ledger.pause(key, run.attempt, epoch)
        if is_ending or (run.until is not None and epoch >= run.until):
            del self._out[key]
            return [Ended(key, "waiting", epoch=epoch)]
        # Somebody asked this one worker to end.
        self._again(key, run)
        return []

    def _fail(self, key: str, run: _Run, failure: Failure, is_ending: bool) -> list[Ended]:
        message = run.told(failure.message)
        is_final = failure.kind == "usage" or (self._is_given_up(run) and not is_ending)
        self._ledger.fail(key, run.attempt, message, final=is_final, traceback=failure.traceback)
        return self._after_failure(key, run, message, is_final, is_ending)

    def _lose(self, key: str, run: _Run, reason: str, is_ending: bool) -> list[Ended]:
        message = run.told(reason)
        is_final = self._is_given_up(run) and not is_ending
        self._ledger.fail(key, run.attempt, message, state="lost", final=is_final)
        return self._after_failure(key, run, message, is_final, is_ending)

    def _is_given_up(self, run: _Run) -> bool:
        """Whether a run has failed too often; one of a stack that can be parted may have failed for the others."""
        return run.failures > self._retries and not (run.group is not None and run.group.can_part)

    def _after_failure(self, key: str, run: _Run, message: str, is_final: bool, is_ending: bool) -> list[Ended]:
        if is_final or is_ending:
            del self._out[key]
            return [Ended(key, "failed" if is_final else "waiting", message=message)]
        self._again(key, run)
        return []

    def _again(self, key: str, run: _Run) -> None:
        run.attempt, run.is_training = run.attempt + 1, False
        if run.group is None:
            self._send(key, run)
        else:
            run.group.again.append(key)


def train_all(
    ledger: Ledger,
    requests: Mapping[str, RunRequest],
    executor: Executor,
    *,
    stacks: Iterable[Stack] = (),
    work: Work = Training,
    stack_work: StackWork = StackTraining,
    execution: Execution | None = None,
    progress: Callable[[Progress], None] | None = None,
    retries: int = 2,
) -> None:
    """Train what the ledger's study lacks, and note all of it.

    Results that were finished in the folder of a run, and not noted since the driver was killed, are taken over.

    Args:
        requests: By key, in the order in which they are trained.
        stacks: Runs that are computed together; all others are trained alone.
        execution: As of `Driver`.
        executor: Entered already; its workers are not ended here.

    Raises:
        RunError: Runs have failed, and the message says which and why; all others are finished. Or the ledger cannot be
            written, or no worker stays alive.
        Interrupted: A signal asked for the end. Finished runs are kept, those at work have saved a checkpoint.
    """
    runs = {run.key: run for run in ledger.runs()}
    done, total = sum(run.state in FINAL for run in runs.values()), len(runs)
    failures: list[tuple[str, str]] = []

    def tell(key: str, state: State, **details: Any) -> None:
        if progress is not None:
            progress(Progress(done, total, key, runs[key].folder.name, requests[key], state, **details))

    missing: list[str] = []
    there = _names(ledger.folder / RUNS)
    for run in (runs[key] for key in requests):
        if run.state in FINAL:
            continue
        record = None
        if run.folder.name in there:
            try:
                record = read_record(run.folder)
            except RunError as error:
                failures.append((run.folder.name, str(error)))
                continue
        if record is None or record.key != run.key:
            missing.append(run.key)
            continue
        ledger.adopt(run.key, record)
        done += 1
        tell(run.key, record.outcome, record=record, reused=True)
    ledger.commit()

    def epoch_done(key: str, epoch: Epoch) -> None:
        tell(key, "running", epoch=epoch)

    tasks = deque(_tasks(missing, stacks))
    with Driver(
        ledger,
        executor,
        work=work,
        stack_work=stack_work,
        execution=execution,
        epoch_done=epoch_done,
        retries=retries,
    ) as driver:
        while tasks or driver.busy:
            while tasks and driver.room > 0:
                task = tasks.popleft()
                if isinstance(task, Stack):
                    driver.submit_stack(task, requests)
                else:
                    driver.submit(task, requests[task])
            for ended in driver.wait():
                done += ended.state in FINAL
                if ended.state == "failed":
                    failures.append((runs[ended.key].folder.name, ended.message))
                tell(ended.key, ended.state, record=ended.record, message=ended.message)
        ledger.commit()
    if failures:
        lines = [f"run '{name}': {message}" for name, message in failures[:_TOLD_FAILURES]]
        if len(failures) > _TOLD_FAILURES:
            lines.append(f"{len(failures) - _TOLD_FAILURES} more runs failed.")
        lines.append(f"{done} of {total} runs are finished and kept in {ledger.folder}. The same command tries again.")
        raise RunError("\n".join(lines))


def _tasks(missing: Iterable[str], stacks: Iterable[Stack]) -> Iterator[str | Stack]:
    """The runs that are missing, each alone or with its stack where the first of them stands."""
    waiting = dict.fromkeys(missing)
    stack_of = {key: stack for stack in stacks for key in stack.keys}
    for key in tuple(waiting):
        stack = stack_of.get(key)
        if stack is None:
            yield key
        elif key in waiting:
            left = [one for one in stack.keys if one in waiting]
            for one in left:
                del waiting[one]
            yield stack.of(left)


def _names(folder: Path) -> set[str]:
    """What lies in a folder; one look instead of one for each run."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
