"""A graph of one step, run step after step: unrolled into a graph without delays, or on values of any other kind.

    a_e[t] = op_e(v[m, t-d])  for an edge e = (m -> n, delay d) open at t, if v[m, t-d] holds a value; else empty
    v[n, t] = F_n(merge of its a_e[t], slot by slot)

`Steps` is these two lines for one step. What it computes with is a `Machine`'s business: `unroll` makes the calls of a
graph, `lower.recurrent` computes tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, cast

from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.graph import Edge, Graph, Node, NodeRecord
from hiresnet_graph.ops import Add, Frame, Identity, Op, Stack, Zeros
from hiresnet_graph.passes.prune import needed
from hiresnet_graph.passes.timing import check, told
from hiresnet_graph.shapes import Shape, in_time
from hiresnet_graph.spec.model import PerStep, TimeSpec

V = TypeVar("V")
MAX_CALLS = 1_000_000
"""Calls that an unrolled network may have."""


class Machine(ABC, Generic[V]):
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

    def __init__(self, graph: Graph, machine: Machine[V], before: Callable[[str, int], V | None]) -> None:
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


def copy_of(graph: Graph, node: Node, step: int) -> str:
    """The name of the weights that a call of a graph of one step takes at a step."""
    assert isinstance(node.block, Op)
    shapes = [shape for edge in graph.incoming(node.name) if (shape := graph[edge.source].shape) is not None]
    tensors = node.block.tensors(*shapes)
    if tensors and has_copies(node.block, node.per_step, any(tensor.trainable for tensor in tensors)):
        return f"{node.weights}.step{step}"
    return node.weights


def unroll(graph: Graph) -> Graph:
    """The graph of all steps, each call once for each step at which it has a value. Without `time`, as it is.

    Calls are called `<call>.step<t>`, and copies of weights `<weights>.step<t>`.

    Raises:
        SpecError: There are too few steps, or an output holds no value at its readout step.
    """
    time = graph.time
    if time is None:
        return graph
    if graph.records[0] and (problems := check(graph)):  # that of a block in a spec has no records
        raise SpecError(problems)
    unrolling = _Unrolling(graph, time)
    for step in range(time.steps):
        unrolling.step(step)
    return unrolling.flat()


class _Unrolling(Machine[str]):
    """The calls of all steps; a value is the name of a call."""

    def __init__(self, graph: Graph, time: TimeSpec) -> None:
        self.graph, self.time = graph, time
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.values: list[dict[str, str | None]] = []
        self.steps = Steps(graph, self, lambda name, step: self.values[step][name] if step >= 0 else None)
        self.inputs = [node for node in graph.nodes if node.block is None]
        for node in self.inputs:
            shape = node.shape
            if time.input == "sequence" and shape is not None:
                shape = in_time(shape, time.steps)
            self.nodes[node.name] = replace(node, shape=shape)

    def step(self, step: int) -> None:
        """All calls at one step."""
        self.values.append(self.steps.run(step, {node.name: self._input(node, step) for node in self.inputs}))

    def _input(self, node: Node, step: int) -> str | None:
        if self.time.input == "sequence":
            assert node.shape is not None
            frame = Node(f"{node.name}.step{step}", Frame(step=step), "", node.origin, owner=node.name, step=step)
            return self._add(frame, [node.name], node.shape)
        return node.name if step == 0 or self.time.input == "every" else None

    def call(self, node: Node, operands: list[str], step: int) -> str:
        """One more call."""
        assert node.shape is not None
        made = replace(
            node,
            name=f"{node.name}.step{step}",
            weights=copy_of(self.graph, node, step),
            role="call",
            at=None,
            step=step,
        )
        return self._add(self._scaled(made), operands, node.shape)

    def _scaled(self, node: Node) -> Node:
        """A norm with the initial scale that `time` gives."""
        op, scale = node.block, self.time.norm_scale
        if scale == 1 or not isinstance(op, Op) or "scale" not in type(op).model_fields or not op.normalizes:
            return node
        return node if "scale" in op.model_fields_set else replace(node, block=op.model_copy(update={"scale": scale}))

    def zeros(self, shape: Shape) -> str:
        """The call that gives zeros of a shape: one for all steps."""
        first = self.inputs[0]
        node = Node(
            f"{first.name}.zeros{'x'.join(map(str, shape))}", Zeros.of(shape), "", first.origin, owner=first.name
        )
        return self._add(node, [first.name], shape)

    def _add(self, node: Node, operands: list[str], shape: Shape) -> str:
        if node.name not in self.nodes:
            if len(self.nodes) >= MAX_CALLS:
                raise SpecError(
                    [
                        Problem(
                            f"with step {node.step} the network has more than {MAX_CALLS:,} operations.",
                            node.origin.position,
                            node.origin.path,
                            "Take fewer steps.",
                        )
                    ]
                )
            self.nodes[node.name] = replace(node, weights=node.weights or node.name, shape=shape)
            for k, source in enumerate(operands):
                self.edges.append(Edge(source, node.name, "", node.origin, slot="operand", rank=(k,)))
        return node.name

    def flat(self) -> Graph:
        """The graph of all steps, with its outputs and with the records of the spec's level."""
        outputs = {name: self._output(name, value) for name, value in self.graph.outputs.items()}
        bare = Graph(self.graph.name, self.nodes.values(), self.edges, outputs)
        kept = needed(bare)
        nodes = [record for record in map(lambda record: self._last(record, kept), self.graph.records[0]) if record]
        names = {record.name for record in nodes}
        edges = [record for record in self.graph.records[1] if record.source in names and record.target in names]
        return Graph(self.graph.name, bare.nodes, bare.edges, outputs, (tuple(nodes), tuple(edges)), folded=self.graph)

    def _output(self, name: str, value: str) -> str:
        held = {step: found for step, values in enumerate(self.values) if (found := values[value]) is not None}
        origin = self.graph[value].origin
        readout = self.time.readout
        if readout == "all" and held:
            shape = self.graph[value].shape
            assert shape is not None
            node = Node(f"{name}.steps", Stack(), "", origin, owner=name)
            return self._add(node, list(held.values()), in_time(shape, len(held)))
        wanted = self.time.steps - 1 if readout in ("last", "all") else int(readout)
        if wanted not in held:
            when = (
                f"It holds one at {told(tuple(held))}." if held else f"In {self.time.steps} steps it never holds one."
            )
            message = f"the output '{name}' holds no value at its readout, step {wanted}. {when}"
            hint = (
                "Set 'steps' or 'readout' so that it does, or give a node an edge to itself, so that its value lasts."
            )
            raise SpecError([Problem(message, origin.position, origin.path, hint)])
        return held[wanted]

    def _last(self, record: NodeRecord, kept: set[str]) -> NodeRecord | None:
        """A node with its value at the last step at which it counts; None if it never does."""
        values = [value for step in self.values if (value := step[record.value]) is not None and value in kept]
        return replace(record, value=values[-1]) if values else None
