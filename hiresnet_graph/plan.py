"""`Plan`, the ordered primitive calls of a network: the input of lowering, emitting, counting, drawing and storing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import EdgeRecord, NodeRecord, OpGraph, Origin
from hiresnet_graph.ops import Apply, Arg, ChainedApply, Layer, Op, Remark, Tensor
from hiresnet_graph.shapes import Shape


@dataclass(frozen=True, slots=True)
class Call:
    """One primitive call.

    Attributes:
        name: Name of the call and of its value.
        inputs, input_shapes: The operands, in order.
        weights: Prefix of its tensors in the state_dict, like `<weights>.weight`; several calls may share it.
        owner: The node or edge of the spec to which the call belongs.
        origin: The part of the spec that caused the call.
        step: The time step; None in a network without `time`.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    shape: Shape
    weights: str
    owner: str
    origin: Origin
    step: int | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters and buffers."""
        return self.op.tensors(*self.input_shapes)


@dataclass(frozen=True, slots=True)
class Plan:
    """A network as calls in order.

    Attributes:
        inputs: Name -> shape, in the order of the arguments of `forward`.
        outputs: Name -> name of a call. `forward` returns one output as a tensor, several as a dict.
        nodes, edges: Nodes and edges of the spec, for tables and diagrams.
        folded: The graph of one step, in a network with `time`.
    """

    name: str
    inputs: Mapping[str, Shape]
    calls: tuple[Call, ...]
    outputs: Mapping[str, str]
    nodes: tuple[NodeRecord, ...]
    edges: tuple[EdgeRecord, ...]
    folded: OpGraph | None = None

    def __repr__(self) -> str:
        return f"<Plan {self.name}: {len(self.calls):,} calls, {len(self.nodes)} nodes, {len(self.edges)} edges>"

    @property
    def trains_in_channels_last(self) -> bool:
        """Whether the backward pass of every call can be computed in the memory format channels-last."""
        return all(call.op.trains_in_channels_last(*call.input_shapes) for call in self.calls)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers by `state_dict` name, in the order of first use."""
        found: dict[str, Tensor] = {}
        for call in self.calls:
            for tensor in call.tensors:
                found.setdefault(f"{call.weights}.{tensor.name}", tensor)
        return found

    def canonical(self) -> dict[str, Any]:
        """The computation as plain data: operations, fields, weights and order, without labels and files."""
        return {
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "calls": [
                {
                    "name": call.name,
                    "op": call.op.kind,
                    "fields": {name: _number(value) for name, value in _fields(call).items()},
                    "inputs": list(call.inputs),
                    "shape": list(call.shape),
                    **({"weights": call.weights} if call.tensors else {}),
                }
                for call in self.calls
            ],
            "outputs": dict(self.outputs),
        }

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal: equal for equal networks."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The canonical form with name, kinds of inputs, and owner and origin of each call."""
        data = self.canonical()
        for entry, call in zip(data["calls"], self.calls, strict=True):
            entry["owner"], entry["origin"] = call.owner, str(call.origin)
        kinds = {name: shape.kind for name, shape in self.inputs.items()}
        return {"name": self.name, "input_kinds": kinds, **data}


def _fields(call: Call) -> dict[str, Any]:
    return call.op.canonical(*call.input_shapes).model_dump(mode="json", exclude_defaults=True)


