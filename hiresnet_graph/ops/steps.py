"""Operations that unrolling in time inserts; not registered, since specs do not name them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, InstanceOf, model_serializer

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    Apply,
    Arg,
    Op,
    Saves,
)
from hiresnet_graph.shapes import Shape


class Frame(Op):
    """One step of a sequence."""

    kind: ClassVar[str] = "frame"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    step: Annotated[int, Field(ge=0)]

    def shape(self, *inputs: Shape) -> Shape:
        """Shape of one step."""
        x = inputs[0]
        if x.steps is None:
            raise ShapeError(f"'frame' requires a sequence, not {x.describe()}.", "Set 'time: {input: sequence}'.")
        if self.step >= x.steps:
            raise ShapeError(f"step {self.step} is out of range for a sequence of {x.steps} steps.")
        return x.frame

    def apply(self, *inputs: Shape) -> Apply:
        """`x[:, step]`."""
        return Apply("operator.getitem", (Arg(0), (slice(None), self.step)))


class StackSteps(Op):
    """Values at single steps stacked to a sequence, on axis 1."""

    kind: ClassVar[str] = "stack"
    saves: ClassVar[Saves] = "nothing"
    shares_gradient: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    arity: ClassVar[int | None] = None
    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Steps first."""
        if inputs[0].steps is not None:
            raise ShapeError(f"A sequence requires values at single steps, not {inputs[0].describe()}.")
        if any(shape != inputs[0] for shape in inputs):
            raise ShapeError(f"A sequence requires equal shapes, not {', '.join(map(str, dict.fromkeys(inputs)))}.")
        return inputs[0].in_time(len(inputs))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.stack` along axis 1."""
        return Apply("torch.stack", ([Arg(index) for index in range(len(inputs))],), {"dim": 1})


class Zeros(Op):
    """Zeros in place of a missing value, for as many samples as the input has.

    Attributes:
        value: The shape; stored as its fields, like `channels`.
    """

    kind: ClassVar[str] = "zeros"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    value: InstanceOf[Shape]

    @model_serializer
    def _fields(self) -> dict[str, Any]:
        return self.value.fields()

    def shape(self, *inputs: Shape) -> Shape:
        """As declared."""
        return self.value

    def apply(self, *inputs: Shape) -> Apply:
        """`hiresnet_graph.ops.layers.zeros`."""
        return Apply("hiresnet_graph.ops.layers.zeros", (Arg(0), *self.value))


class Identity(Op):
    """The identity, for named values in the graph of one step."""

    kind: ClassVar[str] = "identity"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """The input."""
        return Apply("operator.pos", (Arg(0),))
