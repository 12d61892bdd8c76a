"""Base class of merges: rules that combine the values at one slot of a node."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from hiresnet_graph.ops import LearnedScale
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


class Merge(Kind):
    """A rule for the values at one slot of a node.

    Attributes:
        order: Names of sources, in the order of the operands (default: the block's own values, then the nearest
            source first).

    Class attributes:
        default_slot: Default slot of skips with this merge.
        scale: The factor of each edge whose entry has no `scale`, if other values arrive beside it.
    """

    order: tuple[str, ...] | None = None
    default_slot: ClassVar[str] = "output"
    scale: ClassVar[LearnedScale | None] = None

    def target_shape(self, first: Shape, source: Shape) -> Shape:
        """The shape that a value of shape `source` is projected to, if the first value has shape `first`."""
        return first

    @abstractmethod
    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """Combine two or more values, in order."""


MERGES: Registry[Merge] = Registry("merge")
