"""Networks as networkx graphs, and specs from networkx graphs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Set
from typing import Any

import networkx as nx

from hiresnet_graph.cost import Cost, count_parts
from hiresnet_graph.errors import UsageError
from hiresnet_graph.ops import format_scale
from hiresnet_graph.passes.names import name_fault
from hiresnet_graph.passes.timing import format_step_ranges
from hiresnet_graph.plan import Plan

_Link = tuple[Any, Any, dict[str, Any]]  # source, target, fields of the edge


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
    edge_default: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    attributes: Mapping[str, str] | None = None,
    rename: bool = False,
    steps: int | None = None,
) -> dict[str, Any]:
    """The spec, as plain data, of a directed graph; arguments and errors are those of `hrg.from_networkx`.

    Raises:
        UsageError: The graph is undirected or empty, has a cycle but no `steps`, or has names that no spec can have.
    """
    if not graph.is_directed():
        raise UsageError("the graph is undirected. Direct its edges: networkx.DiGraph((min(e), max(e)) for e in ...).")
    names = node_names(graph, rename=rename)
    if set(names.values()) <= {"input"}:
        raise UsageError("the graph has no nodes.")
    links = [
        (source, target, _fields(data, attributes))
        for source in graph
        for _, target, data in graph.out_edges(source, data=True)
    ]
    if steps is not None:
        _delay_back_edges(graph, links)
    order = _order(graph, links, steps is not None)
    rank = {node: i for i, node in enumerate(order)}
    # The shape of a node is inferred from its input, or from an earlier node.
    fed = {target for source, target, _ in links if rank[source] < rank[target]}
    order = [node for node in order if names[node] != "input"]
    nodes = {names[node]: {**(default or {}), **_fields(graph.nodes[node], attributes)} for node in order}
    edges = [{"from": "input", "to": names[node]} for node in order if node not in fed]
    edges += [
        {"from": names[source], "to": names[target], **(edge_default or {}), **fields}
        for source, target, fields in sorted(links, key=lambda link: rank[link[0]])
    ]
    if head is not None:
        if "head" in nodes:
            raise UsageError("the graph has a node called 'head'. Omit the argument 'head', or rename the node.")
        nodes["head"] = dict(head)
        read = {source for source, _, fields in links if not fields.get("delay")}
        edges += [{"from": names[node], "to": "head"} for node in order if node not in read]
    time = {} if steps is None else {"time": {"steps": steps}}
    return {"name": name, "input": dict(input), "nodes": nodes, "edges": edges, **time}


def _is_input(graph: nx.DiGraph[Any], node: object) -> bool:
    """Whether a node stands for the input of the network, as in the graphs of `to_networkx`."""
    return node == "input" and graph.nodes[node].get("block", "input") == "input"


def _fields(data: Mapping[str, Any], attributes: Mapping[str, str] | None) -> dict[str, Any]:
    """The fields that the attributes of a node or an edge stand for."""
    if attributes is None:
        return dict(data)
    return {field: data[attribute] for attribute, field in attributes.items() if attribute in data}


def node_names(graph: nx.DiGraph[Any], *, rename: bool = False) -> dict[Any, str]:
    """The names of the nodes of a graph in its spec.

    Args:
        rename: Change names that no spec can have.

    Raises:
        UsageError: Two nodes would have the same name.
    """
    inputs = {node: "input" for node in graph if _is_input(graph, node)}
    names: dict[Any, str] = {}
    for node in graph:
        if node in inputs:
            continue
        text = str(node)
        text = f"n{text}" if re.fullmatch(r"[0-9]+", text) else text
        if rename:
            text = _unused(_as_name(text), set(names.values()))
        names[node] = text
    if len(set(names.values())) < len(names):
        raise UsageError(
            "two nodes of the graph would have the same name. Rename them: networkx.relabel_nodes, or 'rename=True'."
        )
    return inputs | names


def _as_name(text: str) -> str:
    """A text as a name that every spec accepts: letters, digits and single `_`, a letter first."""
    letters = (char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    plain = re.sub(r"[^A-Za-z0-9]+", "_", "".join(letters)).strip("_")
    return plain if re.match(r"[A-Za-z]", plain) else f"n{plain}"


def _unused(name: str, taken: Set[str]) -> str:
    """The name, with a number if it is taken or reserved."""
    found, number = name, 2
    while found in taken or name_fault(found):
        found, number = f"{name}_{number}", number + 1
    return found


def _delay_back_edges(graph: nx.DiGraph[Any], links: Iterable[_Link]) -> None:
    """Give edges that close a cycle a delay of one step, those that have a delay apart.

    They are the edges to a node whose search, depth first in the order of the graph, is not finished.
    """
    following: dict[Any, list[_Link]] = {node: [] for node in graph}
    for link in links:
        if "delay" not in link[2]:
            following[link[0]].append(link)
    active: set[Any] = set()
    seen: set[Any] = set()
    for root in graph:
        pending = [] if root in seen else [(root, iter(following[root]))]
        seen.add(root)
        active.update(node for node, _ in pending)
        while pending:
            step = next(pending[-1][1], None)
            if step is None:
                active.discard(pending.pop()[0])
                continue
            _, target, fields = step
            if target in active:
                fields["delay"] = 1
            elif target not in seen:
                seen.add(target)
                active.add(target)
                pending.append((target, iter(following[target])))


def _order(graph: nx.DiGraph[Any], links: Iterable[_Link], in_time: bool) -> list[Any]:
    """The nodes in topological order, without delayed edges; equal ranks in the order of the graph.

    Raises:
        UsageError: There is a cycle.
    """
    instant: nx.DiGraph[Any] = nx.DiGraph()
    instant.add_nodes_from(graph)
    instant.add_edges_from((source, target) for source, target, fields in links if not fields.get("delay"))
    rank = {node: i for i, node in enumerate(graph)}
    try:
        return list(nx.lexicographical_topological_sort(instant, key=rank.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [str(source) for source, *_ in nx.find_cycle(instant)]
        remedy = "Reverse one of its edges; or give 'steps': then edges that close a cycle get a delay of one step."
        if in_time:
            remedy = "Give one of its edges a delay."
        raise UsageError(f"the graph has a cycle: {' -> '.join([*cycle, cycle[0]])}. {remedy}") from None
