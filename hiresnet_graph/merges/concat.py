"""The merge `concat`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


@MERGES.register
class ConcatMerge(Merge):
    """Concatenation along the channels. Each value keeps its channels; the first sets height and width."""

    kind: ClassVar[str] = "concat"
    default_slot: ClassVar[str] = "input"

    def target_shape(self, first: Shape, source: Shape) -> Shape:
        """Height and width of the first value, channels of the source."""
        return first.with_channels(source.channels)

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One call of `concat`."""
        return wires[0].concat(*wires[1:])
