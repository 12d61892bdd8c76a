"""What a run has come to: where it stands, what was seen on the way, and what is kept of it.

Whatever computes the steps of a run, alone or together with others, tells its course of them. With the network, the
optimizer and the state of chance, it is all that the rest of the run depends on.

Axes: S steps of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from hiresnet_graph.train.checkpoint import Counters
from hiresnet_graph.train.evaluation import Scores
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Epoch

Weights = dict[str, torch.Tensor]


class TrainingState:
    """The course of one run.

    Attributes:
        epoch: Epochs that are done.
        step: Steps that are done of the next one.
        epochs: What was seen in those that are done.
        losses_S: Losses of the steps of this epoch.
        right_S: How many images each of them had right.
        best_weights: Of the best epoch so far.
        last_weights: Of the last epoch, once all are done.
        tests: The scores on the test images with the best weights, and with the last.
        looked: Steps of this epoch whose losses were finite.
        diverged_at: The step, counted from 1, whose loss was not finite.
        time_s: Computing time so far.
        epoch_time_s: Of the epoch that is under way.

    Args:
        images: Of the training part.
        losses_S: Where the losses are written; others may write there, too.
        right_S: Likewise.
    """

    def __init__(self, recipe: Recipe, images: int, losses_S: torch.Tensor, right_S: torch.Tensor) -> None:
        self.recipe, self.images, self.steps = recipe, images, len(losses_S)
        self.losses_S, self.right_S = losses_S, right_S
        self.epoch, self.step = 0, 0
        self.epochs: list[Epoch] = []
        self.best_weights: Weights = {}
        self.last_weights: Weights = {}
        self.diverged_at: int | None = None
        self.tests: tuple[Scores, Scores] | None = None
        self.time_s, self.epoch_time_s = 0.0, 0.0
        self.looked = 0

    @property
    def place(self) -> tuple[int, int]:
        """Epochs that are done, and steps of the next one."""
        return self.epoch, self.step

    @property
    def best(self) -> Epoch | None:
        """The epoch of highest validation accuracy; of equal ones, that of lowest validation loss; then the first."""
        return max(self.epochs, key=_merit, default=None)

    # ------------------------------------------------------------------------------------------------- to and from disk

    def counters(self, key: str) -> Counters:
        """Where the run stands."""
        return Counters(
            key=key,
            epoch=self.epoch,
            step=self.step,
            epochs=tuple(self.epochs),
            time_s=self.time_s,
            epoch_time_s=self.epoch_time_s,
        )

    def tensors(self) -> Weights:
        """What is kept besides, as a checkpoint has it."""
        best = {f"best.{name}": value for name, value in self.best_weights.items()}
        return {**best, "losses": self.losses_S, "right": self.right_S}

    def restore(self, counters: Counters, tensors: Weights) -> None:
        """Go back to where a checkpoint was made."""
        self.best_weights = {name: value.to(self.losses_S.device) for name, value in below(tensors, "best").items()}
        self.losses_S.copy_(tensors["losses"])
        self.right_S.copy_(tensors["right"])
        self.epoch, self.step, self.epochs = counters.epoch, counters.step, list(counters.epochs)
        self.time_s, self.epoch_time_s = counters.time_s, counters.epoch_time_s
        self.looked = self.step

    # ---------------------------------------------------------------------------------------------------- what was seen

    def add_time(self, elapsed_s: float) -> None:
        """Count computing time."""
        self.time_s, self.epoch_time_s = self.time_s + elapsed_s, self.epoch_time_s + elapsed_s

    def is_finite(self) -> bool:
        """Whether the losses since the last look are finite; if not, remembers the step of the first that is not."""
        losses_S = self.losses_S[self.looked : self.step]
        if bool(torch.isfinite(losses_S).all()):
            self.looked = self.step
            return True
        first = int(torch.isfinite(losses_S).logical_not().nonzero()[0])
        self.diverged_at = self.epoch * self.steps + self.looked + first + 1
        return False

    def end_epoch(self, scores: Scores, weights: Callable[[], Weights]) -> bool:
        """Note how good the network is after an epoch; False if it has diverged.

        Args:
            scores: On the validation images.
            weights: Gives a copy of the network's weights, to be kept if they are the best.
        """
        if not math.isfinite(scores.loss):
            self.diverged_at = (self.epoch + 1) * self.steps
            return False
        batch = self.recipe.batch_size
        sizes = [min(batch, self.images - step * batch) for step in range(self.steps)]
        epoch = Epoch(
            epoch=self.epoch + 1,
            lr=self.recipe.lr_at(self.epoch * self.steps, self.steps),
            train_loss=sum(loss * size for loss, size in zip(self.losses_S.tolist(), sizes, strict=True)) / sum(sizes),
            train_accuracy=self.right_S.double().sum().item() / sum(sizes),
            validation_loss=scores.loss,
            validation_accuracy=scores.accuracy,
            validation_top_k=scores.top_k,
            time_s=round(self.epoch_time_s, 3),
        )
        self.epochs.append(epoch)
        if self.best is epoch:
            self.best_weights = weights()
        self.epoch, self.step, self.epoch_time_s, self.looked = self.epoch + 1, 0, 0.0, 0
        return True


def _merit(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def below(tensors: Weights, name: str) -> Weights:
    """The tensors whose names begin with `name.`, without that."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
