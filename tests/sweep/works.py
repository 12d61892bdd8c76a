"""Studies and runs that compute nothing, for tests of the ledger, the driver and executors; workers import it."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hiresnet_graph.data import DigitsData
from hiresnet_graph.errors import OutOfMemory, RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.stack.grouping import SupergraphWork
from hiresnet_graph.sweep.executors.base import Failure, Task, TaskReport, stop_requested
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan
from hiresnet_graph.sweep.results import NetworkInfo
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
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import RESULT, Epoch, RunRecord, Seeds
from hiresnet_graph.train.request import RunRequest
from tests.report.studies import MACHINE


def key_of(label: str, seed: int, recipe: Recipe) -> str:
    return hashlib.sha256(repr((label, seed, recipe.mathematics())).encode()).hexdigest()[:24]


def study(
    labels: Sequence[str] = ("none", "full"), seeds: Sequence[int] = (0, 1), *, recipe: Recipe | None = None
) -> StudyPlan:
    """A study without networks. The labels determine what its runs do; see `Quick`."""
    recipe = recipe or Recipe(epochs=2)
    requests = {
        key_of(label, seed, recipe): RunRequest(
            spec=label, label=label, seeds=Seeds(seed, seed), data=DigitsData(), recipe=recipe
        )
        for label in labels
        for seed in seeds
    }
    return StudyPlan(
        name="study",
        architecture="tiny",
        data="digits",
        data_fingerprint="data",
        recipe=recipe.model_dump(mode="json"),
        baseline=None,
        networks=tuple(NetworkInfo(label, {}, f"plan of {label}", 10, 20) for label in labels),
        rows=tuple(
            PlannedRow(i, Seeds(seed, seed), key_of(label, seed, recipe))
            for i, label in enumerate(labels)
            for seed in seeds
        ),
        requests=requests,
        subsets_of=(),
        text="name: study\n",
    )


def epoch(number: int) -> Epoch:
    return Epoch(
        epoch=number,
        lr=0.01,
        train_loss=1 / number,
        train_accuracy=0.5,
        validation_loss=2 / number,
        validation_accuracy=1 - 1 / (number + 1),
        validation_top_k=1.0,
        time_s=0.25,
    )


def record(request: RunRequest, *, outcome: str = "complete") -> RunRecord:
    return RunRecord(
        key=key_of(request.label, request.seeds.init, request.recipe),
        architecture="tiny",
        variant=request.label,
        seeds=request.seeds,
        data="digits",
        data_fingerprint="data",
        recipe=request.recipe,
        plan=f"plan of {request.label}",
        parameters=10,
        macs=20,
        outcome=outcome,  # type: ignore[arg-type]
        test_accuracy=0.5 if outcome == "complete" else None,
        epochs=tuple(epoch(i + 1) for i in range(request.recipe.epochs)),
        machine=MACHINE,
        time_s=1.0,
    )


@dataclass(frozen=True)
class Quick:
    """A run that ends at once; the first word of its label chooses a failure.

    Each attempt leaves a file in the run's folder, so that it can be counted.
    """

    request: RunRequest
    folder: Path
    until: int | None = None

    def __call__(self) -> Iterator[Event]:
        make_folder(self.folder)
        word = self.request.label.split("-")[0]
        attempt = len(list(self.folder.glob("attempt*"))) + 1
        (self.folder / f"attempt{attempt}-{os.getpid()}").touch()
        if word == "usage":
            raise UsageError("the network is wrong.")
        done = int((self.folder / "saved").read_text()) if (self.folder / "saved").exists() else 0
        yield Started(done, MACHINE)
        for number in range(done + 1, self.request.recipe.epochs + 1):
            yield EpochDone(epoch(number))
            if word == "slow" and attempt == 1:
                for _ in range(500):
                    if stop_requested():
                        break
                    time.sleep(0.02)
            if word == "stuck":
                time.sleep(1000)
            if word == "fails" or (word == "recovers" and attempt < 3):
                raise RunError("the disk is full.")
            if word == "dies" or (word == "falls" and attempt < 3):
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "exits":
                os._exit(7)
            if word == "hungry":
                bytearray(1 << 50)
            (self.folder / "saved").write_text(str(number))
            yield Saved(number)
            if number == self.until or stop_requested():
                yield Paused(number)
                return
        if word == "silent":
            return
        result = record(self.request, outcome="diverged" if word == "nan" else "complete")
        if word == "other":
            result = result.model_copy(update={"key": "0" * 24})
        write_atomic(self.folder / RESULT, result.model_dump_json().encode())
        yield Finished(result)


@dataclass(frozen=True)
class QuickStack:
    """Runs like `Quick`, an event of each in turn. An exception of a run fails the stack, except for wrong usage.

    There is no memory for more than 3 runs together with one whose label begins with `big`.
    """

    work: SupergraphWork

    def __call__(self) -> Iterator[RunEvent | StackEnded]:
        runs = self.work.request.runs
        works = {run.key: iter(Quick(run.request, run.folder)()) for run in runs}
        if len(works) > 3 and any(run.request.label.startswith("big") for run in runs):
            raise OutOfMemory("memory ran out.")
        while works:
            for key, work in list(works.items()):
                try:
                    event = next(work)
                except (StopIteration, UsageError) as error:
                    del works[key]
                    if isinstance(error, UsageError):
                        yield RunEvent(key, Refused(str(error)))
                else:
                    yield RunEvent(key, event)
        yield StackEnded()


@dataclass
class Inline:
    """An executor that works in this process, and can be made to send wrong reports."""

    slots: int = 2
    tasks: deque[Task] = field(default_factory=deque)
    extra: list[TaskReport] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        found, self.extra = self.extra, []
        if not self.tasks:
            return found
        task = self.tasks.popleft()
        try:
            for event in task.work():
                found.append(TaskReport(task.key, task.attempt, event, "here"))
        except Exception as error:
            found.append(TaskReport(task.key, task.attempt, Failure.of(error), "here"))
        return found

    def stop(self) -> None:
        self.tasks.clear()

    def close(self) -> None:
        self.tasks.clear()
