"""The definition of a recurrent graph, executed literally: the oracle of the tests in this folder.

At each step t = 0 ... T-1, in an order of the edges without delay,

    a_e[t] = op_e(v[m, t-d])  for an edge e = (m -> n, delay d) open at t, if v[m, t-d] holds a value; else empty
    v[n, t] = F_n(merge of its a_e[t], slot by slot)

on the block graph, without the plan and the passes on operation graphs. Blocks, merges and projections expand as usual
(they are the vocabulary, not the unrolling), and each of their operations is recorded on a tape with its operands. The
operations that the readout depends on are then computed in order. Others are not part of the network: they update no
running statistics and have no tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.blocks import Block
from hiresnet_graph.graph import BlockEdge, BlockGraph, BlockNode, PartPatch
from hiresnet_graph.merges import AddMerge, ConcatMerge, Merge
from hiresnet_graph.ops import FixedScale, Op
from hiresnet_graph.passes.desugar import desugar_block
from hiresnet_graph.passes.desugaring.kinds import WrittenBlock
from hiresnet_graph.passes.names import matches
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep, TimeSpec
from hiresnet_graph.wire import Builder, Wire
from tests.recurrent.tape import Missing, Names, Taken, Tape, Tensors, operation

EMPTY = ""
"""The name of a wire without a value."""
Frames = Callable[[int], str]


class Value(NamedTuple):
    """The value of a node, or of a part of one, at a step: a name on the tape (or `EMPTY`), and its shape."""

    name: str
    shape: Shape


class NoOutput(LookupError):
    """An output is empty at its readout, or does not depend on an input by then."""


# a graph in time


@dataclass(frozen=True)
class Context:
    """The context of a graph: prefixes of the names of its calls and weights, and the copies of enclosing graphs."""

    calls: str = ""
    weights: str = ""
    levels: tuple[tuple[PerStep, int], ...] = ()
    private: PerStep = "none"
    patches: tuple[PartPatch, ...] = ()


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class Section:
    """One run of a graph from an empty state.

    Attributes:
        values, parts: For each step, the values of the nodes, and of the calls in them.
        shapes, input_shapes, parts_of: The shapes of nodes, of the values at their slot `input`, and of calls in them.
    """

    def __init__(
        self, tape: Tape, graph: BlockGraph, context: Context, frames: Mapping[str, Frames], shapes: Mapping[str, Shape]
    ) -> None:
        self.tape, self.graph, self.context, self.frames = tape, graph, context, frames
        self.empty = graph.time.empty if graph.time is not None else "skip"
        self.shapes: dict[str, Shape] = dict(shapes)
        self.input_shapes: dict[str, Shape] = {}
        self.parts_of: dict[str, Shape] = {}
        self.values: list[dict[str, Value]] = []
        self.parts: list[dict[str, Value]] = []
        self._infer()

    def step(self) -> None:
        """v[n, t] of every node, for the next t."""
        t = len(self.values)
        self.values.append({})
        self.parts.append({})
        for name in self.graph.order():
            node = self.graph[name]
            if node.block is None:
                self.values[t][name] = Value(self.frames[name](t), self.shapes[name])
            else:
                run = NodeRun(self, node, t, self.graph.incoming(name))
                self.values[t][name] = run.run()
                self.parts[t] |= run.made

    def _infer(self) -> None:
        """Infer the shape of each node, and of the values at its slot `input`.

        A declared shape takes precedence. Otherwise the first operand sets it, once the sources of flow and of edges
        without delay are known; other edges are ignored until their sources are.
        """
        for node in self.graph.nodes:
            if isinstance(node.block, Block) and node.block.declared is not None:
                self.shapes[node.name] = self.input_shapes[node.name] = node.block.declared
        strict = True
        while missing := [name for name in self.graph.order() if name not in self.shapes]:
            before = len(missing)
            for name in missing:
                arriving = [edge for edge in self.graph.incoming(name) if edge.slot == "input"]
                first = [edge for edge in arriving if edge.family == "flow" or edge.delay == 0] if strict else []
                known = [edge for edge in arriving if edge.source in self.shapes]
                if not known or any(edge.source not in self.shapes for edge in first):
                    continue
                incoming = [edge for edge in self.graph.incoming(name) if edge.source in self.shapes]
                run = NodeRun(self, self.graph[name], None, incoming)
                self.shapes[name] = run.run().shape
                self.parts_of |= {call: value.shape for call, value in run.made.items()}
            if len([name for name in self.graph.order() if name not in self.shapes]) == before:
                assert strict, f"no shape for {missing}"
                strict = False


class NodeRun(Builder):
    """F_n at one step, and op_e of the edges that arrive. With `t` None, all values are empty, for shapes only."""

    def __init__(self, section: Section, node: BlockNode, t: int | None, incoming: Sequence[BlockEdge]) -> None:
        self.section, self.node, self.t, self.incoming = section, node, t, incoming
        context = section.context
        self.name = _joined(context.calls, node.name)
        self.weights = node.weights if node.named_weights else _joined(context.weights, node.weights)
        self.private = node.private if node.private != "none" else context.private
        self.edge: BlockEdge | None = None
        self.scope = ""
        self.made: dict[str, Value] = {}

    def run(self) -> Value:
        """v[n, t]."""
        block = self.node.block
        x = self._scoped(self._merged("input", (), self.node.merge), self.name)
        out = block.expand(x) if isinstance(block, Block) else self._add(block, (x,), self.name, self.name)
        out = self._merged("output", (out,), None)
        return Value(out.name, out.shape)

    def _wire(self, value: Value, scope: str) -> Wire:
        return Wire(self, value.name, value.shape, scope)

    def _scoped(self, wire: Wire, scope: str) -> Wire:
        return replace(wire, scope=scope)

    # methods that blocks call

    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        base = f"{scope}.{part or op.part or op.kind}"
        name, number = base, 1
        while name in self.made:
            number += 1
            name = f"{base}{number}"
        return self._add(op, inputs, name, scope)

    def _add(self, op: Any, inputs: tuple[Wire, ...], name: str, scope: str) -> Wire:
        if self.edge is None:
            for patch in (*self.node.patches, *self.section.context.patches):
                if matches(patch.address, name.removeprefix(f"{self.name}.")):
                    op = op.changed(patch.fields)
        shapes = tuple(wire.shape for wire in inputs)
        value = Value(EMPTY, op.shape(*shapes))
        if all(wire.name != EMPTY for wire in inputs):
            made = operation(op, shapes, self._names(name))
            value = value._replace(name=self.section.tape.add(name, [wire.name for wire in inputs], *made))
        self.made[name] = value
        return self._wire(value, scope)

    def _names(self, name: str) -> Names:
        return Names(name, self._weights_of(name), self.private, self._split, self._levels)

    @property
    def _levels(self) -> tuple[tuple[PerStep, int], ...]:
        """The tensors with copies for each step, innermost `time` first."""
        outer = self.section.context.levels
        time = self.section.graph.time
        if time is None or self.t is None:
            return outer
        own = self.node.per_step if self.edge is None else self.edge.per_step
        return ((own or time.per_step, self.t), *outer)

    @property
    def _split(self) -> bool:
        return "norm_stats" in (self.private, *(level for level, _ in self._levels))

    def _weights_of(self, name: str) -> str:
        if self.edge is None:
            return self.weights + name[len(self.name) :]
        return (self.edge.weights or _joined(self.section.context.weights, self.edge.name)) + name[len(self.scope) :]

    def shortcut(self, wire: Wire, want: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        return self._scoped(project(self._scoped(wire, scope), want), wire.scope)

    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        if self.edge is not None:  # the block is on an edge, and the edges into the node are not edges into that block
            return self._combined([wire, *operands], AddMerge(), wire.scope)
        return self._scoped(self._merged(slot, (wire, *operands), None), wire.scope)

    def inline(self, wire: Wire, block: WrittenBlock) -> Wire:
        """A block that the spec defines: its graph runs from an empty state, once or for all steps of its `time`."""
        graph = desugar_block(block, wire.shape)
        time: TimeSpec | None = graph.time
        context = Context(
            wire.scope,
            self._weights_of(wire.scope),
            self._levels,
            self.private,
            self.node.patches,
        )

        def frames(t: int) -> str:
            return wire.name if time is None or t == 0 or time.input == "every" else EMPTY

        inputs = {node.name: frames for node in graph.inputs}
        inner = Section(self.section.tape, graph, context, inputs, {node.name: wire.shape for node in graph.inputs})
        (output,) = graph.outputs.values()
        if wire.name == EMPTY:
            return replace(wire, shape=inner.shapes[output])
        for _ in range(1 if time is None else time.steps):
            inner.step()
            self.made |= inner.parts[-1]
        last = -1 if time is None or time.readout == "last" else int(time.readout)
        return self._wire(inner.values[last][output], wire.scope)

    # slots

    def _merged(self, slot: str, own: tuple[Wire, ...], merge: Merge | None) -> Wire:
        """The block's own values at a slot, then a_e[t] of the edges into it, merged into one."""
        edges = [edge for edge in self.incoming if edge.slot == slot]
        merge = merge or next((edge.merge for edge in edges if edge.merge is not None), None) or AddMerge()
        if merge.order is not None:
            order = {name: i for i, name in enumerate(merge.order)}
            edges.sort(key=lambda edge: order.get(edge.ends[0], order.get(edge.source, len(order))))
        # The operations of an edge do not depend on whether a value arrives at this step.
        everything = [edge for edge in self.section.graph.incoming(self.node.name) if edge.slot == slot]
        several = len(own) + len(everything) > 1
        first = own[0].shape if own else self.section.input_shapes.get(self.node.name)
        operands = list(own)
        for edge in edges:
            operands.append(self._arriving(edge, first, merge, several))
            first = first or operands[-1].shape
        if not own and first is not None:
            self.section.input_shapes.setdefault(self.node.name, first)
        return self._combined(operands, merge, f"{self.name}.{slot}")

    def _combined(self, operands: list[Wire], merge: Merge, scope: str) -> Wire:
        """Several values merged; empty ones are omitted, or replaced by zeros."""
        filled = [wire for wire in operands if wire.name != EMPTY]
        if not filled and (self.section.empty == "skip" or self.t is None):
            out = merge.combine(tuple(operands)) if len(operands) > 1 else operands[0]
            return self._scoped(out, scope)
        if self.section.empty == "zeros" or isinstance(merge, ConcatMerge):
            filled = [self._zeros(wire) if wire.name == EMPTY else wire for wire in operands]
        filled = [self._scoped(wire, scope) for wire in filled]
        return merge.combine(tuple(filled)) if len(filled) > 1 else filled[0]

    def _zeros(self, wire: Wire) -> Wire:
        sizes = tuple(wire.shape)

        def compute(tensors: Tensors, _: Taken, __: list[torch.Tensor]) -> torch.Tensor:
            x = next(iter(tensors.inputs.values()))
            return x.new_zeros((len(x), *sizes))

        return replace(wire, name=self.section.tape.add("zeros", (), compute))

    def _arriving(self, edge: BlockEdge, first: Shape | None, merge: Merge, several: bool) -> Wire:
        """a_e[t], which may be empty; op_e is the block of the edge, its projection, its scale and its gate."""
        self.edge, self.scope = edge, _joined(self.section.context.calls, edge.name)
        wire = self._wire(self._source(edge), self.scope)
        if edge.block is not None:
            wire = edge.block.expand_to(wire, first)
        if edge.projection is not None:
            wire = edge.projection.project(
                wire, merge.target_shape(first, wire.shape) if first is not None else wire.shape
            )
        scale = edge.scale or (merge.scale if several else None)
        if scale is not None and scale != FixedScale(factor=1):
            wire = wire.apply(scale)
        if edge.gate is not None and self.t is not None:  # which changes no shape
            wire = wire.multiply(self._wire(self._held(edge.gate, 0), wire.scope), name="gate")
        self.edge = None
        return wire

    def _source(self, edge: BlockEdge) -> Value:
        """v[m, t-d], or empty if the edge is closed."""
        section, part = self.section, _joined(self.section.context.calls, f"{edge.source}.{edge.part}")
        if self.t is None or self.t < edge.delay or (edge.at is not None and self.t not in edge.at):
            return Value(EMPTY, section.parts_of[part] if edge.part else section.shapes[edge.source])
        return section.parts[self.t - edge.delay][part] if edge.part else self._held(edge.source, edge.delay)

    def _held(self, name: str, delay: int) -> Value:
        """v[m, t-d], or only its shape where nothing runs."""
        if self.t is None:
            return Value(EMPTY, self.section.shapes[name])
        return self.section.values[self.t - delay][name]


