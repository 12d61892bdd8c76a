"""The merge `multiply`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


@MERGES.register
class MultiplyMerge(Merge):
    """The product. A factor with 1 channel, or of 1x1 size, is broadcast."""

    kind: ClassVar[str] = "multiply"

    def target_shape(self, first: Shape, source: Shape) -> Shape:
        """The shape of the first value; that of the source if it can be broadcast."""
        return source if source.spatial and source.broadcasts_to(first) else first

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One call of `multiply`."""
        return wires[0].multiply(*wires[1:])
