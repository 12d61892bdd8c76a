"""The training state of a run: its progress, its history, and the weights that are kept.

Together with the network, the optimizer and the state of the random numbers, it is all that the rest of a run depends
on, whatever computes the steps.

Axes: S steps of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from hiresnet_graph.train.checkpoint import Counters
from hiresnet_graph.train.evaluation import Scores
from hiresnet_graph.train.gradients import GradientSums
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Cursor, Epoch

Weights = dict[str, torch.Tensor]


class TrainingState:
    """The training state of one run.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of finished steps of the next epoch.
        epochs: Results of the finished epochs.
        losses_S: Losses of the steps of this epoch.
        correct_S: Number of correctly classified images in each of them.
        best_weights: Of the best epoch so far.
        last_weights: Of the last epoch, once all are done.
        test_scores: With the best weights and with the last weights, once all epochs are done.
        checked: Number of steps of this epoch whose losses are known to be finite.
        diverged_at: The step, counted from 1, whose loss was not finite.
        time_s: Computing time so far.
        epoch_time_s: Of the current epoch.

    Args:
        images: Number of training images.
        losses_S: Where the trainer writes the losses.
        correct_S: Where it writes the numbers of correct images.
        gradients: Where it adds the norms of gradients; None if they are not recorded.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: int,
        losses_S: torch.Tensor,
        correct_S: torch.Tensor,
        gradients: GradientSums | None = None,
    ) -> None:
        self.recipe, self.images, self.steps = recipe, images, len(losses_S)
        self.losses_S, self.correct_S, self.gradients = losses_S, correct_S, gradients
        self.epoch, self.step = 0, 0
        self.epochs: list[Epoch] = []
        self.best_weights: Weights = {}
        self.last_weights: Weights = {}
        self.diverged_at: int | None = None
        self.test_scores: tuple[Scores, Scores] | None = None
        self.time_s, self.epoch_time_s = 0.0, 0.0
        self.checked = 0

    @property
    def cursor(self) -> Cursor:
        """Number of finished epochs, and of finished steps of the next one."""
        return self.epoch, self.step

    @property
    def total_steps(self) -> int:
        """Number of finished steps of all epochs."""
        return self.epoch * self.steps + self.step

    @property
    def is_trained(self) -> bool:
        """Whether all epochs are done, or validation accuracy has not improved for as many as the recipe allows."""
        patience, best = self.recipe.patience, self.best
        has_stalled = patience is not None and best is not None and self.epoch - best.epoch >= patience
        return self.epoch == self.recipe.epochs or has_stalled

    @property
    def best(self) -> Epoch | None:
        """The epoch of highest validation accuracy; of equal ones, that of lowest validation loss; then the first."""
        return max(self.epochs, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_loss), default=None)

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def counters(self, key: str) -> Counters:
        """The numbers of a checkpoint."""
        return Counters(
            key=key,
            epoch=self.epoch,
            step=self.step,
            epochs=tuple(self.epochs),
            time_s=self.time_s,
            epoch_time_s=self.epoch_time_s,
        )

    def tensors(self) -> Weights:
        """The tensors of a checkpoint that belong to this state."""
        best = {f"best.{name}": value for name, value in self.best_weights.items()}
        gradients = {} if self.gradients is None else self.gradients.tensors()
        return {**best, "losses": self.losses_S, "right": self.correct_S, **gradients}

    def restore(self, counters: Counters, tensors: Weights) -> None:
        """Return to the state of a checkpoint."""
        self.best_weights = {name: value.to(self.losses_S.device) for name, value in below(tensors, "best").items()}
        self.losses_S.copy_(tensors["losses"])
        self.correct_S.copy_(tensors["right"])
        if self.gradients is not None:
            self.gradients.restore(below(tensors, "gradients"), counters.step)
        self.epoch, self.step, self.epochs = counters.epoch, counters.step, list(counters.epochs)
        self.time_s, self.epoch_time_s = counters.time_s, counters.epoch_time_s
        self.checked = self.step

    # ------------------------------------------------------------------------------------------------------- progress

    def add_time(self, elapsed_s: float) -> None:
        """Count computing time."""
        self.time_s, self.epoch_time_s = self.time_s + elapsed_s, self.epoch_time_s + elapsed_s

    def check_finite(self) -> bool:
        """Whether the losses since the last check are finite; if not, remembers the first step that is not."""
        is_finite_S = torch.isfinite(self.losses_S[self.checked : self.step])
        if bool(is_finite_S.all()):
            self.checked = self.step
            return True
        self.diverged_at = self.epoch * self.steps + self.checked + int(is_finite_S.logical_not().nonzero()[0]) + 1
        return False

    def end_epoch(self, validation: Scores, weights: Callable[[], Weights]) -> bool:
        """Record the results of an epoch; returns False if the run has diverged.

        Args:
            weights: Returns a copy of the network's weights, called if they are the best so far.
        """
        if not math.isfinite(validation.loss):
            self.diverged_at = (self.epoch + 1) * self.steps
            return False
        batch = self.recipe.batch_size
        sizes = [min(batch, self.images - step * batch) for step in range(self.steps)]
        epoch = Epoch(
            epoch=self.epoch + 1,
            lr=self.recipe.lr_at(self.epoch * self.steps, self.steps),
            train_loss=sum(loss * size for loss, size in zip(self.losses_S.tolist(), sizes, strict=True)) / sum(sizes),
            train_accuracy=self.correct_S.double().sum().item() / sum(sizes),
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            validation_top_k=validation.top_k,
            time_s=round(self.epoch_time_s, 3),
            gradient_norms=None if self.gradients is None else self.gradients.take_means(self.steps),
        )
        self.epochs.append(epoch)
        if self.best is epoch:
            self.best_weights = weights()
        self.epoch, self.step, self.epoch_time_s, self.checked = self.epoch + 1, 0, 0.0, 0
        return True


def below(tensors: Weights, name: str) -> Weights:
    """The tensors whose names begin with `name.`, without this prefix."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
