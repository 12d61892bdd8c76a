"""Mixup and CutMix: batches in which each image is mixed with the one before it, and soft targets.

What is drawn for a batch depends on the seed, the epoch and the step. Of several processes that share a batch, each one
mixes its own part.

Axes: B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import one_hot

from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.train.recipe import Recipe


class Mixing:
    """The mixing of a recipe; without any, batches stay as they are.

    Args:
        classes: Number of classes.
        seed: The data seed of the run.

    Source: Zhang et al. 2018 (mixup), arXiv:1710.09412; Yun et al. 2019 (CutMix), arXiv:1905.04899; both as in
    `torchvision.transforms.v2`.
    """

    def __init__(self, recipe: Recipe, classes: int, seed: int) -> None:
        self._recipe, self._classes, self._seed = recipe, classes, seed

    def __call__(
        self, x_BCHW: torch.Tensor, labels_B: torch.Tensor, epoch: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The images of a step and their targets: labels [B], or if they are mixed, shares of the classes [B, K].

        With both `mixup` and `cutmix`, each batch is mixed in one of the two ways, with equal probability.
        """
        mixup, cutmix = self._recipe.mixup, self._recipe.cutmix
        if not mixup and not cutmix:
            return x_BCHW, labels_B
        random = np.random.default_rng(derive_seed(self._seed, "mixing", epoch, step))
        is_mixup = not cutmix or (bool(mixup) and random.random() < 0.5)
        shape = mixup if is_mixup else cutmix
        share = random.beta(shape, shape)
        if is_mixup:
            mixed_BCHW = x_BCHW.mul(share).add_(x_BCHW.roll(1, 0).mul_(1 - share))
        else:
            height, width = x_BCHW.shape[2:]
            rows, columns = (_interval(random, size, math.sqrt(1 - share)) for size in (height, width))
            mixed_BCHW = x_BCHW.clone()
            mixed_BCHW[:, :, rows, columns] = x_BCHW[:, :, rows, columns].roll(1, 0)
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        targets_BK = one_hot(labels_B, self._classes).float()
        return mixed_BCHW, targets_BK.mul(share).add_(targets_BK.roll(1, 0).mul_(1 - share))


def main_labels(targets: torch.Tensor) -> torch.Tensor:
    """The label of each image [B]; of mixed ones [B, K], that of the larger share."""
    return targets if targets.dim() == 1 else targets.argmax(1)


def _interval(random: np.random.Generator, size: int, share: float) -> slice:
    """An interval around a random pixel, of a share of all pixels unless it ends at the border."""
    middle, half = int(random.integers(size)), int(0.5 * share * size)
    return slice(max(0, middle - half), min(size, middle + half))
