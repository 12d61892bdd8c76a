"""The merges, one per module: rules that combine the values at one slot."""

from hiresnet_graph.merges.add import AddMerge
from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.merges.concat import ConcatMerge
from hiresnet_graph.registry import import_modules

__all__ = ["MERGES", "AddMerge", "ConcatMerge", "Merge"]

import_modules(__name__, __path__)
