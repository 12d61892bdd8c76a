"""Remove what no output depends on."""

from __future__ import annotations

from hiresnet_graph.graph import OpGraph
from hiresnet_graph.traversal import reachable


def prune(graph: OpGraph) -> OpGraph:
    """The graph without the nodes from which no path leads to an output. Inputs stay."""
    needed = ancestors_of_outputs(graph) | {node.name for node in graph.inputs}
    return graph.restricted(needed.__contains__) if len(needed) < len(graph) else graph


def ancestors_of_outputs(graph: OpGraph) -> set[str]:
    """The outputs and the nodes from which a path leads to one, regardless of delays."""
    return reachable(graph.outputs.values(), lambda name: graph[name].operands)
