"""What a projection is: it brings the source of an edge to the shape that the merge at its target wants."""

from __future__ import annotations

from abc import abstractmethod

from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


class Projection(Kind):
    """A way to bring a value to a shape. `describe` gives its one-line form for tables and diagrams."""

    @abstractmethod
    def project(self, x: Wire, want: Shape) -> Wire:
        """The value, brought to the shape `want`; the value itself if it needs nothing.

        Raises:
            ShapeError: This projection cannot; the message says what can.
        """

    def describe(self) -> str:
        """The kind, or a few words."""
        return self.kind


PROJECTIONS: Registry[Projection] = Registry("projection")
