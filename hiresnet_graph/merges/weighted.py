"""Sums whose edges have a learned weight each: `weighted` and `gated`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.wire import Wire


@MERGES.register
class WeightedMerge(Merge):
    """F(x) + w1 P1 + w2 P2 + ...: each edge has one learned weight, which starts at 1, so that it starts as `add`."""

    kind: ClassVar[str] = "weighted"

    def weigh(self, wire: Wire) -> Wire:
        """The value times its weight."""
        return wire.scale()

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])


@MERGES.register
class GatedMerge(Merge):
    """F(x) + sigmoid(g1) P1 + ...: each edge has one learned gate g, which starts at 0, so half open.

    A gate that depends on the input is the field `gate` of an edge, with any merge.
    """

    kind: ClassVar[str] = "gated"

    def weigh(self, wire: Wire) -> Wire:
        """The value times its gate."""
        return wire.scale(sigmoid=True)

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])
