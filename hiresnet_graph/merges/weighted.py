"""Sums with a learned weight for each edge: `weighted` and `gated`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.wire import Wire


@MERGES.register
class WeightedMerge(Merge):
    """F(x) + w1 P1 + w2 P2 + ...: each edge has one learned weight, initially 1."""

    kind: ClassVar[str] = "weighted"

    def weigh(self, wire: Wire) -> Wire:
        """The value times its weight."""
        return wire.scale()

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])


@MERGES.register
class GatedMerge(Merge):
    """F(x) + sigmoid(g1) P1 + ...: each edge has one learned gate g, initially 0 (half open).

    For a gate that depends on the input, see the field `gate` of an edge.
    """

    kind: ClassVar[str] = "gated"

    def weigh(self, wire: Wire) -> Wire:
        """The value times its gate."""
        return wire.scale(sigmoid=True)

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])
