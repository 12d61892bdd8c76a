"""The training recipe: what a run does, apart from the network, the data and the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hiresnet_graph.errors import UsageError
from hiresnet_graph.float32 import Float32Model
from hiresnet_graph.spec.model import Count
from hiresnet_graph.spec.problems import explain

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["step", "cosine", "one-cycle", "constant"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Augmentation = Literal["standard", "none", "flip", "crop", "crop+flip"]

# Schedules whose rates do not depend on the number of epochs.
FIXED_RATES: tuple[Schedule, ...] = ("step", "constant")
# Fields that change how a result is computed, or what is recorded of it, but not what is computed: not part of a run's
# key.
EXECUTION_FIELDS = frozenset({"channels_last", "checkpoint", "checkpoint_steps", "compile", "record_gradients"})
# Fields that are not part of a run's key where they have their default: it changes nothing.
OPTIONAL_FIELDS = frozenset(
    {
        "accumulate",
        "class_weights",
        "cutmix",
        "ema",
        "freeze",
        "loss_steps",
        "losses",
        "lr_scale",
        "mixup",
        "no_decay",
        "patience",
        "rand_augment",
        "random_erasing",
    }
)
# Fields with which runs are not computed as one program, unless they have their default.
UNSTACKED_FIELDS = (
    "accumulate",
    "checkpoint",
    "checkpoint_steps",
    "class_weights",
    "compile",
    "cutmix",
    "ema",
    "freeze",
    "losses",
    "lr_scale",
    "mixup",
    "patience",
)

_MAX_WEIGHT = 1e30  # far from the limits of float32, as only ratios matter
_MAX_FACTOR = 1e6


def _weights(*words: str) -> BeforeValidator:
    """Validates one of a few words, or weights of which one is above 0."""

    def validate(value: object) -> object:
        if isinstance(value, str) and value in words:
            return value
        numbers = tuple(value) if isinstance(value, list | tuple) else ()
        is_valid = all(type(weight) in (int, float) and 0 <= weight <= _MAX_WEIGHT for weight in numbers)
        if not is_valid or not any(numbers):
            named = ", ".join(f"'{word}'" for word in words)
            expected = f"{named}, or a list of weights (0 to {_MAX_WEIGHT:g}, one above 0)"
            raise ValueError(f"expected {expected}, got {list(numbers) if numbers else repr(value)}")
        return tuple(map(float, numbers))

    return BeforeValidator(validate)


LossSteps = Annotated[Literal["last", "mean"] | tuple[float, ...], _weights("last", "mean")]
ClassWeights = Annotated[Literal["balanced"] | tuple[float, ...], _weights("balanced")]


def _patterns(value: object) -> object:
    """Validates `freeze`: one pattern, or several."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
    if found is None or not all(isinstance(one, str) and one.strip() for one in found):
        raise ValueError(f"expected addresses, like [stem, 'stage*.block1'], got {value!r}")
    return found


def _factors(described: str) -> BeforeValidator:
    """Validates a mapping from names to factors, or its items."""

    def validate(value: object) -> object:
        items = value.items() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
        pairs = [tuple(item) for item in items or () if isinstance(item, list | tuple)]
        is_valid = items is not None and len(pairs) == len(items) and all(len(pair) == 2 for pair in pairs)
        if not is_valid or not all(
            isinstance(key, str) and key.strip() and type(factor) in (int, float) and 0 < factor <= _MAX_FACTOR
            for key, factor in pairs
        ):
            given = value.items() if isinstance(value, Mapping) else ()
            lacks_space = any(factor is None and ":" in str(key) for key, factor in given)
            hint = ". YAML requires a space after ':'" if lacks_space else ""
            raise ValueError(f"expected {described}, above 0 and at most {_MAX_FACTOR:g}, got {value!r}{hint}")
        return tuple((key, float(factor)) for key, factor in pairs)

    return BeforeValidator(validate)


Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
_Factors = Annotated[
    tuple[tuple[str, float], ...],
    PlainSerializer(dict, return_type=dict[str, float]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}}),
]
Factors = Annotated[_Factors, _factors("factors by address, like {'stage*': 0.1}")]
OutputWeights = Annotated[_Factors, _factors("weights by output, like {head: 1, aux: 0.3}")]


