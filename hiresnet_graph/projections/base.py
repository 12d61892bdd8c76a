"""Base class of projections: rules that map the source of an edge to the shape required by the merge at its target."""

from __future__ import annotations

from abc import abstractmethod

from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


class Projection(Kind):
    """A rule that maps a value to a shape."""

    @abstractmethod
    def project(self, x: Wire, target: Shape) -> Wire:
        """The value, projected to the shape `target`; unchanged if nothing is needed.

        Raises:
            ShapeError: The projection cannot reach the shape.
        """

    def describe(self, target: Shape | None = None) -> str:
        """Its one-line form in tables and diagrams, for a projection to a shape."""
        return self.kind


PROJECTIONS: Registry[Projection] = Registry("projection")
