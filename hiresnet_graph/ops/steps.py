"""Operations that unrolling in time inserts; not registered, since specs do not name them."""

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
        """Shape of one step."""
        x = inputs[0]
        if not isinstance(x, Clip | Series):
            raise ShapeError(f"'frame' requires a sequence, not {x}.", "Set 'time: {input: sequence}'.")
        if self.step >= x.steps:
            raise ShapeError(f"step {self.step} is out of range for a sequence of {x.steps} steps.")
        return x.frame

    def apply(self, *inputs: Shape) -> Apply:
        """`x[:, step]`."""
        return Apply("operator.getitem", (Arg(0), (slice(None), self.step)))


class Stack(Op):
    """Values at single steps stacked to a sequence, on axis 1."""

    kind: ClassVar[str] = "stack"
    part: ClassVar[str] = "stack"
    arity: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Steps first."""
        if any(shape != inputs[0] for shape in inputs):
            raise ShapeError(f"A sequence requires equal shapes, not {', '.join(map(str, dict.fromkeys(inputs)))}.")
        return in_time(inputs[0], len(inputs))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.stack` along axis 1."""
        return Apply("torch.stack", ([Arg(index) for index in range(len(inputs))],), {"dim": 1})


class Zeros(Op):
    """Zeros in place of a missing value, for as many samples as the input has."""

    kind: ClassVar[str] = "zeros"
    part: ClassVar[str] = "zeros"
    channels: Count
    height: Count | None = None
    width: Count | None = None

    @classmethod
    def of(cls, shape: Shape) -> Zeros:
        """Zeros of this shape."""
        return (
            cls(channels=shape.channels, height=shape.height, width=shape.width)
            if isinstance(shape, Map)
            else cls(channels=shape.channels)
        )

    def shape(self, *inputs: Shape) -> Shape:
        """As declared."""
        if self.height is None or self.width is None:
            return Vector(self.channels)
        return Map(self.channels, self.height, self.width)

    def apply(self, *inputs: Shape) -> Apply:
        """`hiresnet_graph.ops.layers.zeros`."""
        return Apply("hiresnet_graph.ops.layers.zeros", (Arg(0), *self.shape(*inputs)))


class Identity(Op):
    """The identity, for named values in the graph of one step."""

    kind: ClassVar[str] = "identity"
    part: ClassVar[str] = "identity"

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """The input."""
        return Apply("operator.pos", (Arg(0),))
