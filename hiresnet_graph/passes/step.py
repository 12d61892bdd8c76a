"""The rule of one step of a network in time, on values of any kind.

    a_e[t] = op_e(v[m, t-d])  for an edge e = (m -> n, delay d) open at t, if v[m, t-d] holds a value; else empty
    v[n, t] = F_n(merge of its a_e[t], slot by slot)

`Steps` applies the rule for one step. A `StepMachine` defines what a value is: the name of a call in `unroll`, a tensor
in `lower.recurrent`, whether a value depends on the input in `timing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from hiresnet_graph.graph import Edge, Graph, Node
from hiresnet_graph.ops import Add, Identity, Op
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep

V = TypeVar("V")


def anchor_name(name: str) -> str:
    """The call where the value of a node is read, or where an edge arrives: no block can have a part of this name."""
    return f"{name}@"


class StepMachine(ABC, Generic[V]):
    """What a step is computed with."""

    @abstractmethod
    def call(self, node: Node, operands: list[V], step: int) -> V:
        """The value of an operation."""

    @abstractmethod
    def zeros(self, shape: Shape) -> V:
        """Zeros of a shape, for each sample."""


class Steps(Generic[V]):
    """The rule of one step of a graph with `time`.

    Args:
        before: The value of a call at an earlier step; None if it was empty, or if there was no such step.
    """

    def __init__(self, graph: Graph, machine: StepMachine[V], before: Callable[[str, int], V | None]) -> None:
        assert graph.time is not None
        self.graph, self.machine, self.before = graph, machine, before
        self.fills = graph.time.empty == "zeros"
        self.order = [graph[name] for name in graph.order() if graph[name].block is not None]
        self.shapes = {node.name: node.shape for node in graph.nodes if node.shape is not None}

    def run(self, step: int, inputs: Mapping[str, V | None]) -> dict[str, V | None]:
        """The values of all calls at a step; None where one is empty."""
        values: dict[str, V | None] = dict(inputs)
        for node in self.order:
            edges = self.graph.incoming(node.name)
            operands = [
                values[edge.source] if edge.delay == 0 else self.before(edge.source, step - edge.delay)
                for edge in edges
            ]
            is_open = node.at is None or step in node.at
            values[node.name] = self._value(node, edges, operands, step) if is_open else None
        return values

    def _value(self, node: Node, edges: Sequence[Edge], operands: list[V | None], step: int) -> V | None:
        match node.role:
            case "arrival":
                return operands[0] if operands else None
            case "value":
                return self._filled(operands[0], node.name)
            case "edge" if isinstance(node.block, Identity):
                return operands[0]
            case "edge":
                pass
            case "merge" if cast(Op, node.block).partial and (not self.fills or isinstance(node.block, Add)):
                # A zero tensor adds nothing; where all are empty, one stands for the sum.
                present = [value for value in operands if value is not None]
                if len(present) > 1:
                    return self.machine.call(node, present, step)
                return present[0] if present else self._filled(None, node.name)
            case "merge" if any(value is not None for value in operands) and cast(Op, node.block).arity != 1:
                full = [self._zeros(edge.source) if v is None else v for edge, v in zip(edges, operands, strict=True)]
                return self.machine.call(node, full, step)
            case _:
                operands = [self._filled(value, edge.source) for edge, value in zip(edges, operands, strict=True)]
        there = [value for value in operands if value is not None]
        return self.machine.call(node, there, step) if len(there) == len(operands) else None

    def _filled(self, value: V | None, name: str) -> V | None:
        """Zeros for what is empty, if the graph has them there."""
        return self._zeros(name) if value is None and self.fills else value

    def _zeros(self, name: str) -> V:
        return self.machine.zeros(self.shapes[name])


def has_copies(op: Op, level: PerStep | None, trainable: bool) -> bool:
    """Whether an operation with tensors has its own for each time step, or for each block of a tied stage.

    Args:
        trainable: Some of its tensors are parameters.
    """
    if level == "norm_stats":
        return op.normalizes and not trainable
    return level == "all" or (level == "norm" and op.normalizes)


def is_copied(graph: Graph, node: Node) -> bool:
    """Whether a call of a graph of one step has weights of its own at each step."""
    if not isinstance(node.block, Op):
        return False
    shapes = [shape for edge in graph.incoming(node.name) if (shape := graph[edge.source].shape) is not None]
    tensors = node.block.tensors(*shapes) if shapes else ()
    return bool(tensors) and has_copies(node.block, node.per_step, any(tensor.trainable for tensor in tensors))


def copy_of(graph: Graph, node: Node, step: int) -> str:
    """The name of the weights that a call of a graph of one step takes at a step."""
    return f"{node.weights}.step{step}" if is_copied(graph, node) else node.weights
