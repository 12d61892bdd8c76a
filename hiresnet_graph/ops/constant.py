"""Values that do not depend on the input."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

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
)
from hiresnet_graph.shapes import Shape, shape_of

_CONSTANT = Signature("sizes", value=0.0)


@OPS.register
class ConstantValue(Op):
    """A value that is the same for every sample; its input only sets their number.

    Attributes:
        sizes: [channels, height, width], or [features] (default: the shape of the input).
        value: All elements, or their initial value.
        learned: Whether the elements are parameters.
    """

    kind: ClassVar[str] = "constant"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"sizes": [3, 2, 5], "value": 0.5}, {"learned": True}, {"sizes": [4], "value": 1, "learned": True}, {})
    sizes: tuple[Count, ...] | None = None
    value: Factor = 0.0
    learned: bool = False

    @field_validator("sizes")
    @classmethod
    def _check(cls, sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if sizes is not None:
            shape_of(sizes)
        return sizes

    def shape(self, *inputs: Shape) -> Shape:
        """As given, or that of the input."""
        return inputs[0] if self.sizes is None else shape_of(self.sizes)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """The value of one sample, if it is learned."""
        return (constant_tensor("weight", tuple(self.shape(*inputs)), self.value),) if self.learned else ()

    def layer(self, *inputs: Shape) -> Layer | None:
        """`hiresnet_graph.ops.layers.Constant`, if it is learned."""
        if not self.learned:
            return None
        args, kwargs = (tuple(self.shape(*inputs)),), _CONSTANT.kwargs(value=self.value)
        return Layer("hiresnet_graph.ops.layers.Constant", args, kwargs, _CONSTANT)

    def apply(self, *inputs: Shape) -> Apply | None:
        """`hiresnet_graph.ops.layers.constant`, if it is not learned."""
        if self.learned:
            return None
        return Apply("hiresnet_graph.ops.layers.constant", (Arg(0), self.value, *self.shape(*inputs)))

    def label(self, *, brief: bool = False) -> str:
        """The value."""
        return "learned constant" if self.learned else f"constant {self.value:g}"
