"""The training loss, and loss and accuracy on a part of the data.

Axes: B images of a batch, S readout steps (1, unless the network has `readout: all`), K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.train.recipe import Recipe

# Images of an evaluation batch: few fit into the caches of a CPU, many keep a GPU busy.
BATCH = {"cpu": 250, "cuda": 2000}
Part = Literal["test", "validation"]
Output = torch.Tensor | dict[str, torch.Tensor]
"""What a network returns: its output, or several by name."""


class Scores(NamedTuple):
    """Mean loss, accuracy and top-k accuracy on a part of the data."""

    loss: float
    accuracy: float
    top_k: float


def split_steps(logits: torch.Tensor) -> torch.Tensor:
    """The output of a network as [B, S, K]: it is [B, K] if there is one readout step."""
    return logits if logits.dim() == 3 else logits[:, None]


def last_step(logits: torch.Tensor) -> torch.Tensor:
    """The output [B, K] of the last readout step."""
    return split_steps(logits)[:, -1]


def trained_outputs(output: Output, recipe: Recipe) -> list[torch.Tensor]:
    """The outputs of a network that a recipe trains, the main one first."""
    return [output] if isinstance(output, torch.Tensor) else [output[name] for name in recipe.outputs]


def loss_of(
    logits_BSK: torch.Tensor,
    targets: torch.Tensor,
    weights: Sequence[float],
    smoothing: float,
    class_weights_K: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean cross-entropy over images, weighted over the readout steps.

    A step of weight 0 is left out, so that its gradients are exactly 0 even if its loss is not finite.

    Args:
        targets: Labels [B], or shares of the classes [B, K].
        class_weights_K: See `class_weights`.
    """
    losses = [
        weight * _mean_loss(logits_BSK[:, step], targets, smoothing, class_weights_K)
        for step, weight in enumerate(weights)
        if weight
    ]
    return torch.stack(losses).sum()


def _mean_loss(
    logits_BK: torch.Tensor, targets: torch.Tensor, smoothing: float, class_weights_K: torch.Tensor | None
) -> torch.Tensor:
    if class_weights_K is None:
        return cross_entropy(logits_BK, targets, label_smoothing=smoothing)
    # Not torch's mean, which divides by the weights in the batch: then parts of a batch would not add up to it.
    total = cross_entropy(logits_BK, targets, class_weights_K, label_smoothing=smoothing, reduction="sum")
    return total / len(targets)


def class_weights(recipe: Recipe, dataset: Dataset) -> torch.Tensor | None:
    """The weight of each class in the training loss [K], with a mean of 1 over the training images; None without."""
    if recipe.class_weights is None:
        return None
    labels_N = dataset.labels_N[torch.tensor(dataset.split.train, dtype=torch.long)]
    counts_K = labels_N.bincount(minlength=dataset.classes).double()
    is_balanced = recipe.class_weights == "balanced"
    weights_K = 1 / counts_K if is_balanced else torch.tensor(recipe.class_weights, dtype=torch.float64)
    return (weights_K * len(labels_N) / (weights_K * counts_K).sum()).float()


def evaluate(
    forward: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    top: int,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Scores, ...] | None:
    """The scores of a network at each readout step; None if a stop was requested meanwhile.

    Args:
        forward: From images to logits, as float32.
        batches: Images and their labels.
        top: Number of highest scores for the top-k accuracy.
        stop: Called before each batch.
    """
    total, images = torch.zeros(1, 3), 0
    for x_BCHW, labels_B in batches:
        if stop():
            return None
        logits_BSK = split_steps(forward(x_BCHW))
        sums_S3 = torch.stack([score_sums(logits_BK, labels_B, top) for logits_BK in logits_BSK.unbind(1)])
        total, images = total.to(sums_S3) + sums_S3, images + len(labels_B)
    return tuple(Scores(*(value / images for value in sums)) for sums in total.tolist())


def score_sums(logits_BK: torch.Tensor, labels_B: torch.Tensor, top: int) -> torch.Tensor:
    """Sums over a batch: loss, correct images, images whose class is among the `top` highest scores."""
    loss = cross_entropy(logits_BK, labels_B, reduction="sum")
    correct = (logits_BK.argmax(1) == labels_B).sum()
    among = (logits_BK.topk(top, dim=1).indices == labels_B[:, None]).sum()
    return torch.stack([loss.double(), correct.double(), among.double()])


def combine_steps(scores: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The scores of a network: its loss weighted over the readout steps, its accuracy at the last one."""
    loss = sum(weight * one.loss for weight, one in zip(weights, scores, strict=True) if weight)
    return scores[-1]._replace(loss=loss)
