"""Costs of a network: parameters, multiply-adds and memory, in total and for each node and edge of the spec."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiresnet_graph.memory import step_memory
from hiresnet_graph.plan import Plan


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of a network or of a part, for one sample.

    Attributes:
        parameters: Trainable elements; shared ones count once, for the first call that uses them.
        macs: Multiply-adds of convolutions and linear maps ("FLOPs" in most published tables).
        activations: Output elements of convolutions, linear maps and pooling windows, as in pycls.
        memory_bytes: What the forward pass stores for the backward pass, as float32; counted where it is made.
        buffers: Elements that are stored but not trained (running statistics).
    """

    parameters: int = 0
    macs: int = 0
    activations: int = 0
    memory_bytes: int = 0
    buffers: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.activations + other.activations,
            self.memory_bytes + other.memory_bytes,
            self.buffers + other.buffers,
        )


def count_parts(plan: Plan) -> dict[str, Cost]:
    """The cost of each node and edge by name; shortcuts are `<block>.shortcut`."""
    parts: dict[str, Cost] = {}
    seen: set[str] = set()
    stored = step_memory(plan).by_call
    for call in plan.calls:
        parameters = buffers = 0
        for tensor in call.tensors:
            name = f"{call.weights}.{tensor.name}"
            if name in seen:
                continue
            seen.add(name)
            if tensor.trainable:
                parameters += tensor.elements
            else:
                buffers += tensor.elements
        cost = Cost(
            parameters,
            call.op.macs(*call.input_shapes),
            call.shape.elements if call.op.counts_activations else 0,
            stored.get(call.name, 0),
            buffers,
        )
        parts[call.owner] = parts.get(call.owner, Cost()) + cost
    return parts


def count(plan: Plan) -> Cost:
    """The cost of the whole network."""
    total = Cost()
    for cost in count_parts(plan).values():
        total += cost
    return total


_STEPS = re.compile(r"(\.step\d+)+\Z")


def without_steps(weights: str) -> str:
    """The name of weights without the time step (or steps, in nested blocks) of which they are a copy."""
    return _STEPS.sub("", weights)


def count_folded(plan: Plan) -> int:
    """The number of parameters with one copy of each weight for all steps, also in blocks with their own `time`.

    Weights that the unrolled network does not use do not count.
    """
    found = {
        f"{without_steps(call.weights)}.{tensor.name}": tensor.elements
        for call in plan.calls
        for tensor in call.tensors
        if tensor.trainable
    }
    return sum(found.values())


def macs_per_step(plan: Plan) -> tuple[int, ...]:
    """Multiply-adds of each step, for one sample; empty for a network without `time`."""
    time = None if plan.folded is None else plan.folded.time
    macs = [0] * (0 if time is None else time.steps)
    for call in plan.calls:
        if call.step is not None:
            macs[call.step] += call.op.macs(*call.input_shapes)
    return tuple(macs)
