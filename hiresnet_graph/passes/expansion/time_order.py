"""The order in which the nodes of a graph with delays are expanded, so that shapes are known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import BlockGraph
from hiresnet_graph.passes.timing import on_cycles
from hiresnet_graph.traversal import topological_order


def time_order(graph: BlockGraph, report: Callable[[Problem], None]) -> Iterator[str]:
    """Yield the nodes of a graph with `time`, each after as many of its sources as possible.

    Sources without delay always come first. Where a cycle of delayed edges leaves the order open, the next node is the
    first one after all its sources by flow, or else the first one after any of its sources. Nodes for which there is
    none are reported: their shapes cannot be inferred.
    """
    names = list(graph.order())
    index = {name: i for i, name in enumerate(names)}
    declared = {node.name for node in graph.nodes if node.declared is not None}
    waits = {
        name: {
            edge.source
            for edge in graph.incoming(name)
            if edge.source != name and (edge.delay == 0 or edge.source not in declared)
        }
        for name in names
    }
    successors: list[list[int]] = [[] for _ in names]
    for name, sources in waits.items():
        for source in sources:
            successors[index[source]].append(index[name])
    left = dict.fromkeys(names)

    def unblock() -> int | None:
        name = _first_open(graph, left, declared, waits)
        return None if name is None else index[name]

    for i in topological_order(successors, unblock):
        del left[names[i]]
        yield names[i]
    cyclic = on_cycles((source, name) for name in left for source in waits[name] if source in left)
    for name in left:
        if name in cyclic:  # the others only depend on these
            origin = graph[name].origin
            message = f"the shape of '{name}' cannot be inferred: all its inputs come from later nodes."
            state = "'{block: state, shape: [C, H, W]}'"
            hint = f"Insert a node {state} before it, or give it an edge from an earlier node."
            report(Problem(message, origin.position, origin.path, hint))


def _first_open(
    graph: BlockGraph, left: Collection[str], declared: Collection[str], waits: Mapping[str, set[str]]
) -> str | None:
    """The node to expand next where each one waits for another; None if there is none."""
    second = None
    for name in left:
        edges = graph.incoming(name)
        missing = [edge for edge in edges if edge.source in waits[name] and edge.source in left]
        if any(edge.delay == 0 for edge in missing):
            continue
        known = any(edge.source in declared or edge.source not in left for edge in edges)
        if not known and name not in declared:
            continue
        if not any(edge.family == "flow" for edge in missing):
            return name
        second = second or name
    return second
