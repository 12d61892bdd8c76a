"""Analyses of trained networks: what flows through an edge, and what the network does without it.

Each module answers one question with plain numbers from a network and images; `hiresnet_graph.report` makes tables and
figures of them.
"""

from hiresnet_graph.analysis.attribution import Attribution, attribute
from hiresnet_graph.analysis.contributions import Contribution, measure_contributions
from hiresnet_graph.analysis.lesions import Replacement, lesion
from hiresnet_graph.analysis.probes import ProbedNetwork
from hiresnet_graph.analysis.similarity import Representations, cka, represent

__all__ = [
    "Attribution",
    "Contribution",
    "ProbedNetwork",
    "Replacement",
    "Representations",
    "attribute",
    "cka",
    "lesion",
    "measure_contributions",
    "represent",
]
