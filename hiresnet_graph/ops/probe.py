"""Marks on the operands of merges, for analyses; not registered, since specs do not name them."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.ops.base import (
    Apply,
    Arg,
    Op,
    Saves,
)
from hiresnet_graph.shapes import Shape


class EdgeProbe(Op):
    """The value that one operand brings to a slot, unchanged.

    Attributes:
        edge: Name of the edge that brings it; empty for the own value of the node's block.
        target: The node.
        slot: Its slot.
        alone: No other value arrives at the slot.
    """

    kind: ClassVar[str] = "probe"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    pure: ClassVar[bool] = False  # a value that is computed once arrives at each step
    edge: str
    target: str
    slot: str
    alone: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """`+x`, which is x."""
        return Apply("operator.pos", (Arg(0),))
