"""What an executor is: something that takes tasks, works on a few at a time, and reports what they say.

Executors know nothing of studies or ledgers: the driver keeps those.
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
from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, is_of_memory
from hiresnet_graph.train.events import Event, Finished, Paused, RunEvent, StackEnded
from hiresnet_graph.train.request import RunRequest, StackRequest

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


@dataclass(frozen=True)
class Task:
    """A run, or a stack of runs, to be worked on.

    Attributes:
        key: Of the run; the driver's name for the stack.
        attempt: Its how manieth attempt; comes back with each report, so that stale ones can be told.
        work: Called in the worker; what it yields is reported one by one. Must be picklable. The driver's are of type
            `Training` or `StackTraining`, unless it was given others.
    """

    key: str
    attempt: int
    work: Callable[[], Iterator[object]]


@dataclass(frozen=True)
class Training:
    """The work of a task: training a run, or going on with it, in its folder.

    Attributes:
        folder: Where its checkpoints and its result come; an executor without a shared folder sets another.
        until: Pause after this epoch.
        ship_files: `Saved` and `Finished` carry the files that they speak of, and the executor puts them in place.
    """

    request: RunRequest
    folder: Path
    until: int | None = None
    ship_files: bool = False

    def __call__(self) -> Iterator[Event]:
        """Train, event by event; ends with `Paused` soon after the worker process was asked to stop."""
        from hiresnet_graph.train import run

        return run(
            self.request,
            self.folder,
            until=self.until,
            stop=stop_asked,
            dataset=loaded(self.request.data),
            ship_files=self.ship_files,
        )


@dataclass(frozen=True)
class StackTraining:
    """The work of a task: training a stack of runs, or going on with it, each run in its own folder."""

    request: StackRequest

    def __call__(self) -> Iterator[RunEvent | StackEnded]:
        """Train, event by event; all runs pause soon after the worker process was asked to stop."""
        from hiresnet_graph.stack import run_stack

        return run_stack(self.request, stop=stop_asked, dataset=loaded(self.request.runs[0].request.data))


@lru_cache(maxsize=1)
def loaded(source: DatasetKind) -> Dataset:
    """A data set, loaded once for all runs of a worker."""
    return load_dataset(source)


@dataclass(frozen=True)
class Failure:
    """The task raised an exception.

    Attributes:
        kind: `usage` if trying again cannot help (a wrong spec, missing data), `memory` if memory ran out, else
            `error`.
        message: Fit to be shown to a person.
        traceback: For the log.
    """

    kind: Literal["usage", "memory", "error"]
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """What a worker reports of an exception."""
        text = "".join(traceback.format_exception(error))
        if isinstance(error, HrgError):
            if isinstance(error, OutOfMemory):
                return cls("memory", str(error), text)
            return cls("error" if isinstance(error, RunError) else "usage", str(error), text)
        first_line = (str(error).splitlines() or [""])[0]
        message = f"{type(error).__name__}: {first_line}".removesuffix(": ")
        if is_of_memory(error):
            return cls("memory", f"memory ran out ({message}). Train fewer runs at a time, or smaller batches.", text)
        return cls("error", message, text)


# The last word of a task that has not lost its worker.
ENDS = (Finished, Paused, StackEnded, Failure)


@dataclass(frozen=True)
class Lost:
    """The worker is gone, and the task with it."""

    reason: str


@dataclass(frozen=True)
class Report:
    """Something that a task said. The last of a task is `Finished`, `Paused`, `StackEnded`, a `Failure` or `Lost`.

    Attributes:
        worker: Where, like `cpu 3` or a host's name.
    """

    key: str
    attempt: int
    event: Event | RunEvent | StackEnded | Failure | Lost
    worker: str


class Executor(Protocol):
    """Where tasks are worked on. Used by one thread, as a context: leaving it ends all workers."""

    @property
    def slots(self) -> int:
        """How many tasks can be worked on at one time, now; may change when machines come and go."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task. No more than `slots` are out at a time, plus as many that wait for a free worker."""
        ...

    def reports(self, timeout_s: float) -> Sequence[Report]:
        """What has been said since the last call; waits up to `timeout_s` for the first."""
        ...

    def stop(self) -> None:
        """Ask all tasks at work to save and to end, which they report as usual; tasks that wait are forgotten."""
        ...

    def close(self) -> None:
        """End all workers now. What they had not reported is lost."""
        ...

    def __enter__(self) -> Self:
        """The executor, ready for tasks."""
        ...

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        ...


_stop = threading.Event()


def ask_to_stop() -> None:
    """In a worker process: make the run that is trained here save and pause."""
    _stop.set()


def stop_asked() -> bool:
    """Whether this worker process was asked to stop."""
    return _stop.is_set()