class Recipe(Float32Model):
    """Training recipe: cross-entropy loss, an optimizer, and a learning-rate schedule.

    Attributes:
        epochs: Number of epochs: passes over the training set.
        patience: Stop when the validation accuracy has not improved for this many epochs (early stopping). Of equal
            ones, the validation loss counts.
        batch_size: Images per step; the last step of an epoch takes the remaining ones.
        accumulate: Number of parts in which each batch is computed, one after another, to save memory. Their gradients
            are added: the step is that of the full batch, up to rounding; but batch norms see one part at a time.
        drop_last: Omit the last step of an epoch if its batch is not full.
        optimizer: `adam`, `adamw` (decoupled weight decay) or `sgd`.
        lr: Learning rate of the first epoch; with `one-cycle` the maximum.
        momentum: Momentum of `sgd`.
        nesterov: Nesterov momentum for `sgd`.
        weight_decay: Weight decay, as in torch's optimizers; on all parameters but those of `no_decay`.
        no_decay: Parameters without weight decay: groups, like `[norms, biases, tokens, positions]` for transformers,
            and addresses, as in `freeze`. The groups are `norms`, `biases`, `tokens` (class and register tokens),
            `positions` (also relative ones) and `scales` (of channels, skips and gates).
        schedule: Learning-rate schedule. `step` multiplies the rate by `step_factor` every `step_every` epochs;
            `cosine` decays to 0 over all epochs; `one-cycle` rises from lr / 25 for 30 % of the steps, then decays to
            lr / 250,000, both as cosines; `constant`.
        step_every: Epochs between two decays of the schedule `step`.
        step_factor: Factor of each of these decays.
        warmup_epochs: Number of first epochs in which the rate rises linearly to that of the schedule.
        label_smoothing: Fraction of the target that is spread over all classes.
        class_weights: Weights of the classes in the training loss: `balanced` (inverse to the number of training
            images), or one for each class. Only ratios matter: their mean over the training images is 1.
        losses: Of a network with several outputs, the weights of their losses, like `{head: 1, aux: 0.3}`. Each of them
            has a score for each class. The first one is the main output: accuracies, and the loss on validation images,
            are its own. Outputs that are not named are not trained.
        loss_steps: With `readout: all`, how the losses of the readout steps are combined: their `mean`, the `last`
            one, or a weight for each, of which only the ratios matter. Other networks have one readout step.
        ema: Decay of an exponential moving average of all weights and buffers, like 0.999. The average is evaluated and
            saved instead of the weights.
        clip_norm: Maximum norm of all gradients together; larger ones are scaled down.
        freeze: Addresses of what is not trained, like `[stem, "stage*.block1"]`; `*` stands for any characters within
            one part. It covers all tensors below. Frozen norms keep their statistics and use them.
        lr_scale: Factors of the learning rate by address, like `{"stage*": 0.1}`. Of several that match a tensor, one
            without `*` counts, then the one with more parts.
        augment: Random augmentation of training images: `crop` (padded with black, then cropped at a random position),
            `flip` (left to right, with probability 1/2), `crop+flip`, `none`; or `standard`, the usual one for the
            data set.
        crop_padding: Padding in pixels on each side (default: an eighth of the height).
        rand_augment: Magnitude of RandAugment, from 0 to 30; often 9. Two random operations of torchvision on each
            training image, like a rotation or another contrast. Images have 1 or 3 channels.
        random_erasing: Probability that a random rectangle of a training image is set to the mean color.
        mixup: Mix each training image and its label with another one of the batch, in shares drawn from a beta
            distribution with this parameter; often 0.2 to 0.8. 0 omits it. The training accuracy counts the label of
            the larger share.
        cutmix: Likewise, with a random rectangle of the other image; often 1. With `mixup` too, each batch is mixed in
            one of the two ways.
        top_k: Number of highest scores for the top-k accuracy, which is reported besides accuracy.
        precision: `fp32`; `tf32` (rounded products of float32, on GPUs that support it); `bf16` or `fp16` (automatic
            mixed precision; with `fp16`, the loss is scaled, and steps whose gradients overflow are omitted).
        channels_last: Memory format of images (default: the faster one on the machine).
        compile: Compile the network with `torch.compile`.
        checkpoint: Activation checkpointing: `blocks` stores for the backward pass only what passes between blocks, and
            recomputes the rest. Less memory, more time, the same numbers.
        checkpoint_steps: Activation checkpointing of networks with `time`: store for the backward pass only what passes
            between segments of this many steps, and recompute the rest. Less memory, more time, the same numbers.
        record_gradients: Record the norm of the gradients of each block and edge, as a mean over the steps of each
            epoch, for `hrg analyze gradients`. Training gives the same bits.

    Source: Adam, the rate 0.01 halved every 20 epochs, batches of 100 and 80 epochs are the protocol of Lopez &
    Triesch (2025) on CIFAR-10 (100 epochs on CIFAR-100, 120 on Tiny-ImageNet). All else is chosen by us.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Count = 80
    patience: Count | None = None
    batch_size: Count = 100
    accumulate: Count = 1
    drop_last: bool = False
    optimizer: Optimizer = "adam"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    no_decay: Patterns = ()
    schedule: Schedule = "step"
    step_every: Count = 20
    step_factor: float = Field(default=0.5, gt=0, le=1)
    warmup_epochs: int = Field(default=0, ge=0, le=1_000_000, strict=True)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: ClassWeights | None = None
    losses: OutputWeights = ()
    loss_steps: LossSteps = "mean"
    ema: float | None = Field(default=None, gt=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    freeze: Patterns = ()
    lr_scale: Factors = ()
    augment: Augmentation = "standard"
    crop_padding: Count | None = None
    rand_augment: int | None = Field(default=None, ge=0, le=30, strict=True)
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, le=_MAX_FACTOR)
    cutmix: float = Field(default=0.0, ge=0, le=_MAX_FACTOR)
    top_k: Count = 5
    precision: Precision = "fp32"
    channels_last: bool | None = None
    compile: bool = False
    checkpoint: Literal["blocks"] | None = None
    checkpoint_steps: Count | None = None
    record_gradients: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        if self.warmup_epochs and self.schedule == "one-cycle":
            raise ValueError("the schedule 'one-cycle' has its own warm-up: omit warmup_epochs")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov requires a momentum above 0")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate ({self.accumulate}) must be at most batch_size ({self.batch_size})")
        if self.checkpoint is not None and self.checkpoint_steps is not None:
            raise ValueError("'checkpoint' divides a network by block, 'checkpoint_steps' by time step: omit one")
        for field in ("checkpoint", "checkpoint_steps"):
            if self.compile and getattr(self, field) is not None:
                raise ValueError(f"torch.compile decides by itself what to recompute: omit compile or {field}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that are trained, the main one first; empty if the network has one output."""
        return tuple(name for name, _ in self.losses)

    @property
    def output_weights(self) -> tuple[float, ...]:
        """The weights of their losses."""
        return tuple(weight for _, weight in self.losses) or (1.0,)

    def resolved(self, standard: str, readouts: int | None = None) -> Self:
        """The recipe for one data set and one network.

        Args:
            standard: The augmentation of the data set, which replaces `standard`.
            readouts: Number of readout steps of the network. With 1, `loss_steps` has no effect and is set to its
                default; with None it is unchanged.
        """
        changes: dict[str, object] = {"augment": standard} if self.augment == "standard" else {}
        if readouts == 1:
            changes["loss_steps"] = "mean"
        return self.model_copy(update=changes)

    def step_weights(self, readouts: int) -> tuple[float, ...]:
        """The weight of each readout step in the loss; their sum is 1.

        Raises:
            UsageError: The recipe has weights for another number of steps.
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
                return _cosine(low, self.lr, step / top)
            return _cosine(self.lr, end, (step - top) / max(1.0, total - 1 - top))
        if self.schedule == "cosine":
            rate = _cosine(self.lr, 0.0, epoch / self.epochs)
        elif self.schedule == "step":
            rate = self.lr * self.step_factor ** (epoch // self.step_every)
        else:
            rate = self.lr
        warmup = self.warmup_epochs * steps_per_epoch
        return rate * (step + 1) / warmup if step < warmup else rate

    @property
    def has_fixed_rates(self) -> bool:
        """Whether the learning rates of the first epochs are the same with more epochs, so that a run can continue."""
        return self.schedule in FIXED_RATES

    @property
    def unstacked_fields(self) -> tuple[str, ...]:
        """The fields because of which the run is not computed with others as one program."""
        found = tuple(name for name in UNSTACKED_FIELDS if not self._is_default(name))
        return (*found, "precision") if self.precision == "fp16" else found

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    def mathematics(self) -> dict[str, object]:
        """The fields that determine what a run computes, as JSON data: its part of a run's key."""
        data = self.model_dump(mode="json", exclude=set(EXECUTION_FIELDS))
        unused = {
            "momentum": self.optimizer != "sgd",
            "nesterov": self.optimizer != "sgd",
            "step_every": self.schedule != "step",
            "step_factor": self.schedule != "step",
            "crop_padding": "crop" not in self.augment and self.augment != "standard",
            **{name: self._is_default(name) for name in OPTIONAL_FIELDS},
        }
        unused["no_decay"] |= not self.weight_decay
        data["losses"] = [list(pair) for pair in self.losses]  # the first one is the main output
        return {name: value for name, value in data.items() if not unused.get(name, False)}


def make_recipe(fields: Mapping[str, object], where: str = "recipe") -> Recipe:
    """A recipe from plain data, from a study file or the command line.

    Args:
        where: Prefix of the name of a wrong field in messages.

    Raises:
        UsageError: Fields are unknown or have invalid values; lists all of them.
    """
    try:
        return Recipe.model_validate(dict(fields))
    except ValidationError as error:
        problems = explain(error, fields, Recipe)
        lines = (f"{where}{'.' if problem.path else ': '}{problem}" for problem in problems)
        raise UsageError("\n".join(lines)) from None


def _cosine(start: float, end: float, progress: float) -> float:
    """A half cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
