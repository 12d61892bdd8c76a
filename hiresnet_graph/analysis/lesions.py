"""What a trained network does without some of its edges, without training it again.

Axes: B images of a batch, N images.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import torch

from hiresnet_graph.analysis.probes import Compute, ProbedNetwork, call_directly
from hiresnet_graph.errors import UsageError
from hiresnet_graph.plan import Call
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.train.evaluation import last_step

Replacement = Literal["zero", "mean", "resample"]
"""What replaces the value of an edge: zeros, its mean over images, or its value for another image."""
Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
"""Gives the batches of images and labels, the same each time."""
_MAX_SETS = 100_000


def lesion(
    network: ProbedNetwork,
    batches: Batches,
    sets: Sequence[Collection[str]],
    replacement: Replacement = "zero",
    *,
    seed: int = 0,
    forward: Compute = call_directly,
) -> list[float]:
    """The accuracy (0 to 1) of a network with each of some sets of edges replaced, at its last readout step.

    The value of an edge is replaced where it arrives, after its projection, scale and gate. With zeros, the accuracy is
    that of the network with `scale: 0` on these edges and the same weights; where values are added, also that of the
    network without the edges. An empty set gives the accuracy of the network as it is. In a network in time, an edge is
    replaced at all steps, by the mean of each step, or by the values of the same other image.

    Args:
        batches: With `resample`, the other image is of the same batch: mix the classes.
        sets: Names of edges, like those in `network.edges`.
        replacement: See `Replacement`. The mean is that over the images of `batches`, of each channel and position.
        seed: Of the other images.
        forward: See `Compute`.

    Raises:
        UsageError: There is no edge of a name; or no images.
    """
    chosen = [_calls_of(network, edges) for edges in sets]
    means = _means(network, batches, set().union(*chosen), forward) if replacement == "mean" else {}
    readers = [network.readers(calls) for calls in chosen]
    keep = _boundary(readers) | (set().union(*chosen) if replacement == "resample" else set())
    correct, images = [0] * len(sets), 0
    for index, (x_BCHW, labels_B) in enumerate(batches()):
        values: dict[str, torch.Tensor] = {}
        others_B = other_images(len(labels_B), derive_seed(seed, "resample", index)).to(x_BCHW.device)

        def intact(x_BCHW: torch.Tensor, values: dict[str, torch.Tensor] = values) -> torch.Tensor:
            values |= network.run(x_BCHW, keep=keep)
            return network.output(values)

        logits = last_step(forward(intact, x_BCHW))
        for i, calls in enumerate(readers):
            if calls:
                visit = _Replace(chosen[i], replacement, means, values, others_B)

                def lesioned(_: torch.Tensor, calls: Sequence[Call] = calls, visit: _Replace = visit) -> torch.Tensor:
                    return network.rerun(visit.values, calls, visit)

                found = last_step(forward(lesioned, x_BCHW))
            else:
                found = logits
            correct[i] += int((found.argmax(1) == labels_B).sum())
        images += len(labels_B)
    if not images:
        raise UsageError("there are no images to evaluate the network on.")
    return [number / images for number in correct]


def random_sets(edges: Sequence[str], size: int, draws: int, seed: int = 0) -> list[frozenset[str]]:
    """Different random sets of some edges, each equally probable; all sets, if there are at most `draws`."""
    total = math.comb(len(edges), size)
    generator = random.Random(derive_seed(seed, "random edges", size))
    if total <= draws:
        return [frozenset(found) for found in itertools.combinations(edges, size)]
    if total <= _MAX_SETS:
        return [frozenset(found) for found in generator.sample(list(itertools.combinations(edges, size)), draws)]
    found: dict[frozenset[str], None] = {}
    while len(found) < draws:
        found.setdefault(frozenset(generator.sample(list(edges), size)))
    return list(found)


class _Replace:
    """Replaces the values of some calls."""

    def __init__(
        self,
        calls: Collection[str],
        replacement: Replacement,
        means: dict[str, torch.Tensor],
        values: dict[str, torch.Tensor],
        others_B: torch.Tensor,
    ) -> None:
        self.calls, self.replacement, self.means = calls, replacement, means
        self.values, self.others_B = values, others_B

    def __call__(self, call: Call, value: torch.Tensor) -> torch.Tensor:
        if call.name not in self.calls:
            return value
        if self.replacement == "zero":
            return torch.zeros_like(value)
        if self.replacement == "mean":
            return self.means[call.name].to(value.dtype).expand_as(value)
        return self.values[call.name].index_select(0, self.others_B)


def _calls_of(network: ProbedNetwork, edges: Collection[str]) -> set[str]:
    """The probes of some edges; at all steps, in a network in time."""
    for name in edges:
        if name not in network.edges:
            raise UsageError(f"'{network.arch.title}' has no edge '{name}'. Edges: {', '.join(network.edges)}.")
    return {call.name for call, probe in network.probes if probe.edge in edges}


def _boundary(readers: Iterable[Sequence[Call]]) -> set[str]:
    """The operands of calls that are computed again which are not among these calls."""
    found: set[str] = set()
    for calls in readers:
        found |= {name for call in calls for name in call.inputs} - {call.name for call in calls}
    return found


def _means(
    network: ProbedNetwork,
    batches: Batches,
    calls: Collection[str],
    forward: Compute,
) -> dict[str, torch.Tensor]:
    """The mean over all images of the values of some calls [1, ...]."""
    sums: dict[str, torch.Tensor] = {}
    images = 0

    def visit(call: Call, value: torch.Tensor) -> torch.Tensor:
        if call.name in calls:
            total = value.sum(0, keepdim=True, dtype=torch.float64)
            sums[call.name] = sums[call.name] + total if call.name in sums else total
        return value

    for x_BCHW, labels_B in batches():
        forward(lambda x: network.output(network.run(x, visit=visit, keep=())), x_BCHW)
        images += len(labels_B)
    return {name: total / images for name, total in sums.items()}


def other_images(images: int, seed: int) -> torch.Tensor:
    """For each image of a batch another one, each used once: a random cyclic order. A single image has no other."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found
