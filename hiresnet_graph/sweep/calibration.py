"""What a study will take, before it is trained: room on the disk, time, and the way that is fastest on this machine.

Times come from steps that are really made, by worker processes side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiresnet_graph.stack.stackable import FEWEST
from hiresnet_graph.sweep.plan import Network, Networks, StudyPlan
from hiresnet_graph.sweep.stacks import Bucket, stacks_of
from hiresnet_graph.sweep.ways import Backend, Crew, Way, room_of

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.sweep.speed import Gauge

LOOKING = 1 / 3
"""Share of a training step's time that it takes to look at an image without learning from it."""
_BYTES = 4
_RECORD_BYTES, _EPOCH_BYTES = 20_000, 800
# A study that takes no longer than this is trained run by run.
_SHORT_S = 60.0
# So much faster must another way be than to train each run by itself.
_WORTH = 1.05
# Where a CPU computes few runs together slower than this, compared with the best, more of them are not tried.
_HOPELESS = 0.8
_MOST = {"cpu": 16, "cuda": 256}


def disk_bytes(networks: Networks, plan: StudyPlan, missing: Collection[str], at_work: int) -> int:
    """About how much the missing runs will write: two sets of weights each, and the checkpoints of those at work."""
    sizes = []
    for network, _ in _runs(networks, plan, missing):
        cost = network.architecture.cost()
        weights = _BYTES * (cost.parameters + cost.buffers)
        sizes.append((2 * weights + _RECORD_BYTES + _EPOCH_BYTES * network.recipe.epochs, weights))
    # A checkpoint has the weights, the best ones, and as much twice for the optimizer; the two newest are kept.
    largest = sorted((weights for _, weights in sizes), reverse=True)[:at_work]
    return sum(size for size, _ in sizes) + 8 * sum(largest)


@dataclass(frozen=True)
class Estimate:
    """How long it takes to train what is missing.

    Attributes:
        images_s: Training images a second, of all workers together.
        time_s: Of all runs.
    """

    way: Way
    images_s: float
    time_s: float


@dataclass(frozen=True)
class Choice:
    """The way that was found to be fastest.

    Attributes:
        measured: All that were measured; the chosen one is none of them, if nothing could be measured.
        is_short: The study takes too little time for stacks to be tried.
    """

    way: Way
    measured: tuple[Estimate, ...]
    is_short: bool = False

    @property
    def estimate(self) -> Estimate | None:
        """Of the chosen way."""
        return next((each for each in self.measured if each.way == self.way), None)

    def __str__(self) -> str:
        """In one line."""
        told = [f"{each.images_s:,.0f} ({each.way})" for each in self.measured if each.images_s]
        if not told:
            return f"No way to train could be measured, so this is the usual one: {self.way}."
        short = " Stacks were not tried: the study is short." if self.is_short else ""
        return f"Measured on this machine, the fastest way is {self.way}. Images a second: {', '.join(told)}.{short}"


