"""What a merge is: the rule by which several values that arrive at one slot become one."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


class Merge(Kind):
    """A rule for the values at one slot of a node.

    Attributes:
        order: Names of sources, in the order in which their values are taken; by default what is there already, then
            the nearest first.

    Class attributes:
        default_slot: The slot of a skip with this merge that names none.
    """

    order: tuple[str, ...] | None = None
    default_slot: ClassVar[str] = "output"

    def wants(self, first: Shape, source: Shape) -> Shape:
        """The shape to which a value of shape `source` has to be brought, when the first value has shape `first`."""
        return first

    def weigh(self, wire: Wire) -> Wire:
        """The value of one edge, in the scope of that edge, before it is combined; for weights that belong to edges."""
        return wire

    @abstractmethod
    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One value of two or more, in their order."""


MERGES: Registry[Merge] = Registry("merge")
