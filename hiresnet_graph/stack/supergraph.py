"""Subgraphs of a supergraph: which operands of merges must be left out of one network to get another.

Edge subsets of a network differ in the operands of their merges. Such networks can be computed together, as the largest
of them with a mask for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hiresnet_graph.ops import Fold
from hiresnet_graph.plan import Call, Plan


@dataclass(frozen=True, slots=True)
class Mask:
    """The difference between a supergraph and a subgraph.

    Attributes:
        retained: Merges -> whether the subgraph has each operand; merges with all operands are not listed.
        absent: The calls that the subgraph does not have.
    """

    retained: Mapping[str, tuple[bool, ...]]
    absent: frozenset[str]

    def keeps(self, call: Call) -> tuple[bool, ...]:
        """Whether the subgraph has each operand of a call."""
        return self.retained.get(call.name, (True,) * len(call.inputs))


def is_fold(call: Call) -> bool:
    """Whether a call combines its operands one by one, so that some of them can be left out."""
    return isinstance(call.op, Fold)


def mask_of(supergraph: Plan, subgraph: Plan) -> Mask | None:
    """The mask of a subgraph in a supergraph; None if it is no subgraph.

    The two must agree in names of weights, in all fields, and in the order of the remaining operands. The subgraph may
    lack a merge of which it has one operand. Every call of the subgraph is compared.
    """
    if dict(supergraph.inputs) != dict(subgraph.inputs) or list(supergraph.outputs) != list(subgraph.outputs):
        return None
    ours, theirs = ({call.name: call for call in plan.calls} for plan in (supergraph, subgraph))
    if any(name in ours and ours[name].op != call.op for name, call in theirs.items()):
        return None  # such as networks of other widths, the most frequent case
    signatures = _SignaturePair(supergraph, subgraph)
    same: dict[str, str] = {}
    retained: dict[str, tuple[bool, ...]] = {}
    pairs = list(zip(supergraph.outputs.values(), subgraph.outputs.values(), strict=True))
    while pairs:
        name, other = pairs.pop()
        if same.setdefault(name, other) != other:
            return None
        if name in retained or (name not in ours and name == other):
            continue
        if name not in ours:
            return None
        call, matched = ours[name], _matched(ours[name], theirs.get(other), other, signatures)
        if matched is None:
            return None
        retained[name] = tuple(index in matched for index in range(len(call.inputs)))
        pairs += [(call.inputs[index], value) for index, value in matched.items()]
    absent = frozenset(name for name in ours if name not in retained)
    return Mask({name: flags for name, flags in retained.items() if not all(flags)}, absent)


def _matched(call: Call, their: Call | None, value: str, signatures: _SignaturePair) -> dict[int, str] | None:
    """Indices of operands of a call -> the values in the subgraph that they stand for; None if the calls differ.

    Args:
        their: The call with this value in the subgraph; `call` may also be a merge that only passes the value on.
    """
    candidates: list[Sequence[str]] = []
    if their is not None and (call.op, call.shape, _weights(call)) == (their.op, their.shape, _weights(their)):
        candidates.append(their.inputs)
    if is_fold(call):
        candidates.append((value,))
    for values in candidates:
        indices = _indices(call, values, signatures)
        if indices is not None:
            return dict(zip(indices, values, strict=True))
    return None


def _weights(call: Call) -> str:
    return call.weights if call.tensors else ""


def _indices(call: Call, values: Sequence[str], signatures: _SignaturePair) -> list[int] | None:
    """Indices of the operands that stand for values of the subgraph, in order; None if there are none."""
    if not is_fold(call) or len(values) == len(call.inputs):
        return list(range(len(call.inputs))) if len(values) == len(call.inputs) else None
    indices: list[int] = []
    first = 0
    for value in values:
        signature, rest = signatures.subgraph.of[value], range(first, len(call.inputs))
        found = next((index for index in rest if signatures.supergraph.of[call.inputs[index]] == signature), None)
        if found is None:
            reaches = signatures.supergraph.reaches
            found = next((index for index in rest if reaches(call.inputs[index], signature)), None)
        if found is None:
            return None
        indices.append(found)
        first = found + 1
    return indices


class _Signature(NamedTuple):
    """Identifies a value across plans.

    Equal calls without weights are merged and named after the first of them, so names alone do not identify them.

    Attributes:
        chain: The last calls without weights, from the first to the last.
        root: The value at the start of the chain, which has the same name in all plans.
    """

    chain: tuple[str, ...]
    root: str


class _Signatures:
    """The signatures of the values of a plan, and of those that they can become if merges lose operands."""

    def __init__(self, plan: Plan) -> None:
        self.of = {name: _Signature((), name) for name in plan.inputs}
        self._calls = {call.name: call for call in plan.calls}
        for call in plan.calls:
            if call.tensors or len(call.inputs) != 1 or is_fold(call) or not call.op.pure:
                self.of[call.name] = _Signature((), call.name)
            else:
                chain, root = self.of[call.inputs[0]]
                fields = call.op.model_dump_json(exclude_defaults=True)
                self.of[call.name] = _Signature((*chain, f"{call.op.kind}{fields}"), root)

    def reaches(self, name: str, signature: _Signature) -> bool:
        """Whether a value would have a signature if earlier merges passed on one of their operands."""
        left, seen = [(name, signature.chain)], {(name, signature.chain)}
        while left:
            value, rest = left.pop()
            chain, root = self.of[value]
            if rest[len(rest) - len(chain) :] != chain:
                continue
            rest = rest[: len(rest) - len(chain)]
            if not rest and root == signature.root:
                return True
            call = self._calls.get(root)
            if call is not None and is_fold(call):
                new = {(operand, rest) for operand in call.inputs} - seen
                seen |= new
                left += new
        return False


class _SignaturePair:
    """The signatures of two plans; computed on first use, when a merge has lost operands."""

    def __init__(self, supergraph: Plan, subgraph: Plan) -> None:
        self._plans = supergraph, subgraph

    @cached_property
    def supergraph(self) -> _Signatures:
        """Of the supergraph."""
        return _Signatures(self._plans[0])

    @cached_property
    def subgraph(self) -> _Signatures:
        """Of the subgraph."""
        return _Signatures(self._plans[1])
