"""Long skips as the key `skips` of a spec: between which nodes, at which slot, with which projection and factor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.importing.items import Item
from hiresnet_graph.importing.primitives import Flat, Stored
from hiresnet_graph.importing.recognition import Calls, operation_key, pairing, projected
from hiresnet_graph.importing.sections import SectionText
from hiresnet_graph.importing.skips import LongSkip
from hiresnet_graph.ops import Op, pair
from hiresnet_graph.shapes import Shape, Tokens
from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.traversal import topological_order

_FIELDS = ("spatial", "channels", "norm", "bias", "when")
_SPATIAL = {
    "avg_pool": "avg",
    "max_pool": "max",
    "subsample": "stride",
    "adaptive_avg_pool": "adaptive",
    "conv_transpose2d": "deconv",
}
_SLOTS = ("output", "residual", "input")
_NORMS = {"batch_norm": "batch", "group_norm": "group", "layer_norm": "layer", "layer_norm2d": "layer2d"}


@dataclass(eq=False, slots=True)
class SkipEdge:
    """A long skip between two nodes.

    Attributes:
        scale: The value of the key `scale`.
        is_last: As of `LongSkip`.
        ends: Names of source and target.
        place: The values of both.
        projection: Fields of a projection that computes it.
        tensors: Address below the edge -> tensor of the original.
    """

    slot: str
    scale: str | float | dict[str, Any] | None
    is_last: bool
    shapes: tuple[Shape, Shape]
    calls: Calls
    operations: list[tuple[Op, Mapping[str, Stored]]]
    norms: Mapping[str, float]
    ends: tuple[str, str] = ("", "")
    place: tuple[int, int] = (0, 0)
    projection: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Stored] = field(default_factory=dict)

    def fit(self, fields: Mapping[str, Any]) -> bool:
        """Whether a projection computes it; if so, its tensors get their addresses."""
        found = projected(fields, *self.shapes, self.norms)
        pairs = pairing(self.calls, found.calls) if found is not None and self.calls.keys else None
        if pairs is None and (found is not None or self.calls.keys):
            return False
        for place, (_, stored) in enumerate(self.operations):
            assert found is not None and pairs is not None
            self.tensors |= {f"{found.names[pairs[place]]}.{name}": value for name, value in stored.items()}
        return True


class SkipPlaces:
    """Where long skips start and end in a section that was made without them.

    Args:
        flat: The network with its skips.
        values: Value of this network -> the same value of the network of the section, or what is left of a sum.
        inputs: Value -> name of the input that it is.
        norms: Fields of all norms that do not set them.
    """

    def __init__(
        self,
        flat: Flat,
        values: Mapping[int, int],
        text: SectionText,
        inputs: Mapping[int, str],
        norms: Mapping[str, float],
    ) -> None:
        self.flat, self.values, self.norms = flat, values, norms
        self.readers: dict[int, list[int]] = {}
        for index, primitive in enumerate(flat.primitives):
            for operand in primitive.operands:
                self.readers.setdefault(operand, []).append(index)
        self.same: dict[int, list[int]] = {}
        for old in sorted(values):
            self.same.setdefault(values[old], []).append(old)
        self.names = dict(inputs)
        self.slots: dict[int, tuple[str, Item]] = {}
        self.items: list[tuple[str, Item]] = []
        for node, items in text.blocks.items():
            for number, item in enumerate(items, 1):
                block = f"{node}.block{number}"
                self.names[item.output] = node if number == len(items) else block
                self.items.append((node if number == 1 else block, item))
                self.slots |= {value: (slot, item) for value, slot in item.slots.items()}
        self.slots |= {item.output: ("output", item) for _, item in self.items}

    def edges(self, skips: Sequence[LongSkip]) -> dict[LongSkip, SkipEdge]:
        """The skips that can be edges of the section, at one slot if there is one for all."""
        targets = {skip.top: self._targets(skip.top) for skip in skips}
        common = [slot for slot in _SLOTS if all(slot in found for found in targets.values())]
        edges: dict[LongSkip, SkipEdge] = {}
        for skip in skips:
            slot = next((slot for slot in [*common, *_SLOTS] if slot in targets[skip.top]), None)
            edge = None if slot is None else self._edge(skip, targets[skip.top][slot], slot)
            if edge is not None:
                edges[skip] = edge
        return edges

    def _edge(self, skip: LongSkip, target: tuple[str, int], slot: str) -> SkipEdge | None:
        start = self.values.get(skip.source)
        if start is None or start not in self.names:
            return None
        if not self._is_replaced(start) and skip.source != self.same[start][0]:
            return None  # the sum is no value of a node: it is made at the input of the next one
        members = [index for index in skip.members if not isinstance(self.flat.primitives[index].op, ops.Identity)]
        scale: str | float | dict[str, Any] | None = None
        tensors: dict[str, Stored] = {}
        last = self.flat.primitives[members[-1]] if members else None
        if last is not None and isinstance(last.op, ops.LearnedScale | ops.FixedScale):
            scale = last.op.factor if isinstance(last.op, ops.FixedScale) else _learned(last.op)
            tensors = {f"scale.{name}": stored for name, stored in last.stored.items()}
            members = members[:-1]
        edge = self._edge_of(skip, members, slot, scale)
        edge.ends, edge.place = (self.names[start], target[0]), (start, target[1])
        edge.tensors = tensors
        for fields in _projections([op for op, _ in edge.operations], *edge.shapes):
            if edge.fit(fields):
                edge.projection = fields
                return edge
        return None

    def _edge_of(
        self, skip: LongSkip, members: Sequence[int], slot: str, scale: str | float | dict[str, Any] | None
    ) -> SkipEdge:
        primitives = [self.flat.primitives[index] for index in members]
        source, target = self.flat.shape(skip.source), self.flat.shape(skip.top)
        before = [source, *(one.shape for one in primitives)]
        keys = [operation_key(one.op, shape) for one, shape in zip(primitives, before, strict=False)]
        calls = Calls(keys, [(number - 1,) for number in range(len(keys))], len(keys) - 1)
        operations = [(one.op, one.stored) for one in primitives]
        return SkipEdge(slot, scale, skip.is_last, (source, target), calls, operations, self.norms)

    def _is_replaced(self, value: int) -> bool:
        """Whether what is left of a sum is read by this sum alone, so that the sum takes its place."""
        *inner, _ = self.same[value]
        results = set(self.flat.outputs.values())
        return all(one not in results and set(self.readers[one]) <= set(self.same[value]) for one in inner)

    def _targets(self, top: int) -> dict[str, tuple[str, int]]:
        """Where a sum can be made: slot -> name and value of the node."""
        value = self.values[top]
        found: dict[str, tuple[str, int]] = {}
        if value in self.slots and self._is_replaced(value):
            slot, item = self.slots[value]
            found[slot] = self.names[item.output], item.output
        readers = {self.values.get(reader) for reader in self.readers.get(top, ())}
        for name, item in self.items:
            is_read = readers <= item.members and value in item.operands and item.merge in (None, "add")
            if is_read and top not in self.flat.outputs.values():
                found["input"] = name, item.output
        return found


def _learned(scale: ops.LearnedScale) -> str | dict[str, Any]:
    return "learned" if scale.init is None else {"learned": True, "init": scale.init}


def skips_key(edges: Sequence[SkipEdge], stages: Mapping[str, int]) -> Iterator[tuple[Any, dict[str, Stored]]]:
    """Values of the key `skips` that may be these edges, best first, with the address of each tensor of the edges.

    Args:
        edges: In the order in which they are added.
        stages: Stage -> number of its blocks.
    """
    groups = [
        (fields, group)
        for alike in _alike(edges, lambda edge: (edge.slot, repr(edge.scale)))
        for fields, group in _with_one_projection(alike)
    ]
    names = _group_names(groups)
    tensors: dict[str, Stored] = {}
    for name, (_, group) in zip(names, groups, strict=True):
        for edge in group:
            ends = "__".join(end.replace(".", "_") for end in edge.ends)
            prefix = f"edges.{name}.{ends}" if name else f"edges.{ends}"
            tensors |= {f"{prefix}.{address}": stored for address, stored in edge.tensors.items()}
    order = _order(edges) if len(groups) == 1 and edges[0].slot != "input" else []
    for merge in [{"kind": "add", "order": order}, None] if order else [None]:
        for is_brief in (True, False):
            found = {
                name: _entry(fields, group, stages, merge, is_brief=is_brief)
                for name, (fields, group) in zip(names, groups, strict=True)
            }
            yield found.get("", found), tensors


def _entry(
    fields: Mapping[str, Any], group: Sequence[SkipEdge], stages: Mapping[str, int], merge: Any, *, is_brief: bool
) -> dict[str, Any]:
    """A group of skips.

    Args:
        is_brief: Whether levels and a named edge set may stand for the edges.
    """
    entry = (_levels(group, stages) if is_brief else None) or {
        "edges": [f"{edge.ends[0]}>{edge.ends[1]}" for edge in group]
    }
    if group[0].slot != "output":
        entry["slot"] = group[0].slot
    if merge is not None:
        entry["merge"] = merge
    if fields:
        entry["projection"] = {name: fields[name] for name in _FIELDS if name in fields}
    if group[0].scale is not None:
        entry["scale"] = group[0].scale
    return entry


def _order(edges: Sequence[SkipEdge]) -> list[str]:
    """The sources in the order in which all sums add them; empty if it is the usual one, or if there is none."""
    sums = _alike(edges, lambda edge: edge.ends[1])
    usual = [sorted(group, key=lambda edge: -edge.place[0]) for group in sums]
    if usual == sums or not all(edge.is_last for edge in edges):
        return []
    sources = list(dict.fromkeys(edge.ends[0] for edge in edges))
    number = {name: index for index, name in enumerate(sources)}
    followers: list[list[int]] = [[] for _ in sources]
    for group in sums:
        for one, other in pairwise(group):
            followers[number[one.ends[0]]].append(number[other.ends[0]])
    found = [sources[index] for index in topological_order(followers)]
    return found if len(found) == len(sources) else []


def _alike(edges: Sequence[SkipEdge], key: Any) -> list[list[SkipEdge]]:
    found: dict[Any, list[SkipEdge]] = {}
    for edge in edges:
        found.setdefault(key(edge), []).append(edge)
    return list(found.values())


def _with_one_projection(edges: Sequence[SkipEdge]) -> Iterator[tuple[dict[str, Any], list[SkipEdge]]]:
    """The edges in groups, each with the fields of a projection that computes all of its edges."""
    left = list(edges)
    while left:
        fields: dict[str, Any] = {}
        for edge in left:
            if all(fields.get(name, value) == value for name, value in edge.projection.items()):
                fields |= edge.projection
        group = [edge for edge in left if edge.fit(fields)]
        if not group:
            fields = left[0].projection
            group = [edge for edge in left if edge.fit(fields)]
        yield fields, group
        left = [edge for edge in left if edge not in group]


def _group_names(groups: Sequence[tuple[dict[str, Any], list[SkipEdge]]]) -> list[str]:
    """A name for each group by what distinguishes it; an empty one for one group alone."""
    if len(groups) == 1:
        return [""]
    slots = [f"{group[0].slot}s" for _, group in groups]  # `input` is no name
    spatial = [str(fields.get("spatial", "avg")) for fields, _ in groups]
    for names in (slots, spatial, [f"{slot}_{kind}" for slot, kind in zip(slots, spatial, strict=True)]):
        if len(set(names)) == len(names):
            return names
    return [f"group{number}" for number in range(1, len(groups) + 1)]


def _levels(edges: Sequence[SkipEdge], stages: Mapping[str, int]) -> dict[str, Any] | None:
    """Levels and a named edge set, if these edges are one and there are more than two."""
    if len(edges) < 3:
        return None
    last = {stage: f"{stage}.block{depth}" for stage, depth in stages.items()}
    first = {stage: f"{stage}.block1" for stage in stages} if edges[0].slot == "input" else last
    blocks = [(last.get(edge.ends[0], edge.ends[0]), first.get(edge.ends[1], edge.ends[1])) for edge in edges]
    for pairs in ([edge.ends for edge in edges], blocks):
        places = {pair[end]: edge.place[end] for edge, pair in zip(edges, pairs, strict=True) for end in (0, 1)}
        levels = sorted(places, key=lambda name: places[name])
        spans = [f"p{distance}" for distance in range(1, len(levels))]
        for family in ("full", "in", "out", *spans, *(f"full - {one}" for one in ("in", "out", *spans))):
            if EdgeSet.parse(family).select(levels, lambda *_: ()) == frozenset(pairs):
                return {"levels": _short(levels, stages), "edges": family}
    return None


def _short(levels: Sequence[str], stages: Mapping[str, int]) -> list[str] | str:
    """Levels with a word or a pattern for all stages or blocks."""
    blocks = {stage: [f"{stage}.block{number}" for number in range(1, depth + 1)] for stage, depth in stages.items()}
    # Beside its other blocks, a stage is its last block.
    found = [blocks[one][-1] if one in blocks and blocks[one][0] in levels else one for one in levels]
    words = {"blocks": [name for names in blocks.values() for name in names], "stages": list(stages)}
    words |= {f"{stage}.block*": names for stage, names in blocks.items()}
    for word, names in words.items():
        if len(names) > 1 and set(names) <= set(found):
            first = found.index(names[0])
            found[first] = word
            found = [name for name in found if name not in names]
    return found[0] if len(found) == 1 else found


def _projections(operations: Sequence[Op], source: Shape, target: Shape) -> Iterator[dict[str, Any]]:
    """Fields of the standard projection that may compute these operations."""
    if not operations:
        yield {}
        return
    kinds = [op.kind for op in operations]
    layers = [op for op in operations if isinstance(op, ops.Conv2d | ops.Linear)]
    fields: dict[str, Any] = {}
    strided = any(isinstance(op, ops.Conv2d) and pair(op.stride) != (1, 1) for op in layers)
    spatial = next((_SPATIAL[kind] for kind in kinds if kind in _SPATIAL), "stride" if strided else "avg")
    resized = next((op for op in operations if isinstance(op, ops.Resize)), None)
    spatial = spatial if resized is None else resized.mode
    if spatial != "avg":
        fields["spatial"] = spatial
    padded = next((op for op in operations if isinstance(op, ops.PadChannels)), None)
    if padded is not None:
        fields["channels"] = "pad" if padded.side == "both" else "pad_end"
    elif "slice_channels" in kinds:
        fields["channels"] = "slice"
    elif not layers:
        fields["channels"] = "none"
    norm = next((_NORMS[kind] for kind in kinds if kind in _NORMS), "none")
    if norm != ("layer" if isinstance(target, Tokens) else "batch"):
        fields["norm"] = norm
    if layers and layers[0].bias != (norm == "none"):
        fields["bias"] = layers[0].bias
    yield fields
    yield {**fields, "when": "always"}
