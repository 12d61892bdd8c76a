"""Normalisations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Factor,
    Layer,
    Op,
    Remark,
    SavedValues,
    Signature,
    Tensor,
    constant_tensor,
    require_map,
)
from hiresnet_graph.shapes import Map, Shape

if TYPE_CHECKING:
    import torch

Epsilon = Annotated[float, Field(gt=0, lt=1)]
InitialScale = Annotated[float, Field(ge=0)]

_BATCH_NORM = Signature("num_features", roles={"num_features": "channels"}, eps=1e-5, momentum=0.1, affine=True)
_GROUP_NORM = Signature("num_groups num_channels", roles={"num_channels": "channels"}, eps=1e-5)
_LAYER_NORM = Signature("normalized_shape", roles={"normalized_shape": "channels"}, eps=1e-5)
_LOCAL_RESPONSE_NORM = Signature("input size", alpha=1e-4, beta=0.75, k=1.0)
_SCALE_SHIFT = Signature("num_features", roles={"num_features": "channels"}, scale=1.0, axes=2)


def _scale_shift(channels: int, scale: float) -> tuple[Tensor, Tensor]:
    return constant_tensor("weight", (channels,), scale), Tensor("bias", (channels,), "zeros")


class Norm(Op):
    """A normalisation; `scale` is the initial value of its learned scale."""

    part: ClassVar[str] = "norm"
    normalizes: ClassVar[bool] = True
    parameter_group: ClassVar[str] = "norms"
    overwritable: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]


def _require_channels_first(op: str, shape: Shape) -> None:
    """Refuse shapes whose feature axis does not follow the batch axis, where torch expects it.

    Raises:
        ShapeError: Another axis lies between them.
    """
    if shape.feature_axis:
        raise ShapeError(
            f"{op} requires the {shape.feature_noun} on axis 1, after the batch; {shape.describe()} has them on axis "
            f"{1 + shape.feature_axis}.",
            "Use 'layer_norm', or place the norm where the values have another shape.",
        )


def _require_several_values(op: str, shape: Shape, values: int, hint: str) -> None:
    """Refuse statistics of one value. It equals its mean, so that the result would be the learned shift alone.

    Raises:
        ShapeError: There is one value.
    """
    if values == 1:
        raise ShapeError(
            f"{op} of {shape.describe()} has one value in each group. It equals its mean, so that the output would be "
            "the same for every input.",
            hint,
        )


@OPS.register
class BatchNorm(Norm):
    """Batch norm over batch and space (Ioffe & Szegedy 2015), with running statistics for evaluation mode.

    Attributes:
        affine: Whether a learned scale and shift follow.
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "batch_norm"
    keeps_precision: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    maps_channels: ClassVar[bool] = True
    examples = ({"affine": False}, {"momentum": 0.2}, {"scale": 0}, {})
    pure: ClassVar[bool] = False
    short_name: ClassVar[str] = "BN"
    eps: Epsilon = 1e-5
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    affine: bool = True
    scale: InitialScale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        _require_channels_first("Batch norm", inputs[0])
        return inputs[0]

    def smallest_batch(self, *inputs: Shape) -> int:
        """2 if a channel has one value for each sample, otherwise 1: torch requires two values."""
        return 2 if inputs[0].elements == inputs[0].channels else 1

    def remark(self, *inputs: Shape) -> Remark | None:
        """A batch norm of a feature map of one pixel."""
        if not inputs[0].spatial or self.smallest_batch(*inputs) == 1:
            return None
        return Remark(
            f"the statistics of a batch norm of {inputs[0].describe()} have one value per image: it cannot be trained "
            "on a batch of one image.",
            "Keep a larger height and width, use 'norm: none' here, or train with large batches.",
        )

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift (if affine), running mean and variance [channels], and the number of batches."""
        channels = inputs[0].channels
        return (
            *(_scale_shift(channels, self.scale) if self.affine else ()),
            Tensor("running_mean", (channels,), "zeros", trainable=False),
            Tensor("running_var", (channels,), "ones", trainable=False),
            Tensor("num_batches_tracked", (), "zeros", trainable=False),
        )

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.BatchNorm2d`, or `BatchNorm1d` without spatial axes."""
        kwargs = _BATCH_NORM.kwargs(eps=self.eps, momentum=self.momentum, affine=self.affine)
        rank = len(inputs[0].spatial) or 1
        return Layer(f"torch.nn.BatchNorm{rank}d", (inputs[0].channels,), kwargs, _BATCH_NORM)

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """By the running statistics: weight / sqrt(variance + eps), and bias minus the mean times that."""
        factor = (tensors["running_var"] + self.eps).rsqrt()
        if not self.affine:
            return factor, -tensors["running_mean"] * factor
        factor = factor * tensors["weight"]
        return factor, tensors["bias"] - tensors["running_mean"] * factor

    def split(self) -> tuple[Op, Op] | None:
        """The normalisation with its statistics; and scale and shift."""
        if not self.affine:
            return None
        fields = {"scale": self.scale} if "scale" in self.model_fields_set else {}
        return BatchNorm(eps=self.eps, momentum=self.momentum, affine=False), ScaleShift(**fields)


