"""`Wire`, a symbolic value to which operations are applied.

Blocks, merges and projections are written in terms of wires: each method records one primitive call and returns the
wire of its output. The calls are recorded by a `Builder`, which `passes.expand` implements.
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

NormName = Literal["batch", "group", "layer", "layer2d", "none"]
ActivationName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "abs",
    "none",
]
Size = int | tuple[int, int]


class Builder(ABC):
    """Records the calls of one node or edge."""

    @abstractmethod
    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        """Record one call of an operation, named `scope.part`."""

    @abstractmethod
    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        """The merged value at a slot: the wire, the block's own operands, then the edges into the slot."""

    @abstractmethod
    def shortcut(self, wire: Wire, target: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        """A block's own shortcut, recorded as an edge."""

    @abstractmethod
    def inline(self, wire: Wire, block: Any) -> Wire:
        """The output of a block that the spec defines, which reads the wire."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The output of a call.

    Attributes:
        name: Name of the call.
        shape: Shape of one sample.
        scope: Prefix of the names of later calls.
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
        """The same value; later calls are named below `part`."""
        return replace(self, scope=f"{self.scope}.{part}" if self.scope else part)

    def rescoped(self, other: Wire) -> Wire:
        """The same value in the scope of `other`."""
        return replace(self, scope=other.scope)

    def apply(self, op: Op, *others: Wire, name: str | None = None) -> Wire:
        """Apply an operation to this value and others.

        Raises:
            ShapeError: The operation does not accept these shapes.
        """
        return self.builder.call(op, (self, *others), self.scope, name)

    def join(self, slot: str, *operands: Wire) -> Wire:
        """Merge this value, `operands` and the edges into `slot`, in this order."""
        return self.builder.join(self, slot, operands)

    def shortcut(self, target: Wire, project: Callable[[Wire, Shape], Wire], name: str = "shortcut") -> Wire:
        """A residual block's own shortcut: this value, projected to the shape of `target`."""
        return self.builder.shortcut(self, target.shape, f"{self.scope}.{name}", project)

    def inline(self, block: Any) -> Wire:
        """The output of a block that the spec defines, which reads this value."""
        return self.builder.inline(self, block)

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
        """A convolution; by default, an odd kernel keeps height and width at stride 1."""
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
        """A linear map of a vector, or of each token."""
        return self.apply(ops.Linear(width=width, bias=bias), name=name)

    def batch_norm(self, name: str | None = None) -> Wire:
        """Batch norm."""
        return self.apply(ops.BatchNorm(), name=name)

    def norm(self, kind: NormName, name: str | None = None) -> Wire:
        """The norm of this name; no operation for `none`."""
        if kind == "none":
            return self
        return self.apply(ops.OPS.get("layer_norm2d" if kind == "layer2d" else f"{kind}_norm")(), name=name)

    def relu(self, name: str | None = None) -> Wire:
        """max(0, x)."""
        return self.apply(ops.ReLU(), name=name)

    def sigmoid(self, name: str | None = None) -> Wire:
        """1 / (1 + exp(-x))."""
        return self.apply(ops.Sigmoid(), name=name)

    def activation(self, kind: ActivationName, name: str | None = None) -> Wire:
        """The activation of this name; no operation for `none`."""
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
        count_include_pad: bool = True,
        name: str | None = None,
    ) -> Wire:
        """The mean of each window."""
        op = ops.AvgPool(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )
        return self.apply(op, name=name)

    def adaptive_avg_pool(self, size: Size = 1, name: str | None = None) -> Wire:
        """Means over windows that give `size` outputs; 1 is global average pooling."""
        return self.apply(ops.AdaptiveAvgPool(size=size), name=name)

    def subsample(self, stride: Size, name: str | None = None) -> Wire:
        """Every `stride`-th row and column."""
        return self.apply(ops.Subsample(stride=stride), name=name)

    def resize(self, size: Size, mode: Literal["nearest", "bilinear"] = "nearest", name: str | None = None) -> Wire:
        """Interpolation to a height and width."""
        return self.apply(ops.Resize(size=size, mode=mode), name=name)

    def pad_channels(self, width: int, side: Literal["both", "end"] = "both", name: str | None = None) -> Wire:
        """Zero channels before and after, or after alone."""
        return self.apply(ops.PadChannels(width=width, side=side), name=name)

    def slice_channels(self, width: int, start: int = 0, name: str | None = None) -> Wire:
        """`width` channels from `start` on."""
        return self.apply(ops.SliceChannels(width=width, start=start), name=name)

    def to_tokens(self, name: str | None = None) -> Wire:
        """A feature map as tokens."""
        return self.apply(ops.ToTokens(), name=name)

    def to_map(self, name: str | None = None) -> Wire:
        """Tokens of a grid as a feature map."""
        return self.apply(ops.ToMap(), name=name)

    def flatten(self, name: str | None = None) -> Wire:
        """A feature map as one vector."""
        return self.apply(ops.Flatten(), name=name)

    def dropout(self, p: float, name: str | None = None) -> Wire:
        """Dropout; no operation for `p` = 0."""
        return self if p == 0 else self.apply(ops.Dropout(p=p), name=name)

    def drop_path(self, p: float, name: str | None = None) -> Wire:
        """Stochastic depth of single samples; no operation for `p` = 0."""
        return self if p == 0 else self.apply(ops.StochasticDepth(p=p), name=name)

    def layer_scale(self, init: float | None, name: str | None = None) -> Wire:
        """A learned factor for each channel; no operation for `init` = None."""
        return self if init is None else self.apply(ops.ChannelScale(init=init), name=name)

    def add(self, *others: Wire, name: str | None = None) -> Wire:
        """The sum, from left to right."""
        return self.apply(ops.Add(), *others, name=name)

    def mean(self, *others: Wire, name: str | None = None) -> Wire:
        """The mean."""
        return self.apply(ops.Mean(), *others, name=name)

    def multiply(self, *others: Wire, name: str | None = None) -> Wire:
        """The product."""
        return self.apply(ops.Multiply(), *others, name=name)

    def concat(self, *others: Wire, name: str | None = None) -> Wire:
        """Concatenation along the channels."""
        return self.apply(ops.Concat(), *others, name=name)
