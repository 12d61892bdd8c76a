"""Loss and scores of all replicas of a stack at once: those of `train.evaluation`, up to rounding.

Axes: M replicas, B images of a batch, S readout steps, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy


def stacked_losses(
    logits_MBSK: torch.Tensor, labels_MB: torch.Tensor, weights: Sequence[float], smoothing: float
) -> torch.Tensor:
    """The loss of each replica [M]."""
    losses = [
        weight * _image_losses(logits_MBSK[:, :, step], labels_MB, smoothing).mean(1)
        for step, weight in enumerate(weights)
        if weight
    ]
    return torch.stack(losses).sum(0)


def stacked_score_sums(logits_MBSK: torch.Tensor, labels_MB: torch.Tensor, top: int) -> torch.Tensor:
    """The score sums of each replica at each step [M, S, 3]."""
    found = []
    for logits_MBK in logits_MBSK.unbind(2):
        loss_M = _image_losses(logits_MBK, labels_MB, 0.0).double().sum(1)
        correct_M = (logits_MBK.argmax(2) == labels_MB).sum(1)
        among_M = (logits_MBK.topk(top, dim=2).indices == labels_MB[:, :, None]).sum((1, 2))
        found.append(torch.stack([loss_M, correct_M.double(), among_M.double()], dim=1))
    return torch.stack(found, dim=1)


def _image_losses(logits_MBK: torch.Tensor, labels_MB: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The cross-entropy of each image [M, B]."""
    loss = cross_entropy(logits_MBK.flatten(0, 1), labels_MB.flatten(), reduction="none", label_smoothing=smoothing)
    return loss.view(labels_MB.shape)
