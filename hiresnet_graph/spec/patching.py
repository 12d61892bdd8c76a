"""Laying a patch over the tree of a spec: what an extending file, a variant or an override changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hiresnet_graph.errors import Problem, did_you_mean
from hiresnet_graph.spec.marked import MarkedDict, marked, merge
from hiresnet_graph.spec.pattern import matches
from hiresnet_graph.spec.section import is_one_group


def lay(tree: MarkedDict, patch: MarkedDict) -> MarkedDict:
    """A tree with a patch over it.

    A node or a transition that is the name of a block counts as a mapping with it. A pattern of the patch beats an
    exact address of the tree, and a pattern of the tree for the same nodes or fewer.
    """
    tree = _prepared(tree, patch)
    if "transitions" not in patch:
        return merge(tree, patch)
    laid = merge(with_transition_blocks(tree), with_transition_blocks(patch))
    for row, columns in _rows(patch):
        for column, entry in columns.items():
            position = columns.value_positions.get(column)
            if isinstance(entry, str) and position is not None:  # errors of the new block are reported there
                laid["transitions"][row].value_positions[column] = position
    return laid


def _prepared(tree: MarkedDict, patch: MarkedDict) -> MarkedDict:
    """A tree whose nodes, also those of its `blocks`, can be merged with those of a patch key by key."""
    found = tree.copy()
    nodes, changes = tree.get("nodes"), patch.get("nodes")
    if isinstance(nodes, MarkedDict) and isinstance(changes, MarkedDict):
        found["nodes"] = _prepared_nodes(nodes, changes)
    blocks, changed = tree.get("blocks"), patch.get("blocks")
    if isinstance(blocks, MarkedDict) and isinstance(changed, MarkedDict):
        found["blocks"] = blocks = blocks.copy()
        for name in blocks.keys() & changed.keys():
            if isinstance(blocks[name], MarkedDict) and isinstance(changed[name], MarkedDict):
                blocks[name] = _prepared(blocks[name], changed[name])
    return found


def _prepared_nodes(nodes: MarkedDict, changes: MarkedDict) -> MarkedDict:
    """Nodes without what patterns of a patch set; those that it changes by name are mappings."""
    found = nodes.copy()
    for key, fields in changes.items():
        if not isinstance(fields, dict):
            continue
        if "*" in key:
            for name in found:
                if matches(key, name) if "*" not in name else name != key and _covers(key, name, found):
                    found[name] = _without_set(found[name], fields)
        elif _is_kind(found.get(key)):
            found[key] = marked({"block": found[key]}, found.value_positions.get(key))
    return found


def _covers(pattern: str, other: str, nodes: Iterable[str]) -> bool:
    """Whether a pattern of whole nodes matches all nodes that another one does."""
    own = {name for name in nodes if not {"*", "."} & {*name} and matches(other, name)}
    return bool(own) and all(matches(pattern, name) for name in own)


def _without_set(given: Any, fields: Mapping[str, Any]) -> Any:
    """An entry of `nodes` without the fields, and the fields of its fields, that a pattern sets."""
    if isinstance(given, str) and "block" in fields:
        return MarkedDict()
    if not isinstance(given, MarkedDict):
        return given
    inner = {
        key for key in given.keys() & fields.keys() if isinstance(given[key], dict) and isinstance(fields[key], dict)
    }
    left = given.without(*(given.keys() & fields.keys() - inner))
    for key in inner:
        left[key] = _without_set(given[key], fields[key])
    return left


def _is_kind(value: Any) -> bool:
    """Whether an entry is the name of a block alone."""
    return isinstance(value, str) and not value.startswith("$")


def _rows(tree: MarkedDict) -> list[tuple[str, MarkedDict]]:
    """The rows of `transitions` that hold entries."""
    matrix = tree.get("transitions")
    rows = matrix.items() if isinstance(matrix, MarkedDict) else ()
    return [(row, columns) for row, columns in rows if row != "edges" and isinstance(columns, MarkedDict)]


def lost_groups(tree: MarkedDict, patch: MarkedDict) -> list[Problem]:
    """An error for each group of skips that a patch empties, and that the tree does not have: a misspelt name."""
    skips, changes = tree.get("skips"), patch.get("skips")
    if not isinstance(skips, MarkedDict) or not isinstance(changes, MarkedDict) or is_one_group(skips):
        return []
    return [
        Problem(
            f"the skips have no group '{name}'.",
            changes.key_positions.get(name),
            f"skips.{name}",
            did_you_mean(name, skips),
        )
        for name, fields in changes.items()
        if name not in skips and isinstance(fields, dict) and fields.get("edges") == "none" and "levels" not in fields
    ]


def with_transition_blocks(tree: MarkedDict) -> MarkedDict:
    """A tree whose transitions are mappings, also those that are the name of a block alone."""
    matrix = tree.get("transitions")
    if not isinstance(matrix, MarkedDict):
        return tree
    matrix = matrix.copy()
    for row, given in _rows(tree):
        matrix[row] = columns = given.copy()
        for column, entry in columns.items():
            if _is_kind(entry):
                columns[column] = marked({"block": entry}, columns.value_positions.get(column))
    tree = tree.copy()
    tree["transitions"] = matrix
    return tree
