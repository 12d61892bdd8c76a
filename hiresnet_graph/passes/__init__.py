"""From a section of a spec to a graph of primitive operations: pure functions in one fixed order."""

from hiresnet_graph.graph import BlockGraph, OpGraph
from hiresnet_graph.passes.cse import cse
from hiresnet_graph.passes.desugar import desugar
from hiresnet_graph.passes.desugaring.outputs import Original
from hiresnet_graph.passes.expand import expand
from hiresnet_graph.passes.prune import prune
from hiresnet_graph.passes.timing import check_steps
from hiresnet_graph.passes.unroll import unroll

PASSES = (unroll, cse, prune)
"""The passes on operation graphs, in their order. Each takes a checked graph and gives one."""

__all__ = ["PASSES", "Original", "cse", "desugar", "expand", "prune", "resolve", "simplify", "unroll"]


def resolve(graph: BlockGraph, *, probes: bool = False, inner_probes: bool = False) -> OpGraph:
    """The operations that a network computes: its graph expanded and simplified.

    Args:
        probes, inner_probes: As for `expand`.

    Raises:
        SpecError: Shapes do not fit, or a network in time has too few steps.
    """
    return simplify(expand(graph, probes=probes, inner_probes=inner_probes))


def simplify(graph: OpGraph) -> OpGraph:
    """The graph after all passes, checked after each.

    Raises:
        SpecError: A network in time has too few steps.
    """
    if graph.time is not None:
        check_steps(graph)
    for apply in PASSES:
        graph = apply(graph)
        graph.check()
    return graph
