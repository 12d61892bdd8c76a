"""One network inside another: which operands of merges must be left out of the larger one to get the smaller one.

Edge subsets of a network differ in what their merges add up. Such networks can be computed together, as the largest of
them with a mask for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hiresnet_graph.ops import Add, Mean, Multiply
from hiresnet_graph.plan import Call, Plan

_MERGES = (Add, Mean, Multiply)
"""Operations that fold their operands one by one, so that leaving one out leaves the order of the others."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What a network leaves out of a larger one.

    Attributes:
        kept: Merges -> whether the smaller network has each operand; those that have all of them are not named.
        absent: The calls that it has no part of.
    """

    kept: Mapping[str, tuple[bool, ...]]
    absent: frozenset[str]

    def keeps(self, call: Call) -> tuple[bool, ...]:
        """Whether the smaller network has each operand of a call."""
        return self.kept.get(call.name, (True,) * len(call.inputs))


def is_merge(call: Call) -> bool:
    """Whether a call folds its operands, so that it can do without some of them."""
    return isinstance(call.op, _MERGES)


def mask_of(whole: Plan, part: Plan) -> Mask | None:
    """What must be left out of `whole` to get `part`, call by call; None if there is no such mask.

    The two must agree in the names of weights, in all fields, and in the order of what merges keep. A merge that keeps
    one operand may be missing in `part`. What is found is checked for every call of `part`.
    """
    if dict(whole.inputs) != dict(part.inputs) or list(whole.outputs) != list(part.outputs):
        return None
    ours, theirs = ({call.name: call for call in plan.calls} for plan in (whole, part))
    if any(name in ours and ours[name].op != call.op for name, call in theirs.items()):
        return None  # as networks of other widths, which are many
    marks = _Pair(whole, part)
    same: dict[str, str] = {}
    kept: dict[str, tuple[bool, ...]] = {}
    pairs = list(zip(whole.outputs.values(), part.outputs.values(), strict=True))
    while pairs:
        name, other = pairs.pop()
        if same.setdefault(name, other) != other:
            return None
        if name in kept or (name not in ours and name == other):
            continue
        call, their = ours.get(name), theirs.get(other)
        if call is None:
            return None
        wanted: Sequence[str]
        if (
            their is not None
            and call.op == their.op
            and call.shape == their.shape
            and _weights(call) == _weights(their)
        ):
            wanted = their.inputs
            chosen = _chosen(call, wanted, marks)
            if chosen is None and is_merge(call):  # a merge of before, under the other's name
                wanted, chosen = (other,), _chosen(call, (other,), marks)
        else:
            wanted, chosen = (other,), _chosen(call, (other,), marks) if is_merge(call) else None
        if chosen is None:
            return None
        kept[name] = tuple(place in chosen for place in range(len(call.inputs)))
        pairs += [(call.inputs[place], value) for place, value in zip(chosen, wanted, strict=True)]
    absent = frozenset(name for name in ours if name not in kept)
    return Mask({name: flags for name, flags in kept.items() if not all(flags)}, absent)


def _weights(call: Call) -> str:
    return call.weights if call.tensors else ""


def _chosen(call: Call, wanted: Sequence[str], marks: _Pair) -> list[int] | None:
    """The places of the operands that stand for the wanted values of the part, in order; None if there are none."""
    if not is_merge(call) or len(wanted) == len(call.inputs):
        return list(range(len(call.inputs))) if len(wanted) == len(call.inputs) else None
    places: list[int] = []
    first = 0
    for value in wanted:
        mark, rest = marks.part.of[value], range(first, len(call.inputs))
        found = next((place for place in rest if marks.whole.of[call.inputs[place]] == mark), None)
        if found is None:
            found = next((place for place in rest if marks.whole.reaches(call.inputs[place], mark)), None)
        if found is None:
            return None
        places.append(found)
        first = found + 1
    return places


class _Mark(NamedTuple):
    """How a value is found in another plan.

    Equal calls without weights are computed once, and are called after the first who asks: they go by what they do.

    Attributes:
        chain: The last calls without weights, from the first to the last.
        root: The value that they begin with, which has the same name everywhere.
    """

    chain: tuple[str, ...]
    root: str


class _Marks:
    """The marks of a plan's values, and of what each could stand for if merges before it lose operands."""

    def __init__(self, plan: Plan) -> None:
        self.of = {name: _Mark((), name) for name in plan.inputs}
        self._calls = {call.name: call for call in plan.calls}
        for call in plan.calls:
            if call.tensors or len(call.inputs) != 1 or is_merge(call) or not call.op.pure:
                self.of[call.name] = _Mark((), call.name)
            else:
                chain, root = self.of[call.inputs[0]]
                fields = call.op.model_dump_json(exclude_defaults=True)
                self.of[call.name] = _Mark((*chain, f"{call.op.kind}{fields}"), root)

    def reaches(self, name: str, mark: _Mark) -> bool:
        """Whether a value would have a mark if merges before it passed on one of their operands."""
        left, seen = [(name, mark.chain)], {(name, mark.chain)}
        while left:
            value, rest = left.pop()
            chain, root = self.of[value]
            if rest[len(rest) - len(chain) :] != chain:
                continue
            rest = rest[: len(rest) - len(chain)]
            if not rest and root == mark.root:
                return True
            call = self._calls.get(root)
            if call is not None and is_merge(call):
                fresh = {(operand, rest) for operand in call.inputs} - seen
                seen |= fresh
                left += fresh
        return False


class _Pair:
    """The marks of two plans; made when a merge has lost operands, which is seldom where there is no mask."""

    def __init__(self, whole: Plan, part: Plan) -> None:
        self._plans = whole, part

    @cached_property
    def whole(self) -> _Marks:
        """Of the larger one."""
        return _Marks(self._plans[0])

    @cached_property
    def part(self) -> _Marks:
        """Of the smaller one."""
        return _Marks(self._plans[1])
