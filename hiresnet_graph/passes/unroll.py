"""A graph of one step as the graph of all steps, without delays."""

from __future__ import annotations

from dataclasses import replace

from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.graph import Edge, Graph, Node, NodeRecord
from hiresnet_graph.ops import Frame, Stack, Zeros
from hiresnet_graph.passes.prune import needed
from hiresnet_graph.passes.step import StepMachine, Steps, copy_of
from hiresnet_graph.passes.timing import format_steps
from hiresnet_graph.shapes import Shape, in_time
from hiresnet_graph.spec.model import TimeSpec

MAX_CALLS = 200_000
"""Calls that an unrolled network may have."""


def unroll(graph: Graph) -> Graph:
    """The graph of all steps, each call once for each step at which it has a value. Without `time`, as it is.

    Calls are called `<call>.step<t>`, and copies of weights `<weights>.step<t>`.

    Raises:
        SpecError: An output holds no value at its readout step.
    """
    time = graph.time
    if time is None:
        return graph
    unrolling = _Unrolling(graph, time)
    for step in range(time.steps):
        unrolling.step(step)
    return unrolling.flat()


class _Unrolling(StepMachine[str]):
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
        return self._add(made, operands, node.shape)

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
                            f"at step {node.step} the network exceeds {MAX_CALLS:,} operations.",
                            node.origin.position,
                            node.origin.path,
                            "Use fewer steps; a module built with few steps can run any number of steps one by one.",
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
                f"It holds one at {format_steps(tuple(held))}."
                if held
                else f"In {self.time.steps} steps it never holds one."
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
