"""The projections, one per module: rules that map the source of an edge to the shape that its target requires."""

from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.projections.identity import IdentityProjection
from hiresnet_graph.projections.standard import StandardProjection
from hiresnet_graph.registry import import_modules

__all__ = ["PROJECTIONS", "IdentityProjection", "Projection", "StandardProjection"]

import_modules(__name__, __path__)
