"""The projection `identity`: no change, so shapes must agree."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


@PROJECTIONS.register
class IdentityProjection(Projection):
    """The value as it is: what edges have that are no skips."""

    kind: ClassVar[str] = "identity"

    def project(self, x: Wire, want: Shape) -> Wire:
        """The value, if its shape is the wanted one.

        Raises:
            ShapeError: It is not.
        """
        if x.shape != want:
            raise ShapeError(
                "an edge without projection cannot change shape.",
                "Set 'projection: {spatial: avg, channels: conv1x1, norm: batch}' on the edge, or change the nodes.",
            )
        return x
