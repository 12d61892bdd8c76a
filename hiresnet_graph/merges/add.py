"""The merge `add`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.wire import Wire


@MERGES.register
class AddMerge(Merge):
    """The sum from left to right: F(x) + P1 + P2 + ...."""

    kind: ClassVar[str] = "add"

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One call of `add`."""
        return wires[0].add(*wires[1:])
