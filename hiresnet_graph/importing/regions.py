"""The calls of modules around the primitives of a network, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hiresnet_graph import ops
from hiresnet_graph.importing.primitives import Flat, Primitive
from hiresnet_graph.importing.recognition import INPUT, calls_of, with_norms
from hiresnet_graph.importing.trace import ModuleCall


@dataclass(eq=False, slots=True)
class Region:
    """One call of a module that is no layer of torch.

    Attributes:
        children: Its parts in order: calls of other modules, and primitives.
    """

    frame: ModuleCall
    children: list[Region | int] = field(default_factory=list)

    @property
    def members(self) -> Iterator[int]:
        """All primitives in it."""
        for child in self.children:
            if isinstance(child, Region):
                yield from child.members
            else:
                yield child

    def walk(self) -> Iterator[Region]:
        """The regions below it, and itself last."""
        for child in self.children:
            if isinstance(child, Region):
                yield from child.walk()
        yield self


def own_frames(primitive: Primitive) -> tuple[ModuleCall, ...]:
    """The calls around a primitive without those of torch's own layers."""
    return tuple(frame for frame in primitive.frames if not frame.is_standard)


def tree_of(flat: Flat) -> Region:
    """The region of the whole network."""
    first = own_frames(flat.primitives[0])[0] if flat.primitives and own_frames(flat.primitives[0]) else None
    root = Region(first or ModuleCall("", "Module", -1, False))
    open_: list[Region] = [root]
    for index, primitive in enumerate(flat.primitives):
        frames = own_frames(primitive)[1:]
        depth = 0
        while depth < len(frames) and depth + 1 < len(open_) and open_[depth + 1].frame == frames[depth]:
            depth += 1
        del open_[depth + 1 :]
        for frame in frames[depth:]:
            region = Region(frame)
            open_[-1].children.append(region)
            open_.append(region)
        open_[-1].children.append(index)
    _collapse(root)
    return root


def _collapse(region: Region) -> None:
    """Make a module that only calls another one, and that one, a single region."""
    while len(region.children) == 1 and isinstance(region.children[0], Region):
        only = region.children[0]
        named = region.frame if only.frame.kind == "Sequential" else only.frame
        region.frame = region.frame._replace(kind=named.kind, is_sequence=only.frame.is_sequence)
        region.children = only.children
    for child in region.children:
        if isinstance(child, Region):
            _collapse(child)


def join_concatenations(flat: Flat) -> Flat:
    """Growing concatenations, like those of a densely connected network, one from the other.

    [a, b, c] becomes [[a, b], c] if [a, b] is there, too, and belongs to the module that computes c.
    """
    known: dict[tuple[int, ...], int] = {}
    moved: dict[int, int] = {}
    for index, primitive in enumerate(flat.primitives):
        if not isinstance(primitive.op, ops.Concat):
            continue
        everything = primitive.operands
        shorter = known.get(everything[:-1])
        if everything in known:
            continue
        known[everything] = index
        if shorter is not None:
            primitive.operands = (shorter, everything[-1])
        if shorter is not None or any(other[: len(everything)] == everything for other in _longer(flat, index)):
            moved[index] = everything[-1]
    if not moved:
        return flat
    order: list[int] = []
    after: dict[int, list[int]] = {}
    for index, place in moved.items():
        after.setdefault(place, []).append(index)
        flat.primitives[index].frames = own_frames(flat.primitives[place]) if place >= 0 else ()
    for index in range(len(flat.primitives)):
        if index not in moved or moved[index] < 0:
            order += [index, *after.get(index, ())]
    new = {old: number for number, old in enumerate(order)} | {-1 - i: -1 - i for i in range(len(flat.inputs))}
    primitives = [flat.primitives[old] for old in order]
    for primitive in primitives:
        primitive.operands = tuple(new[operand] for operand in primitive.operands)
    outputs = {name: new[index] for name, index in flat.outputs.items()}
    return Flat(flat.inputs, flat.input_shapes, primitives, outputs, flat.faults)


def _longer(flat: Flat, index: int) -> Iterator[tuple[int, ...]]:
    for primitive in flat.primitives[index + 1 :]:
        if isinstance(primitive.op, ops.Concat):
            yield primitive.operands


class Boundaries:
    """Which values enter and leave sets of primitives."""

    def __init__(self, flat: Flat, norms: Mapping[str, float]) -> None:
        self.flat = flat
        norm = with_norms(ops.BatchNorm(), norms)
        self.norm = (norm.kind, *sorted(norm.model_dump().items()))
        self.readers: dict[int, list[int]] = {}
        for index, primitive in enumerate(flat.primitives):
            for operand in primitive.operands:
                self.readers.setdefault(operand, []).append(index)
        self.results = set(flat.outputs.values())

    def of(self, members: frozenset[int]) -> tuple[list[int], list[int]]:
        """The values that some primitives read from outside, and those of their own that are read outside."""
        sources = dict.fromkeys(
            operand
            for index in sorted(members)
            for operand in self.flat.primitives[index].operands
            if operand not in members
        )
        results = [
            index
            for index in sorted(members)
            if index in self.results or any(reader not in members for reader in self.readers.get(index, ()))
        ]
        return list(sources), results

    def structure(self, members: frozenset[int], source: int, output: int) -> int:
        """A number that is equal for primitives of equal structure, whatever their numbers are.

        A 1x1 convolution with a batch norm that leads into a sum counts as no operation: it is what a projection does.
        """
        calls, order = calls_of(self.flat, members, source, output)
        found: list[int] = []
        for place, (key, operands) in enumerate(zip(calls.keys, calls.operands, strict=True)):
            below = [hash("input") if index == INPUT else found[index] for index in operands]
            if key[0] == "add":
                below = sorted(self._before_projection(calls.keys, calls.operands, index, found) for index in operands)
            kinds = tuple(item for item in key[1:] if isinstance(item[1], bool | str))
            tensors = tuple(sorted(self.flat.primitives[order[place]].stored))
            found.append(hash((key[0], kinds, tensors, tuple(below))))
        return hash((found[calls.output],))

    def _before_projection(self, keys: object, operands: object, index: int, found: list[int]) -> int:
        assert isinstance(keys, list) and isinstance(operands, list)
        if index != INPUT and keys[index] == self.norm:
            conv = operands[index][0]
            if conv != INPUT and is_projection(dict(keys[conv][1:]), keys[conv][0]):
                index = operands[conv][0]
        return hash("input") if index == INPUT else found[index]


def is_projection(fields: dict[str, object], kind: str) -> bool:
    """Whether a convolution may be that of a standard projection."""
    return (
        kind == "conv2d"
        and fields["kernel_size"] == (1, 1)
        and fields["padding"] is None
        and fields["groups"] == 1
        and not fields["bias"]
    )