def _number(value: Any) -> Any:
    """A number with nine digits, as they do not depend on how it was computed (1 - 0.9 is 0.1); others as they are."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def make_plan(graph: OpGraph) -> Plan:
    """The plan of a checked graph; calls keep the order of the nodes where they can."""
    calls = [
        Call(
            node.name,
            node.op,
            node.operands,
            graph.operand_shapes(node),
            node.shape,
            node.weights,
            node.owner,
            node.origin,
            node.step,
        )
        for node in map(graph.__getitem__, graph.order())
        if node.op is not None
    ]
    inputs = {node.name: node.shape for node in graph.inputs}
    return Plan(graph.name, inputs, tuple(calls), dict(graph.outputs), *graph.records, graph.folded)


def restrict(plan: Plan, outputs: Mapping[str, str], inputs: Mapping[str, Shape] | None = None) -> Plan:
    """The calls of a plan that some values depend on.

    Args:
        outputs: Name -> value; any calls and inputs.
        inputs: Values that are given instead of those of the plan.
    """
    given = plan.inputs if inputs is None else inputs
    needed = set(outputs.values())
    calls = []
    for call in reversed(plan.calls):
        if call.name in needed and call.name not in given:
            needed.update(call.inputs)
            calls.append(call)
    taken = given.keys() - plan.inputs.keys()
    nodes = tuple(record for record in plan.nodes if record.value not in taken)
    return replace(plan, inputs=given, calls=tuple(reversed(calls)), outputs=dict(outputs), nodes=nodes)


def layers_by_weight(plan: Plan) -> dict[str, tuple[Layer, Call]]:
    """The layers of a plan, each with its first call, by the name of the weights, in the order of first use."""
    found: dict[str, tuple[Layer, Call]] = {}
    for call in plan.calls:
        layer = call.op.layer(*call.input_shapes)
        if layer is not None:
            found.setdefault(call.weights, (layer, call))
    return found


def remarks(plan: Plan) -> tuple[Problem, ...]:
    """The remarks of the operations of a plan; equal remarks on calls of one entry of the spec are one problem."""
    found: dict[tuple[Origin, Remark], dict[str, bool]] = {}
    nodes = {node.name for node in plan.nodes}
    for call in plan.calls:
        remark = call.op.remark(*call.input_shapes)
        if remark is not None:
            name = call.name.removesuffix(f".step{call.step}")
            found.setdefault((call.origin, remark), {})[name] = call.owner in nodes and name != call.owner
    problems = []
    for (origin, remark), names in found.items():
        name, is_part = next(iter(names.items()))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        fields = f"'{name}: {{{remark.fields}}}' under 'nodes'" if is_part else f"'{remark.fields}'"
        hint = remark.hint.replace("{fields}", fields)
        problems.append(Problem(f"'{name}'{more}: {remark.message}", origin.position, origin.path, hint))
    return tuple(problems)


def inplace_calls(plan: Plan) -> dict[str, Apply]:
    """The functions of one value that overwrite it: name -> function with `inplace`.

    As in a hand-written ReLU after batch norm: equal bits and less memory traffic (2 % of a step of `hiresnet18`,
    `benchmarks/step.py`). The operand has one reader and comes from a layer or a sum of the same node or edge; inputs,
    outputs and values of nodes are never overwritten. A hook on the layer that made the operand sees the overwritten
    value, as in torchvision's networks.
    """
    found: dict[str, Apply] = {}
    for call in _overwriting(plan):
        if call.op.has_inplace:
            apply = call.op.apply(*call.input_shapes)
            assert apply is not None
            found[call.name] = replace(apply, kwargs={**apply.kwargs, "inplace": True})
    return found


def inplace_sums(plan: Plan) -> dict[str, Apply]:
    """The sums that are computed in the memory of their first operand: name -> function.

    As in a hand-written `out += shortcut`: equal bits and less memory traffic (`benchmarks/step.py`). The operand is
    one that `inplace_calls` could overwrite, too. Under mixed precision, a sum in place would keep the type of its
    first operand, so all operands must have 16 bits there.
    """
    low: set[str] = set()
    for call in plan.calls:
        if call.op.is_low_precision or (call.op.keeps_precision and low.issuperset(call.inputs)):
            low.add(call.name)
    return {
        call.name: ChainedApply(".add_", tuple(map(Arg, range(len(call.inputs)))))
        for call in _overwriting(plan)
        if call.op.kind == "add" and len(call.inputs) > 1 and low.issuperset(call.inputs)
    }


def _overwriting(plan: Plan) -> Iterator[Call]:
    """The calls whose first operand nothing else needs."""
    readers = Counter(name for call in plan.calls for name in call.inputs)
    retained = {*plan.outputs.values(), *(node.value for node in plan.nodes)}
    made: dict[str, Call] = {}
    for call in plan.calls:
        made[call.name] = call
        operand = made.get(call.inputs[0]) if call.inputs else None
        if (
            operand is not None
            and operand.op.overwritable
            and (operand.op.arity == 1 or len(operand.inputs) > 1)  # a merge of one value passes it on
            and operand.owner == call.owner
            and operand.name not in retained
            and readers[operand.name] == 1
        ):
            yield call
