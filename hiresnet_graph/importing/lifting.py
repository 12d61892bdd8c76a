"""A flat network as a spec that a person would have written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from hiresnet_graph.importing.entries import Entries
from hiresnet_graph.importing.items import Lifter
from hiresnet_graph.importing.primitives import Flat, Stored
from hiresnet_graph.importing.regions import join_concatenations, tree_of
from hiresnet_graph.importing.sections import SectionText, flow_lines, legal_name, section
from hiresnet_graph.importing.skip_section import SkipPlaces, skips_key
from hiresnet_graph.importing.skips import LongSkip, find_skips, without_skips
from hiresnet_graph.importing.wiring import computes
from hiresnet_graph.shapes import Map, Shape


class Lifted(NamedTuple):
    """A spec as plain data, and the address of each tensor of the original.

    Attributes:
        tensors: Address -> tensor of the original.
        outputs: The node of each result of the original, in order.
    """

    spec: dict[str, Any]
    tensors: dict[str, Stored]
    outputs: list[str]


def lift(flat: Flat, name: str, description: str = "") -> Lifted:
    """The spec of a network."""
    head = {"name": name, **({"description": description} if description else {})}
    norms = common_norms(flat)
    skips = find_skips(flat)
    with_skips = _with_skips(flat, head, norms, skips) if skips else None
    plain = _draft(flat, head, norms).lifted
    return with_skips if with_skips is not None and _size(with_skips) <= _size(plain) else plain


class _Draft(NamedTuple):
    """A spec without the key `skips`, and the section and the network that it was made of."""

    lifted: Lifted
    text: SectionText
    flat: Flat


def _with_skips(flat: Flat, head: Mapping[str, Any], norms: dict[str, float], skips: list[LongSkip]) -> Lifted | None:
    """The spec with the key `skips`; None if none of the long skips can be an edge of it.

    A skip that cannot be one becomes nodes, with which the network is lifted again.
    """
    while True:
        reduced = without_skips(flat, skips) if skips else None
        if reduced is None:
            return None
        primitives = reduced.flat.primitives
        starts = {
            id(primitives[reduced.values[skip.source]]) for skip in skips if reduced.values.get(skip.source, -1) >= 0
        }
        draft = _draft(reduced.flat, head, norms, starts)
        index = {id(primitive): number for number, primitive in enumerate(draft.flat.primitives)}
        values = {old: new if new < 0 else index[id(primitives[new])] for old, new in reduced.values.items()}
        places = SkipPlaces(flat, values, draft.text, _input_names(flat), norms)
        found = places.edges(skips)
        edges = {edge.ends: edge for edge in found.values()}
        if len(edges) == len(skips):
            break
        skips = [skip for skip, edge in found.items() if edges[edge.ends] is edge]
    stages = {name: len(items) for name, items in draft.text.blocks.items() if len(items) > 1}
    for key, tensors in skips_key(list(edges.values()), stages):
        lifted = draft.lifted._replace(
            spec={**draft.lifted.spec, "skips": key}, tensors={**draft.lifted.tensors, **tensors}
        )
        if computes(lifted.spec, lifted.tensors, flat):
            return lifted
    return None


def _size(lifted: Lifted) -> int:
    return len(lifted.spec["nodes"]) + len(lifted.spec.get("blocks", ()))


def _draft(flat: Flat, head: Mapping[str, Any], norms: dict[str, float], starts: Collection[int] = ()) -> _Draft:
    """A draft of a network.

    Args:
        starts: Identities of the primitives whose values skips start from.
    """
    flat = join_concatenations(flat)
    root = tree_of(flat)
    sources = {index for index, primitive in enumerate(flat.primitives) if id(primitive) in starts}
    lifter = Lifter(flat, root, norms, sources)
    items = lifter.items(root)
    entries = Entries(flat, lifter.edges, items, norms)
    inputs = _input_names(flat)
    outputs = list(dict.fromkeys(flat.outputs.values()))
    text = section(items, inputs, outputs, "", lifter.edges, entries.defaults)
    share_parts(text)
    spec: dict[str, Any] = dict(head)
    spec["input"] = _inputs(flat, inputs)
    if norms:
        spec["norms"] = norms
    if entries.blocks:
        spec["blocks"] = entries.blocks
    spec["nodes"] = {
        node: fields["block"] if set(fields) == {"block"} else fields for node, fields in text.nodes.items()
    }
    only = next(iter(inputs.values())) if len(inputs) == 1 else ""
    spec["flow"] = flow_lines(text.flow, only)
    inner = {name for chain in text.flow for name in chain[:-1]}
    if len(text.outputs) > 1 or text.outputs[0] in inner:
        spec["outputs"] = text.outputs
    nodes = dict(zip(outputs, text.outputs, strict=True))
    return _Draft(Lifted(spec, text.tensors, [nodes[value] for value in flat.outputs.values()]), text, flat)


def share_parts(text: SectionText) -> None:
    """Give the parts of blocks that share their weights one name of weights."""
    users: dict[str, list[str]] = {}
    for address, stored in text.tensors.items():
        users.setdefault(stored.name, []).append(address)
    shared = {address for addresses in users.values() if len(addresses) > 1 for address in addresses}
    parts: dict[str, dict[str, Stored]] = {}
    for address in sorted(shared, key=list(text.tensors).index):
        part, _, tensor = address.rpartition(".")
        parts.setdefault(part, {})[tensor] = text.tensors[address]
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for part, tensors in parts.items():
        groups.setdefault(tuple((tensor, stored.name) for tensor, stored in tensors.items()), []).append(part)
    for tensors_of, members in groups.items():
        own = [address.rpartition(".") for address in text.tensors]
        counts = [sum(1 for layer, _, _ in own if layer == part) for part in members]
        is_whole = all(count == len(tensors_of) for count in counts)
        if len(members) < 2 or not is_whole or any(part.startswith("edges.") for part in members):
            continue
        weights = legal_name(f"{members[0]}.weights")
        for part in members:
            for address in _uses(text, part):
                text.nodes.setdefault(address, {})["weights"] = weights
            for tensor, _ in tensors_of:
                text.tensors[f"{weights}.{tensor}"] = text.tensors.pop(f"{part}.{tensor}")


def _uses(text: SectionText, part: str) -> list[str]:
    """The addresses of a part: one in each node that shares its weights as a whole, under the name of these weights."""
    named = [(name, fields["weights"]) for name, fields in text.nodes.items() if "weights" in fields]
    found = [name + part.removeprefix(whole) for name, whole in named if f"{part}.".startswith(f"{whole}.")]
    return found or [part]


def common_norms(flat: Flat) -> dict[str, float]:
    """The fields of norms that most of them have, as far as they differ from the defaults."""
    found: dict[str, float] = {}
    for name, default in (("eps", 1e-5), ("momentum", 0.1)):
        values = [getattr(one.op, name) for one in flat.primitives if one.op.normalizes and hasattr(one.op, name)]
        if values and (common := max(set(values), key=values.count)) != default:
            found[name] = common
    return found


def _input_names(flat: Flat) -> dict[int, str]:
    if len(flat.inputs) == 1:
        return {-1: "input"}
    return {-1 - number: legal_name(name) for number, name in enumerate(flat.inputs)}


def _inputs(flat: Flat, names: Mapping[int, str]) -> dict[str, Any]:
    if len(flat.inputs) == 1:
        return _shape(flat.input_shapes[0])
    return {names[-1 - number]: _shape(shape) for number, shape in enumerate(flat.input_shapes)}


def _shape(shape: Shape) -> dict[str, int]:
    if isinstance(shape, Map):
        return {"channels": shape.channels, "height": shape.height, "width": shape.width}
    return {"channels": shape.channels}
