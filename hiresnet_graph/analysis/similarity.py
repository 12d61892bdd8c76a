"""How similar the representations of levels are, within a network and between runs: linear CKA.

Axes: n images of a batch, M batches, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from hiresnet_graph.analysis.probes import Compute, ProbedNetwork, call_directly
from hiresnet_graph.errors import UsageError

BATCH = 100
"""Images of a batch: their Gram matrix is what is compared."""
_SMALLEST = 4  # the unbiased estimate divides by n - 3


class Representations(NamedTuple):
    """What a network makes of images, at each level.

    Attributes:
        levels: Names of the levels.
        grams: For each batch, the U-centred Gram matrices of the levels [L, n * n], as float64.
        images: Number of images of each batch.
    """

    levels: tuple[str, ...]
    grams: tuple[torch.Tensor, ...]
    images: tuple[int, ...]


def levels_of(network: ProbedNetwork) -> dict[str, str]:
    """The levels of a network -> the calls that give their values.

    A level is a node outside of stages, or the last block of a stage. In a network in time, its value is the last one
    that the output depends on.
    """
    inputs = set(network.plan.inputs)
    return {node.stage or node.name: node.value for node in network.plan.nodes if node.value not in inputs}


def represent(
    network: ProbedNetwork, batches: Iterable[torch.Tensor], *, forward: Compute = call_directly
) -> Representations:
    """The representations of images at the levels of a network.

    Args:
        batches: Batches of images in random order, the same for all networks that are compared. A batch of fewer than
            4 images is left out.
        forward: See `Compute`.

    Raises:
        UsageError: No batch has 4 images.
    """
    levels = levels_of(network)
    grams, images = [], []
    for x_BCHW in batches:
        if len(x_BCHW) < _SMALLEST:
            continue
        values: dict[str, torch.Tensor] = {}

        def keep(x_BCHW: torch.Tensor, values: dict[str, torch.Tensor] = values) -> torch.Tensor:
            values |= network.run(x_BCHW, keep=levels.values())
            return network.output(values)

        forward(keep, x_BCHW)
        grams.append(torch.stack([_centred_gram(values[name]).flatten().cpu() for name in levels.values()]))
        images.append(len(x_BCHW))
    if not grams:
        raise UsageError(f"similarity requires batches of at least {_SMALLEST} images. Use more images.")
    return Representations(tuple(levels), tuple(grams), tuple(images))


def cka(first: Representations, second: Representations) -> torch.Tensor:
    """Linear CKA [L, L] of the levels of one network with those of another, or with its own.

    1 if two levels have the same representation up to rotation, shift and scale; about 0 if they are unrelated, since
    the estimate is unbiased; it may be below 0. HSIC is the mean over batches of its unbiased estimate, weighted by the
    number of images, and CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)). With a single batch, it is that of all
    images. NaN for a level with constant values.

    Args:
        second: Of the same images, in the same batches.

    Source: Kornblith et al. 2019, arXiv:1905.00414; with batches Nguyen et al. 2021, arXiv:2010.15327, Eq. 2 and 3; the
    unbiased estimate of HSIC is that of Song et al. 2012, as an inner product of U-centred matrices (Székely and Rizzo
    2014).
    """
    both = _hsic(first, second)
    own = _hsic(first, first).diagonal().clamp(min=0).sqrt()
    other = _hsic(second, second).diagonal().clamp(min=0).sqrt()
    return both / own[:, None] / other[None, :]


def _hsic(first: Representations, second: Representations) -> torch.Tensor:
    """The unbiased estimate of HSIC for each pair of levels [L, L]."""
    total = torch.zeros(len(first.levels), len(second.levels), dtype=torch.float64)
    for one, two, n in zip(first.grams, second.grams, first.images, strict=True):
        total += n * (one @ two.T) / (n * (n - 3))
    return total / sum(first.images)


def _centred_gram(value: torch.Tensor) -> torch.Tensor:
    """The U-centred Gram matrix [n, n] of the values for a batch. Its diagonal is 0, and its rows sum to 0."""
    features = value.flatten(1).double()
    features = features - features.mean(0)  # for accuracy alone: a shift of all images cancels
    gram = (features @ features.T).fill_diagonal_(0)
    n = len(gram)
    rows = gram.sum(1) / (n - 2)
    centred = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
