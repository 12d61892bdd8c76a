"""Operations that add, remove, reorder or scale channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Factor,
    Layer,
    Op,
    Saves,
    Signature,
    Tensor,
    constant_tensor,
    require_map,
)
from hiresnet_graph.shapes import Map, Shape

if TYPE_CHECKING:
    import torch

_PAD = Signature("input pad")
_LAYER_SCALE = Signature("channels", init=1e-6, axes=2)
_SHUFFLE = Signature("input groups")


@OPS.register
class PadChannels(Op):
    """Zero channels (or features), half before and half after, up to `width`; an odd one goes after.

    Attributes:
        side: `end` places all of them after.
    """

    kind: ClassVar[str] = "pad_channels"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"width": 11}, {"width": 13, "side": "end"})
    part: ClassVar[str] = "pad"
    short_name: ClassVar[str] = "zero pad"
    width: Count
    side: Literal["both", "end"] = "both"

    def shape(self, *inputs: Shape) -> Shape:
        """`width` channels."""
        x = inputs[0]
        if x.channels > self.width:
            raise ShapeError(
                f"Channel padding cannot reduce {x.channels} channels to {self.width}.", "Use 'slice' or 'conv1x1'."
            )
        return x.with_channels(self.width)

    def missing(self, channels: int) -> tuple[int, int]:
        """Channels that are added before and after."""
        missing = self.width - channels
        before = missing // 2 if self.side == "both" else 0
        return before, missing - before

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad` on the feature axis."""
        padding = (*[0, 0] * inputs[0].trailing, *self.missing(inputs[0].channels))
        return Apply("torch.nn.functional.pad", (Arg(0), padding), signature=_PAD)


@OPS.register
class SliceChannels(Op):
    """`width` channels from `start` on.

    Attributes:
        start: The first channel, from 0.
    """

    kind: ClassVar[str] = "slice_channels"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    examples = ({"width": 3, "start": 2}, {"width": 5})
    part: ClassVar[str] = "slice"
    short_name: ClassVar[str] = "channel slice"
    width: Count
    start: int = 0

    def shape(self, *inputs: Shape) -> Shape:
        """`width` channels."""
        if not 0 <= self.start <= inputs[0].channels - self.width:
            raise ShapeError(
                f"Channels {self.start} to {self.start + self.width} are out of range for {inputs[0]}.",
                "Use 'pad' or 'conv1x1'.",
            )
        return inputs[0].with_channels(self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """A slice of the feature axis."""
        before = [slice(None)] * (1 + inputs[0].feature_axis)
        return Apply("operator.getitem", (Arg(0), (*before, slice(self.start or None, self.start + self.width))))


@OPS.register
class ChannelShuffle(Op):
    """The channels of a feature map, taken from `groups` groups in turn (Zhang et al. 2018, ShuffleNet).

    Attributes:
        groups: Number of groups of consecutive channels.
    """

    kind: ClassVar[str] = "channel_shuffle"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"groups": 4},)
    part: ClassVar[str] = "shuffle"
    short_name: ClassVar[str] = "channel shuffle"
    groups: Count = 2

    def shape(self, *inputs: Shape) -> Map:
        """Same as the input."""
        x = require_map("A channel shuffle", inputs[0])
        if x.channels % self.groups:
            raise ShapeError(
                f"A channel shuffle in {self.groups} groups requires a multiple of {self.groups} channels, not "
                f"{x.channels}.",
                "Change 'groups'.",
            )
        return x

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.channel_shuffle`."""
        return Apply("torch.nn.functional.channel_shuffle", (Arg(0), self.groups), signature=_SHUFFLE)


@OPS.register
class ChannelScale(Op):
    """A learned factor for each channel or feature (Touvron et al. 2021, CaiT).

    Attributes:
        init: Initial value of all factors.
    """

    kind: ClassVar[str] = "layer_scale"
    parameter_group: ClassVar[str] = "scales"
    is_affine: ClassVar[bool] = True
    maps_channels: ClassVar[bool] = True
    examples = ({"init": 0.5}, {})
    part: ClassVar[str] = "layer_scale"
    short_name: ClassVar[str] = "layer scale"
    init: Factor = 1e-6

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """One factor for each channel."""
        return (constant_tensor("weight", (inputs[0].channels,), self.init),)

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, float]:
        """The factors, without a shift."""
        return tensors["weight"], 0.0

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.LayerScale`."""
        kwargs = _LAYER_SCALE.kwargs(init=self.init, axes=inputs[0].trailing)
        return Layer("hiresnet_graph.ops.layers.LayerScale", (inputs[0].channels,), kwargs, _LAYER_SCALE)
