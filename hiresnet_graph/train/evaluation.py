"""How good scores are: the loss that is trained on, and loss and accuracy of whole parts of the data.

Axes: M networks, B images of a batch, S steps that are read out (1, unless a network has `readout: all`), K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

# Images that are looked at together: few stay in a CPU's caches, many keep a GPU busy.
BATCH = {"cpu": 250, "cuda": 2000}


class Scores(NamedTuple):
    """Of one part of the data: mean loss, accuracy and top-k accuracy."""

    loss: float
    accuracy: float
    top_k: float


def by_step(scores: torch.Tensor) -> torch.Tensor:
    """Scores [B, S, K] of what a network gives: [B, S, K], or [B, K] if it is read out once."""
    return scores if scores.dim() == 3 else scores[:, None]


def at_last_step(scores: torch.Tensor) -> torch.Tensor:
    """Scores [B, K] of the last step that is read out, of what a network gives: its answer."""
    return by_step(scores)[:, -1]


def loss_of(
    logits_BSK: torch.Tensor, labels_B: torch.Tensor, weights: Sequence[float], smoothing: float
) -> torch.Tensor:
    """The mean cross-entropy, weighted over the steps.

    A step of weight 0 has no part in it at all, so its gradients are exactly 0 even if its loss is not finite.
    """
    losses = [
        weight * cross_entropy(logits_BSK[:, step], labels_B, label_smoothing=smoothing)
        for step, weight in enumerate(weights)
        if weight
    ]
    return torch.stack(losses).sum()


def evaluate(
    forward: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    top: int,
    ask: Callable[[], bool] = lambda: False,
) -> tuple[Scores, ...] | None:
    """How good a network is at each step that is read out; None if a stop was asked for meanwhile.

    Args:
        forward: Gives the scores of images, as float32.
        batches: Images and their labels.
        top: The right class counts if it is among so many first.
        ask: Whether to stop; asked before each batch.
    """
    total, images = torch.zeros(1, 3), 0
    for x_BCHW, labels_B in batches:
        if ask():
            return None
        sums_S3 = torch.stack([sums_of(logits_BK, labels_B, top) for logits_BK in by_step(forward(x_BCHW)).unbind(1)])
        total, images = total.to(sums_S3) + sums_S3, images + len(labels_B)
    return tuple(Scores(*(value / images for value in sums)) for sums in total.tolist())


def sums_of(logits_BK: torch.Tensor, labels_B: torch.Tensor, top: int) -> torch.Tensor:
    """Over the images of a batch: loss, right answers, right classes among the `top` first."""
    loss = cross_entropy(logits_BK, labels_B, reduction="sum")
    right = (logits_BK.argmax(1) == labels_B).sum()
    among = (logits_BK.topk(top, dim=1).indices == labels_B[:, None]).sum()
    return torch.stack([loss.double(), right.double(), among.double()])


def losses_of(
    logits_MBSK: torch.Tensor, labels_MB: torch.Tensor, weights: Sequence[float], smoothing: float
) -> torch.Tensor:
    """`loss_of` of each network [M], computed for all of them at once: the same up to rounding."""
    losses = [
        weight * _each_loss(logits_MBSK[:, :, step], labels_MB, smoothing).mean(1)
        for step, weight in enumerate(weights)
        if weight
    ]
    return torch.stack(losses).sum(0)


def all_sums_of(logits_MBSK: torch.Tensor, labels_MB: torch.Tensor, top: int) -> torch.Tensor:
    """`sums_of` of each network at each step [M, S, 3], computed for all of them at once: the same up to rounding."""
    found = []
    for logits_MBK in logits_MBSK.unbind(2):
        loss_M = _each_loss(logits_MBK, labels_MB, 0.0).double().sum(1)
        right_M = (logits_MBK.argmax(2) == labels_MB).sum(1)
        among_M = (logits_MBK.topk(top, dim=2).indices == labels_MB[:, :, None]).sum((1, 2))
        found.append(torch.stack([loss_M, right_M.double(), among_M.double()], dim=1))
    return torch.stack(found, dim=1)


def _each_loss(logits_MBK: torch.Tensor, labels_MB: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The cross-entropy of each image [M, B]."""
    loss = cross_entropy(logits_MBK.flatten(0, 1), labels_MB.flatten(), reduction="none", label_smoothing=smoothing)
    return loss.view(labels_MB.shape)


def weighted(scores: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The scores of a network: its loss over the steps as it is trained on, its accuracy at the last of them."""
    loss = sum(weight * one.loss for weight, one in zip(weights, scores, strict=True) if weight)
    return scores[-1]._replace(loss=loss)
