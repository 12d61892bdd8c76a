"""Nodes as a section of a spec: stages, names, chains of the flow, and where each tensor has its address."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.importing.items import Item, stored_below
from hiresnet_graph.importing.primitives import Stored
from hiresnet_graph.importing.regions import Boundaries
from hiresnet_graph.ops import OPS
from hiresnet_graph.passes.names import name_fault
from hiresnet_graph.spec.scalar import looks_typed

_CHAIN = 108
"""Characters of a chain of the flow that fit into a line."""
_TOLERANCE = 1e-9


@dataclass(eq=False, slots=True)
class SectionNode:
    """An entry of `nodes`: one item, or a stage of several.

    Attributes:
        patches: Fields of single blocks of a stage that differ, by the number of the block.
        own: In a tied stage, the tensors that each block has for itself; None in others.
    """

    path: str
    items: list[Item]
    fields: dict[str, Any]
    patches: dict[int, dict[str, Any]] = field(default_factory=dict)
    own: set[Stored] | None = None
    name: str = ""

    @property
    def is_stage(self) -> bool:
        """Whether it has several blocks."""
        return len(self.items) > 1


@dataclass(slots=True)
class SectionText:
    """The nodes and edges of a section as plain data.

    Attributes:
        projections: Edges with a projection: source, target, projection.
        tensors: Address -> tensor of the original.
        blocks: The items of each node, in order.
    """

    nodes: dict[str, dict[str, Any]]
    flow: list[list[str]]
    projections: list[tuple[str, str, dict[str, Any] | None]]
    outputs: list[str]
    tensors: dict[str, Stored]
    blocks: dict[str, list[Item]]


def section(
    items: Sequence[Item],
    inputs: Mapping[int, str],
    outputs: Sequence[int],
    base: str,
    edges: Boundaries,
    defaults: Mapping[str, Mapping[str, Any]],
) -> SectionText:
    """The section of some items.

    Args:
        inputs: Value -> name of the input that it is.
        outputs: The values that come out.
        base: Address of the module that the section was.
        defaults: Entry of `blocks` -> defaults of its params.
    """
    nodes = _stages(items, base, edges, defaults)
    _name(nodes, base, {*inputs.values()})
    sources = dict(inputs) | {node.items[-1].output: node.name for node in nodes}
    place = {name: index for index, name in enumerate([*inputs.values(), *(node.name for node in nodes)])}
    text = SectionText(
        {}, [], [], [sources[output] for output in outputs], {}, {node.name: node.items for node in nodes}
    )
    sharing: dict[tuple[str, ...], str] = {}  # tensors -> the first node that uses them
    links: list[tuple[str, str]] = []
    for node in nodes:
        first = node.items[0]
        flow = [sources[operand] for operand in first.operands if operand not in first.projections]
        later = [sources[operand] for operand in first.operands if operand in first.projections]
        links += [(source, node.name) for source in flow]
        for operand, (projection, tensors) in first.projections.items():
            text.projections.append((sources[operand], node.name, projection or None))
            address = f"edges.{sources[operand]}__{node.name}".replace(".", "_").replace("edges_", "edges.", 1)
            text.tensors |= stored_below(address, tensors)
        fields = dict(node.fields)
        merge = _merge(first, [*flow, *later], place)
        if merge is not None:
            fields["merge"] = merge
        text.nodes[node.name] = fields
        text.nodes |= {f"{node.name}.block{number}": fields for number, fields in sorted(node.patches.items())}
        if not node.is_stage and _is_shared(node, sharing, text):
            continue
        for number, item in enumerate(node.items, 1):
            address = f"{node.name}.block{number}" if node.is_stage else node.name
            shared = {} if node.own is None else {k: v for k, v in item.tensors.items() if v not in node.own}
            text.tensors |= stored_below(address, {k: v for k, v in item.tensors.items() if k not in shared})
            text.tensors |= stored_below(node.name, shared)
    text.flow = chains(links, place)
    return text


def _is_shared(node: SectionNode, sharing: dict[tuple[str, ...], str], text: SectionText) -> bool:
    """Whether the tensors of a node are those of an earlier one; then both get the name of its weights."""
    tensors = node.items[0].tensors
    same = tuple(sorted(f"{address}={stored.name}" for address, stored in tensors.items()))
    if not same or sharing.setdefault(same, node.name) == node.name:
        return False
    first = sharing[same]
    name = f"{first}_weights" if first == "shared" or looks_typed(first) else first
    text.nodes[first]["weights"] = text.nodes[node.name]["weights"] = name
    for address, stored in tensors.items():
        text.tensors.pop(f"{first}.{address}", None)
        text.tensors[f"{name}.{address}"] = stored
    return True


def _merge(item: Item, sources: Sequence[str], place: Mapping[str, int]) -> Any:
    """The field `merge` of a node; None for the default, `add`."""
    if item.merge is None or len(item.operands) < 2:
        return None
    natural = sorted(sources, key=place.__getitem__) if not item.projections else list(sources)
    ordered = natural == list(sources) or (item.merge == "add" and len(sources) == 2)
    if ordered:
        return None if item.merge == "add" else item.merge
    return {"kind": item.merge, "order": list(sources)}


def _stages(
    items: Sequence[Item], base: str, edges: Boundaries, defaults: Mapping[str, Mapping[str, Any]]
) -> list[SectionNode]:
    found: list[SectionNode] = []
    start = 0
    while start < len(items):
        run = [items[start]]
        fields: StageFields | None = None
        while start + len(run) < len(items) and _follows(run, items[start + len(run)], base, edges):
            longer = _common_fields([*run, items[start + len(run)]], defaults)
            if longer is None:
                break
            run.append(items[start + len(run)])
            fields = longer
        if fields is not None and _shares(run[0], run[1]) and not _is_alone(run, edges):
            run, fields = run[:1], None
        start += len(run)
        own = own_defaults(run[0].block, defaults)
        if fields is None:
            plain = {name: value for name, value in run[0].fields.items() if name not in own or own[name] != value}
            found.append(SectionNode(run[0].path, run, {"block": run[0].block, **plain}))
        else:
            tied = {"weights": "shared"} if _shares(run[0], run[1]) else {}
            stage = {"block": run[0].block, **fields[0], "depth": len(run), **tied}
            found.append(SectionNode(run[0].path, run, stage, fields[1], _norms(run, edges) if tied else None))
    for node in found:
        container = node.path.rpartition(".")[0]
        inside = [item for item in items if item.path.startswith(f"{container}.")]
        is_block = node.is_stage or node.items[0].block in BLOCKS
        if container and container != base and len(inside) == len(node.items) and is_block:
            node.path = container
    return found


def _follows(run: Sequence[Item], other: Item, base: str, edges: Boundaries) -> bool:
    """Whether an item may be the next block of a stage: a part of a container, or a numbered part of the section."""
    one = run[-1]
    parent, _, name = other.path.rpartition(".")
    is_next = (
        (parent != base or name.isdigit())
        and one.block == other.block
        and (one.block in BLOCKS or one.inner is not None)
        and one.block != "identity"
        and other.operands == [one.output]
        and other.merge is None
        and len(edges.readers.get(one.output, ()))
        == sum(1 for index in edges.readers.get(one.output, ()) if index in other.members)
        and one.output not in edges.results
        and one.path.rpartition(".")[0] == parent
    )
    if is_next and _shares(one, other):
        return not base and one.inner is None and _is_tied([*run, other], edges)
    return is_next and not (len(run) > 1 and _shares(run[0], run[1]))


def _shares(one: Item, other: Item) -> bool:
    return not set(one.tensors.values()).isdisjoint(other.tensors.values())


def _is_tied(run: Sequence[Item], edges: Boundaries) -> bool:
    """Whether blocks share all weights, but each has norms of its own."""
    by_address: dict[str, list[Stored]] = {}
    for item in run:
        for address, stored in item.tensors.items():
            by_address.setdefault(address, []).append(stored)
    own = _norms(run, edges)
    shared = [group for group in by_address.values() if own.isdisjoint(group)]
    norms = [stored for group in by_address.values() for stored in group if stored in own]
    return (
        0 < len(norms) == len(own)
        and all(len(set(group)) == 1 for group in shared)
        and len({group[0] for group in shared}) == len(shared)
    )


def _is_alone(run: Sequence[Item], edges: Boundaries) -> bool:
    """Whether nothing else has the weights of some blocks."""
    tensors = {stored for item in run for stored in item.tensors.values()}
    uses = [stored for primitive in edges.flat.primitives for stored in primitive.stored.values() if stored in tensors]
    return len(uses) == sum(len(item.tensors) for item in run)


def _norms(run: Sequence[Item], edges: Boundaries) -> set[Stored]:
    """The tensors of the norms of some blocks."""
    primitives = [edges.flat.primitives[index] for item in run for index in item.members]
    return {stored for one in primitives if one.op.normalizes for stored in one.stored.values()}


def own_defaults(block: str, defaults: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The defaults of the fields of a block or an operation, or of the params of an entry of `blocks`."""
    if block in defaults:
        return defaults[block]
    model = (BLOCKS if block in BLOCKS else OPS).get(block).model_fields
    return {name: info.get_default(call_default_factory=True) for name, info in model.items() if not info.is_required()}


