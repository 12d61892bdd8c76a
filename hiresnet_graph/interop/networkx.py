"""Networks as networkx graphs, and specs from networkx graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import networkx as nx

from hiresnet_graph.cost import Cost, count_parts
from hiresnet_graph.errors import UsageError
from hiresnet_graph.graph import format_scale
from hiresnet_graph.passes.timing import format_step_ranges
from hiresnet_graph.plan import Plan


def to_networkx(plan: Plan, *, shortcuts: bool = False) -> nx.MultiDiGraph[str]:
    """The nodes and edges of a network with plain attributes, which `networkx.write_graphml` accepts.

    Nodes have `block`, `stage`, `shape` (like `16x32x32`), `parameters` and `macs`. Edges have their name as key, and
    `family`, `slot`, `merge`, `projection`, `scale`, `gate`, `delay`, `at`, `parameters` and `macs`. Shared
    parameters count once, where they are first used. A network with `time` is not unrolled: a node stands for all
    steps and has their total cost, and `at` lists the steps at which an edge is open (like `1-3, 6`; empty for all
    steps).

    Args:
        shortcuts: Add each block's own shortcut as a loop of the family `shortcut`, instead of counting its cost as
            part of the block.
    """
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
            scale=format_scale(edge.scale),
            gate=edge.gate,
            delay=edge.delay,
            at=format_step_ranges(edge.at or ()),
            parameters=cost.parameters,
            macs=cost.macs,
        )
    return graph


def spec_from_networkx(
    graph: nx.DiGraph[Any],
    *,
    input: Mapping[str, int],
    name: str = "graph",
    default: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The spec, as plain data, of a directed acyclic graph; arguments and errors are those of `hrg.from_networkx`.

    Raises:
        UsageError: The graph is undirected, has a cycle, or is empty.
    """
    if not graph.is_directed():
        raise UsageError("the graph is undirected. Direct its edges: networkx.DiGraph((min(e), max(e)) for e in ...).")
    if not len(graph):
        raise UsageError("the graph has no nodes.")
    rank = {node: i for i, node in enumerate(graph)}
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=rank.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [str(source) for source, *_ in nx.find_cycle(graph)]
        raise UsageError(
            f"the graph has a cycle: {' -> '.join([*cycle, cycle[0]])}. Reverse one of its edges."
        ) from None
    names = {node: _node_name(node) for node in order}
    if len(set(names.values())) < len(names):
        raise UsageError("two nodes of the graph would have the same name. Rename them: networkx.relabel_nodes.")
    nodes: dict[str, Any] = {names[node]: {**(default or {}), **graph.nodes[node]} for node in order}
    edges = [{"from": "input", "to": names[node]} for node in order if graph.in_degree(node) == 0]
    edges += [
        {"from": names[source], "to": names[target], **data}
        for node in order
        for source, target, data in graph.out_edges(node, data=True)
    ]
    if head is not None:
        if "head" in nodes:
            raise UsageError("the graph has a node called 'head'. Omit the argument 'head', or rename the node.")
        nodes["head"] = dict(head)
        edges += [{"from": names[node], "to": "head"} for node in order if graph.out_degree(node) == 0]
    return {"name": name, "input": dict(input), "nodes": nodes, "edges": edges}


def _node_name(node: object) -> str:
    text = str(node)
    return f"n{text}" if re.fullmatch(r"[0-9]+", text) else text
