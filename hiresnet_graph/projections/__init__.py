"""The projections: how an edge brings its source to the shape that is wanted."""

from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.projections.identity import IdentityProjection
from hiresnet_graph.projections.standard import StandardProjection

__all__ = ["PROJECTIONS", "IdentityProjection", "Projection", "StandardProjection"]
