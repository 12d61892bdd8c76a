"""Unroll a one-step graph in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.graph import NodeRecord, OpGraph, OpNode, Records
from hiresnet_graph.ops import Frame, StackSteps, Zeros
from hiresnet_graph.passes.limits import MAX_UNROLLED_CALLS
from hiresnet_graph.passes.prune import ancestors_of_outputs
from hiresnet_graph.passes.step import StepMachine, Steps, step_weights
from hiresnet_graph.passes.timing import format_steps
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec


def unroll(graph: OpGraph) -> OpGraph:
    """The graph of all steps, with a call for each step at which it has a value; without `time`, the graph itself.

    Calls are named `<call>.step<t>`, and copies of weights `<weights>.step<t>`.

    Raises:
        SpecError: An output holds no value at its readout step, or there are too many calls.
    """
    time = graph.time
    if time is None:
        return graph
    unrolling = _Unrolling(graph, time)
    for step in range(time.steps):
        unrolling.step(step)
    return unrolling.result()


class _Unrolling(StepMachine[str]):
    """Collects the calls of all steps; a value is the name of a call."""

    def __init__(self, graph: OpGraph, time: TimeSpec) -> None:
        self.graph, self.time = graph, time
        self.nodes: dict[str, OpNode] = {}
        self.values: list[dict[str, str | None]] = []
        self.steps = Steps(graph, self, lambda name, step: self.values[step][name] if step >= 0 else None)
        for node in graph.inputs:
            shape = node.shape.in_time(time.steps) if time.input == "sequence" else node.shape
            self.nodes[node.name] = replace(node, shape=shape)

    def step(self, step: int) -> None:
        """Add the calls of one step."""
        self.values.append(self.steps.run(step, {node.name: self._input(node, step) for node in self.graph.inputs}))

    def _input(self, node: OpNode, step: int) -> str | None:
        if self.time.input == "sequence":
            name = f"{node.name}.step{step}"
            op = Frame(step=step)
            return self._add(OpNode(name, op, (node.name,), node.shape, name, node.origin, owner=node.name, step=step))
        return node.name if step == 0 or self.time.input == "every" else None

    def call(self, node: OpNode, operands: list[str], step: int) -> str:
        """Add the call of a step."""
        return self._add(
            replace(
                node,
                name=f"{node.name}.step{step}",
                operands=tuple(operands),
                weights=step_weights(self.graph, node, step),
                role="call",
                at=None,
                step=step,
                delay=0,
            )
        )

    def zeros(self, shape: Shape) -> str:
        """The call that gives zeros of a shape, one for all steps."""
        source = self.graph.inputs[0]
        name = f"{source.name}.zeros{shape}"
        return self._add(
            OpNode(name, Zeros(value=shape), (source.name,), shape, name, source.origin, owner=source.name)
        )

    def _add(self, node: OpNode) -> str:
        if node.name not in self.nodes:
            if len(self.nodes) >= MAX_UNROLLED_CALLS:
                message = f"at step {node.step} the network exceeds {MAX_UNROLLED_CALLS:,} operations."
                hint = "Use fewer steps; a module built with few steps can run any number of steps one by one."
                raise SpecError([Problem(message, node.origin.position, node.origin.path, hint)])
            self.nodes[node.name] = node
        return node.name

    def result(self) -> OpGraph:
        """The graph of all steps, with its outputs and its records."""
        outputs = {name: self._output(name, value) for name, value in self.graph.outputs.items()}
        needed = ancestors_of_outputs(OpGraph(self.graph.name, self.nodes.values(), outputs))
        nodes = [found for record in self.graph.records.nodes if (found := self._last_value(record, needed))]
        names = {record.name for record in nodes}
        edges = [record for record in self.graph.records.edges if record.source in names and record.target in names]
        records = Records(tuple(nodes), tuple(edges))
        return OpGraph(self.graph.name, self.nodes.values(), outputs, records, folded=self.graph)

    def _output(self, name: str, value: str) -> str:
        node = self.graph[value]
        held = {step: found for step, values in enumerate(self.values) if (found := values[value]) is not None}
        readout = self.time.readout
        if readout == "all" and held:
            shape = node.shape.in_time(len(held))
            stacked = f"{name}.steps"
            return self._add(
                OpNode(stacked, StackSteps(), tuple(held.values()), shape, stacked, node.origin, owner=name)
            )
        step = self.time.steps - 1 if readout in ("last", "all") else int(readout)
        if step not in held:
            raise SpecError([self._empty_output(name, node, step, tuple(held))])
        return held[step]

    def _empty_output(self, name: str, node: OpNode, step: int, held: Sequence[int]) -> Problem:
        when = f"It holds one at {format_steps(held)}." if held else f"In {self.time.steps} steps it never holds one."
        message = f"the output '{name}' holds no value at its readout, step {step}. {when}"
        hint = "Set 'steps' or 'readout' so that it does, or give a node an edge to itself, so that its value lasts."
        return Problem(message, node.origin.position, node.origin.path, hint)

    def _last_value(self, record: NodeRecord, needed: set[str]) -> NodeRecord | None:
        """The record with the values of the node that an output depends on; None if there are none."""
        values = [(step, value) for step, held in enumerate(self.values) if (value := held[record.value]) in needed]
        at_steps = tuple((step, value) for step, value in values if value is not None)
        return replace(record, value=at_steps[-1][1], at_steps=at_steps) if at_steps else None
