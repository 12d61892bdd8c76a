"""The merge `mean`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.wire import Wire


@MERGES.register
class MeanMerge(Merge):
    """The mean of the values."""

    kind: ClassVar[str] = "mean"

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """One call of `mean`."""
        return wires[0].mean(*wires[1:])
