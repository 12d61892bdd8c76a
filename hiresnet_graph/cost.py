"""What a network costs: parameters, multiply-adds and activations, in all and for each node and edge of the spec."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiresnet_graph.plan import Plan


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of a network or of a part, for one sample.

    Attributes:
        parameters: Trainable numbers; shared ones count once, for the first call that uses them.
        macs: Multiply-adds of convolutions and linear maps. ("FLOPs" in most published tables are these.)
        activations: Elements of the outputs of convolutions, linear maps and pooling windows, as pycls counts.
        memory: Elements of all values that the calls give: times 4 bytes, an upper bound of what training keeps.
        buffers: Numbers that are kept but not trained (running statistics).
    """

    parameters: int = 0
    macs: int = 0
    activations: int = 0
    memory: int = 0
    buffers: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.activations + other.activations,
            self.memory + other.memory,
            self.buffers + other.buffers,
        )


def count_parts(plan: Plan) -> dict[str, Cost]:
    """The cost of each owner: nodes by name, edges by name, shortcuts as `<block>.shortcut`."""
    parts: dict[str, Cost] = {}
    seen: set[str] = set()
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
            call.shape.elements,
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


_COPY = re.compile(r"(\.step\d+)+\Z")


def one_copy(weights: str) -> str:
    """The name of weights without that of the step, or of the steps of nested blocks, for which they are a copy."""
    return _COPY.sub("", weights)


def count_folded(plan: Plan) -> int:
    """The parameters of a network if every weight had one copy for all steps, also in blocks with their own `time`.

    Weights that no call of the unrolled network uses do not count.
    """
    found = {
        f"{one_copy(call.weights)}.{tensor.name}": tensor.elements
        for call in plan.calls
        for tensor in call.tensors
        if tensor.trainable
    }
    return sum(found.values())


def macs_per_step(plan: Plan) -> tuple[int, ...]:
    """Multiply-adds at each step, for one sample; empty for a network without `time`."""
    time = None if plan.folded is None else plan.folded.time
    macs = [0] * (0 if time is None else time.steps)
    for call in plan.calls:
        if call.step is not None:
            macs[call.step] += call.op.macs(*call.input_shapes)
    return tuple(macs)
