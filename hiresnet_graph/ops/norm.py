"""Normalisations."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import OPS, Count, Layer, Op, Tensor
from hiresnet_graph.shapes import Map, Shape, Vector

Epsilon = Annotated[float, Field(gt=0, lt=1)]


Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _affine(channels: int, scale: float) -> tuple[Tensor, Tensor]:
    weight = Tensor("weight", (channels,), "ones")
    if scale != 1:
        weight = (
            Tensor("weight", (channels,), "zeros")
            if scale == 0
            else Tensor("weight", (channels,), "constant", value=scale)
        )
    return weight, Tensor("bias", (channels,), "zeros")


@OPS.register
class BatchNorm(Op):
    """Batch norm over batch and space (Ioffe & Szegedy 2015), with running statistics for evaluation mode.

    Attributes:
        affine: Whether a learned scale and shift follow.
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "batch_norm"
    examples = ({"affine": False}, {"momentum": 0.2}, {"scale": 0}, {})
    part: ClassVar[str] = "norm"
    pure: ClassVar[bool] = False
    normalizes: ClassVar[bool] = True
    eps: Epsilon = 1e-5
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    affine: bool = True
    scale: Scale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift (if affine), running mean and variance [channels], and the number of batches."""
        channels = inputs[0].channels
        return (
            *(_affine(channels, self.scale) if self.affine else ()),
            Tensor("running_mean", (channels,), "zeros", trainable=False),
            Tensor("running_var", (channels,), "ones", trainable=False),
            Tensor("num_batches_tracked", (), "zeros", trainable=False),
        )

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.BatchNorm2d`, or `BatchNorm1d` for a vector."""
        kwargs: dict[str, float | bool] = {}
        if self.eps != 1e-5:
            kwargs["eps"] = self.eps
        if self.momentum != 0.1:
            kwargs["momentum"] = self.momentum
        if not self.affine:
            kwargs["affine"] = False
        rank = "2d" if isinstance(inputs[0], Map) else "1d"
        return Layer(f"torch.nn.BatchNorm{rank}", (inputs[0].channels,), kwargs)

    def split(self) -> tuple[Op, Op] | None:
        """The normalisation with its statistics; and scale and shift."""
        if not self.affine:
            return None
        affine = Affine(scale=self.scale) if "scale" in self.model_fields_set else Affine()
        return BatchNorm(eps=self.eps, momentum=self.momentum, affine=False), affine


@OPS.register
class Affine(Op):
    """A learned scale and shift of each channel, as after the normalisation of a norm.

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "affine"
    examples = ({"scale": 0.1}, {})
    part: ClassVar[str] = "affine"
    normalizes: ClassVar[bool] = True
    scale: Scale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _affine(inputs[0].channels, self.scale)

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.Affine`."""
        kwargs: dict[str, float] = {} if self.scale == 1 else {"scale": self.scale}
        if not isinstance(inputs[0], Map):
            kwargs["axes"] = 0
        return Layer("hiresnet_graph.ops.layers.Affine", (inputs[0].channels,), kwargs)


@OPS.register
class GroupNorm(Op):
    """Group norm (Wu & He 2018); the default number of groups is the greatest common divisor of 32 and the channels.

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "group_norm"
    examples = ({"groups": 2, "eps": 0.001}, {})
    part: ClassVar[str] = "norm"
    normalizes: ClassVar[bool] = True
    groups: Count | None = None
    eps: Epsilon = 1e-5
    scale: Scale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        channels = inputs[0].channels
        if self.groups is not None and channels % self.groups:
            raise ShapeError(
                f"Group norm in {self.groups} groups requires a multiple of {self.groups} channels, not {channels}.",
                "Change 'groups'.",
            )
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _affine(inputs[0].channels, self.scale)

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.GroupNorm`."""
        channels = inputs[0].channels
        groups = self.groups or math.gcd(32, channels)
        return Layer("torch.nn.GroupNorm", (groups, channels), {} if self.eps == 1e-5 else {"eps": self.eps})


@OPS.register
class LayerNorm(Op):
    """Layer norm (Ba et al. 2016) over all elements of a feature map, with a scale for each channel; or over a vector.

    Attributes:
        scale: Initial value of the scale.
    """

    kind: ClassVar[str] = "layer_norm"
    part: ClassVar[str] = "norm"
    normalizes: ClassVar[bool] = True
    eps: Epsilon = 1e-5
    scale: Scale = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Scale and shift [channels]."""
        return _affine(inputs[0].channels, self.scale)

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.GroupNorm` with one group, or `torch.nn.LayerNorm` for a vector."""
        kwargs = {} if self.eps == 1e-5 else {"eps": self.eps}
        if isinstance(inputs[0], Vector):
            return Layer("torch.nn.LayerNorm", (inputs[0].channels,), kwargs)
        return Layer("torch.nn.GroupNorm", (1, inputs[0].channels), kwargs)
