"""The merges: rules that combine the values at one slot."""

from hiresnet_graph.merges.add import AddMerge
from hiresnet_graph.merges.base import MERGES, Merge
from hiresnet_graph.merges.concat import ConcatMerge
from hiresnet_graph.merges.mean import MeanMerge
from hiresnet_graph.merges.multiply import MultiplyMerge
from hiresnet_graph.merges.weighted import GatedMerge, WeightedMerge

__all__ = [
    "MERGES",
    "AddMerge",
    "ConcatMerge",
    "GatedMerge",
    "MeanMerge",
    "Merge",
    "MultiplyMerge",
    "WeightedMerge",
]
