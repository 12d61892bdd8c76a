"""Training throughput on this machine, measured by worker processes that train a few steps side by side."""

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
from hiresnet_graph.sweep.execution import WorkerLayout
from hiresnet_graph.sweep.executors.base import ENDS, Lost, Task, cached_dataset
from hiresnet_graph.sweep.executors.local import LocalExecutor
from hiresnet_graph.sweep.stacks import RunStack
from hiresnet_graph.train.environment import choose_device, retain_freed_memory
from hiresnet_graph.train.events import Paused
from hiresnet_graph.train.prepare import prepare_run
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.single_trainer import SingleTrainer
from hiresnet_graph.train.trainer import Trainer

EVAL_COST_RATIO = 1 / 3
"""Time of evaluating an image, as a share of the time of training with it."""
_WARM_UP_S, _SLICE_S, _BUDGET_S = 0.5, 0.25, 1.5
_MIN_SLICES = 2  # of one step or more each
_LIMIT_S = {"cpu": 30.0, "cuda": 120.0}  # of one measurement
_BUILD_S = 8.0  # for building networks and measuring small ones
_HOPELESS = 4  # a first step that is this many times too slow suffices
_ENDLESS = 10**6  # epochs


@dataclass(frozen=True)
class Program:
    """Runs that a worker computes at one time.

    Attributes:
        stack: The stack that they are; None if there is one run, which is computed by itself.
    """

    requests: tuple[RunRequest, ...]
    stack: RunStack | None = None


class ThroughputProbe:
    """Worker processes that measure throughput. A context manager: they exist within it.

    Args:
        layouts: Layouts to measure, one at a time.
        data: The data of all programs.
    """

    def __init__(self, layouts: Sequence[WorkerLayout], devices: Sequence[str], data: DatasetKind) -> None:
        self._kind, self._data = devices[0].split(":")[0], data
        self._executors: Mapping[WorkerLayout, LocalExecutor] = {
            layout: LocalExecutor(layout.workers, devices=devices, threads=layout.threads) for layout in layouts
        }
        self._cold = set(layouts)

    def __enter__(self) -> Self:
        """Start all workers of all layouts at the same time, and let them load what they need."""
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        """Start the workers that were not started yet, or were ended."""
        for layout in self._cold:
            _submit(self._executors[layout], layout, _Preparation(self._data))
        for layout in self._cold:
            _throughputs(self._executors[layout], layout, 10 * _LIMIT_S[self._kind])
        self._cold.clear()

    def __exit__(self, *error: object) -> None:
        for executor in self._executors.values():
            executor.close()

    def images_s(self, layout: WorkerLayout, program: Program, floor: float = 0.0) -> float:
        """Training images per second of all workers of a layout, each with a program like this.

        0 if a worker cannot compute the program, or takes too long.

        Args:
            floor: A lower throughput is not measured precisely.
        """
        if layout in self._cold:
            self._prepare()
        executor, limit_s = self._executors[layout], _LIMIT_S[self._kind]
        if floor and self._kind == "cpu":  # if a single step takes longer than this, that suffices
            step = program.requests[0].recipe.batch_size * len(program.requests) * layout.workers
            limit_s = min(limit_s, _BUILD_S + _HOPELESS * step / floor)
        _submit(executor, layout, _Sample(program, floor / layout.workers))
        found = _throughputs(executor, layout, limit_s)
        if len(found) < layout.workers:
            executor.close()
            self._cold.add(layout)
            return 0.0
        return sum(found)


def _submit(executor: LocalExecutor, layout: WorkerLayout, work: _Preparation | _Sample) -> None:
    """Submit the same work to each worker."""
    for number in range(layout.workers):
        executor.submit(Task(str(number), 0, work))


def _throughputs(executor: LocalExecutor, layout: WorkerLayout, limit_s: float) -> list[float]:
    """What the workers have measured once all have ended, or the time limit is reached."""
    deadline, ended = time.monotonic() + limit_s, 0
    found: list[float] = []
    while ended < layout.workers and time.monotonic() < deadline:
        for report in executor.reports(0.05):
            if isinstance(report.event, _Throughput):
                found.append(report.event.images_s)
            ended += isinstance(report.event, (*ENDS, Lost))
    return found


# ---- in a worker


@dataclass(frozen=True)
class _Throughput:
    """Training images per second of one worker."""

    images_s: float


@dataclass(frozen=True)
class _Preparation:
    """A task that only prepares its worker."""

    data: DatasetKind

    def __call__(self) -> Iterator[Paused]:
        cached_dataset(self.data)  # and the imports of this file, which take longer
        yield Paused(0)


@dataclass(frozen=True)
class _Sample:
    """A task that only measures: steps of runs whose results are dropped.

    Attributes:
        floor: As for `ThroughputProbe.images_s`, of this worker.
    """

    program: Program
    floor: float

    def __call__(self) -> Iterator[_Throughput | Paused]:
        retain_freed_memory()
        advance, clock = self._started()
        while not clock.is_over:
            if advance() == "diverged":
                break
        yield _Throughput(clock.images_s)
        yield Paused(0)

    def _started(self) -> tuple[Callable[[], str], _Clock]:
        """A function that trains until the clock stops it, and the clock."""
        program, assigned = self.program, []
        archs = {request.spec: loads(request.spec, request.label) for request in program.requests}
        for request in program.requests:
            # With hardly changing weights the run cannot diverge, and it does not end.
            recipe = request.recipe.model_copy(update={"epochs": _ENDLESS, "lr": 1e-12, "patience": None})
            endless = replace(request, recipe=recipe)
            assigned.append(
                prepare_run(endless, Path(), arch=archs[request.spec], dataset=cached_dataset(request.data))
            )
        first, device = assigned[0], choose_device(program.requests[0].device)
        parts, runs = first.dataset.split, len(assigned)
        step, epoch = (
            runs * min(first.recipe.batch_size, len(parts.train)),
            runs * EVAL_COST_RATIO * len(parts.validation),
        )

        stack = program.stack
        trainer: Trainer = SingleTrainer(first, device) if stack is None else stack.trainer(assigned, device)

        def done() -> float:
            return step * trainer.state.total_steps + epoch * trainer.state.epoch

        clock = _Clock(done, self.floor, device)
        return lambda: trainer.advance(clock, _never), clock


def _never() -> bool:
    return False


class _Clock:
    """Called after each step; stops the measurement, and knows the throughput then.

    Args:
        done: Returns the number of images so far.
        floor: A lower throughput is not measured precisely.
    """

    def __init__(self, done: Callable[[], float], floor: float, device: torch.device) -> None:
        self._done, self._floor, self._device = done, floor, device
        self._start = self._time = time.monotonic()
        self._images = 0.0
        self._is_warm = self.is_over = False
        self._slices: list[float] = []

    @property
    def images_s(self) -> float:
        """Images per second: the median of the time slices."""
        return statistics.median(self._slices) if self._slices else 0.0

    def __call__(self) -> bool:
        """Measure a finished time slice; returns whether the measurement is finished."""
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
            is_long = now - self._start > _BUDGET_S and len(self._slices) >= _MIN_SLICES
            self.is_over = is_long or speed < self._floor
        elif speed * _HOPELESS < self._floor:
            self._slices, self.is_over = [speed], True
        self._time, self._images, self._is_warm = now, images, True
        return self.is_over
