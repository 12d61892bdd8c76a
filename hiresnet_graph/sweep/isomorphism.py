"""When two networks are the same graph but for the names of their values and weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hiresnet_graph.plan import Plan


def wiring(plan: Plan) -> str:
    """A hash of what a network computes, without the names of its values and weights.

    It is equal if and only if two networks are isomorphic: because operands are ordered, a walk back from the outputs
    numbers calls and weights in exactly one way.
    """
    calls = {call.name: call for call in plan.calls}
    numbers = {name: i for i, name in enumerate(plan.inputs)}
    weights: dict[str, int] = {}
    form: list[Any] = [[str(shape) for shape in plan.inputs.values()]]
    stack = [*plan.outputs.values()][::-1]
    while stack:
        name = stack[-1]
        if name in numbers:
            stack.pop()
            continue
        call = calls[name]
        missing = [operand for operand in call.inputs if operand not in numbers]
        if missing:
            stack.append(missing[0])
            continue
        stack.pop()
        numbers[name] = len(numbers)
        held = weights.setdefault(call.weights, len(weights)) if call.tensors else None
        fields = call.op.model_dump(mode="json", exclude_defaults=True)
        form.append([call.op.kind, fields, [numbers[operand] for operand in call.inputs], held])
    form.append([[name, numbers[value]] for name, value in plan.outputs.items()])
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()
