"""From a spec's section to a graph of primitive calls: pure functions, one a file, in one fixed order."""

from hiresnet_graph.graph import Graph
from hiresnet_graph.passes.desugar import desugar
from hiresnet_graph.passes.expand import expand
from hiresnet_graph.passes.prune import prune
from hiresnet_graph.passes.share import share
from hiresnet_graph.passes.timing import check
from hiresnet_graph.passes.unroll import unroll

PASSES = (expand, unroll, share, prune)
"""The order: every pass takes a checked graph and gives one."""

__all__ = ["PASSES", "desugar", "expand", "prune", "resolve", "share", "unroll"]


def resolve(graph: Graph) -> Graph:
    """The graph after all passes, checked after each.

    Raises:
        SpecError: Shapes do not fit; or a network in time has too few steps.
    """
    for apply in PASSES:
        graph = apply(graph)
        graph.check()
        if graph.time is not None:
            check(graph)
    return graph