class Calibration:
    """The missing runs of a study on this machine; there is one at least."""

    def __init__(
        self,
        networks: Networks,
        plan: StudyPlan,
        buckets: Sequence[Bucket],
        dataset: Dataset,
        missing: Collection[str],
        devices: Sequence[str],
    ) -> None:
        self._plan, self._missing, self._devices = plan, missing, tuple(devices)
        self._buckets = buckets
        self._rooms: dict[int, int | None] = {}
        runs = {key: network for network, key in _runs(networks, plan, missing)}
        of_bucket = ([key for key in bucket.keys if key in missing] for bucket in buckets)
        self._keys = max(of_bucket, key=len, default=[]) or list(runs)
        mean = sum(runs[key].info.macs for key in self._keys) / len(self._keys)
        # The largest bucket is measured; the others are scaled by multiply-adds.
        self._typical = min(self._keys, key=lambda key: abs(runs[key].info.macs - mean))
        parts = dataset.split
        images = 0.0
        for network in runs.values():
            looked = network.recipe.epochs * len(parts.validation) + 2 * len(parts.test)
            seen = network.recipe.epochs * len(parts.train) + LOOKING * looked
            images += seen * network.info.macs / max(1, mean)
        self._images = images / len(runs)  # of a run like the typical one

    @property
    def label(self) -> str:
        """Of the network that is measured."""
        return self._plan.requests[self._typical].label

    def estimate(self, way: Way) -> Estimate | None:
        """How long it takes in one way, which takes some 10 seconds; None if it cannot be measured."""
        with self._gauge([way.crew]) as gauge:
            found = self._measured(gauge, way)
        return found if found.images_s else None

    def choose(self, crews: Sequence[Crew]) -> Choice:
        """The fastest way with one of some crews; takes some 20 seconds, and more on a GPU.

        A study that is short if its runs are trained one by one is trained like this.
        """
        with self._gauge(crews) as gauge:
            measured = [self._measured(gauge, Way(crew)) for crew in crews]
            best = min((each for each in measured if each.images_s), key=_time, default=None)
            if best is None:
                return Choice(Way(crews[0]), ())
            is_short = best.time_s <= _SHORT_S
            for backend in () if is_short else self._backends:
                self._try(gauge, crews, backend, measured)
        fastest = min((each for each in measured if each.images_s), key=_time)
        return Choice((fastest if fastest.time_s * _WORTH < best.time_s else best).way, tuple(measured), is_short)

    @property
    def _is_cpu(self) -> bool:
        return self._devices == ("cpu",)

    @property
    def _backends(self) -> tuple[Backend, ...]:
        return ("stacked",) if self._is_cpu else ("graph", "branches", "stacked")

    def _try(self, gauge: Gauge, crews: Sequence[Crew], backend: Backend, measured: list[Estimate]) -> None:
        """Measure larger and larger stacks, as long as that is promising."""
        best = max(each.images_s for each in measured)
        for crew in crews:
            last, sizes = 0.0, tuple(self._sizes(crew, backend))
            for size in sizes:
                # A GPU may compute twice as many runs in the same time; a CPU is busy with few.
                floor = best * (_HOPELESS if self._is_cpu else size / sizes[-1])
                found = self._measured(gauge, Way(crew, backend, size), floor)
                measured.append(found)
                if found.images_s < max(floor, _WORTH * last):
                    break
                last = found.images_s

    @property
    def _bucket(self) -> Bucket | None:
        """That of the network that is measured."""
        return next((bucket for bucket in self._buckets if self._typical in bucket.keys), None)

    def _room(self, crew: Crew) -> int | None:
        """As of `room_of`, before anything is measured: what is measured takes memory, too."""
        if crew.workers not in self._rooms:
            self._rooms[crew.workers] = room_of(self._devices, crew.workers)
        return self._rooms[crew.workers]

    def _sizes(self, crew: Crew, backend: Backend) -> Iterator[int]:
        """How many runs to compute together: up to what is there for each worker."""
        bucket = self._bucket
        if bucket is None:
            return
        if backend == "graph":
            yield 1
            return
        most = min(_MOST["cpu" if self._is_cpu else "cuda"], -(-len(self._keys) // crew.workers))
        most = bucket.fitting(most, "stacked" if backend == "stacked" else "branches", self._room(crew))
        least, size = (FEWEST, 4) if backend == "stacked" else (2, 2)
        while size < most:
            yield size
            size = most if self._is_cpu else 2 * size
        if most >= least:
            yield most

    def _measured(self, gauge: Gauge, way: Way, floor: float = 0.0) -> Estimate:
        from hiresnet_graph.sweep.speed import Program

        stacks = stacks_of(self._buckets, self._missing, way.backend, way.stack, room=self._room(way.crew))
        backend = way.backend if stacks else "eager"
        keys = [self._typical] if backend in ("eager", "graph") else self._keys[: way.stack]
        whole = "" if self._bucket is None else self._bucket.whole.to_yaml()
        images_s = gauge.images_s(
            way.crew, Program(tuple(self._plan.requests[key] for key in keys), whole, backend), floor
        )
        if not images_s:
            return Estimate(way, 0.0, float("inf"))
        sizes = [len(stack.keys) for stack in stacks]
        sizes += [1] * (len(self._missing) - sum(sizes))
        # What is trained alone beside stacks is taken to be as fast: that is not known, and it is little.
        return Estimate(way, images_s, _longest(sizes, way.crew.workers) * self._images * way.crew.workers / images_s)

    def _gauge(self, crews: Sequence[Crew]) -> Gauge:
        from hiresnet_graph.sweep.speed import Gauge

        return Gauge(crews, self._devices, self._plan.requests[self._typical].data)


def _time(estimate: Estimate) -> float:
    return estimate.time_s


def _longest(sizes: Sequence[int], workers: int) -> int:
    """How much the worker with the most work does, if each that is free takes the next."""
    loads = [0] * workers
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)


def _runs(networks: Networks, plan: StudyPlan, missing: Collection[str]) -> Iterator[tuple[Network, str]]:
    """Each run that is missing, once, with its network."""
    seen: set[str] = set()
    for row in plan.rows:
        if row.key in missing and row.key not in seen:
            seen.add(row.key)
            yield networks.members[row.network], row.key
