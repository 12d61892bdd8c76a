"""Long skips of a network: operands of sums that pass over blocks, and the network without them.

A residual block adds its own input to what it computes; such a shortcut is part of the block. A long skip starts before
other blocks. Which one an operand is follows from the graph alone: from the values that every path between its source
and the sum goes through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from hiresnet_graph import ops
from hiresnet_graph.importing.primitives import Flat, Primitive
from hiresnet_graph.importing.recognition import ACTIVATIONS
from hiresnet_graph.importing.regions import own_frames

_ON_EDGES = frozenset(
    {
        *("conv2d", "linear", "pad_channels", "slice_channels", "conv_transpose2d", "resize"),
        *("avg_pool", "max_pool", "adaptive_avg_pool", "subsample"),
        *("batch_norm", "group_norm", "layer_norm", "layer_norm2d"),
        *("to_tokens", "to_map", "drop_prefix", "pad_prefix", "scale", "fixed_scale", "identity"),
    }
)
"""Operations that an edge can have: those of projections, and its factor."""
_LAYERS = frozenset({"conv2d", "conv_transpose2d", "linear"})
_OWN_LAYERS = 3
"""How many layers one after another the shortcut of a block without other blocks inside may pass over."""


@dataclass(frozen=True, slots=True)
class LongSkip:
    """An operand of a sum.

    Attributes:
        sum: The addition, and the value that it adds.
        top: The addition whose value is the whole sum.
        source: The value that it starts from.
        members: The primitives between source and sum, in order.
        is_last: Whether the skips of this sum are added after the other terms, or in one pair with the only other one.
    """

    sum: tuple[int, int]
    top: int
    source: int
    members: tuple[int, ...]
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class ReducedFlat:
    """A network without some of its skips.

    Attributes:
        flat: With primitives of its own.
        values: Value of the network with skips -> the same value without them, or what is left of a sum.
    """

    flat: Flat
    values: dict[int, int]


def find_skips(flat: Flat) -> list[LongSkip]:
    """The operands of sums that are long skips, in the order of the sums."""
    return _Finder(flat).skips


def without_skips(flat: Flat, skips: Collection[LongSkip]) -> ReducedFlat | None:
    """A network without skips, and without what only they read; None if a sum would then add one value twice."""
    cut = {skip.sum for skip in skips}
    needed = set(flat.outputs.values())
    for index in reversed(range(len(flat.primitives))):
        if index in needed:
            needed |= {one for one in flat.primitives[index].operands if (index, one) not in cut}
    values = {-1 - number: -1 - number for number in range(len(flat.inputs))}
    primitives: list[Primitive] = []
    empty: set[int] = set()  # sums of skips alone, which other sums add
    for index, primitive in enumerate(flat.primitives):
        if index not in needed:
            continue
        kept = [one for one in primitive.operands if (index, one) not in cut and one not in empty]
        if primitive.operands and not kept:
            empty.add(index)
            continue
        operands = tuple(values[operand] for operand in kept)
        if len(operands) == 1 < len(primitive.operands):
            values[index] = operands[0]
            continue
        if len(set(operands)) < len(operands):
            return None
        values[index] = len(primitives)
        primitives.append(replace(primitive, operands=operands))
    outputs = {name: values[index] for name, index in flat.outputs.items()}
    return ReducedFlat(Flat(flat.inputs, flat.input_shapes, primitives, outputs, flat.faults, flat.consumed), values)


class _Finder:
    """Goes through the sums of a network from the input to the output.

    Attributes:
        left: Sum -> the one value that is left of it without its skips.
        residual: Sum that stays, or what is left of it -> the first value that its own shortcuts start from.
    """

    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        self.skips: list[LongSkip] = []
        self.left: dict[int, int] = {}
        self.cut: set[tuple[int, int]] = set()
        self.residual: dict[int, int] = {}
        self.readers: dict[int, list[int]] = {}
        self.users: dict[str, int] = {}
        for index, primitive in enumerate(flat.primitives):
            for operand in primitive.operands:
                self.readers.setdefault(operand, []).append(index)
            for stored in primitive.stored.values():
                self.users[stored.name] = self.users.get(stored.name, 0) + 1
        self.results = set(flat.outputs.values())
        for index, primitive in enumerate(flat.primitives):
            if isinstance(primitive.op, ops.Add) and not self._is_inner(index):
                self._visit(index)

    def _is_alone(self, index: int) -> bool:
        """Whether a value is read once and is no result."""
        return index not in self.results and len(self.readers.get(index, ())) == 1

    def _is_inner(self, index: int) -> bool:
        """Whether an addition is part of another one: (a + b) + c."""
        return self._is_alone(index) and isinstance(self.flat.primitives[self.readers[index][0]].op, ops.Add)

    def _operands(self, index: int) -> Iterator[int]:
        """The operands of a primitive in the network without skips."""
        for operand in self.flat.primitives[index].operands:
            if (index, operand) not in self.cut:
                yield self.left.get(operand, operand)

    def _terms(self, top: int) -> tuple[list[int], list[tuple[int, int]]]:
        """The additions of a sum, and what it adds: addition and operand."""
        additions: list[int] = []
        terms: list[tuple[int, int]] = []
        stack = [top]
        while stack:
            index = stack.pop()
            additions.append(index)
            for operand in self.flat.primitives[index].operands:
                is_sum = operand >= 0 and isinstance(self.flat.primitives[operand].op, ops.Add)
                if is_sum and self._is_inner(operand):
                    stack.append(operand)
                else:
                    terms.append((index, operand))
        place = {term: self.flat.primitives[term[0]].operands.index(term[1]) for term in terms}
        return sorted(additions), sorted(terms, key=lambda term: (term[0], place[term]))

    def _chain(self, value: int, before: Collection[int] = ()) -> tuple[int, tuple[int, ...]]:
        """The value that another one is made of by operations of an edge, and these operations in order.

        Operations without weights may have other readers: edges to targets of one size can share their pooling.

        Args:
            before: Values that have their own place on the path to the sum, where it ends.
        """
        members: list[int] = []
        while value >= 0 and self.left.get(value, value) not in before:
            primitive = self.flat.primitives[value]
            is_own = all(self.users[stored.name] == 1 for stored in primitive.stored.values())
            is_own = is_own and (self._is_alone(value) or not primitive.stored) and value not in self.results
            if primitive.op.kind not in _ON_EDGES or len(primitive.operands) != 1 or not is_own:
                break
            members.append(value)
            value = primitive.operands[0]
        return value, tuple(reversed(members))

    def _visit(self, top: int) -> None:
        additions, terms = self._terms(top)
        main = max(terms, key=lambda term: self._chain(term[1])[0])
        value = self.left.get(main[1], main[1])
        before = self._ancestors(value)
        starts = {}  # place in the sum -> value that an edge could start from, its operations
        for place, term in enumerate(terms):
            source, members = self._chain(term[1], before)
            if term != main and self.left.get(source, source) in before:
                starts[place] = source, members
        long = {place for place, (source, _) in starts.items() if self._is_long(source, value, before, top)}
        if long and value >= 0 and self.flat.primitives[value].op.kind in ACTIVATIONS:
            long = set(starts)  # a block with a shortcut of its own adds it before its last activation
        found = {place: LongSkip(terms[place], top, *starts[place]) for place in sorted(long)}
        own = [self.left.get(source, source) for place, (source, _) in starts.items() if place not in long]
        self.cut |= {terms[place] for place in found}
        others = [place for place in range(len(terms)) if place not in found]
        is_last = others == list(range(len(others))) or others == [1]
        self.skips += [replace(skip, is_last=is_last) for skip in found.values()]
        for index in additions:
            operands = list(self._operands(index))
            if not operands:  # a sum of skips alone
                self.cut.add((self.readers[index][0], index))
            if len(operands) == 1 < len(self.flat.primitives[index].operands):
                self.left[index] = operands[0]
        if own:
            self.residual[self.left.get(top, top)] = min(own)

    def _ancestors(self, value: int) -> dict[int, tuple[int, ...]]:
        """The values that one depends on, with their operands, and itself."""
        found: dict[int, tuple[int, ...]] = {}
        stack = [value]
        while stack:
            index = stack.pop()
            if index not in found:
                found[index] = tuple(self._operands(index)) if index >= 0 else ()
                stack += found[index]
        return found

    def _is_long(self, source: int, value: int, before: dict[int, tuple[int, ...]], top: int) -> bool:
        """Whether a shortcut between two values is a skip over blocks.

        It is if each path between them goes through the sum of a residual block that starts there, or if the paths
        have more layers than a block without shortcut has.
        """
        source = self.left.get(source, source)
        on_paths = _bottlenecks(source, value, before)
        if any(self.residual.get(index, source - 1) >= source for index in on_paths):
            return True
        layers = sum(1 for index in on_paths if self.flat.primitives[index].op.kind in _LAYERS)
        return layers > _OWN_LAYERS and not self._is_shortcut_of_module(source, top)

    def _is_shortcut_of_module(self, source: int, top: int) -> bool:
        """Whether the module that adds has this source as its only input."""
        frames = own_frames(self.flat.primitives[top])
        if len(frames) < 2:
            return False
        members = {index for index, one in enumerate(self.flat.primitives) if frames[-1] in own_frames(one)}
        inputs = {
            self.left.get(operand, operand)
            for index in members
            for operand in self.flat.primitives[index].operands
            if operand not in members
        }
        return inputs == {source}


def _bottlenecks(source: int, value: int, before: dict[int, tuple[int, ...]]) -> Sequence[int]:
    """The values after a source that every path from there to a value goes through, with this value."""
    last: dict[int, int] = {source: source}  # value on a path -> its last reader on a path
    for index in sorted(before):
        inside = [operand for operand in before[index] if operand in last] if index > source else []
        for operand in inside:
            last[operand] = index
        if inside:
            last[index] = index
    found: list[int] = []
    farthest = last[source]
    for index in sorted(last):
        if index > source and farthest <= index:
            found.append(index)
        farthest = max(farthest, last[index])
    return found if value in last else []
