"""What a study will take, before it is trained: time, from a few steps that are really made, and room on the disk."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiresnet_graph.sweep.plan import Network, Networks, StudyPlan

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

_WARM_UP_S, _BUDGET_S = 3.0, 6.0
# Shares of a training step's time: looking at an image without learning from it.
_LOOKING = 1 / 3
_BYTES = 4
_RECORD_BYTES, _EPOCH_BYTES = 20_000, 800


@dataclass(frozen=True)
class Estimate:
    """How long it takes to train what is missing.

    Attributes:
        label: Of the network that was measured.
        images_s: Training images a second of that network, in one worker.
        time_s: Of all runs, with so many workers.
    """

    label: str
    images_s: float
    workers: int
    time_s: float


def disk_bytes(networks: Networks, plan: StudyPlan, missing: Collection[str], workers: int) -> int:
    """About how much the missing runs will write: two sets of weights each, and the checkpoints of those at work."""
    sizes = []
    for network, _ in _runs(networks, plan, missing):
        cost = network.architecture.cost()
        weights = _BYTES * (cost.parameters + cost.buffers)
        sizes.append((2 * weights + _RECORD_BYTES + _EPOCH_BYTES * network.recipe.epochs, weights))
    # A checkpoint has the weights, the best ones, and as much twice for the optimizer; the two newest are kept.
    at_work = sorted((weights for _, weights in sizes), reverse=True)[:workers]
    return sum(size for size, _ in sizes) + 8 * sum(at_work)


def estimate(
    networks: Networks,
    plan: StudyPlan,
    dataset: Dataset,
    missing: Collection[str],
    *,
    device: str,
    workers: int,
) -> Estimate | None:
    """How long the missing runs take: a few steps of one of them are measured, the others scaled by multiply-adds.

    Takes some 10 seconds, and writes nothing. None if nothing is missing.

    Args:
        device: Where the steps are made.
    """
    runs = list(_runs(networks, plan, missing))
    if not runs:
        return None
    mean = sum(network.info.macs for network, _ in runs) / len(runs)
    measured, key = min(runs, key=lambda run: abs(run[0].info.macs - mean))
    images_s = _images_per_second(measured, plan, key, dataset, device)
    sizes = {part: len(places) for part, places in dataset.split._asdict().items()}
    times = []
    for network, _ in runs:
        looked = network.recipe.epochs * sizes["validation"] + 2 * sizes["test"]
        images = network.recipe.epochs * sizes["train"] + _LOOKING * looked
        times.append(images / images_s * network.info.macs / max(1, measured.info.macs))
    return Estimate(measured.info.label, images_s, workers, max(sum(times) / workers, max(times)))


def _runs(networks: Networks, plan: StudyPlan, missing: Collection[str]) -> Iterator[tuple[Network, str]]:
    """Each run that is missing, once, with its network."""
    seen: set[str] = set()
    for row in plan.rows:
        if row.key in missing and row.key not in seen:
            seen.add(row.key)
            yield networks.members[row.network], row.key


def _images_per_second(network: Network, plan: StudyPlan, key: str, dataset: Dataset, device: str) -> float:
    """Training images a second, once the first steps are over."""
    import torch

    from hiresnet_graph.train.machine import choose_device, keep_memory
    from hiresnet_graph.train.parallel import ALONE
    from hiresnet_graph.train.program import fit
    from hiresnet_graph.train.trainer import Trainer

    keep_memory()
    request, where = plan.requests[key], choose_device(device)
    fitted = fit(dataset, network.architecture.plan)
    recipe = network.recipe.resolved(dataset.standard_augmentation)
    trainer = Trainer(network.architecture, fitted, recipe, request, where, ALONE)

    def trained(budget_s: float) -> tuple[float, float]:
        """Images that were trained on, those that were only looked at in their share, and the time it took."""
        steps = looked = 0
        start = time.perf_counter()

        def count(*_: int) -> None:
            nonlocal steps
            steps += 1

        def over() -> bool:
            return time.perf_counter() - start > budget_s

        while not over() and trainer.epoch < recipe.epochs:
            if trainer.advance(over, lambda: False, count) == "diverged":
                break
            looked += trainer.step == 0
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        images = steps * recipe.batch_size + _LOOKING * looked * len(dataset.split.validation)
        return images, time.perf_counter() - start

    first = trained(_WARM_UP_S)
    images, time_s = trained(_BUDGET_S) if first[1] < _BUDGET_S else first
    if not images:  # all epochs were over in the warm-up
        images, time_s = first
    return images / time_s
