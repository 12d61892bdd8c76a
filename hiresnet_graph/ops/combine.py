"""Operations on several values, and those that fit channels: what merges and projections are made of."""

from __future__ import annotations

from functools import reduce
from typing import ClassVar

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import OPS, Apply, Arg, Count, Layer, Op, Tensor, want_map
from hiresnet_graph.shapes import Map, Shape, Vector


def _fold(function: str, count: int) -> Apply | Arg:
    args: list[Apply | Arg] = [Arg(index) for index in range(count)]
    return reduce(lambda left, right: Apply(function, (left, right)), args)


def _equal(op: str, inputs: tuple[Shape, ...]) -> Shape:
    for shape in inputs[1:]:
        if shape != inputs[0]:
            raise ShapeError(f"{op} wants equal shapes, but gets {inputs[0]} and {shape}.")
    return inputs[0]


@OPS.register
class Add(Op):
    """The sum, added up from the first input to the last."""

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
    """The mean of the inputs: their sum, divided by their number."""

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
    """The product. A factor may have 1 channel, or 1x1 height and width: it then counts for all of them."""

    kind: ClassVar[str] = "multiply"
    part: ClassVar[str] = "multiply"
    arity: ClassVar[int | None] = None
    partial: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """That of the first input, which no factor may exceed."""
        first = inputs[0]
        for shape in inputs[1:]:
            fits = type(shape) is type(first) and all(
                size in (1, whole) for size, whole in zip(shape, first, strict=True)
            )
            if not fits:
                raise ShapeError(
                    f"A product wants factors of {first}, with 1 channel or of 1x1 size, but gets {shape}."
                )
        return first

    def apply(self, *inputs: Shape) -> Apply:
        """`a * b * ...`."""
        product = _fold("operator.mul", len(inputs))
        return product if isinstance(product, Apply) else Apply("operator.pos", (product,))


@OPS.register
class Concat(Op):
    """The inputs one after another along the channels."""

    kind: ClassVar[str] = "concat"
    part: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Channels add up; height and width agree."""
        first = inputs[0]
        for shape in inputs[1:]:
            if type(shape) is not type(first) or shape[1:] != first[1:]:
                raise ShapeError(f"A concatenation wants equal height and width, but gets {first} and {shape}.")
        channels = sum(shape.channels for shape in inputs)
        return first._replace(channels=channels)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.cat` along axis 1."""
        return Apply("torch.cat", ([Arg(index) for index in range(len(inputs))],), {"dim": 1})


@OPS.register
class PadChannels(Op):
    """Zero channels added before and after, half each, until there are `width`; an odd one goes after."""

    kind: ClassVar[str] = "pad_channels"
    part: ClassVar[str] = "pad"
    width: Count

    def shape(self, *inputs: Shape) -> Map:
        """`width` channels."""
        x = want_map("Channel padding", inputs[0])
        if x.channels > self.width:
            raise ShapeError(
                f"Channel padding cannot bring {x.channels} channels to {self.width}.", "Use 'slice' or 'conv1x1'."
            )
        return x._replace(channels=self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad` on the channel axis."""
        missing = self.width - inputs[0].channels
        before = missing // 2
        return Apply("torch.nn.functional.pad", (Arg(0), (0, 0, 0, 0, before, missing - before)))


@OPS.register
class SliceChannels(Op):
    """The first `width` channels, or those from `start` on."""

    kind: ClassVar[str] = "slice_channels"
    part: ClassVar[str] = "slice"
    width: Count
    start: int = 0

    def shape(self, *inputs: Shape) -> Shape:
        """`width` channels."""
        if not 0 <= self.start <= inputs[0].channels - self.width:
            raise ShapeError(
                f"Channels {self.start} to {self.start + self.width} are not in a value of {inputs[0]}.",
                "Use 'pad' or 'conv1x1'.",
            )
        return inputs[0]._replace(channels=self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """A slice of axis 1."""
        return Apply("operator.getitem", (Arg(0), (slice(None), slice(self.start or None, self.start + self.width))))


@OPS.register
class Scale(Op):
    """A learned factor for the whole value: w x, or sigmoid(w) x with `sigmoid`. Starts at w = 1, or at w = 0."""

    kind: ClassVar[str] = "scale"
    part: ClassVar[str] = "scale"
    sigmoid: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """One number."""
        return (Tensor("weight", (), "zeros" if self.sigmoid else "ones"),)

    def layer(self, *inputs: Shape) -> Layer:
        """A layer of our own, `hiresnet_graph.ops.layers.Scale`."""
        return Layer("hiresnet_graph.ops.layers.Scale", (), {"sigmoid": True} if self.sigmoid else {})


@OPS.register
class ToMap(Op):
    """A vector as a feature map of 1x1 size, so that it can weight the channels of another."""

    kind: ClassVar[str] = "to_map"
    part: ClassVar[str] = "to_map"

    def shape(self, *inputs: Shape) -> Map:
        """One value a channel."""
        if not isinstance(inputs[0], Vector):
            raise ShapeError(f"'to_map' wants a vector, but gets a feature map of {inputs[0]}.", "Leave it out.")
        return Map(inputs[0].channels, 1, 1)

    def apply(self, *inputs: Shape) -> Apply:
        """Two axes of length 1 at the end."""
        whole = slice(None)
        return Apply("operator.getitem", (Arg(0), (whole, whole, None, None)))
