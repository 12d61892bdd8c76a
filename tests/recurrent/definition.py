"""The definition of a recurrent graph, carried out as it reads: the oracle of the tests in this folder.

At each step t = 0 ... T-1, in an order of the edges without delay,

    a_e[t] = op_e(v[m, t-d])  for an edge e = (m -> n, delay d) open at t, if v[m, t-d] holds a value; else empty
    v[n, t] = F_n(merge of its a_e[t], slot by slot)

on the graph of block calls, without the plan and the passes behind it. Blocks, merges and projections are asked what
they are made of (they are the vocabulary, not the unrolling), and each operation that they name goes onto a tape with
its operands. What the readout needs of the tape is then computed from first to last: operations that reach no readout
are no part of the network, so they move no running statistics and need no tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.blocks import Block
from hiresnet_graph.graph import BlockEdge, BlockGraph, BlockNode, PartPatch
from hiresnet_graph.lower.weights import find
from hiresnet_graph.merges import AddMerge, ConcatMerge, Merge
from hiresnet_graph.ops import Apply, Arg, Layer, Op, Weight
from hiresnet_graph.passes.desugar import desugar_block
from hiresnet_graph.passes.desugaring.kinds import WrittenBlock
from hiresnet_graph.passes.names import matches
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep, TimeSpec
from hiresnet_graph.wire import Builder, Wire

EMPTY = ""
"""The name of a wire without a value."""
Frames = Callable[[int], str]
Taken = Mapping[str, tuple[torch.Tensor, bool]]
"""The tensors of a call by their own names, and whether they are trainable."""
Own = Callable[["Tensors"], Taken]
Compute = Callable[["Tensors", Taken, list[torch.Tensor]], torch.Tensor]


class Value(NamedTuple):
    """What a node or a part of one gives at a step: a name on the tape (or `EMPTY`), and its shape."""

    name: str
    shape: Shape


class Missing(LookupError):
    """A call needs a tensor that the module lacks; `weights` without the step."""

    def __init__(self, call: str, step: int | None, weights: str) -> None:
        super().__init__(f"{call} at step {step}")
        self.call, self.step, self.weights = call, step, weights


class NoOutput(LookupError):
    """An output holds nothing at its readout, or nothing that depends on an input by then."""


# the tape


@dataclass(frozen=True)
class Entry:
    """One operation at one step: on which names of the tape, the tensors that it takes, and what computes it."""

    call: str
    inputs: tuple[str, ...]
    compute: Compute
    own: Own


@dataclass
class Tape:
    """All operations of a run, in the order of the definition."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, call: str, inputs: Sequence[str], compute: Compute, own: Own = lambda _: {}) -> str:
        name = str(len(self.entries))
        self.entries[name] = Entry(call, tuple(inputs), compute, own)
        return name

    def needed(self, wanted: Sequence[str]) -> set[str]:
        """The entries from which a way leads to the wanted ones."""
        found, todo = set(wanted), list(wanted)
        while todo:
            for name in self.entries[todo.pop()].inputs:
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return found

    def play(self, wanted: Sequence[str], tensors: Tensors) -> dict[str, torch.Tensor]:
        """The values of the wanted entries and of all that they need."""
        needed = self.needed(wanted)
        values: dict[str, torch.Tensor] = {}
        for name, entry in self.entries.items():
            if name in needed:
                args = [values[operand] for operand in entry.inputs]
                values[name] = entry.compute(tensors, entry.own(tensors), args)
        return values

    def missing(self, wanted: Sequence[str], tensors: Tensors) -> list[Missing]:
        """What is needed of tensors and is not there."""
        found = []
        for name in self.needed(wanted):
            try:
                self.entries[name].own(tensors)
            except Missing as missing:
                found.append(missing)
        return found


