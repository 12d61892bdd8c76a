"""Networks as networkx graphs, and networks from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx

from hiresnet_graph.cost import Cost, count_parts
from hiresnet_graph.errors import UsageError
from hiresnet_graph.passes.timing import format_step_ranges

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture


def to_networkx(architecture: Architecture, *, shortcuts: bool = False) -> nx.MultiDiGraph[str]:
    """The nodes and edges of a network with plain attributes, so that `networkx.write_graphml` takes it.

    Nodes have `block`, `stage`, `shape` (like `16x32x32`), `parameters` and `macs`; edges have their name as key, and
    `family`, `slot`, `merge`, `projection`, `delay`, `at`, `parameters` and `macs`. Shared parameters count at the
    first. A network with `time` is not unrolled: a node stands for all steps, with what it costs in all of them, and
    `at` has the steps at which an edge is open (like `1-3, 6`; empty where it always is).

    Args:
        shortcuts: Whether the blocks' own shortcuts are loops of the family `shortcut`; otherwise they count as part of
            their block.
    """
    plan = architecture.plan
    costs = count_parts(plan)
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=plan.name)
    own = {edge.name: edge.source for edge in plan.edges if edge.family == "shortcut"}
    inside: dict[str, Cost] = {}
    if not shortcuts:
        for name, block in own.items():
            inside[block] = inside.get(block, Cost()) + costs.get(name, Cost())
    for node in plan.nodes:
        cost = costs.get(node.name, Cost()) + inside.get(node.name, Cost())
        graph.add_node(
            node.name,
            block=node.block,
            stage=node.stage,
            shape=str(node.shape),
            parameters=cost.parameters,
            macs=cost.macs,
        )
    for edge in plan.edges:
        if edge.name in own and not shortcuts:
            continue
        cost = costs.get(edge.name, Cost())
        graph.add_edge(
            edge.source,
            edge.target,
            edge.name,
            family=edge.family,
            slot=edge.slot,
            merge=edge.merge,
            projection=edge.projection,
            delay=edge.delay,
            at=format_step_ranges(edge.at or ()),
            parameters=cost.parameters,
            macs=cost.macs,
        )
    return graph


def from_networkx(
    graph: nx.DiGraph[Any],
    *,
    input: Mapping[str, int],
    name: str = "graph",
    default: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
) -> Architecture:
    """A network from a directed graph without cycles.

    A node's attributes are `block` and its fields, an edge's those of an entry of `edges:` (`slot`, `merge`,
    `projection`, ...). A node that no edge enters reads the input. Names that are numbers get an `n` before them.
    Of two edges between the same nodes, one needs a `name`.

    Args:
        input: Channels, height and width.
        default: Attributes of nodes that lack them, like `{"block": "conv", "width": 16}`.
        head: Attributes of one more node, `head`, that reads all nodes which no edge leaves; they are merged there.

    Raises:
        UsageError: The graph has no direction, has a cycle, or is empty.
        SpecError: A node or an edge says something that cannot be.
    """
    from hiresnet_graph.architecture import from_dict

    if not graph.is_directed():
        raise UsageError(
            "the graph has no direction. Give its edges one: networkx.DiGraph((min(e), max(e)) for e in ...)."
        )
    if not len(graph):
        raise UsageError("the graph has no nodes.")
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=_place(graph)))
    except nx.NetworkXUnfeasible:
        cycle = [str(source) for source, *_ in nx.find_cycle(graph)]
        raise UsageError(
            f"the graph has a cycle: {' -> '.join([*cycle, cycle[0]])}. Turn one of its edges round."
        ) from None
    names = {node: _name(node) for node in order}
    if len(set(names.values())) < len(names):
        raise UsageError("two nodes of the graph would have one name. Rename them: networkx.relabel_nodes.")
    nodes: dict[str, Any] = {names[node]: {**(default or {}), **graph.nodes[node]} for node in order}
    edges = [{"from": "input", "to": names[node]} for node in order if graph.in_degree(node) == 0]
    edges += [
        {"from": names[source], "to": names[target], **data}
        for node in order
        for source, target, data in graph.out_edges(node, data=True)
    ]
    if head is not None:
        if "head" in nodes:
            raise UsageError("a node of the graph is called 'head'. Leave 'head' out, or give the node another name.")
        nodes["head"] = dict(head)
        edges += [{"from": names[node], "to": "head"} for node in order if graph.out_degree(node) == 0]
    return from_dict({"name": name, "input": dict(input), "nodes": nodes, "edges": edges})


def _place(graph: nx.DiGraph[Any]) -> Any:
    """Ties are broken by the order in which nodes were added."""
    return {node: k for k, node in enumerate(graph)}.__getitem__


def _name(node: object) -> str:
    text = str(node)
    return f"n{text}" if re.fullmatch(r"[0-9]+", text) else text
