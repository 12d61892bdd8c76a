"""A value on its way through a network, and the operations that can be applied to it.

Blocks, merges and projections are written in terms of wires: each method adds one primitive call to the graph that is
being expanded and gives the wire of its output. Who records the calls (a `Builder`) is `passes.expand`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from hiresnet_graph import ops
from hiresnet_graph.errors import RegistryError, ShapeError
from hiresnet_graph.ops import Op
from hiresnet_graph.shapes import Shape

NormName = Literal["batch", "group", "layer", "none"]
ActivationName = Literal["relu", "relu6", "leaky_relu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "none"]
Size = int | tuple[int, int]


class Builder(ABC):
    """Records calls for the wires of one node or edge."""

    @abstractmethod
    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        """One call of an operation; its name is `scope.part`."""

    @abstractmethod
    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        """The value after the merge at a slot: the wire, the block's own operands, then the edges into the slot."""

    @abstractmethod
    def shortcut(self, wire: Wire, want: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        """A block's own shortcut, recorded as an edge of the block."""

    @abstractmethod
    def inline(self, wire: Wire, graph: Any) -> Wire:
        """The output of a whole graph (of a block written in the spec language) that reads the wire."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The output of a call.

    Attributes:
        name: Name of the call.
        shape: Its shape, without the batch.
        scope: Prefix of the names of the calls that follow.
    """

    builder: Builder
    name: str
    shape: Shape
    scope: str

    @property
    def channels(self) -> int:
        """Number of channels, or the length of a vector."""
        return self.shape.channels

    def within(self, part: str) -> Wire:
        """The same value; calls that follow are named below `part`."""
        return replace(self, scope=f"{self.scope}.{part}" if self.scope else part)

    def rescoped(self, other: Wire) -> Wire:
        """The same value; calls that follow are named as those after `other`."""
        return replace(self, scope=other.scope)

    def apply(self, op: Op, *others: Wire, name: str | None = None) -> Wire:
        """Any operation, on this value and others.

        Raises:
            ShapeError: The operation cannot take these shapes.
        """
        return self.builder.call(op, (self, *others), self.scope, name)

    def join(self, slot: str, *operands: Wire) -> Wire:
        """Where a block lets others add to its value: merges `operands` and the edges into `slot`, in this order."""
        return self.builder.join(self, slot, operands)

    def shortcut(self, want: Wire, project: Callable[[Wire, Shape], Wire], name: str = "shortcut") -> Wire:
        """This value, brought to the shape of `want` by a projection: a residual block's own shortcut."""
        return self.builder.shortcut(self, want.shape, f"{self.scope}.{name}", project)

    def inline(self, graph: Any) -> Wire:
        """The output of a graph that reads this value as its input."""
        return self.builder.inline(self, graph)

    def conv2d(
        self,
        width: int,
        kernel_size: Size = 3,
        *,
        stride: Size = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = False,
        name: str | None = None,
    ) -> Wire:
        """A convolution; without `padding`, an odd kernel keeps height and width at stride 1."""
        op = ops.Conv2d(
            width=width,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        return self.apply(op, name=name)

    def conv_transpose2d(
        self,
        width: int,
        kernel_size: Size = 2,
        *,
        stride: Size = 2,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        name: str | None = None,
    ) -> Wire:
        """A transposed convolution."""
        op = ops.ConvTranspose2d(
            width=width,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
        )
        return self.apply(op, name=name)

    def linear(self, width: int, *, bias: bool = True, name: str | None = None) -> Wire:
        """A linear map of a vector."""
        return self.apply(ops.Linear(width=width, bias=bias), name=name)

    def batch_norm(self, name: str | None = None) -> Wire:
        """Batch norm."""
        return self.apply(ops.BatchNorm(), name=name)

    def norm(self, kind: NormName, name: str | None = None) -> Wire:
        """The norm of this name; `none` is the value itself."""
        table: dict[str, type[Op]] = {"batch": ops.BatchNorm, "group": ops.GroupNorm, "layer": ops.LayerNorm}
        return self if kind == "none" else self.apply(table[kind](), name=name)

    def relu(self, name: str | None = None) -> Wire:
        """max(0, x)."""
        return self.apply(ops.ReLU(), name=name)

    def sigmoid(self, name: str | None = None) -> Wire:
        """1 / (1 + exp(-x))."""
        return self.apply(ops.Sigmoid(), name=name)

    def activation(self, kind: ActivationName, name: str | None = None) -> Wire:
        """The activation of this name; `none` is the value itself."""
        if kind == "none":
            return self
        try:
            op = ops.OPS.get(kind)
        except RegistryError as error:
            raise ShapeError(str(error)) from None
        return self.apply(op(), name=name)

    def max_pool(
        self,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> Wire:
        """The maximum of each window."""
        op = ops.MaxPool(kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
        return self.apply(op, name=name)

    def avg_pool(
        self,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> Wire:
        """The mean of each window."""
        op = ops.AvgPool(kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
        return self.apply(op, name=name)

    def adaptive_avg_pool(self, size: Size = 1, name: str | None = None) -> Wire:
        """Means over windows, `size` of them; 1 is global average pooling."""
        return self.apply(ops.AdaptiveAvgPool(size=size), name=name)

    def subsample(self, stride: Size, name: str | None = None) -> Wire:
        """Every `stride`-th row and column."""
        return self.apply(ops.Subsample(stride=stride), name=name)

    def resize(self, size: Size, mode: Literal["nearest", "bilinear"] = "nearest", name: str | None = None) -> Wire:
        """Interpolation to a height and width."""
        return self.apply(ops.Resize(size=size, mode=mode), name=name)

    def pad_channels(self, width: int, name: str | None = None) -> Wire:
        """Zero channels before and after."""
        return self.apply(ops.PadChannels(width=width), name=name)

    def slice_channels(self, width: int, start: int = 0, name: str | None = None) -> Wire:
        """`width` channels from `start` on."""
        return self.apply(ops.SliceChannels(width=width, start=start), name=name)

    def flatten(self, name: str | None = None) -> Wire:
        """A feature map as one vector."""
        return self.apply(ops.Flatten(), name=name)

    def dropout(self, p: float, name: str | None = None) -> Wire:
        """Dropout; `p` = 0 is the value itself."""
        return self if p == 0 else self.apply(ops.Dropout(p=p), name=name)

    def scale(self, *, sigmoid: bool = False, name: str | None = None) -> Wire:
        """A learned factor."""
        return self.apply(ops.Scale(sigmoid=sigmoid), name=name)

    def add(self, *others: Wire, name: str | None = None) -> Wire:
        """The sum, from this value on."""
        return self.apply(ops.Add(), *others, name=name)

    def mean(self, *others: Wire, name: str | None = None) -> Wire:
        """The mean."""
        return self.apply(ops.Mean(), *others, name=name)

    def multiply(self, *others: Wire, name: str | None = None) -> Wire:
        """The product."""
        return self.apply(ops.Multiply(), *others, name=name)

    def concat(self, *others: Wire, name: str | None = None) -> Wire:
        """One after another along the channels."""
        return self.apply(ops.Concat(), *others, name=name)
