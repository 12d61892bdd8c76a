"""Sums in which every edge has a learned factor: `weighted` and `gated`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.ops import LearnedScale
from hiresnet_graph.wire import Wire


@MERGES.register
class WeightedMerge(Merge):
    """F(x) + w1 P1 + w2 P2 + ...: `add`, where every edge has `scale: learned`, edges of the flow included.

    For a weight on one edge alone, give that edge a `scale` and merge with `add`.
    """

    kind: ClassVar[str] = "weighted"
    scale: ClassVar[LearnedScale] = LearnedScale()

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])


@MERGES.register
class GatedMerge(Merge):
    """F(x) + sigmoid(g1) P1 + ...: `add`, where every edge has `scale: gate`, edges of the flow included.

    For a gate on one edge alone, give that edge a `scale` and merge with `add`. For a gate that depends on the input,
    see the field `gate` of an edge.
    """

    kind: ClassVar[str] = "gated"
    scale: ClassVar[LearnedScale] = LearnedScale(sigmoid=True)

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The sum."""
        return wires[0].add(*wires[1:])
