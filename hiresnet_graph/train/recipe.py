"""What a training run does, apart from the network, the data and the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from hiresnet_graph.errors import UsageError
from hiresnet_graph.spec.problems import explain

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["step", "cosine", "one-cycle", "constant"]
Precision = Literal["fp32", "tf32", "bf16"]
Augmentation = Literal["standard", "none", "flip", "crop", "crop+flip"]

# Fields that change how a result is computed, not what is asked for: they are no part of a run's key.
EXECUTION_FIELDS = frozenset({"channels_last", "checkpoint_steps", "compile"})


def _step_weights(value: object) -> object:
    """What `loss_steps` may be."""
    if isinstance(value, str) and value in ("last", "mean"):
        return value
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    fine = all(type(weight) in (int, float) and 0 <= weight < math.inf for weight in numbers)
    if not fine or not any(numbers):
        expected = "'last', 'mean', or a list of weights (none below 0, one above it)"
        raise ValueError(f"expected {expected}, got {list(numbers) if numbers else repr(value)}")
    return tuple(map(float, numbers))


LossSteps = Annotated[Literal["last", "mean"] | tuple[float, ...], BeforeValidator(_step_weights)]


class Recipe(BaseModel):
    """Cross-entropy, minimised by an optimizer whose learning rate follows a schedule.

    Attributes:
        epochs: How often each training image is seen.
        batch_size: Images in a step; the last step of an epoch takes what is left.
        drop_last: Leave out a last step that is not full.
        optimizer: `adam`, `adamw` (weight decay apart from the gradient) or `sgd`.
        lr: Learning rate of the first epoch; of `one-cycle` the highest.
        momentum: Of `sgd`.
        nesterov: Of `sgd` with momentum.
        weight_decay: As torch's optimizers take it; on all weights.
        schedule: `step` multiplies the rate by `step_factor` every `step_every` epochs; `cosine` goes down to 0 over
            all epochs; `one-cycle` goes up from lr / 25 for 30 % of the steps, then down to lr / 250,000, both as
            cosines; `constant`.
        step_every: Epochs between two steps of the schedule `step`.
        step_factor: What the rate is multiplied by at each of them.
        warmup_epochs: Over the steps of the first epochs the rate rises linearly to what the schedule says.
        label_smoothing: Share of the target that is spread over all classes.
        loss_steps: Of networks with `readout: all`, how the losses of the steps that are read out become one: their
            `mean`, the `last` alone, or a weight for each, of which only the ratios count. Others are read out once.
        clip_norm: Largest norm of all gradients together; larger ones are scaled down.
        augment: What changes training images at random: `crop` (padded with black, then cut at a random place),
            `flip` (left to right, every other time), both, `none`; or `standard`, what is usual for the data set.
        crop_padding: Pixels on each side; an eighth of the height, if left out.
        top_k: Besides top-1 accuracy, how often the right class is among the `top_k` first.
        precision: `fp32`; `tf32` (rounded products of float32, on GPUs that have it); `bf16` (automatic mixed
            precision).
        channels_last: Memory layout of images; what is faster on the machine, if left out.
        compile: Run the network through `torch.compile`.
        checkpoint_steps: Of networks with `time`: keep for the backward pass only what goes from one stretch of so many
            steps to the next, and compute the rest again. Less memory, more time, the same numbers.

    Source: Adam, the rate 0.01 halved every 20 epochs, batches of 100 and 80 epochs are the protocol of Lopez &
    Triesch (2025) on CIFAR-10 (100 epochs on CIFAR-100, 120 on Tiny-ImageNet). All else is chosen by us.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt = 80
    batch_size: PositiveInt = 100
    drop_last: bool = False
    optimizer: Optimizer = "adam"
    lr: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Schedule = "step"
    step_every: PositiveInt = 20
    step_factor: float = Field(default=0.5, gt=0, le=1)
    warmup_epochs: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    loss_steps: LossSteps = "mean"
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    augment: Augmentation = "standard"
    crop_padding: PositiveInt | None = None
    top_k: PositiveInt = 5
    precision: Precision = "fp32"
    channels_last: bool | None = None
    compile: bool = False
    checkpoint_steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        if self.warmup_epochs and self.schedule == "one-cycle":
            raise ValueError("the schedule 'one-cycle' has a warm-up of its own: leave warmup_epochs out")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.compile and self.checkpoint_steps is not None:
            raise ValueError(
                "torch.compile itself decides what to compute again: leave compile or checkpoint_steps out"
            )
        return self

    def resolved(self, standard: str, readouts: int | None = None) -> Self:
        """The recipe as it is for one data set, and for one network.

        Args:
            standard: The augmentation that is usual for the data set, in place of `standard`.
            readouts: How many steps of the network come out. Where it is 1, `loss_steps` makes no difference, and is
                what it is by default. None leaves it as it is.
        """
        changes: dict[str, object] = {"augment": standard} if self.augment == "standard" else {}
        if readouts == 1:
            changes["loss_steps"] = "mean"
        return self.model_copy(update=changes)

    def step_weights(self, readouts: int) -> tuple[float, ...]:
        """The share of each of so many steps in the loss; their sum is 1.

        Raises:
            UsageError: There are weights for another number of steps.
        """
        if self.loss_steps == "last":
            return (*[0.0] * (readouts - 1), 1.0)
        weights = (1.0,) * readouts if self.loss_steps == "mean" else self.loss_steps
        if len(weights) != readouts:
            raise UsageError(f"loss_steps has {len(weights)} weights for {readouts} steps.")
        return tuple(weight / math.fsum(weights) for weight in weights)

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step; `step` counts from 0 over the whole run."""
        epoch, total = step // steps_per_epoch, self.epochs * steps_per_epoch
        if self.schedule == "one-cycle":
            top, low, end = max(1.0, 0.3 * total - 1), self.lr / 25, self.lr / 25e4
            if step <= top:
                return _between(low, self.lr, step / top)
            return _between(self.lr, end, (step - top) / max(1.0, total - 1 - top))
        if self.schedule == "cosine":
            rate = _between(self.lr, 0.0, epoch / self.epochs)
        elif self.schedule == "step":
            rate = self.lr * self.step_factor ** (epoch // self.step_every)
        else:
            rate = self.lr
        warmup = self.warmup_epochs * steps_per_epoch
        return rate * (step + 1) / warmup if step < warmup else rate

    def mathematics(self) -> dict[str, object]:
        """The fields that decide what a run computes, as JSON data: what a run's key is made of."""
        data = self.model_dump(mode="json", exclude=set(EXECUTION_FIELDS))
        unused = {
            "momentum": self.optimizer != "sgd",
            "nesterov": self.optimizer != "sgd",
            "step_every": self.schedule != "step",
            "step_factor": self.schedule != "step",
            "crop_padding": "crop" not in self.augment and self.augment != "standard",
            "loss_steps": self.loss_steps == "mean",
        }
        return {name: value for name, value in data.items() if not unused.get(name, False)}


def make_recipe(fields: Mapping[str, object], where: str = "recipe") -> Recipe:
    """A recipe from plain data, as a study file or the command line has it.

    Args:
        where: Stands in front of the name of a wrong field in messages.

    Raises:
        UsageError: A field is unknown or has a value that it cannot have; with all mistakes.
    """
    try:
        return Recipe.model_validate(dict(fields))
    except ValidationError as error:
        problems = explain(error, fields, Recipe)
        lines = (f"{where}{'.' if problem.path else ': '}{problem}" for problem in problems)
        raise UsageError("\n".join(lines)) from None


def _between(start: float, end: float, share: float) -> float:
    """A cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
