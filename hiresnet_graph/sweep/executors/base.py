"""The interface of executors: they take tasks, work on a few at a time, and report their events.

Executors know nothing of studies or ledgers; those belong to the driver.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

from hiresnet_graph.data import DatasetKind, load_dataset
from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, first_line, is_out_of_memory
from hiresnet_graph.sweep.stacks import StackWork
from hiresnet_graph.train.events import Event, Finished, Paused, RunEvent, StackEnded
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


@dataclass(frozen=True)
class Task:
    """A run, or a stack of runs, to be trained.

    Attributes:
        key: Key of the run; the driver's name of the stack.
        attempt: Number of the attempt; returned with each report, so that stale ones are recognized.
        work: Called in the worker; each event that it yields is reported. Must be picklable. The driver's are of type
            `Training` or `StackTraining`, unless it was given others.
    """

    key: str
    attempt: int
    work: Callable[[], Iterator[object]]


@dataclass(frozen=True)
class Training:
    """The work of a task: training or resuming a run in its folder.

    Attributes:
        folder: Folder of its checkpoints and its result; an executor without a shared folder sets another.
        until: Epoch after which to pause.
        ship_files: Whether `Saved` and `Finished` carry their files, which the executor then writes.
    """

    request: RunRequest
    folder: Path
    until: int | None = None
    ship_files: bool = False

    def __call__(self) -> Iterator[Event]:
        """Train, event by event; ends with `Paused` soon after the worker process was requested to stop."""
        from hiresnet_graph.train import run

        return run(
            self.request,
            self.folder,
            until=self.until,
            stop=stop_requested,
            dataset=cached_dataset(self.request.data),
            ship_files=self.ship_files,
        )


@dataclass(frozen=True)
class StackTraining:
    """The work of a task: training or resuming a stack of runs, each in its own folder."""

    work: StackWork

    def __call__(self) -> Iterator[RunEvent | StackEnded]:
        """Train, event by event; all runs pause soon after the worker process was requested to stop."""
        return self.work.train(stop_requested, cached_dataset(self.work.data))


@lru_cache(maxsize=1)
def cached_dataset(source: DatasetKind) -> Dataset:
    """A data set, loaded once for all runs of a worker."""
    return load_dataset(source)


@dataclass(frozen=True)
class Failure:
    """The task raised an exception.

    Attributes:
        kind: `usage` if a retry cannot help (a wrong spec, missing data), `memory` if memory ran out, else `error`.
        message: Message for the user.
        traceback: Traceback for the log.
    """

    kind: Literal["usage", "memory", "error"]
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The failure that a worker reports for an exception."""
        text = "".join(traceback.format_exception(error))
        if isinstance(error, HrgError):
            if isinstance(error, OutOfMemory):
                return cls("memory", str(error), text)
            return cls("error" if isinstance(error, RunError) else "usage", str(error), text)
        message = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
        if is_out_of_memory(error):
            return cls("memory", f"memory ran out ({message}). Train fewer runs at a time, or smaller batches.", text)
        return cls("error", message, text)


# The last event of a task whose worker is not lost.
ENDS = (Finished, Paused, StackEnded, Failure)


@dataclass(frozen=True)
class Lost:
    """The worker has ended, and the task with it."""

    reason: str


@dataclass(frozen=True)
class TaskReport:
    """An event of a task. The last of a task is `Finished`, `Paused`, `StackEnded`, a `Failure` or `Lost`.

    Attributes:
        worker: Name of the worker, like `cpu 3` or a host's name.
    """

    key: str
    attempt: int
    event: Event | RunEvent | StackEnded | Failure | Lost
    worker: str


class Executor(Protocol):
    """Works on tasks. Used by one thread, as a context manager: leaving it ends all workers."""

    @property
    def slots(self) -> int:
        """Number of tasks that can be worked on at one time; may change when machines join or leave."""
        ...

    def submit(self, task: Task) -> None:
        """Accept a task. At most `slots` tasks are running, and as many wait for a free worker."""
        ...

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        """The reports since the last call; waits up to `timeout_s` for the first."""
        ...

    def stop(self) -> None:
        """Request all running tasks to save and to end, which they report as usual; waiting tasks are dropped."""
        ...

    def close(self) -> None:
        """End all workers immediately. Events that were not reported are lost."""
        ...

    def __enter__(self) -> Self:
        """The executor, ready for tasks."""
        ...

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        ...


_stop = threading.Event()


def request_stop() -> None:
    """In a worker process: make the running task save and pause."""
    _stop.set()


def stop_requested() -> bool:
    """Whether this worker process was requested to stop."""
    return _stop.is_set()