StageFields = tuple[dict[str, Any], dict[int, dict[str, Any]]]
"""The fields of a stage, and those of single blocks that differ."""


def _common_fields(run: Sequence[Item], defaults: Mapping[str, Mapping[str, Any]]) -> StageFields | None:
    """The fields of the stage that some blocks are; None if they are none."""
    own = own_defaults(run[0].block, defaults)
    names = dict.fromkeys(name for item in run for name in item.fields)
    fields: dict[str, Any] = {}
    patches: dict[int, dict[str, Any]] = {}
    is_named = all(item.path.rpartition(".")[2] == f"block{number}" for number, item in enumerate(run, 1))
    for name in names:
        values = [item.fields.get(name, own.get(name)) for item in run]
        if name in run[0].free:
            values[0] = _before(values[1:])
        first, rest = values[0], values[1:]
        if name == "stride":  # of the first block of a stage; the others have 1
            if any(value != 1 for value in rest):
                return None
            if first != 1:
                fields[name] = first
        elif all(value == first for value in rest):
            if first != own.get(name, _Missing):
                fields[name] = first
        elif (progression := _progression(values)) is not None:
            fields[name] = progression
        elif name == "shift" and all(value == values[number % 2] for number, value in enumerate(values)):
            low, high = int(values[0] or 0), int(values[1] or 0)
            fields[name] = f"$({high} * (i % 2))" if low == 0 else f"$({low} + {high - low} * (i % 2))"
        elif name == "shortcut" and all(value == rest[0] for value in rest):
            if rest[0] != own.get(name):
                fields[name] = rest[0]
            patches.setdefault(1, {})[name] = first
        elif is_named:  # as in modules of this package: their names say that it is a stage
            usual = own[name] if name in own and own[name] in values else max(values, key=values.count)
            if usual != own.get(name, _Missing):
                fields[name] = usual
            for number, value in enumerate(values, 1):
                if value != usual:
                    patches.setdefault(number, {})[name] = value
        else:
            return None
    return fields, patches


