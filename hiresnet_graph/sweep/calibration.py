"""What a study takes before it is trained: disk space, time, and the fastest execution plan on this machine.

Times are measured: worker processes train a few steps side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiresnet_graph.sweep.execution import ExecutionPlan, WorkerLayout
from hiresnet_graph.sweep.networks import Network, Networks
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.resources import memory_budget
from hiresnet_graph.sweep.stacks import RunGroup, stack_runs
from hiresnet_graph.train.record import Backend

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.sweep.throughput import ThroughputProbe

_BYTES = 4
_RECORD_BYTES, _EPOCH_BYTES = 20_000, 800
# Shorter studies are trained run by run.
_SHORT_S = 60.0
# Factor by which another plan must be faster than training each run by itself.
_WORTH = 1.05
# If few runs together reach less than this share of the best throughput on a CPU, larger stacks are not tried.
_HOPELESS = 0.8
_MAX_STACK = {"cpu": 16, "cuda": 256}


def estimate_disk_bytes(networks: Networks, plan: StudyPlan, missing: Collection[str], running: int) -> int:
    """The approximate size of what the missing runs write: weights and optimizer, and checkpoints of running ones.

    Args:
        running: Runs that are trained at one time.
    """
    sizes = []
    known: dict[int, int] = {}  # many runs share a network
    for network in _missing_networks(networks, plan, missing).values():
        arch = network.architecture
        if id(arch) not in known:
            cost = arch.cost()
            known[id(arch)] = _BYTES * (cost.parameters + cost.buffers)
        weights = known[id(arch)]
        sizes.append((4 * weights + _RECORD_BYTES + _EPOCH_BYTES * network.recipe.epochs, weights))
    # A checkpoint has the weights, the best ones, and twice as much for the optimizer; the two newest are kept.
    largest = sorted((weights for _, weights in sizes), reverse=True)[:running]
    return sum(size for size, _ in sizes) + 8 * sum(largest)


@dataclass(frozen=True)
class Measurement:
    """How long it takes to train the missing runs with an execution plan.

    Attributes:
        images_s: Training images per second of all workers; 0 if it could not be measured.
        time_s: Time of all runs.
    """

    plan: ExecutionPlan
    images_s: float
    time_s: float


@dataclass(frozen=True)
class CalibrationResult:
    """The fastest execution plan.

    Attributes:
        measured: All measured plans; the chosen one is not among them if nothing could be measured.
        is_short: Whether the study takes too little time to try stacks.
    """

    plan: ExecutionPlan
    measured: tuple[Measurement, ...]
    is_short: bool = False

    @property
    def chosen(self) -> Measurement | None:
        """The measurement of the chosen plan."""
        return next((each for each in self.measured if each.plan == self.plan), None)

    def __str__(self) -> str:
        """The result in one line."""
        speeds = [f"{each.images_s:,.0f} ({each.plan})" for each in self.measured if each.images_s]
        if not speeds:
            return f"No execution plan could be measured; the default is used: {self.plan}."
        short = " Stacks were not tried: the study is short." if self.is_short else ""
        return f"Fastest on this machine: {self.plan}. Images per second: {', '.join(speeds)}.{short}"


class Calibration:
    """Measures the missing runs of a study on this machine; there must be at least one.

    Args:
        groups: Runs that may be computed together.
        remaining: Epochs that are left of each missing run.
        default: A plan on these devices, whose layout, backend and stack size are varied.
    """

    def __init__(
        self,
        networks: Networks,
        plan: StudyPlan,
        groups: Sequence[RunGroup],
        dataset: Dataset,
        remaining: Mapping[str, int],
        devices: Sequence[str],
        default: ExecutionPlan,
    ) -> None:
        from hiresnet_graph.sweep.throughput import EVAL_COST_RATIO

        self._plan, self._missing, self._devices, self._default = plan, tuple(remaining), tuple(devices), default
        self._groups = groups
        self._budgets: dict[int, int | None] = {}
        runs = _missing_networks(networks, plan, remaining)
        of_group = ([key for key in group.keys if key in runs] for group in groups)
        self._keys = max(of_group, key=len, default=[]) or list(runs)
        mean = sum(runs[key].info.macs for key in self._keys) / len(self._keys)
        # The largest group is measured; the others are scaled by multiply-adds.
        self._typical = min(self._keys, key=lambda key: abs(runs[key].info.macs - mean))
        split = dataset.split
        images = 0.0
        for key, network in runs.items():
            evaluated = remaining[key] * len(split.validation) + 2 * len(split.test)
            trained = remaining[key] * len(split.train) + EVAL_COST_RATIO * evaluated
            images += trained * network.info.macs / max(1, mean)
        self._images = images / len(runs)  # of a run like the typical one

    @property
    def label(self) -> str:
        """Label of the network that is measured."""
        return self._plan.requests[self._typical].label

    def estimate(self, plan: ExecutionPlan) -> Measurement | None:
        """Measure one plan, which takes about 10 seconds; None if it cannot be measured."""
        with self._probe([plan.layout]) as probe:
            found = self._measure(probe, plan)
        return found if found.images_s else None

    def choose(self, layouts: Sequence[WorkerLayout]) -> CalibrationResult:
        """The fastest plan with one of the layouts; takes about 20 seconds, and more on a GPU.

        A study that is short when trained run by run is trained like that.
        """
        with self._probe(layouts) as probe:
            measured = [self._measure(probe, self._default.using(layout)) for layout in layouts]
            alone = min((each for each in measured if each.images_s), key=_time, default=None)
            if alone is None:
                return CalibrationResult(self._default.using(layouts[0]), ())
            is_short = alone.time_s <= _SHORT_S
            for backend in () if is_short else self._backends:
                self._measure_stacks(probe, layouts, backend, measured)
        fastest = min((each for each in measured if each.images_s), key=_time)
        chosen = fastest if fastest.time_s * _WORTH < alone.time_s else alone
        return CalibrationResult(chosen.plan, tuple(measured), is_short)

    @property
    def _is_cpu(self) -> bool:
        return self._devices == ("cpu",)

    @property
    def _backends(self) -> tuple[Backend, ...]:
        return ("stacked",) if self._is_cpu else ("graph", "branches", "stacked")

    def _measure_stacks(
        self, probe: ThroughputProbe, layouts: Sequence[WorkerLayout], backend: Backend, measured: list[Measurement]
    ) -> None:
        """Measure larger and larger stacks, as long as that is promising."""
        best = max(each.images_s for each in measured)
        for layout in layouts:
            last, sizes = 0.0, tuple(self._sizes(layout, backend))
            for size in sizes:
                # A GPU may compute twice as many runs in the same time; a CPU is busy with few.
                floor = best * (_HOPELESS if self._is_cpu else size / sizes[-1])
                found = self._measure(probe, self._default.using(layout, backend, size), floor)
                measured.append(found)
                if found.images_s < max(floor, _WORTH * last):
                    break
                last = found.images_s

    @property
    def _group(self) -> RunGroup | None:
        """The group of the measured network."""
        return next((group for group in self._groups if self._typical in group.keys), None)

    def _budget(self, layout: WorkerLayout) -> int | None:
        """The memory budget before anything is measured, because measuring takes memory, too."""
        if layout.workers not in self._budgets:
            self._budgets[layout.workers] = memory_budget(self._devices, layout.workers)
        return self._budgets[layout.workers]

    def _sizes(self, layout: WorkerLayout, backend: Backend) -> Iterator[int]:
        """Stack sizes to measure, up to the runs that there are for each worker."""
        group = self._group
        if group is None:
            return
        if backend == "graph":
            yield 1
            return
        largest = min(_MAX_STACK["cpu" if self._is_cpu else "cuda"], -(-len(self._keys) // layout.workers))
        smallest = max(2, group.stack((), backend).least)  # smaller ones are padded
        sizes = [size for size in group.sizes(backend, largest, self._budget(layout)) if size >= smallest]
        size = 4 if backend == "stacked" else 2
        while sizes and size < sizes[-1]:
            yield size
            size = sizes[-1] if self._is_cpu else 2 * size
        yield from sizes[-1:]

    def _measure(self, probe: ThroughputProbe, plan: ExecutionPlan, floor: float = 0.0) -> Measurement:
        from hiresnet_graph.sweep.throughput import Program

        budget = self._budget(plan.layout)
        stacks = stack_runs(self._groups, self._missing, plan.backend, plan.stack, budget=budget)
        backend = plan.backend if stacks else "eager"
        keys = [self._typical] if backend in ("eager", "graph") else self._keys[: plan.stack]
        together = None if backend == "eager" or self._group is None else self._group.stack(keys, backend)
        requests = tuple(plan.apply(self._plan.requests[key]) for key in keys)
        images_s = probe.images_s(plan.layout, Program(requests, together), floor)
        if not images_s:
            return Measurement(plan, 0.0, float("inf"))
        sizes = [len(stack.keys) for stack in stacks]
        sizes += [1] * (len(self._missing) - sum(sizes))
        # Runs beside the stacks are assumed to be as fast; they are few.
        busiest = _largest_load(sizes, plan.workers)
        return Measurement(plan, images_s, busiest * self._images * plan.workers / images_s)

    def _probe(self, layouts: Sequence[WorkerLayout]) -> ThroughputProbe:
        from hiresnet_graph.sweep.throughput import ThroughputProbe

        return ThroughputProbe(layouts, self._devices, self._plan.requests[self._typical].data)


def _time(measurement: Measurement) -> float:
    return measurement.time_s


def _largest_load(sizes: Sequence[int], workers: int) -> int:
    """The work of the busiest worker, if each worker that is free takes the next task."""
    loads = [0] * workers
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)


def _missing_networks(networks: Networks, plan: StudyPlan, missing: Collection[str]) -> dict[str, Network]:
    """The network of each missing run, in the order of the study's rows."""
    found: dict[str, Network] = {}
    keys = frozenset(missing)
    for row in plan.rows:
        if row.key in keys:
            found.setdefault(row.key, networks.members[row.network])
    return found
