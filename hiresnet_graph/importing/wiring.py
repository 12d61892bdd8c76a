"""Whether a spec describes the network that it was made of: the same operations of the same values and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from hiresnet_graph import ops
from hiresnet_graph.architecture import from_dict
from hiresnet_graph.errors import SpecError
from hiresnet_graph.importing.primitives import Flat, Stored
from hiresnet_graph.importing.recognition import operation_key
from hiresnet_graph.ops import Op
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Shape

_MODULUS = 2**61 - 1


class _Call(NamedTuple):
    """A call of an operation.

    Attributes:
        tensors: Name of each tensor in the original.
    """

    name: int | str
    op: Op
    operands: Sequence[int | str]
    shape: Shape
    tensors: tuple[tuple[str, str], ...]


def computes(spec: Mapping[str, Any], tensors: Mapping[str, Stored], flat: Flat) -> bool:
    """Whether the network of a spec is equal to a flat one, apart from the order in which sums and products are made.

    Args:
        tensors: Address in the spec -> tensor of the original.
    """
    try:
        plan = from_dict(dict(spec)).plan
    except SpecError:
        return False
    inputs = [-1 - number for number in range(len(flat.inputs))]
    own = _numbers(_calls_of(flat), inputs)
    new = _numbers(_calls_in(plan, tensors), list(plan.inputs))
    return {own[value] for value in flat.outputs.values()} == {new[value] for value in plan.outputs.values()}


def _calls_of(flat: Flat) -> Iterator[_Call]:
    for index, primitive in enumerate(flat.primitives):
        tensors = sorted((name, stored.name) for name, stored in primitive.stored.items())
        yield _Call(index, primitive.op, primitive.operands, flat.shape(primitive.operands[0]), tuple(tensors))


def _calls_in(plan: Plan, tensors: Mapping[str, Stored]) -> Iterator[_Call]:
    for call in plan.calls:
        named = {tensor.name: tensors.get(f"{call.weights}.{tensor.name}") for tensor in call.tensors}
        stored = sorted((name, tensor.name) for name, tensor in named.items() if tensor is not None)
        yield _Call(call.name, call.op, call.inputs, call.input_shapes[0], tuple(stored))


def _numbers(calls: Iterator[_Call], inputs: Sequence[int | str]) -> dict[int | str, int]:
    """A number for each value: equal for equal operations of equal operands with the same tensors."""
    found: dict[int | str, int] = {name: hash(("input", place)) for place, name in enumerate(inputs)}
    joined: dict[int | str, tuple[int, ...]] = {}  # concatenation -> its parts
    for name, op, operands, shape, tensors in calls:
        values = [found[operand] for operand in operands]
        if isinstance(op, ops.Identity) or (isinstance(op, ops.StochasticDepth) and op.model_dump()["p"] == 0):
            found[name] = values[0]
        elif isinstance(op, ops.Add):
            found[name] = sum(values) % _MODULUS
        elif isinstance(op, ops.Multiply):
            found[name] = prod(values) % _MODULUS
        elif isinstance(op, ops.Concat):
            parts = [joined.get(operand, (found[operand],)) for operand in operands]
            joined[name] = tuple(value for part in parts for value in part)
            found[name] = hash((op.kind, joined[name]))
        else:
            found[name] = hash((repr(_key(op, shape)), *values, tensors))
    return found


def _key(op: Op, shape: Shape) -> Any:
    kind, *fields = operation_key(op, shape)
    return kind, [(name, round(value, 9) if isinstance(value, float) else value) for name, value in fields]