_Missing = object()


def _before(values: Sequence[Any]) -> Any:
    """The number before others that grow by equal steps."""
    return values[0] if len(values) == 1 else max(0.0, float(f"{2 * values[0] - values[1]:.10g}"))


def _progression(values: Sequence[Any]) -> str | None:
    """Numbers that grow by equal steps as a template of the block's index."""
    if not all(isinstance(value, float | int) and not isinstance(value, bool) for value in values):
        return None
    if len(values) < 3 and not any(isinstance(value, float) for value in values):
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    if step <= 0 or any(abs(values[0] + step * i - value) > _TOLERANCE for i, value in enumerate(values)):
        return None
    whole = all(isinstance(value, int) for value in values)
    factor = int(step) if whole else float(f"{step:.10g}")
    start = values[0] if whole else float(f"{values[0]:.10g}")
    times = "i" if factor == 1 else f"{factor} * i"
    return f"$({times})" if not start else f"$({start} + {times})"


def _name(nodes: Sequence[SectionNode], base: str, taken: Collection[str]) -> None:
    """Give every node the shortest legal name that shows where it came from."""
    parts = [_relative(node.path, base) for node in nodes]
    for node, part in zip(nodes, parts, strict=True):
        if len(part) == 1 and name_fault(part[0]) and node.items[0].block in BLOCKS:
            part[0] = node.items[0].block
    lengths = [_legal_length(part, 1) for part in parts]
    while True:
        names = [legal_name("_".join(part[-length:])) for part, length in zip(parts, lengths, strict=True)]
        clashes = {name for name in names if names.count(name) > 1} | (set(taken) & set(names))
        longer = [index for index, name in enumerate(names) if name in clashes and lengths[index] < len(parts[index])]
        if not longer:
            break
        for index in longer:
            lengths[index] = _legal_length(parts[index], lengths[index] + 1)
    used = set(taken)
    for node, name in zip(nodes, names, strict=True):
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name}{'_' if name[-1].isdigit() else ''}{number}"
        used.add(unique)
        node.name = unique


def _legal_length(part: Sequence[str], length: int) -> int:
    """How many parts at the end of an address are a name, from a number on; all if fewer are not."""
    return next((n for n in range(length, len(part)) if not name_fault("_".join(part[-n:]))), len(part))


def _relative(path: str, base: str) -> list[str]:
    if base and path.startswith(f"{base}."):
        path = path[len(base) + 1 :]
    return path.split(".")


def legal_name(text: str) -> str:
    """A text as the name of a node."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text)[:60].strip("_")
    if not name or not name[0].isalpha():
        name = f"n{name}" if name else "node"
    return f"{name}_" if name_fault(name) else name


def chains(links: Iterable[tuple[str, str]], place: Mapping[str, int]) -> list[list[str]]:
    """Edges as few chains: from each start always to the next node in order."""
    following: dict[str, list[str]] = {}
    for source, target in links:
        following.setdefault(source, []).append(target)
    for targets in following.values():
        targets.sort(key=place.__getitem__)
    found: list[list[str]] = []
    for start in sorted(following, key=place.__getitem__):
        while following[start]:
            chain = [start]
            while following.get(chain[-1]):
                chain.append(following[chain[-1]].pop(0))
            found.append(chain)
    return found


def flow_lines(found: Sequence[Sequence[str]], start: str = "") -> str | list[str]:
    """Chains as the key `flow`.

    Args:
        start: The input, which need not be written before the only chain that it starts.
    """
    lines: list[str] = []
    alone = start and sum(chain.count(start) for chain in found) == 1 and found[0][0] == start
    for chain in found:
        names = list(chain[1:]) if alone and chain is found[0] and len(chain) > 2 else list(chain)
        line = [names[0]]
        for name in names[1:]:
            if len(" -> ".join([*line, name])) > _CHAIN and len(line) > 1:
                lines.append(" -> ".join(line))
                line = [line[-1]]
            line.append(name)
        lines.append(" -> ".join(line))
    return lines[0] if len(lines) == 1 else lines
