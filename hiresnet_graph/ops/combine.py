"""Operations on several values, and operations that adapt channels: the parts of merges and projections."""

from __future__ import annotations

from functools import reduce
from typing import ClassVar

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import OPS, Apply, Arg, Count, Layer, Op, Tensor, require_map
from hiresnet_graph.shapes import Map, Shape, Vector


def _fold(function: str, count: int) -> Apply | Arg:
    args: list[Apply | Arg] = [Arg(index) for index in range(count)]
    return reduce(lambda left, right: Apply(function, (left, right)), args)


def _equal(op: str, inputs: tuple[Shape, ...]) -> Shape:
    for shape in inputs[1:]:
        if shape != inputs[0]:
            raise ShapeError(f"{op} requires equal shapes, not {inputs[0]} and {shape}.")
    return inputs[0]


@OPS.register
class Add(Op):
    """The sum, from the first input to the last."""

    kind: ClassVar[str] = "add"
    part: ClassVar[str] = "add"
    arity: ClassVar[int | None] = None
    partial: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        return _equal("A sum", inputs)

    def apply(self, *inputs: Shape) -> Apply:
        """`a + b + ...`."""
        sum_ = _fold("operator.add", len(inputs))
        return sum_ if isinstance(sum_, Apply) else Apply("operator.pos", (sum_,))


@OPS.register
class Mean(Op):
    """The mean: the sum of the inputs divided by their number."""

    kind: ClassVar[str] = "mean"
    part: ClassVar[str] = "mean"
    arity: ClassVar[int | None] = None
    partial: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        return _equal("A mean", inputs)

    def apply(self, *inputs: Shape) -> Apply:
        """`(a + b + ...) / n`."""
        return Apply("operator.truediv", (_fold("operator.add", len(inputs)), len(inputs)))


@OPS.register
class Multiply(Op):
    """The product. A factor with 1 channel, or of 1x1 size, is broadcast."""

    kind: ClassVar[str] = "multiply"
    part: ClassVar[str] = "multiply"
    arity: ClassVar[int | None] = None
    partial: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the first input, to which all others can be broadcast."""
        first = inputs[0]
        for shape in inputs[1:]:
            fits = type(shape) is type(first) and all(
                size in (1, whole) for size, whole in zip(shape, first, strict=True)
            )
            if not fits:
                raise ShapeError(f"A product requires factors of {first}, with 1 channel or of 1x1 size, not {shape}.")
        return first

    def apply(self, *inputs: Shape) -> Apply:
        """`a * b * ...`."""
        product = _fold("operator.mul", len(inputs))
        return product if isinstance(product, Apply) else Apply("operator.pos", (product,))


@OPS.register
class Concat(Op):
    """Concatenation along the channels."""

    kind: ClassVar[str] = "concat"
    part: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Channels add up; height and width are equal."""
        first = inputs[0]
        for shape in inputs[1:]:
            if type(shape) is not type(first) or shape[1:] != first[1:]:
                raise ShapeError(f"A concatenation requires equal height and width, not {first} and {shape}.")
        channels = sum(shape.channels for shape in inputs)
        return first._replace(channels=channels)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.cat` along axis 1."""
        return Apply("torch.cat", ([Arg(index) for index in range(len(inputs))],), {"dim": 1})


@OPS.register
class PadChannels(Op):
    """Zero channels, half before and half after, up to `width`; an odd one goes after."""

    kind: ClassVar[str] = "pad_channels"
    examples = ({"width": 11},)
    part: ClassVar[str] = "pad"
    width: Count

    def shape(self, *inputs: Shape) -> Map:
        """`width` channels."""
        x = require_map("Channel padding", inputs[0])
        if x.channels > self.width:
            raise ShapeError(
                f"Channel padding cannot reduce {x.channels} channels to {self.width}.", "Use 'slice' or 'conv1x1'."
            )
        return x._replace(channels=self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad` on the channel axis."""
        missing = self.width - inputs[0].channels
        before = missing // 2
        return Apply("torch.nn.functional.pad", (Arg(0), (0, 0, 0, 0, before, missing - before)))


@OPS.register
class SliceChannels(Op):
    """`width` channels from `start` on."""

    kind: ClassVar[str] = "slice_channels"
    examples = ({"width": 3, "start": 2}, {"width": 5})
    part: ClassVar[str] = "slice"
    width: Count
    start: int = 0

    def shape(self, *inputs: Shape) -> Shape:
        """`width` channels."""
        if not 0 <= self.start <= inputs[0].channels - self.width:
            raise ShapeError(
                f"Channels {self.start} to {self.start + self.width} are out of range for {inputs[0]}.",
                "Use 'pad' or 'conv1x1'.",
            )
        return inputs[0]._replace(channels=self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """A slice of axis 1."""
        return Apply("operator.getitem", (Arg(0), (slice(None), slice(self.start or None, self.start + self.width))))


@OPS.register
class Scale(Op):
    """A learned scalar factor: w x, initially w = 1; with `sigmoid`, sigmoid(w) x, initially w = 0."""

    kind: ClassVar[str] = "scale"
    examples = ({"sigmoid": True}, {})
    part: ClassVar[str] = "scale"
    sigmoid: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """One number."""
        return (Tensor("weight", (), "zeros" if self.sigmoid else "ones"),)

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.Scale`."""
        return Layer("hiresnet_graph.ops.layers.Scale", (), {"sigmoid": True} if self.sigmoid else {})


@OPS.register
class ToMap(Op):
    """A vector as a feature map of 1x1 size, for example to weight the channels of another."""

    kind: ClassVar[str] = "to_map"
    part: ClassVar[str] = "to_map"

    def shape(self, *inputs: Shape) -> Map:
        """One value per channel."""
        if not isinstance(inputs[0], Vector):
            raise ShapeError(f"'to_map' requires a vector, not a feature map of {inputs[0]}.", "Remove it.")
        return Map(inputs[0].channels, 1, 1)

    def apply(self, *inputs: Shape) -> Apply:
        """Two axes of length 1 at the end."""
        whole = slice(None)
        return Apply("operator.getitem", (Arg(0), (whole, whole, None, None)))
