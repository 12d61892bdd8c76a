"""What a training run does, apart from the network, the data and the seed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Recipe(BaseModel):
    """Adam on the cross-entropy, with a learning rate that is halved at intervals.

    Attributes:
        epochs: How often each training image is seen.
        batch_size: Images in a step; the last step of an epoch takes what is left.
        lr: Learning rate of the first epoch.
        halve_every: Epochs after which the learning rate is halved, again and again.

    Source: the protocol of Lopez & Triesch (2025), with 80 epochs as on CIFAR-10.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt = 80
    batch_size: PositiveInt = 100
    lr: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    halve_every: PositiveInt = 20

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch, which count from 1."""
        return self.lr * 0.5 ** ((epoch - 1) // self.halve_every)
