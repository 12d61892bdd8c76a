"""The differences between two networks as plain data: the content of `hrg diff`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.cost import without_steps
from hiresnet_graph.graph import BlockEdge, BlockNode
from hiresnet_graph.passes.desugaring.kinds import WrittenBlock
from hiresnet_graph.registry import Kind
from hiresnet_graph.spec.model import TimeSpec

Fields = dict[str, Any]
_EDGE_KEYS = ("family", "slot", "merge", "projection", "scale", "gate", "delay", "at", "parameters", "macs")
_TIME = tuple(TimeSpec.model_fields)
_UNCOMPARED = {"source", "target", "name", "origin", "rank", "ends", "stage", "shape", "named_weights", "patches"}
"""Attributes of nodes and edges that are their names, or follow from other ones."""


def compare(networks: tuple[Architecture, Architecture], summaries: tuple[Fields, Fields]) -> Fields:
    """The differences between two networks.

    `nodes` and `edges` are lists of `{name, change, a, b, fields}`, where `change` is added, removed or changed;
    `fields` of a changed one, `params` and `time` have what differs, each as `{a, b}`. `same` is whether both plans are
    equal, however their specs are written.

    Args:
        summaries: Of the networks, with their calls.
    """
    a, b = summaries
    fields = tuple(_fields_of(network) for network in networks)
    return {
        "same": a["digest"] == b["digest"],
        "parameters": b["parameters"] - a["parameters"],
        "macs": b["macs"] - a["macs"],
        "memory_bytes": b["memory_bytes"] - a["memory_bytes"],
        "params": _pairs(*(dict(_flat("", network.section()[0].names)) for network in networks)),
        "time": {key: pair for key, pair in _pairs(a["time"] or {}, b["time"] or {}).items() if key in _TIME},
        "nodes": _differing(a, b, "nodes", ("block", "shape", "parameters", "macs"), fields),
        "edges": _differing(a, b, "edges", _EDGE_KEYS, fields),
    }


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Fields]:
    return {key: {"a": a.get(key), "b": b.get(key)} for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)}


def _fields_of(network: Architecture) -> dict[str, Fields]:
    """The fields of all nodes and edges, nested ones with a dotted name."""
    items: list[BlockNode | BlockEdge] = [*network.graph.nodes, *network.graph.edges]
    found = {item.name: dict(_item_fields(item)) for item in items}
    # The fields of a block's shortcut belong to the shortcut, too, which is listed as an edge.
    shortcuts = {name: {key: own[key] for key in own if key.startswith("shortcut.")} for name, own in found.items()}
    return found | {f"{name}.shortcut": fields for name, fields in shortcuts.items() if fields}


def _item_fields(item: BlockNode | BlockEdge) -> Iterator[tuple[str, Any]]:
    for attribute in dataclasses.fields(item):
        if attribute.name not in _UNCOMPARED:
            value = getattr(item, attribute.name)
            # The fields of the block of a node stand beside its name.
            name = "" if attribute.name == "block" and isinstance(item, BlockNode) else attribute.name
            yield from _flat(name, value)
    for patch in item.patches if isinstance(item, BlockNode) else ():
        yield from _flat(patch.address, dict(patch.fields))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value as plain data; the items of mappings and the fields of kinds by themselves."""
    if isinstance(value, WrittenBlock):
        value = {"block": value.name, **value.values}
    elif isinstance(value, Kind):
        value = {"block" if not name else "kind": value.kind} | {
            key: getattr(value, key) for key in type(value).model_fields
        }
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}".lstrip("."), item)
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def _differing(
    a: Fields, b: Fields, level: str, keys: tuple[str, ...], fields: tuple[dict[str, Fields], ...]
) -> list[Fields]:
    old, new = {row["name"]: row for row in a[level]}, {row["name"]: row for row in b[level]}
    old_operations, new_operations = _operations(a), _operations(b)
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            change = "added" if before is None else "removed"
            found.append({"name": name, "change": change, "a": before, "b": after, "fields": {}})
            continue
        same = all(before[key] == after[key] for key in keys)
        if not same or old_operations.get(name) != new_operations.get(name):
            pairs = _pairs(*(of_network.get(name, {}) for of_network in fields))
            found.append({"name": name, "change": "changed", "a": before, "b": after, "fields": pairs})
    return found


def _operations(data: dict[str, Any]) -> dict[str, list[Any]]:
    """The operations of each node and edge, without regard to steps.

    Merges are excluded, since an additional edge into a node does not change the node.
    """
    found: dict[str, list[Any]] = {}
    for call in data["calls"]:
        if len(call["inputs"]) == 1:
            operations = found.setdefault(call["owner"], [])
            operation = (call["op"], call["fields"], without_steps(call["weights"] or "") or None)
            if call["step"] is None or operation not in operations:
                operations.append(operation)
    return found
