"""What reaches no output is not computed."""

from __future__ import annotations

from hiresnet_graph.graph import Graph


def prune(graph: Graph) -> Graph:
    """The graph without the calls from which no path leads to an output. Inputs stay."""
    needed = set(graph.outputs.values())
    todo = list(needed)
    while todo:
        for edge in graph.incoming(todo.pop()):
            if edge.source not in needed:
                needed.add(edge.source)
                todo.append(edge.source)
    needed |= {node.name for node in graph.inputs}
    return graph.restricted(needed.__contains__) if len(needed) < len(graph) else graph
