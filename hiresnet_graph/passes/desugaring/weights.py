"""Names of shared weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hiresnet_graph.errors import Problem, did_you_mean
from hiresnet_graph.graph import BlockEdge, BlockNode, PartPatch
from hiresnet_graph.spec.marked import texts_in
from hiresnet_graph.spec.section import Section


def named_weights(
    nodes: Iterable[BlockNode], edges: Iterable[BlockEdge]
) -> dict[str, BlockNode | BlockEdge | PartPatch]:
    """The names that `weights` gives, and the first node, part of a node or edge with each."""
    named: dict[str, BlockNode | BlockEdge | PartPatch] = {}
    for node in nodes:
        if node.named_weights:
            named.setdefault(_name(node), node)
        for patch in node.patches:
            if "weights" in patch.fields:
                named.setdefault(str(patch.fields["weights"]), patch)
    for edge in edges:
        if edge.weights:
            named.setdefault(edge.weights, edge)
    return named


def unshared(
    section: Section, nodes: Collection[BlockNode], edges: Collection[BlockEdge], known: Collection[str]
) -> tuple[Problem, ...]:
    """Warnings of names of weights that only one node, stage or edge has, so that nothing is shared.

    Args:
        known: Names of the spec before its changes, whose other users may be what was removed.
    """
    users: dict[str, set[str]] = {}
    for node in nodes:
        users.setdefault(_name(node), set()).add(node.stage or node.name)
        for patch in node.patches:
            if "weights" in patch.fields:
                parts = {node.name, *([patch.key] if "*" in patch.address else [])}  # a pattern may name several parts
                users.setdefault(str(patch.fields["weights"]), set()).update(parts)
    for edge in edges:
        users.setdefault(edge.weights, set()).add(edge.name)
    elsewhere = texts_in(section.blocks)  # names of weights are global
    problems = []
    for name, user in named_weights(nodes, edges).items():
        if len(users[name]) > 1 or name in known or name in elsewhere:
            continue
        message = f"no other node or edge has the weights '{name}', so that nothing is shared."
        hint = did_you_mean(name, [other for other in users if other != name])
        if isinstance(user, BlockNode) and user.stage:
            hint = "To tie the blocks of the stage, write 'weights: shared'."
        problems.append(Problem(message, user.origin.position, user.origin.path, hint))
    return tuple(problems)


def _name(node: BlockNode) -> str:
    return node.weights.removesuffix(node.name.removeprefix(node.stage)) if node.stage else node.weights