# the whole


class Trace:
    """All operations of an architecture over some steps, and when its nodes hold values.

    Args:
        steps, input, readout: Override the spec.

    Attributes:
        readouts: The steps whose values are returned.
    """

    def __init__(
        self,
        arch: hrg.Architecture,
        *,
        steps: int | None = None,
        input: str | None = None,
        readout: str | int | None = None,
    ) -> None:
        graph = arch.graph
        time = graph.time or TimeSpec(steps=1)
        self.steps = time.steps if steps is None else steps
        self.input = time.input if input is None else input
        self.readout = time.readout if readout is None else readout
        self.past = time.past
        self.graph = graph
        self.tape = Tape()
        self._inputs: dict[tuple[str, int], str] = {}
        names = [node.name for node in graph.inputs]
        shapes = {node.name: node.shape for node in graph.inputs if node.shape is not None}
        self.section = Section(self.tape, graph, Context(), {name: self._frames(name) for name in names}, shapes)
        for _ in range(self.steps):
            self.section.step()
        self.readouts = self._readouts()

    def _frames(self, name: str) -> Frames:
        def frame(t: int) -> str:
            if self.input == "first" and t > 0:
                return EMPTY
            key = (name, t if self.input == "sequence" else 0)
            if key not in self._inputs:
                sequence = self.input == "sequence"

                def compute(tensors: Tensors, _: Taken, __: list[torch.Tensor]) -> torch.Tensor:
                    x = tensors.inputs[name]
                    return x[:, t] if sequence else x

                self._inputs[key] = self.tape.add(name, (), compute)
            return self._inputs[key]

        return frame

    def _readouts(self) -> tuple[int, ...]:
        outputs = self.graph.outputs.values()
        if self.readout == "all":
            steps = range(self.steps)
            return tuple(t for t in steps if all(self.section.values[t][name].name for name in outputs))
        return (self.steps - 1 if self.readout == "last" else int(self.readout),)

    def held(self, node: str) -> tuple[int, ...]:
        """The steps at which a node holds a value."""
        return tuple(t for t, values in enumerate(self.section.values) if values[node].name != EMPTY)

    def reached(self, node: str) -> tuple[int, ...]:
        """The steps at which a node holds a value that depends on an input."""
        inputs = set(self._inputs.values())
        return tuple(t for t in self.held(node) if self.tape.needed([self.section.values[t][node].name]) & inputs)

    def reaching(self) -> dict[str, bool]:
        """For each edge with operations, whether a value from an input flows through it to the readout."""
        inputs = set(self._inputs.values())
        found = {edge.name: False for edge in self.graph.edges}
        needed = self.tape.needed(self._targets())
        computing = set()
        for name, entry in self.tape.entries.items():
            edge = next((edge for edge in found if entry.call.startswith(f"{edge}.")), None)
            if edge is not None:
                computing.add(edge)
                found[edge] |= name in needed and bool(self.tape.needed([name]) & inputs)
        return {edge: reaches for edge, reaches in found.items() if edge in computing}

    def _targets(self) -> list[str]:
        outputs = self.graph.outputs.values()
        if not self.readouts or self.readouts[-1] >= self.steps:
            raise NoOutput
        targets = [self.section.values[t][name].name for name in outputs for t in self.readouts]
        ready = any(min(self.reached(name), default=self.steps) <= self.readouts[-1] for name in outputs)
        if not all(targets) or not ready:
            raise NoOutput
        return targets

    def missing(self, module: nn.Module) -> list[Missing]:
        """The tensors that the output requires and the module lacks."""
        return self.tape.missing(self._targets(), Tensors(module, {}, self.past))

    def run(self, module: nn.Module, *inputs: torch.Tensor) -> Result:
        """The output with the tensors and the mode of a module, whose running statistics are updated as by a call."""
        named = dict(zip((node.name for node in self.graph.inputs), inputs, strict=True))
        values = self.tape.play(self._targets(), Tensors(module, named, self.past))
        outputs = {}
        for output, name in self.graph.outputs.items():
            read = [values[self.section.values[t][name].name] for t in self.readouts]
            outputs[output] = torch.stack(read, dim=1) if self.readout == "all" else read[0]
        computed = {
            (name, t): values[value.name]
            for t, held in enumerate(self.section.values)
            for name, value in held.items()
            if value.name in values
        }
        return Result(next(iter(outputs.values())) if len(outputs) == 1 else outputs, computed)


class Result(NamedTuple):
    """The result of a run: the output (or a dict of outputs), and all v[n, t] that it depends on."""

    output: Any
    values: dict[tuple[str, int], torch.Tensor]


def run(arch: hrg.Architecture, module: nn.Module, *inputs: torch.Tensor, **settings: Any) -> Result:
    """The output of the definition with the tensors of a module that was built from `arch`."""
    return Trace(arch, **settings).run(module, *inputs)
