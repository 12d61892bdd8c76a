"""Equal calls computed once."""

from __future__ import annotations

from hiresnet_graph.graph import Graph
from hiresnet_graph.ops import Op


def share(graph: Graph) -> Graph:
    """The graph with equal pure calls merged: two skips that pool one value alike pool it once.

    Calls are equal if their operations and operands are and, where they have tensors, the name of their weights. The
    first call stays. Batch norm and dropout are never pure.
    """
    seen: dict[object, str] = {}
    same: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node.block, Op) or not node.block.pure:
            continue
        operands = tuple(same.get(edge.source, edge.source) for edge in graph.incoming(node.name))
        shapes = [shape for name in operands if (shape := graph[name].shape) is not None]
        weights = node.weights if node.block.tensors(*shapes) else ""
        first = seen.setdefault((node.block, operands, weights), node.name)
        if first != node.name:
            same[node.name] = first
    return graph.restricted(lambda name: name not in same, same) if same else graph
