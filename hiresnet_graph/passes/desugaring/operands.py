"""The order of operands: how near a source is, one merge for each slot, and the delays of the flow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import BlockEdge
from hiresnet_graph.merges import AddMerge, Merge
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.traversal import topological_order

Slots = Mapping[tuple[str, str], Merge]
"""(Node, slot) -> the merge of the slot, where one is set."""


def flow_depth(nodes: Iterable[str], edges: Iterable[BlockEdge]) -> dict[str, int]:
    """The longest path from any start to each node, along flow and single edges without delay. Skips do not count.

    With a cycle, which is reported elsewhere, it is the order of nodes.
    """
    index = {name: i for i, name in enumerate(nodes)}
    successors: list[list[int]] = [[] for _ in index]
    for edge in edges:
        if edge.family in ("flow", "edge") and edge.delay == 0:
            successors[index[edge.source]].append(index[edge.target])
    depth, order = [0] * len(index), list(topological_order(successors))
    if len(order) < len(index):
        return index
    for i in order:
        for follower in successors[i]:
            depth[follower] = max(depth[follower], depth[i] + 1)
    return dict(zip(index, depth, strict=True))


def choose_merges(edges: Iterable[BlockEdge], of_inputs: Mapping[str, Merge], problems: Problems) -> Slots:
    """The merge of each slot, as its edges or its node set it.

    Args:
        of_inputs: Node -> the merge that it sets for its slot `input`.
    """
    chosen = {(name, "input"): merge for name, merge in of_inputs.items()}
    for edge in edges:
        if edge.merge is None:
            continue
        key = (edge.target, edge.slot)
        merge = chosen.setdefault(key, edge.merge)
        if edge.merge != merge and edge.merge != merge.changed({"order": None}):
            other = f"'{merge.kind}'" + (" with other fields" if merge.kind == edge.merge.kind else "")
            target, slot = edge.ends[1], edge.slot
            problems.report(
                Problem(
                    f"'{target}' gets merge '{edge.merge.kind}' at its slot '{slot}', but has {other} there.",
                    edge.origin.position,
                    edge.origin.path,
                    "Insert a node '{block: identity}', or use one merge.",
                )
            )
    return chosen


def spread_factors(edges: Iterable[BlockEdge], of_inputs: Mapping[str, Merge], merges: Slots) -> tuple[Problem, ...]:
    """Warnings of merges that an entry sets and that give other edges a learned factor, too.

    Args:
        edges: With the merges and scales that their own entries set.
    """
    setters: dict[tuple[str, str], BlockEdge] = {}
    others: dict[tuple[str, str], list[BlockEdge]] = {}
    for edge in edges:
        key = (edge.target, edge.slot)
        merge = merges.get(key)
        if merge is None or merge.scale is None or (edge.slot == "input" and edge.target in of_inputs):
            continue
        if edge.merge is not None:
            setters.setdefault(key, edge)
        elif edge.scale is None:
            others.setdefault(key, []).append(edge)
    by_entry: dict[str, list[tuple[BlockEdge, BlockEdge]]] = {}
    for key, affected in others.items():
        setter = setters[key]
        by_entry.setdefault(setter.origin.path, []).extend((setter, edge) for edge in affected)
    return tuple(_spread_factor(pairs) for pairs in by_entry.values())


def _spread_factor(pairs: Sequence[tuple[BlockEdge, BlockEdge]]) -> Problem:
    """The warning of one entry: pairs of an edge that it makes and another edge that its merge affects."""
    setter, first = pairs[0]
    merge, target = setter.merge, setter.ends[1]
    assert merge is not None and merge.scale is not None
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    factor = "a learned gate" if merge.scale.sigmoid else "a learned factor"
    message = f"'merge: {merge.kind}' also gives {first.ends[0]} -> {first.ends[1]}{more} {factor}."
    scale = "gate" if merge.scale.sigmoid else "learned"
    keep = f"on the node '{target}'" if setter.slot == "input" else "on all of these edges"
    hint = f"For {factor} on this entry alone, write 'scale: {scale}' in place of the merge. To keep it, set it {keep}."
    return Problem(message, setter.origin.position, setter.origin.path, hint)


def ranked(nodes: Iterable[str], edges: Collection[BlockEdge], merges: Slots) -> list[BlockEdge]:
    """The edges with their merges and ranks, and the edges from gates to their targets.

    The flow comes first, then the nearest source. Ties are broken by the order of nodes, then delay, then name.
    """
    index = {name: i for i, name in enumerate(nodes)}
    depth = flow_depth(index, edges)
    add = AddMerge()
    found: list[BlockEdge] = []
    gates: list[BlockEdge] = []
    for edge in edges:
        distance = (0, 0) if edge.family == "flow" else (1, -depth[edge.source])
        rank = (*distance, index[edge.source], edge.delay, edge.part, edge.name)
        found.append(replace(edge, rank=rank, merge=merges.get((edge.target, edge.slot), add)))
        if edge.gate is not None:
            name = f"{edge.name}.gate"
            gates.append(BlockEdge(edge.gate, edge.target, name, edge.origin, "gate", "gate", rank=rank))
    return found + gates


def delayed(edge: BlockEdge, delay: int) -> BlockEdge:
    """The edge with another delay."""
    return replace(edge, delay=delay, rank=(*edge.rank[:3], delay, *edge.rank[4:]))