@OPS.register
class ScaleShift(Norm):
    """A learned scale and shift of each channel, as after the normalisation of a norm.

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "affine"
    is_affine: ClassVar[bool] = True
    maps_channels: ClassVar[bool] = True
    part: ClassVar[str] = "affine"
    examples = ({"scale": 0.1}, {})
    overwritable: ClassVar[bool] = False
    scale: InitialScale = 1.0

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _scale_shift(inputs[0].channels, self.scale)

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift."""
        return tensors["weight"], tensors["bias"]

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.Affine`."""
        kwargs = _SCALE_SHIFT.kwargs(scale=self.scale, axes=inputs[0].trailing)
        return Layer("hiresnet_graph.ops.layers.Affine", (inputs[0].channels,), kwargs, _SCALE_SHIFT)


@OPS.register
class GroupNorm(Norm):
    """Group norm (Wu & He 2018); the default number of groups is the greatest common divisor of 32 and the channels.

    Attributes:
        groups: Number of groups of channels, each of which has its own mean and variance.
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "group_norm"
    examples = ({"groups": 2, "eps": 0.001}, {})
    short_name: ClassVar[str] = "GN"
    groups: Count | None = None
    eps: Epsilon = 1e-5
    scale: InitialScale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        channels = inputs[0].channels
        if self.groups is not None and channels % self.groups:
            raise ShapeError(
                f"Group norm in {self.groups} groups requires a multiple of {self.groups} channels, not {channels}.",
                "Change 'groups'.",
            )
        _require_channels_first("Group norm", inputs[0])
        groups = self._groups(channels)
        _require_several_values(
            f"Group norm in {groups} group{'s' if groups > 1 else ''}",
            inputs[0],
            inputs[0].elements // groups,
            "Use a layer norm ('norm: layer'), no norm ('norm: none') or fewer 'groups' of the norm; or keep a larger "
            "height and width."
            if inputs[0].elements > 1
            else "Use no norm ('norm: none'), or more channels, height and width.",
        )
        return inputs[0]

    def _groups(self, channels: int) -> int:
        return self.groups or math.gcd(32, channels)

    def canonical(self, *inputs: Shape) -> Self:
        """Without the default number of groups."""
        is_default = self.groups == math.gcd(32, inputs[0].channels)
        return self.changed({"groups": None}) if is_default else self

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _scale_shift(inputs[0].channels, self.scale)

    def saved(self, *inputs: Shape) -> SavedValues:
        """The operand, and mean and deviation of each group."""
        return SavedValues((0,), size_bytes=8 * self._groups(inputs[0].channels))

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.GroupNorm`."""
        channels = inputs[0].channels
        return Layer(
            "torch.nn.GroupNorm", (self._groups(channels), channels), _GROUP_NORM.kwargs(eps=self.eps), _GROUP_NORM
        )


@OPS.register
class LayerNorm(Norm):
    """Layer norm (Ba et al. 2016) over all elements of a feature map, with a scale for each channel; or over a vector.

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "layer_norm"
    short_name: ClassVar[str] = "LN"
    eps: Epsilon = 1e-5
    scale: InitialScale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        values = inputs[0].channels
        if inputs[0].trailing:
            _require_channels_first("Layer norm", inputs[0])
            values = inputs[0].elements
        _require_several_values("Layer norm", inputs[0], values, "Use more channels, or no norm ('norm: none').")
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _scale_shift(inputs[0].channels, self.scale)

    def saved(self, *inputs: Shape) -> SavedValues:
        """The operand, and the mean and deviation of each vector."""
        return SavedValues((0,), size_bytes=8 if inputs[0].trailing else 8 * (inputs[0].elements // inputs[0].channels))

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.LayerNorm` if the feature axis is the last, otherwise `torch.nn.GroupNorm` with one group."""
        channels = inputs[0].channels
        if inputs[0].trailing == 0:
            return Layer("torch.nn.LayerNorm", (channels,), _LAYER_NORM.kwargs(eps=self.eps), _LAYER_NORM)
        return Layer("torch.nn.GroupNorm", (1, channels), _GROUP_NORM.kwargs(eps=self.eps), _GROUP_NORM)


@OPS.register
class ChannelLayerNorm(Norm):
    """Layer norm over the channels at each pixel of a feature map, as in ConvNeXt (Liu et al. 2022).

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "layer_norm2d"
    examples = ({"eps": 1e-6}, {})
    short_name: ClassVar[str] = "LN2d"
    eps: Epsilon = 1e-5
    scale: InitialScale = 1.0

    def shape(self, *inputs: Shape) -> Map:
        """Same as the input."""
        x = require_map("A layer norm of pixels", inputs[0])
        _require_several_values("Layer norm", x, x.channels, "Use more channels, or no norm ('norm: none').")
        return x

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _scale_shift(inputs[0].channels, self.scale)

    def saved(self, *inputs: Shape) -> SavedValues:
        """The operand, and the mean and deviation of each pixel."""
        return SavedValues((0,), size_bytes=8 * (inputs[0].elements // inputs[0].channels))

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.LayerNorm2d`."""
        kwargs = _LAYER_NORM.kwargs(eps=self.eps)
        return Layer("hiresnet_graph.ops.layers.LayerNorm2d", (inputs[0].channels,), kwargs, _LAYER_NORM)


@OPS.register
class LocalResponseNorm(Op):
    """Local response norm: x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta.

    It has no parameters. Source: Krizhevsky et al. 2012 (AlexNet), with the mean as in torch.

    Attributes:
        size: Number of channels of the mean.
        alpha: Factor of the mean.
        beta: Exponent of the divisor.
        k: Constant term of the divisor.
    """

    kind: ClassVar[str] = "local_response_norm"
    examples = ({"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}, {})
    part: ClassVar[str] = "norm"
    short_name: ClassVar[str] = "LRN"
    size: Count = 5
    alpha: Factor = 1e-4
    beta: Factor = 0.75
    k: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def shape(self, *inputs: Shape) -> Map:
        """Same as the input."""
        return require_map("A local response norm", inputs[0])

    def saved(self, *inputs: Shape) -> SavedValues:
        """The operand, its squares with channels of zeros, and the base and the power of the divisor."""
        x = inputs[0]
        padded = x.elements // x.channels * (x.channels + self.size - 1)
        return SavedValues((0,), elements=2 * x.elements + padded)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.local_response_norm`."""
        kwargs = _LOCAL_RESPONSE_NORM.kwargs(alpha=self.alpha, beta=self.beta, k=self.k)
        return Apply("torch.nn.functional.local_response_norm", (Arg(0), self.size), kwargs, _LOCAL_RESPONSE_NORM)
