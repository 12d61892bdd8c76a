"""Operations that unrolling in time puts in; they are not registered, since no spec asks for them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import Apply, Arg, Count, Op
from hiresnet_graph.shapes import Clip, Map, Series, Shape, Vector, in_time


class Frame(Op):
    """One step of a sequence."""

    kind: ClassVar[str] = "frame"
    part: ClassVar[str] = "frame"
    step: Annotated[int, Field(ge=0)]

    def shape(self, *inputs: Shape) -> Shape:
        """That of one step."""
        x = inputs[0]
        if not isinstance(x, Clip | Series):
            raise ShapeError(f"'frame' wants a sequence, but gets {x}.", "Set 'time: {input: sequence}'.")
        if self.step >= x.steps:
            raise ShapeError(f"step {self.step} is not in a sequence of {x.steps}.")
        return x.frame

    def apply(self, *inputs: Shape) -> Apply:
        """`x[:, step]`."""
        return Apply("operator.getitem", (Arg(0), (slice(None), self.step)))


class Stack(Op):
    """Values at single steps as a sequence, on axis 1."""

    kind: ClassVar[str] = "stack"
    part: ClassVar[str] = "stack"
    arity: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Steps first."""
        if any(shape != inputs[0] for shape in inputs):
            raise ShapeError(f"A sequence wants equal shapes, but gets {', '.join(map(str, dict.fromkeys(inputs)))}.")
        return in_time(inputs[0], len(inputs))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.stack` along axis 1."""
        return Apply("torch.stack", ([Arg(index) for index in range(len(inputs))],), {"dim": 1})


class Zeros(Op):
    """Zeros, for as many samples as the input has: what stands for a value that is not there."""

    kind: ClassVar[str] = "zeros"
    part: ClassVar[str] = "zeros"
    channels: Count
    height: Count | None = None
    width: Count | None = None

    @classmethod
    def of(cls, shape: Shape) -> Zeros:
        """Zeros of a shape."""
        return (
            cls(channels=shape.channels, height=shape.height, width=shape.width)
            if isinstance(shape, Map)
            else cls(channels=shape.channels)
        )

    def shape(self, *inputs: Shape) -> Shape:
        """As the fields say."""
        if self.height is None or self.width is None:
            return Vector(self.channels)
        return Map(self.channels, self.height, self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """A function of our own, `hiresnet_graph.ops.layers.zeros`."""
        return Apply("hiresnet_graph.ops.layers.zeros", (Arg(0), *self.shape(*inputs)))


class Identity(Op):
    """The value itself: a place in the graph of one step where a value is read, arrives, or is a node's."""

    kind: ClassVar[str] = "identity"
    part: ClassVar[str] = "identity"

    def shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """The input."""
        return Apply("operator.pos", (Arg(0),))
