"""The projection `identity`, for equal shapes."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.projections.standard import fitting
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


@PROJECTIONS.register
class IdentityProjection(Projection):
    """No change; the default of edges that are not skips."""

    kind: ClassVar[str] = "identity"

    def project(self, x: Wire, target: Shape) -> Wire:
        """The value itself.

        Raises:
            ShapeError: Its shape is not that of the target.
        """
        if x.shape != target:
            hint = fitting(x.shape, target).removesuffix(".")
            hint = f"{hint} on the edge, or change the nodes." if hint else "Change the nodes."
            raise ShapeError("an edge without a projection cannot change the shape.", hint)
        return x
