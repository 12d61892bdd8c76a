"""How fast runs are trained on this machine: worker processes side by side, as they will be, make a few steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from hiresnet_graph.architecture import loads
from hiresnet_graph.data import DatasetKind
from hiresnet_graph.stack.trainer import StackTrainer
from hiresnet_graph.sweep.calibration import LOOKING
from hiresnet_graph.sweep.executors.base import ENDS, Lost, Task, loaded
from hiresnet_graph.sweep.executors.local import LocalExecutor
from hiresnet_graph.sweep.ways import Backend, Crew
from hiresnet_graph.train.environment import choose_device, retain_freed_memory
from hiresnet_graph.train.events import Paused
from hiresnet_graph.train.parallel import SINGLE_PROCESS
from hiresnet_graph.train.prepare import prepare_run
from hiresnet_graph.train.request import RunRequest, StackBackend
from hiresnet_graph.train.state import TrainingState
from hiresnet_graph.train.trainer import Trainer

_WARM_UP_S, _SLICE_S, _BUDGET_S = 0.5, 0.25, 1.5
_SLICES = 2  # at least, of a step or more each
_LIMIT_S = {"cpu": 30.0, "cuda": 120.0}  # of one measurement
_BEGIN_S = 8.0  # networks are built, and small ones measured
_HOPELESS = 4  # so many times too slow is told by the first step
_ENDLESS = 10**6  # epochs


@dataclass(frozen=True)
class Program:
    """Runs that a worker computes at one time.

    Attributes:
        whole: A network of which that of each run is a part, as a spec in YAML.
    """

    requests: tuple[RunRequest, ...]
    whole: str
    backend: Backend = "eager"


class Gauge:
    """Worker processes that measure. As a context, they are there within it.

    Args:
        crews: Those that will be measured, one at a time.
        data: Of all programs.
    """

    def __init__(self, crews: Sequence[Crew], devices: Sequence[str], data: DatasetKind) -> None:
        self._kind, self._data = devices[0].split(":")[0], data
        self._executors: Mapping[Crew, LocalExecutor] = {
            crew: LocalExecutor(crew.workers, devices=devices, threads=crew.threads) for crew in crews
        }
        self._cold = set(crews)

    def __enter__(self) -> Self:
        """Let all workers of all crews begin and load what they need, at the same time."""
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        """Have workers ready that have not begun yet, or were ended."""
        for crew in self._cold:
            _submit(self._executors[crew], crew, _Preparation(self._data))
        for crew in self._cold:
            _answers(self._executors[crew], crew, 10 * _LIMIT_S[self._kind])
        self._cold.clear()

    def __exit__(self, *error: object) -> None:
        for executor in self._executors.values():
            executor.close()

    def images_s(self, crew: Crew, program: Program, floor: float = 0.0) -> float:
        """Training images a second that all workers of a crew compute, each with a program like this.

        0 if a worker cannot compute it, or takes too long to tell.

        Args:
            floor: What is slower than this is not measured well.
        """
        if crew in self._cold:
            self._prepare()
        executor, limit_s = self._executors[crew], _LIMIT_S[self._kind]
        requests = tuple(replace(request, threads=crew.threads) for request in program.requests)
        if floor and self._kind == "cpu":  # a step that is not over after this tells enough
            step = requests[0].recipe.batch_size * len(requests) * crew.workers
            limit_s = min(limit_s, _BEGIN_S + _HOPELESS * step / floor)
        _submit(executor, crew, _Sample(replace(program, requests=requests), floor / crew.workers))
        speeds = _answers(executor, crew, limit_s)
        if len(speeds) < crew.workers:
            executor.close()
            self._cold.add(crew)
            return 0.0
        return sum(speeds)


def _submit(executor: LocalExecutor, crew: Crew, work: _Preparation | _Sample) -> None:
    """Have the same done by each worker."""
    for number in range(crew.workers):
        executor.submit(Task(str(number), 0, work))


def _answers(executor: LocalExecutor, crew: Crew, limit_s: float) -> list[float]:
    """What the workers have measured, once all have ended or time is over."""
    deadline, ended = time.monotonic() + limit_s, 0
    found: list[float] = []
    while ended < crew.workers and time.monotonic() < deadline:
        for report in executor.reports(0.05):
            if isinstance(report.event, _Speed):
                found.append(report.event.images_s)
            ended += isinstance(report.event, (*ENDS, Lost))
    return found


# ---- in a worker


@dataclass(frozen=True)
class _Speed:
    """Training images a second of one worker."""

    images_s: float


@dataclass(frozen=True)
class _Preparation:
    """The work of a task that only makes its worker ready."""

    data: DatasetKind

    def __call__(self) -> Iterator[Paused]:
        loaded(self.data)  # and all that this file imports, which takes longer
        yield Paused(0)


@dataclass(frozen=True)
class _Sample:
    """The work of a task that only measures: steps of runs, of which nothing is kept.

    Attributes:
        floor: As of `Gauge.images_s`, for this worker.
    """

    program: Program
    floor: float

    def __call__(self) -> Iterator[_Speed | Paused]:
        retain_freed_memory()
        advance, clock = self._begun()
        while not clock.is_over:
            if advance() == "diverged":
                break
        yield _Speed(clock.images_s)
        yield Paused(0)

    def _begun(self) -> tuple[Callable[[], str], _Clock]:
        """What to call to go on training until the clock says that it is time, and the clock."""
        program, assigned = self.program, []
        archs = {request.spec: loads(request.spec, request.label) for request in program.requests}
        for request in program.requests:
            # Weights that hardly change cannot diverge, and a run that does not end needs no second one.
            recipe = request.recipe.model_copy(update={"epochs": _ENDLESS, "lr": 1e-12})
            endless = replace(request, recipe=recipe)
            assigned.append(prepare_run(endless, Path(), arch=archs[request.spec], dataset=loaded(request.data)))
        first, device = assigned[0], choose_device(program.requests[0].device)
        parts, runs = first.dataset.split, len(assigned)
        step, epoch = runs * min(first.recipe.batch_size, len(parts.train)), runs * LOOKING * len(parts.validation)

        def done(course: TrainingState) -> float:
            return step * (course.epoch * course.steps + course.step) + epoch * course.epoch

        if program.backend == "eager":
            alone = Trainer(first.arch, first.dataset, first.recipe, first.request, device, SINGLE_PROCESS)
            clock = _Clock(lambda: done(alone.course), self.floor, device)
            return lambda: alone.advance(clock, _never, None), clock
        kind: StackBackend = "stacked" if program.backend == "stacked" else "branches"
        stack = StackTrainer(assigned, loads(program.whole, "whole").plan, kind, device)
        clock = _Clock(lambda: done(stack.course), self.floor, device)
        return lambda: stack.advance(clock, _never), clock


def _never() -> bool:
    return False


class _Clock:
    """Asked after each step whether it is time to end; knows then how fast the steps were.

    Args:
        done: Images so far.
        floor: What is slower need not be known well.
    """

    def __init__(self, done: Callable[[], float], floor: float, device: torch.device) -> None:
        self._done, self._floor, self._device = done, floor, device
        self._start = self._time = time.monotonic()
        self._images = 0.0
        self._is_warm = self.is_over = False
        self._slices: list[float] = []

    @property
    def images_s(self) -> float:
        """Images a second, in a slice of the time like most."""
        return statistics.median(self._slices) if self._slices else 0.0

    def __call__(self) -> bool:
        """Note how far it is, once a slice of the time is over."""
        least_s = _SLICE_S if self._is_warm else _WARM_UP_S
        images = self._done()
        if time.monotonic() - self._time < least_s or images == self._images:
            return False
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.monotonic()
        speed = (images - self._images) / (now - self._time)
        if self._is_warm:
            self._slices.append(speed)
            is_long = now - self._start > _BUDGET_S and len(self._slices) >= _SLICES
            self.is_over = is_long or speed < self._floor
        elif speed * _HOPELESS < self._floor:
            self._slices, self.is_over = [speed], True
        self._time, self._images, self._is_warm = now, images, True
        return self.is_over