class Tensors:
    """Parameters and buffers of a module by name, its mode, and the inputs of one call."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, torch.Tensor], past: str) -> None:
        self.training = module.training
        self.inputs = inputs
        self.past = past
        self.held = dict(module.named_parameters(remove_duplicate=False))
        self.held |= dict(module.named_buffers(remove_duplicate=False))


# one operation


class Names(NamedTuple):
    """Where the tensors of a call are.

    Attributes:
        call, shared: The name of the call, and the prefix of what it shares.
        private: What the call has by itself, in a tied stage.
        split: Running statistics are apart from scale and shift, since somewhere only they have copies.
        levels: What has copies for each step, and the step: of the innermost `time` first.
    """

    call: str
    shared: str
    private: PerStep
    split: bool
    levels: tuple[tuple[PerStep, int], ...]

    def tensor(self, op: Op, name: str, trainable: bool, tensors: Tensors) -> torch.Tensor:
        """The tensor `name` of an operation.

        Raises:
            Missing: The module has none for this step.
        """

        def own(kept: PerStep) -> bool:
            statistics = op.normalizes and not trainable
            return kept == "all" or (kept == "norm" and op.normalizes) or (kept == "norm_stats" and statistics)

        prefix = self.call if own(self.private) else self.shared
        if self.split and not trainable and op.split() is not None:
            prefix += ".stats"
        steps = [step for kept, step in self.levels if own(kept)]
        if not steps:
            ways = [f"{prefix}.{name}"]
        else:
            prefix += "".join(f".step{step}" for step in steps[:-1])
            earlier = range(steps[-1] - 1, -1, -1) if tensors.past == "last" and op.normalizes else ()
            ways = [f"{prefix}.step{step}.{name}" for step in (steps[-1], *earlier)]
        for way in ways:
            if way in tensors.held:
                return tensors.held[way]
        raise Missing(self.call, self.levels[-1][1] if self.levels else None, prefix)


@cache
def _fresh(target: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> nn.Module:
    with torch.device("meta"):  # no initial weights are drawn
        return find(target)(*args, **dict(kwargs))


def _layer(layer: Layer, own: Taken, x: torch.Tensor, training: bool) -> torch.Tensor:
    module = _fresh(layer.target, layer.args, tuple(layer.kwargs.items())).train(training)
    for name, (tensor, trainable) in own.items():
        (module._parameters if trainable else module._buffers)[name] = tensor  # type: ignore[index,assignment]
    out: torch.Tensor = module(x)
    return out


def _function(form: Any, args: Sequence[torch.Tensor], own: Taken) -> Any:
    if isinstance(form, Arg):
        return args[form.index]
    if isinstance(form, Weight):
        return own[form.name][0]
    if isinstance(form, Apply):
        put = [_function(arg, args, own) for arg in form.args]
        return find(form.target)(*put, **{key: _function(arg, args, own) for key, arg in form.kwargs.items()})
    if isinstance(form, list):
        return [_function(item, args, own) for item in form]
    return form


def _operation(op: Op, shapes: tuple[Shape, ...], names: Names) -> tuple[Compute, Own]:
    """What computes an operation from its tensors and its operands, and what finds its tensors in a module."""

    def own(tensors: Tensors) -> Taken:
        return {
            tensor.name: (names.tensor(op, tensor.name, tensor.trainable, tensors), tensor.trainable)
            for tensor in op.tensors(*shapes)
        }

    def compute(tensors: Tensors, taken: Taken, args: list[torch.Tensor]) -> torch.Tensor:
        layer = op.layer(*shapes)
        if layer is not None:
            return _layer(layer, taken, args[0], tensors.training)
        out: torch.Tensor = _function(op.apply(*shapes), args, taken)
        return out

    return compute, own


# a graph in time


@dataclass(frozen=True)
class Place:
    """Where a graph stands: prefixes of the names of its calls and weights, and what around it has copies."""

    calls: str = ""
    weights: str = ""
    levels: tuple[tuple[PerStep, int], ...] = ()
    private: PerStep = "none"
    patches: tuple[PartPatch, ...] = ()


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class Section:
    """One run of a graph from empty.

    Attributes:
        values, parts: For each step, what the nodes hold, and what the calls in them gave.
        shapes, wants, parts_of: The shapes of nodes, of what arrives at their slot `input`, and of calls in them.
    """

    def __init__(
        self, tape: Tape, graph: BlockGraph, place: Place, frames: Mapping[str, Frames], shapes: Mapping[str, Shape]
    ) -> None:
        self.tape, self.graph, self.place, self.frames = tape, graph, place, frames
        self.empty = graph.time.empty if graph.time is not None else "skip"
        self.shapes: dict[str, Shape] = dict(shapes)
        self.wants: dict[str, Shape] = {}
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
        """The shape of each node, and of what arrives at its slot `input`.

        A declared shape comes first. Else the first operand sets it; flow and edges without delay must be known for
        that, others are left out while they are not.
        """
        for node in self.graph.nodes:
            if isinstance(node.block, Block) and node.block.declared is not None:
                self.shapes[node.name] = self.wants[node.name] = node.block.declared
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
    """F_n at one step, and op_e of the edges that arrive. With `t` None everything is empty, and only shapes result."""

    def __init__(self, section: Section, node: BlockNode, t: int | None, incoming: Sequence[BlockEdge]) -> None:
        self.section, self.node, self.t, self.incoming = section, node, t, incoming
        place = section.place
        self.name = _joined(place.calls, node.name)
        self.weights = node.weights if node.named_weights else _joined(place.weights, node.weights)
        self.private = node.private if node.private != "none" else place.private
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

    # what blocks ask for

    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        base = f"{scope}.{part or op.part or op.kind}"
        name, number = base, 1
        while name in self.made:
            number += 1
            name = f"{base}{number}"
        return self._add(op, inputs, name, scope)

    def _add(self, op: Any, inputs: tuple[Wire, ...], name: str, scope: str) -> Wire:
        if self.edge is None:
            for patch in (*self.node.patches, *self.section.place.patches):
                if matches(patch.address, name.removeprefix(f"{self.name}.")):
                    op = op.changed(patch.fields)
        shapes = tuple(wire.shape for wire in inputs)
        value = Value(EMPTY, op.shape(*shapes))
        if all(wire.name != EMPTY for wire in inputs):
            made = _operation(op, shapes, self._names(name))
            value = value._replace(name=self.section.tape.add(name, [wire.name for wire in inputs], *made))
        self.made[name] = value
        return self._wire(value, scope)

    def _names(self, name: str) -> Names:
        return Names(name, self._weights_of(name), self.private, self._split, self._levels)

    @property
    def _levels(self) -> tuple[tuple[PerStep, int], ...]:
        """What has copies for each step here, innermost `time` first."""
        outer = self.section.place.levels
        time = self.section.graph.time
        if time is None or self.t is None:
            return outer
        own = self.node.per_step if self.edge is None else self.edge.per_step
        return ((own or time.per_step, self.t), *outer)

    @property
    def _split(self) -> bool:
        return "norm_stats" in (self.private, *(kept for kept, _ in self._levels))

    def _weights_of(self, name: str) -> str:
        if self.edge is None:
            return self.weights + name[len(self.name) :]
        return (self.edge.weights or _joined(self.section.place.weights, self.edge.name)) + name[len(self.scope) :]

    def shortcut(self, wire: Wire, want: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        return self._scoped(project(self._scoped(wire, scope), want), wire.scope)

    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        if self.edge is not None:  # a block on an edge: what arrives at the node is not for it
            return self._combined([wire, *operands], AddMerge(), wire.scope)
        return self._scoped(self._merged(slot, (wire, *operands), None), wire.scope)

    def inline(self, wire: Wire, block: WrittenBlock) -> Wire:
        """A block that the spec defines: its graph runs from an empty state, once or for all steps of its `time`."""
        graph = desugar_block(block, wire.shape)
        time: TimeSpec | None = graph.time
        place = Place(
            wire.scope,
            self._weights_of(wire.scope),
            self._levels,
            self.private,
            self.node.patches,
        )

        def frames(t: int) -> str:
            return wire.name if time is None or t == 0 or time.input == "every" else EMPTY

        inputs = {node.name: frames for node in graph.inputs}
        inner = Section(self.section.tape, graph, place, inputs, {node.name: wire.shape for node in graph.inputs})
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
        """What is there already, then a_e[t] of the edges into the slot, as one value."""
        edges = [edge for edge in self.incoming if edge.slot == slot]
        merge = merge or next((edge.merge for edge in edges if edge.merge is not None), None) or AddMerge()
        if merge.order is not None:
            place = {name: i for i, name in enumerate(merge.order)}
            edges.sort(key=lambda edge: place.get(edge.ends[0], place.get(edge.source, len(place))))
        # Whether something arrives in this step makes no difference to what an edge is made of.
        everything = [edge for edge in self.section.graph.incoming(self.node.name) if edge.slot == slot]
        several = len(own) + len(everything) > 1
        first = own[0].shape if own else self.section.wants.get(self.node.name)
        operands = list(own)
        for edge in edges:
            operands.append(self._arriving(edge, first, merge, several))
            first = first or operands[-1].shape
        if not own and first is not None:
            self.section.wants.setdefault(self.node.name, first)
        return self._combined(operands, merge, f"{self.name}.{slot}")

    def _combined(self, operands: list[Wire], merge: Merge, scope: str) -> Wire:
        """One value of several; the empty ones are left out, or are zeros."""
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
        """a_e[t], as a value or empty; op_e is the block of the edge, its projection, its weight and its gate."""
        self.edge, self.scope = edge, _joined(self.section.place.calls, edge.name)
        wire = self._wire(self._source(edge), self.scope)
        if edge.block is not None:
            wire = edge.block.expand_to(wire, first)
        if edge.projection is not None:
            wire = edge.projection.project(
                wire, merge.target_shape(first, wire.shape) if first is not None else wire.shape
            )
        if several:
            wire = merge.weigh(wire)
        if edge.gate is not None and self.t is not None:  # which changes no shape
            wire = wire.multiply(self._wire(self._held(edge.gate, 0), wire.scope), name="gate")
        self.edge = None
        return wire

    def _source(self, edge: BlockEdge) -> Value:
        """v[m, t-d], or empty where the edge is closed."""
        section, part = self.section, _joined(self.section.place.calls, f"{edge.source}.{edge.part}")
        if self.t is None or self.t < edge.delay or (edge.at is not None and self.t not in edge.at):
            return Value(EMPTY, section.parts_of[part] if edge.part else section.shapes[edge.source])
        return section.parts[self.t - edge.delay][part] if edge.part else self._held(edge.source, edge.delay)

    def _held(self, name: str, delay: int) -> Value:
        """v[m, t-d], or its shape alone where nothing runs."""
        if self.t is None:
            return Value(EMPTY, self.section.shapes[name])
        return self.section.values[self.t - delay][name]


# the whole


class Trace:
    """All operations of an architecture over some steps, and which of its nodes hold a value when.

    Args:
        steps, input, readout: Instead of what the spec says.

    Attributes:
        readouts: The steps that come out.
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
        self.section = Section(self.tape, graph, Place(), {name: self._frames(name) for name in names}, shapes)
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
        """For each edge that computes something: whether a value from an input goes through it to the readout."""
        inputs = set(self._inputs.values())
        found = {edge.name: False for edge in self.graph.edges}
        needed = self.tape.needed(self._wanted())
        computing = set()
        for name, entry in self.tape.entries.items():
            edge = next((edge for edge in found if entry.call.startswith(f"{edge}.")), None)
            if edge is not None:
                computing.add(edge)
                found[edge] |= name in needed and bool(self.tape.needed([name]) & inputs)
        return {edge: reaches for edge, reaches in found.items() if edge in computing}

    def _wanted(self) -> list[str]:
        outputs = self.graph.outputs.values()
        if not self.readouts or self.readouts[-1] >= self.steps:
            raise NoOutput
        wanted = [self.section.values[t][name].name for name in outputs for t in self.readouts]
        ready = any(min(self.reached(name), default=self.steps) <= self.readouts[-1] for name in outputs)
        if not all(wanted) or not ready:
            raise NoOutput
        return wanted

    def missing(self, module: nn.Module) -> list[Missing]:
        """What the output needs of tensors that the module lacks."""
        return self.tape.missing(self._wanted(), Tensors(module, {}, self.past))

    def run(self, module: nn.Module, *inputs: torch.Tensor) -> Result:
        """The output with the tensors and the mode of a module. Its running statistics move, as by a call of it."""
        named = dict(zip((node.name for node in self.graph.inputs), inputs, strict=True))
        values = self.tape.play(self._wanted(), Tensors(module, named, self.past))
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
    """What a run gives: the output (or a dict of them), and v[n, t] of all that the output needs."""

    output: Any
    values: dict[tuple[str, int], torch.Tensor]


def run(arch: hrg.Architecture, module: nn.Module, *inputs: torch.Tensor, **how: Any) -> Result:
    """The output of the definition with the tensors of a module that was built from `arch`."""
    return Trace(arch, **how).run(module, *inputs)
