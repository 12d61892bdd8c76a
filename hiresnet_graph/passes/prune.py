"""What reaches no output is not computed."""

from __future__ import annotations

from hiresnet_graph.graph import Graph


def prune(graph: Graph) -> Graph:
    """The graph without the calls from which no path leads to an output. Inputs stay."""
    kept = needed(graph)
    kept |= {node.name for node in graph.inputs}
    return graph.restricted(kept.__contains__) if len(kept) < len(graph) else graph


def needed(graph: Graph) -> set[str]:
    """The calls from which a path leads to an output, whatever the delays on it."""
    found = set(graph.outputs.values())
    todo = list(found)
    while todo:
        for edge in graph.incoming(todo.pop()):
            if edge.source not in found:
                found.add(edge.source)
                todo.append(edge.source)
    return found
