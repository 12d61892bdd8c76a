"""The rule of one step of a network in time, for values of any kind.

    a_e[t] = op_e(v[m, t-d])  for an edge e = (m -> n, delay d) open at t, if v[m, t-d] holds a value; else empty
    v[n, t] = F_n(merge of its a_e[t], slot by slot)

`Steps` applies the rule for one step. A `StepMachine` defines what a value is: the name of a call in `unroll`, a tensor
in `lower.recurrent`, whether a value depends on the input in `timing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from hiresnet_graph.graph import OpGraph, OpNode
from hiresnet_graph.ops import Fold, Identity, Op
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep

V = TypeVar("V")


def anchor_name(name: str) -> str:
    """The node where the value of a block is read, or where an edge arrives. No part of a block can have this name."""
    return f"{name}@"


class StepMachine(ABC, Generic[V]):
    """What a step is computed with."""

    @abstractmethod
    def call(self, node: OpNode, operands: list[V], step: int) -> V:
        """The value of an operation."""

    @abstractmethod
    def zeros(self, shape: Shape) -> V:
        """Zeros of a shape, for each sample."""


class Steps(Generic[V]):
    """The rule of one step of a graph with `time`.

    Args:
        before: The value of a node at an earlier step; None if it was empty or there was no such step.
    """

    def __init__(self, graph: OpGraph, machine: StepMachine[V], before: Callable[[str, int], V | None]) -> None:
        assert graph.time is not None
        self.graph, self.machine, self.before = graph, machine, before
        self.has_zeros = graph.time.empty == "zeros"
        self.order = [graph[name] for name in graph.order() if graph[name].op is not None]

    def run(self, step: int, inputs: Mapping[str, V | None]) -> dict[str, V | None]:
        """The values of all nodes at a step; None where one is empty."""
        values: dict[str, V | None] = dict(inputs)
        for node in self.order:
            if node.at is not None and step not in node.at:
                values[node.name] = None
                continue
            if node.delay:
                operands = [self.before(name, step - node.delay) for name in node.operands]
            else:
                operands = [values[name] for name in node.operands]
            values[node.name] = self._value(node, operands, step)
        return values

    def _value(self, node: OpNode, operands: list[V | None], step: int) -> V | None:
        op = node.op
        assert op is not None
        match node.role:
            case "arrival":
                return operands[0] if operands else None
            case "value":
                return self._filled(operands[0], node.name)
            case "edge" if isinstance(op, Identity):
                return operands[0]
            case "edge":
                pass
            case "merge" if isinstance(op, Fold) and (not self.has_zeros or op.skips_zeros):
                # A zero tensor adds nothing; where all operands are empty, one zero tensor is the sum.
                present = [value for value in operands if value is not None]
                if len(present) > 1:
                    return self.machine.call(node, present, step)
                return present[0] if present else self._filled(None, node.name)
            case "merge" if op.arity != 1 and any(value is not None for value in operands):
                filled = [
                    self._zeros(name) if value is None else value
                    for name, value in zip(node.operands, operands, strict=True)
                ]
                return self.machine.call(node, filled, step)
            case _:
                operands = [self._filled(value, name) for name, value in zip(node.operands, operands, strict=True)]
        present = [value for value in operands if value is not None]
        return self.machine.call(node, present, step) if len(present) == len(operands) else None

    def _filled(self, value: V | None, name: str) -> V | None:
        """Zeros in place of an empty value, if the graph has `empty: zeros`."""
        return self._zeros(name) if value is None and self.has_zeros else value

    def _zeros(self, name: str) -> V:
        return self.machine.zeros(self.graph[name].shape)


def has_copies(op: Op, level: PerStep | None, trainable: bool) -> bool:
    """Whether an operation with tensors has its own for each time step, or for each block of a tied stage.

    Args:
        trainable: Some of its tensors are parameters.
    """
    if level == "norm_stats":
        return op.normalizes and not trainable
    return level == "all" or (level == "norm" and op.normalizes)


def is_copied(graph: OpGraph, node: OpNode) -> bool:
    """Whether a node of a one-step graph has its own weights at each step."""
    if node.op is None or not node.operands:
        return False
    tensors = node.op.tensors(*graph.operand_shapes(node))
    return bool(tensors) and has_copies(node.op, node.per_step, any(tensor.trainable for tensor in tensors))


def step_weights(graph: OpGraph, node: OpNode, step: int) -> str:
    """The name of the weights of a node of a one-step graph at a step."""
    return f"{node.weights}.step{step}" if is_copied(graph, node) else node.weights
