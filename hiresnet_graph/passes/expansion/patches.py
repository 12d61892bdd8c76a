"""Patches of nodes and of parts of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from pydantic import ValidationError

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import BlockGraph, PartPatch
from hiresnet_graph.passes.expansion.state import Expansion
from hiresnet_graph.registry import Kind
from hiresnet_graph.spec.marked import key_position_at
from hiresnet_graph.spec.model import NodeSpec
from hiresnet_graph.spec.pattern import matches
from hiresnet_graph.spec.problems import Problems

K = TypeVar("K", bound=Kind)


def apply_patches(graph: BlockGraph, patches: Sequence[PartPatch], expansion: Expansion) -> BlockGraph:
    """The graph after the patches that name its nodes; its nodes keep those that name parts of them."""
    if not patches:
        return graph
    nodes = list(graph.nodes)
    used: set[str] = set()
    for i, node in enumerate(nodes):
        if node.block is None:
            continue
        depth = node.name.count(".") + 1
        own, inner = [], []
        for patch in patches:
            parts = patch.address.split(".")
            if matches(patch.address, node.name) or (node.stage and matches(patch.address, node.stage)):
                own.append(patch)
            elif matches(".".join(parts[:depth]), node.name):
                inner.append(replace(patch, address=".".join(parts[depth:])))
            else:
                continue
            used.add(patch.key)
        block = patched(node.block, own, node.name, expansion)
        nodes[i] = replace(node, block=block, patches=(*node.patches, *inner))
        if named := named_weights(own):
            of_stage = node.name.removeprefix(node.stage) if node.stage else ""
            nodes[i] = replace(nodes[i], weights=named + of_stage, named_weights=True)
    names = [node.name for node in nodes if node.block is not None]
    for patch in patches:
        expansion.report_patch(patch, patch.key in used, graph.name, names)
    return BlockGraph(graph.name, nodes, graph.edges, graph.outputs, graph.time)


def patched(kind: K, patches: Sequence[PartPatch], name: str, expansion: Expansion) -> K:
    """A block or operation with fields changed. Exact patches override patterns, and two patterns may not conflict."""
    exact = {field for patch in patches if "*" not in patch.key for field in patch.fields}
    first: dict[str, PartPatch] = {}
    for patch in patches:
        for field in patch.fields if "*" in patch.key else ():
            other = first.setdefault(field, patch)
            if other is not patch and field not in exact:
                message = f"'{patch.key}' and '{other.key}' both set '{field}' of '{name}'."
                hint = "Set it under an address without '*', or in one pattern."
                expansion.report(Problem(message, patch.origin.position, patch.origin.path, hint))
    for patch in sorted(patches, key=lambda patch: "*" not in patch.key):
        kind = _changed(kind, patch, expansion)
    return kind


def named_weights(patches: Sequence[PartPatch]) -> str:
    """The name that patches give to the weights of a part, the exact ones before patterns; empty if none does."""
    named = [patch for patch in patches if "weights" in patch.fields]
    named.sort(key=lambda patch: "*" in patch.key)
    return str(named[0].fields["weights"]) if named else ""


def _changed(kind: K, patch: PartPatch, expansion: Expansion) -> K:
    path, position = patch.origin.path, patch.origin.position
    foreign = patch.fields.keys() & NodeSpec.model_fields.keys() - type(kind).model_fields.keys()
    for key in sorted(foreign - {"weights"}):
        at = key_position_at(patch.fields, (key,)) or position
        message = f"'{key}' is a key of nodes, not of their parts."
        expansion.report(Problem(message, at, f"{path}.{key}", "Set it for a node."))
    try:
        return kind.changed({key: value for key, value in patch.fields.items() if key not in foreign})
    except ValidationError as error:
        problems = Problems(patch.fields)
        problems.validation(error, patch.fields, (), type(kind))
        for problem in problems.found:
            inner = f"{path}.{problem.path}" if problem.path else path
            expansion.report(replace(problem, path=inner, position=problem.position or position))
    except ValueError as error:
        expansion.report(Problem(str(error), position, path))
    return kind
