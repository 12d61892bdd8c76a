"""The merge `multiply`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.shapes import Map, Shape
from hiresnet_graph.wire import Wire


@MERGES.register
class MultiplyMerge(Merge):
    """The product. A factor with 1 channel, or of 1x1 size, is broadcast."""

    kind: ClassVar[str] = "multiply"

    def target_shape(self, first: Shape, source: Shape) -> Shape:
        """The shape of the first value; that of the source if it can be broadcast."""
        spread = isinstance(first, Map) and isinstance(source, Map)
        if spread and all(size in (1, whole) for size, whole in zip(source, first, strict=True)):
            return source
        return first

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One call of `multiply`."""
        return wires[0].multiply(*wires[1:])
