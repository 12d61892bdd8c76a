"""Block calls as calls of primitive operations: shapes are inferred, projections inserted and slots merged on the way.

A block is a macro that must know the shape of its input (a depthwise convolution, a squeeze-and-excitation), and a
projection must know two shapes. So expansion, shape inference and projection are one walk in topological order.
No kind is named here: the merge says what it wants, the projection whether it can, the block what it is made of.

A graph with `time` becomes the graph of one step. In it the calls are marked by their role: where an edge reads its
source and where it arrives, what on its way is computed, what belongs to a merge, where the value of a node is read;
`passes.unroll` needs no more. A delayed edge may start at a node that is expanded later (or at its own target): its end
is put where it arrives, with the shape that is wanted there, and its way is filled in when the source is known.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import Problem, ShapeError, SpecError, did_you_mean
from hiresnet_graph.graph import (
    Edge,
    EdgeRecord,
    Graph,
    GraphError,
    Node,
    NodeRecord,
    Origin,
    PartPatch,
    Role,
)
from hiresnet_graph.merges import AddMerge, Merge
from hiresnet_graph.ops import Identity, Op
from hiresnet_graph.passes.names import matches
from hiresnet_graph.passes.step import anchor_name, has_copies
from hiresnet_graph.passes.timing import on_cycles
from hiresnet_graph.passes.unroll import unroll
from hiresnet_graph.registry import Kind
from hiresnet_graph.shapes import Shape, Vector
from hiresnet_graph.spec.model import PerStep, TimeSpec
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.wire import Builder, Wire

K = TypeVar("K", bound=Kind)
MAX_CALLS = 100_000
MAX_NESTING = 32
"""How much a network may hold, and how deep its blocks may lie in each other: blocks can ask for anything."""


def expand(graph: Graph) -> Graph:
    """The graph of primitive calls. A graph that is expanded already comes back as it is.

    Raises:
        SpecError: Shapes do not fit, or a part that a patch names does not exist; with all such mistakes.
    """
    if graph.expanded:
        return graph
    expansion = _Expansion()
    try:
        values = expansion.run(graph, _Scope())
    except _TooLarge as error:
        raise SpecError([*expansion.problems, error.problem]) from None
    for key, problem in expansion.unused_patches.items():
        if key not in expansion.used_patches:
            expansion.problem(problem)
    if expansion.problems:
        raise SpecError(expansion.problems)
    outputs = {name: values[node].name for name, node in graph.outputs.items()}
    records = (tuple(expansion.node_records), tuple(expansion.edge_records))
    expanded = Graph(graph.name, expansion.nodes, expansion.edges, outputs, records, graph.time)
    try:
        expanded.check()
    except GraphError as error:
        origin = error.origin or Origin("")
        hint = "Give them different 'weights', or equal fields (and 'per_step')."
        raise SpecError([Problem(str(error), origin.position, origin.path, hint)]) from None
    return expanded


@dataclass(frozen=True)
class _Scope:
    """Where a graph stands: at the top, or inside a block that the spec defines.

    Attributes:
        calls, weights: Prefixes of the names of calls and of weights.
        owner: The node or edge at the top that it belongs to.
        private, per_step: What has a copy for each block of a tied stage, and for each time step.
        norm_scale: At what the scale of norms starts that say nothing.
        split: Running statistics are told from scale and shift, since somewhere only they have copies.
        inputs: Values of the inputs of an inner graph.
        depth: In how many such blocks it lies.
    """

    calls: str = ""
    weights: str = ""
    owner: str = ""
    private: PerStep = "none"
    per_step: PerStep = "none"
    norm_scale: float = 1.0
    split: bool = False
    patches: tuple[PartPatch, ...] = ()
    inputs: Mapping[str, Value] = field(default_factory=dict)
    depth: int = 0

    @property
    def top(self) -> bool:
        return not self.calls


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _scoped(wire: Wire, scope: str) -> Wire:
    """The same value; calls that follow are named below `scope`."""
    return Wire(wire.builder, wire.name, wire.shape, scope)


class Value(NamedTuple):
    """The output of a call: its name and shape."""

    name: str
    shape: Shape


class _Failed(Exception):
    """A node cannot be expanded; the problem is noted."""


class _TooLarge(Exception):
    """The network holds more than it may."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Expansion:
    def __init__(self) -> None:
        self.size = 0
        self.late: list[Callable[[], None]] = []
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.values: dict[str, Value] = {}
        self.problems: list[Problem] = []
        self.node_records: list[NodeRecord] = []
        self.edge_records: list[EdgeRecord] = []
        self.used_patches: set[str] = set()
        self.unused_patches: dict[str, Problem] = {}

    def used(self, patch: PartPatch, hit: bool, known: list[str]) -> None:
        """Note whether a patch found its part in a block. An exact one must; a pattern must find one somewhere."""
        if hit or patch.optional:
            self.used_patches.add(patch.key)
        else:
            self.unused_patches.setdefault(patch.key, _no_part(patch, known))

    def problem(self, problem: Problem) -> None:
        """Note a mistake once: the blocks of a stage often share it."""
        if problem not in self.problems:
            self.problems.append(problem)

    def run(self, graph: Graph, scope: _Scope) -> dict[str, Value]:
        """Expand every node; gives the value of each. Nodes behind a failed one are left out quietly."""
        values: dict[str, Value] = {}
        patched = _apply_patches(graph, scope, self)
        if graph.time is not None:
            values = _declared(patched, scope)
            late, self.late = self.late, []
        for name in patched.order() if graph.time is None else _walk(patched, self):
            node = patched[name]
            if node.block is None:
                values[name] = self._input(node, scope)
                continue
            self.grow(node)
            incoming = patched.incoming(name)
            if any(edge.source not in values for edge in incoming if edge.delay == 0):
                continue
            try:
                values[name] = _NodeExpansion(self, node, scope, incoming, values, patched).run()
            except _Failed:
                continue
            except SpecError as error:
                for problem in error.problems:
                    self.problem(problem)
        if graph.time is not None:
            for fill in self.late:
                with suppress(_Failed):
                    fill()
            self.late = late
        return values

    def grow(self, node: Node) -> None:
        """Note that there is one more; too many are a mistake."""
        self.size += 1
        if self.size + len(self.nodes) > MAX_CALLS:
            message = f"with '{node.owner or node.name}' the network has more than {MAX_CALLS:,} blocks and operations."
            raise _TooLarge(Problem(message, node.origin.position, node.origin.path, "Make the network smaller."))

    def _input(self, node: Node, scope: _Scope) -> Value:
        if node.name in scope.inputs:
            return scope.inputs[node.name]
        assert node.shape is not None
        self.nodes.append(node)
        value = Value(node.name, node.shape)
        self.values[node.name] = value
        self.node_records.append(NodeRecord(node.name, "input", node.name, node.shape, "", node.origin))
        return value


def _declared(graph: Graph, scope: _Scope) -> dict[str, Value]:
    """The values of the nodes whose shape is known before they are expanded."""
    return {
        node.name: Value(anchor_name(_joined(scope.calls, node.name)), node.block.declared)
        for node in graph.nodes
        if isinstance(node.block, Block) and node.block.declared is not None
    }


def _walk(graph: Graph, expansion: _Expansion) -> Iterator[str]:
    """The nodes of a graph in time, in an order in which as many sources as can be are known at each.

    Where a cycle of delayed edges leaves it open, a node is next whose flow is known, or else any of whose sources is;
    what comes without delay is always known.
    """
    names = list(graph.order())
    known = {node.name for node in graph.nodes if isinstance(node.block, Block) and node.block.declared is not None}
    waits = {
        name: {
            edge.source
            for edge in graph.incoming(name)
            if edge.source != name and (edge.delay == 0 or edge.source not in known)
        }
        for name in names
    }
    readers: dict[str, list[str]] = {name: [] for name in names}
    for name, sources in waits.items():
        for source in sources:
            readers[source].append(name)
    place = {name: i for i, name in enumerate(names)}
    ready = [place[name] for name in names if not waits[name]]
    heapq.heapify(ready)
    left, done = dict.fromkeys(names), set(known)
    while left:
        if ready:
            name = names[heapq.heappop(ready)]
            if name not in left:
                continue
        else:
            name = _next_open(graph, left, done, waits)
            if not name:
                break
        del left[name]
        done.add(name)
        yield name
        for reader in readers[name]:
            waits[reader].discard(name)
            if not waits[reader] and reader in left:
                heapq.heappush(ready, place[reader])
    cyclic = on_cycles((source, name) for name in left for source in waits[name])
    for name in left:
        if name not in cyclic:
            continue  # it only follows those that wait for each other
        node = graph[name]
        message = f"the shape of '{name}' cannot be inferred: all its inputs come from later nodes."
        hint = "Insert a node '{block: state, shape: [C, H, W]}' before it, or give it an edge from an earlier node."
        expansion.problem(Problem(message, node.origin.position, node.origin.path, hint))


def _next_open(graph: Graph, left: Iterable[str], done: set[str], waits: Mapping[str, set[str]]) -> str:
    """The node to take where each one waits for another; nothing if none can be."""
    second = ""
    for name in left:
        arriving = graph.incoming(name)
        if any(edge.delay == 0 and edge.source in waits[name] for edge in arriving):
            continue
        if not any(edge.source in done for edge in arriving) and name not in done:
            continue
        if not any(edge.family == "flow" and edge.source in waits[name] for edge in arriving):
            return name
        second = second or name
    return second


def _apply_patches(graph: Graph, scope: _Scope, expansion: _Expansion) -> Graph:
    """The graph after the patches of its scope that name its nodes; those that name parts go on inwards."""
    if not scope.patches:
        return graph
    nodes = list(graph.nodes)
    known = [node.name for node in nodes if node.block is not None]
    hit: set[str] = set()
    for i, node in enumerate(nodes):
        if node.block is None:
            continue
        depth = node.name.count(".") + 1
        own, inner = [], []
        for patch in scope.patches:
            parts = patch.address.split(".")
            if matches(patch.address, node.name) or (node.owner and matches(patch.address, node.owner)):
                own.append(patch)
            elif matches(".".join(parts[:depth]), node.name):
                inner.append(replace(patch, address=".".join(parts[depth:])))
            else:
                continue
            hit.add(patch.key)
        block = _patched(node.block, own, node.name, expansion)
        nodes[i] = replace(node, block=block, patches=(*node.patches, *inner))
    for patch in scope.patches:
        expansion.used(patch, patch.key in hit, known)
    return Graph(graph.name, nodes, graph.edges, graph.outputs, time=graph.time)


def _patched(kind: K, patches: Sequence[PartPatch], name: str, expansion: _Expansion) -> K:
    """A block or operation with fields changed; exact patches beat patterns, which may not contradict each other."""
    exact = {name for patch in patches if "*" not in patch.key for name in patch.fields}
    first: dict[str, PartPatch] = {}
    for patch in patches:
        for set_field in patch.fields if "*" in patch.key else ():
            other = first.setdefault(set_field, patch)
            if other is not patch and set_field not in exact:
                message = f"'{patch.key}' and '{other.key}' both set '{set_field}' of '{name}'."
                hint = "Set it under an address without '*', or in one pattern."
                expansion.problem(Problem(message, patch.origin.position, patch.origin.path, hint))
    for patch in sorted(patches, key=lambda patch: "*" not in patch.key):
        kind = _changed(kind, patch, expansion)
    return kind


def _changed(kind: K, patch: PartPatch, expansion: _Expansion) -> K:
    """A block or operation with some fields changed."""
    path, position = patch.origin.path, patch.origin.position
    try:
        return kind.changed(patch.fields)
    except ValidationError as error:
        problems = Problems(patch.fields)
        problems.validation(error, patch.fields, (), type(kind))
        for problem in problems.found:
            inner = f"{path}.{problem.path}" if problem.path else path
            expansion.problem(replace(problem, path=inner, position=problem.position or position))
    except ValueError as error:
        expansion.problem(Problem(str(error), position, path))
    return kind


def _no_part(patch: PartPatch, known: list[str]) -> Problem:
    return Problem(
        f"there is no part '{patch.address}' to patch.",
        patch.origin.position,
        patch.origin.path,
        f"Parts: {', '.join(sorted(set(known)))}." if known else "",
    )


class _NodeExpansion(Builder):
    """The expansion of one node and of the edges that arrive at it."""

    def __init__(
        self,
        expansion: _Expansion,
        node: Node,
        scope: _Scope,
        incoming: Sequence[Edge],
        values: dict[str, Value],
        graph: Graph,
    ) -> None:
        self.expansion = expansion
        self.node = node
        self.scope = scope
        self.incoming = incoming
        self.values = values
        self.graph = graph
        self.name = _joined(scope.calls, node.name)
        self.weights = node.weights if node.named_weights else _joined(scope.weights, node.weights)
        self.time = graph.time
        self.private = node.private if node.private != "none" else scope.private
        self.owner = self.name if scope.top else scope.owner
        self.edge: Edge | None = None
        self.edge_scope = ""
        self.role: Role = "call"
        self.names: set[str] = set()
        self.used_patches: set[str] = set()
        self.inlined = False

    def run(self) -> Value:
        """The node's value."""
        block = self.node.block
        if self.node.merge is None:
            operands = [self._wire(self.values[edge.source], self.name) for edge in self.incoming]
            out = self._operation(*operands)
        else:
            x = _scoped(self._merged("input", (), self.node.merge), self.name)
            try:
                with _computed():
                    out = block.expand(x) if isinstance(block, Block) else self._operation(x)
            except ShapeError as error:
                self._problem(f"'{self.name}': {error.message}", error.hint, self.node.origin)
                raise _Failed from None
            out = self._merged("output", (out,), None)
        if self.time is not None:
            out = self._place(anchor_name(self.name), "value", out.shape, out.name, 0, self.node.origin)
        parts = [name.removeprefix(f"{self.name}.") for name in self.names]
        for patch in self.node.patches if not self.inlined else ():
            self.expansion.used(patch, patch.key in self.used_patches, parts)
        value = Value(out.name, out.shape)
        self.expansion.values[self.name] = value
        if self.scope.top:
            kind = block.describe() if isinstance(block, Block) else block.kind if block is not None else ""
            self.expansion.node_records.append(
                NodeRecord(self.name, kind, out.name, out.shape, self.node.owner, self.node.origin)
            )
        return value

    def _wire(self, value: Value, scope: str) -> Wire:
        return Wire(self, value.name, value.shape, scope)

    def _problem(self, message: str, hint: str, origin: Origin) -> None:
        self.expansion.problem(Problem(message, origin.position, origin.path, hint))

    def _operation(self, *operands: Wire) -> Wire:
        """A node that is one operation: the call has the node's own name."""
        assert isinstance(self.node.block, Op)
        return self._add(self.node.block, operands, self.name, self.name)

    # Builder

    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        """One call, named below the scope; a second part of one name gets a number."""
        base = f"{scope}.{part or op.part or op.kind}"
        name, number = base, 1
        while name in self.names:
            number += 1
            name = f"{base}{number}"
        return self._add(op, inputs, name, scope)

    def _add(self, op: Op, inputs: tuple[Wire, ...], name: str, scope: str) -> Wire:
        self.names.add(name)
        rest = name.removeprefix(f"{self.name}.")
        if self.node.patches and self.edge is None:
            patches = [patch for patch in self.node.patches if matches(patch.address, rest)]
            self.used_patches |= {patch.key for patch in patches}
            op = _patched(op, patches, name, self.expansion)
        if op.normalizes and self.norm_scale != 1 and "scale" in type(op).model_fields.keys() - op.model_fields_set:
            op = op.changed({"scale": self.norm_scale})
        halves = op.split() if self.split else None
        if halves is not None:
            stats = self._record(halves[0], inputs, f"{name}.stats", scope)
            return self._record(halves[1], (stats,), name, scope)
        return self._record(op, inputs, name, scope)

    def _record(self, op: Op, inputs: tuple[Wire, ...], name: str, scope: str) -> Wire:
        """One call in the graph that is made."""
        shapes = [wire.shape for wire in inputs]
        shape, tensors = op.shape(*shapes), op.tensors(*shapes)
        origin = self.edge.origin if self.edge is not None else self.node.origin
        private = not tensors or has_copies(op, self.private, any(tensor.trainable for tensor in tensors))
        weights = name if private else self._weights_of(name)
        owner, at = self._owner_of(name), self.edge.at if self.edge is not None else None
        role = "edge" if self.edge is not None else self.role
        node = Node(name, op, weights, origin, per_step=self.per_step, shape=shape, owner=owner, role=role, at=at)
        self.expansion.nodes.append(node)
        for k, wire in enumerate(inputs):
            self.expansion.edges.append(Edge(wire.name, name, "", origin, slot="operand", rank=(k,)))
        self.expansion.values[name] = Value(name, shape)
        return Wire(self, name, shape, scope)

    def _place(self, name: str, role: Role, shape: Shape, source: str, delay: int, origin: Origin) -> Wire:
        """A call that computes nothing: where a value is read or arrives; its source may be told later (then: none)."""
        at = self.edge.at if self.edge is not None else None
        node = Node(name, Identity(), name, origin, shape=shape, owner=self._owner_of(name), role=role, at=at)
        self.expansion.nodes.append(node)
        if source:
            self._connect(name, source, delay, origin)
        return self._wire(Value(name, shape), name.removesuffix("@"))

    def _connect(self, name: str, source: str, delay: int, origin: Origin) -> None:
        self.expansion.edges.append(Edge(source, name, "", origin, slot="operand", rank=(0,), delay=delay))

    @property
    def per_step(self) -> PerStep:
        """What has a copy for each time step in the node, or on the edge, that is being expanded."""
        if self.time is None:
            return self.scope.per_step
        own = self.node.per_step if self.edge is None else self.edge.per_step
        return own or self.time.per_step

    @property
    def norm_scale(self) -> float:
        return self.scope.norm_scale if self.time is None else self.time.norm_scale

    @property
    def split(self) -> bool:
        return self.scope.split or "norm_stats" in (self.private, self.per_step)

    def _weights_of(self, name: str) -> str:
        if self.edge is not None:
            own = self.edge.weights or _joined(self.scope.weights, self.edge.name)
            return own + name[len(self.edge_scope) :]
        return self.weights + name[len(self.name) :]

    def _owner_of(self, name: str) -> str:
        if not self.scope.top:
            return self.scope.owner
        if self.edge is not None:
            return self.edge.name
        shortcut = f"{self.name}.shortcut"
        return shortcut if name.startswith(f"{shortcut}.") else self.owner

    def shortcut(self, wire: Wire, want: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        """The block's own shortcut."""
        before = len(self.expansion.nodes)
        try:
            with _computed():
                out = project(_scoped(wire, scope), want)
        except ShapeError as error:
            self._problem(
                f"the shortcut of '{self.name}' must project {wire.shape} to {want}: {error.message}",
                error.hint,
                self.node.origin,
            )
            raise _Failed from None
        if self.scope.top and self.edge is None:
            projection = getattr(project, "__self__", None)
            changed = len(self.expansion.nodes) > before
            text = projection.describe() if changed and projection is not None else ""
            source = self.node.name
            self.expansion.edge_records.append(
                EdgeRecord(
                    scope, source, source, "shortcut", "residual", "add", text, 0, (source, source), self.node.origin
                )
            )
        return _scoped(out, wire.scope)

    def inline(self, wire: Wire, graph: Any) -> Wire:
        """The output of an inner graph."""
        if self.scope.depth >= MAX_NESTING:
            message = f"'{graph.name}' is nested too deeply: the limit is {MAX_NESTING} levels of blocks."
            raise _TooLarge(
                Problem(message, self.node.origin.position, self.node.origin.path, "A block must not contain itself.")
            )
        inputs = {node.name: Value(wire.name, wire.shape) for node in graph.inputs}
        self.inlined = True
        self.expansion.size += 10  # to read a block's definition takes about as long as ten nodes
        scope = _Scope(
            wire.scope,
            self._weights_of(wire.scope),
            self._owner_of(wire.scope),
            self.private,
            self.per_step,
            self.norm_scale,
            self.split,
            self.node.patches,
            inputs,
            self.scope.depth + 1,
        )
        starts = len(self.expansion.nodes), len(self.expansion.edges)
        values = self.expansion.run(graph, scope)
        (output,) = graph.outputs.values()
        if output not in values:
            raise _Failed
        if graph.time is not None:
            return self._unrolled(wire, graph.time, values[output].name, starts)
        for i in range(starts[0], len(self.expansion.nodes)):
            self.expansion.nodes[i] = self._within(self.expansion.nodes[i])
        return self._wire(values[output], wire.scope)

    def _within(self, node: Node) -> Node:
        """A call of an inner graph as one of the node or edge where it stands."""
        if self.time is None:
            return node
        edge = self.edge
        return replace(node, role=self.role if edge is None else "edge", at=None if edge is None else edge.at)

    def _unrolled(self, wire: Wire, time: TimeSpec, output: str, starts: tuple[int, int]) -> Wire:
        """The output of an inner graph with `time`: its calls, which are the last ones, in all steps."""
        nodes, edges = self.expansion.nodes, self.expansion.edges
        source = Node(wire.name, None, wire.name, self.node.origin, shape=wire.shape)
        step = Graph(wire.scope, [source, *nodes[starts[0] :]], edges[starts[1] :], {wire.scope: output}, time=time)
        flat = unroll(step)
        del nodes[starts[0] :], edges[starts[1] :]
        for node in flat.nodes:
            if node.block is not None:
                self.expansion.grow(node)
                owner = self._owner_of(wire.scope) if node.owner == wire.name else node.owner  # zeros are of the block
                nodes.append(self._within(replace(node, per_step=self.per_step, step=None, owner=owner)))
        edges += flat.edges
        (name,) = flat.outputs.values()
        shape = flat[name].shape
        assert shape is not None
        return self._wire(Value(name, shape), wire.scope)

    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        """The value after the edges into a slot."""
        if self.edge is not None:  # the block stands on an edge: what arrives at the node is not for it
            own = tuple(_scoped(operand, f"{wire.scope}.{slot}") for operand in (wire, *operands))
            return _scoped(AddMerge().combine(own), wire.scope) if operands else wire
        return _scoped(self._merged(slot, (wire, *operands), None), wire.scope)

    # slots

    def _merged(self, slot: str, own: tuple[Wire, ...], merge: Merge | None) -> Wire:
        """What is there already, then the values of the edges into a slot, as one value."""
        edges = [edge for edge in self.incoming if edge.slot == slot]
        if merge is None:
            merge = next((edge.merge for edge in edges if edge.merge is not None), None)
        merge = merge or AddMerge()
        operands = [*own, *self._operands(self._ordered(edges, merge), own, merge)]
        declared = self.node.block.declared if isinstance(self.node.block, Block) else None
        if not operands and self.time is not None and declared is not None:
            return self._place(f"{anchor_name(self.name)}{slot}", "arrival", declared, "", 0, self.node.origin)
        if not operands:
            hint = "Add it to 'flow', or give it an edge without 'slot'."
            self._problem(f"no edge arrives at the input of '{self.name}'.", hint, self.node.origin)
            raise _Failed
        if len(operands) == 1:
            return operands[0]
        self.role = "merge"
        try:
            return merge.combine(tuple(_scoped(wire, f"{self.name}.{slot}") for wire in operands))
        except ShapeError as error:
            place = edges[-1].origin if edges else self.node.origin
            self._problem(f"the values at '{self.name}' ({merge.kind}) do not fit: {error.message}", error.hint, place)
            raise _Failed from None
        finally:
            self.role = "call"

    def _operands(self, edges: list[Edge], own: tuple[Wire, ...], merge: Merge) -> list[Wire]:
        """The values of the edges into a slot: those whose source is known, then places for the others."""
        block = self.node.block
        first = own[0].shape if own else block.declared if isinstance(block, Block) else None
        several = bool(own) or len(edges) > 1
        found: dict[int, Wire] = {}
        for i in sorted(range(len(edges)), key=lambda i: self._lateness(edges[i])):
            if edges[i].source in self.values:
                found[i] = self._arriving(edges[i], first, merge, several)
            else:
                found[i] = self._expected(edges[i], first, merge, several)
            first = first or found[i].shape
        return [found[i] for i in range(len(edges))]

    def _lateness(self, edge: Edge) -> tuple[bool, bool]:
        """Whether the source of an edge is known later; and whether it should not set the shape, if another can."""
        return edge.source not in self.values, edge.delay > 0 and edge.family != "flow"

    def _expected(self, edge: Edge, first: Shape | None, merge: Merge, several: bool) -> Wire:
        """The end of an edge whose source is not expanded yet; its way is filled in later."""
        want = None if first is None else merge.target_shape(first, first._replace(channels=first.channels + 1))
        if first is None or want != first:
            self._problem(
                f"the shape of '{edge.source}' must be known at '{self.name}' ({merge.kind}), "
                "but depends on later nodes.",
                f"Insert a node '{{block: state, shape: [C, H, W]}}' after '{edge.source}'.",
                edge.origin,
            )
            raise _Failed
        self.edge, self.edge_scope = edge, _joined(self.scope.calls, edge.name)
        place = self._place(anchor_name(self.edge_scope), "arrival", first, "", 0, edge.origin)
        self.edge = None

        def fill() -> None:
            if edge.source not in self.values:
                raise _Failed  # whose mistake is told
            wire = self._arriving(edge, first, merge, several, placed=True)
            self._connect(place.name, wire.name, 0, edge.origin)

        self.expansion.late.append(fill)
        return place

    def _ordered(self, edges: list[Edge], merge: Merge) -> list[Edge]:
        if merge.order is None:
            return edges
        order = {name: i for i, name in enumerate(merge.order)}
        nodes = {name for node in self.graph.nodes for name in (node.name, node.owner) if name}
        for name in merge.order:
            # A node from which no edge arrives is no mistake: a variant may have left the edge out.
            if name not in nodes:
                origin = self.node.origin if self.node.merge is merge else edges[0].origin
                message = f"the 'order' of merge '{merge.kind}' names '{name}', which is not a node."
                self._problem(message, did_you_mean(name, nodes), origin)
        return sorted(edges, key=lambda edge: order.get(edge.ends[0], order.get(edge.source, len(order))))

    def _arriving(self, edge: Edge, first: Shape | None, merge: Merge, several: bool, *, placed: bool = False) -> Wire:
        """The value of one edge at its slot: its block, its projection, the merge's weight, its gate.

        Args:
            placed: The end of the edge already exists.
        """
        scope = _joined(self.scope.calls, edge.name)
        source = self._source(edge)
        self.edge, self.edge_scope = edge, scope
        try:
            if edge.delay:
                read = self._place(
                    f"{anchor_name(scope)}source", "edge", source.shape, source.name, edge.delay, edge.origin
                )
                source = Value(read.name, read.shape)
            wire = self._wire(source, scope)
            if edge.block is not None:
                wire = self._through(edge, edge.block, wire, first)
            have = wire.shape
            want = merge.target_shape(first, wire.shape) if first is not None else wire.shape
            if edge.projection is not None:
                with _computed():
                    wire = edge.projection.project(wire, want)
            if wire.shape != want:
                raise ShapeError("an edge of the flow cannot change shape.", "Use 'edges:' with a 'projection'.")
            projected = wire.name != source.name and edge.projection is not None
            wire = merge.weigh(wire) if several else wire
            wire = self._gated(edge, wire)
            if self.time is not None and not placed:
                wire = self._place(anchor_name(scope), "arrival", wire.shape, wire.name, 0, edge.origin)
        except ShapeError as error:
            self._mismatch(edge, have, want, merge, error)
            raise _Failed from None
        finally:
            self.edge = None
        if self.scope.top:
            text = edge.projection.describe() if projected and edge.projection is not None else ""
            if edge.block is not None:
                text = edge.block.describe()
            self.expansion.edge_records.append(
                EdgeRecord(
                    edge.name,
                    edge.source,
                    self.node.name,
                    edge.family,
                    edge.slot,
                    merge.kind if several else "",
                    text,
                    edge.delay,
                    edge.ends,
                    edge.origin,
                    edge.gate or "",
                    edge.at,
                )
            )
        return wire

    def _source(self, edge: Edge) -> Value:
        if not edge.part:
            return self.values[edge.source]
        name = f"{_joined(self.scope.calls, edge.source)}.{edge.part}"
        if name not in self.expansion.values:
            prefix = f"{_joined(self.scope.calls, edge.source)}."
            parts = [known.removeprefix(prefix) for known in self.expansion.values if known.startswith(prefix)]
            self._problem(
                f"'{edge.source}' has no part '{edge.part}'.", f"Parts: {', '.join(sorted(parts))}.", edge.origin
            )
            raise _Failed
        return self.expansion.values[name]

    def _through(self, edge: Edge, block: Block, wire: Wire, want: Shape | None) -> Wire:
        """The value after the block on an edge, which may fit itself to what is wanted."""
        try:
            with _computed():
                return block.expand_to(wire, want)
        except ShapeError as error:
            message = f"the block on the edge from '{edge.ends[0]}' cannot take {_said(wire.shape)}: {error.message}"
            self._problem(message, error.hint, edge.origin)
            raise _Failed from None

    def _gated(self, edge: Edge, wire: Wire) -> Wire:
        """The value of an edge, multiplied by that of its gate."""
        if edge.gate is None:
            return wire
        gate = self.values[edge.gate]
        try:
            return wire.multiply(self._wire(gate, wire.scope), name="gate")
        except ShapeError:
            self._problem(
                f"the gate '{edge.gate}' gives {_said(gate.shape)}, but it multiplies {_said(wire.shape)}.",
                "A gate has the shape of what it multiplies, or 1 channel, or 1x1 height and width.",
                edge.origin,
            )
            raise _Failed from None

    def _mismatch(self, edge: Edge, have: Shape, want: Shape, merge: Merge, error: ShapeError) -> None:
        source, target = self.graph[edge.source], self.node
        places = "; ".join(
            f"'{node.name}' is at {node.origin.position}" for node in (source, target) if node.origin.position
        )
        self._problem(
            f"'{edge.ends[1] or target.name}' ({merge.kind}) requires {_said(want)} at its slot '{edge.slot}', but "
            f"'{edge.ends[0] or source.name}'{' with the block of the edge' if edge.block is not None else ''} gives "
            f"{_said(have)}: {error.message}" + (f" ({places}.)" if places else ""),
            error.hint,
            edge.origin,
        )


@contextmanager
def _computed() -> Iterator[None]:
    """Tells a field that a block or projection has computed out of its range as a mistake in the shapes."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        message = f"the field '{detail['loc'][0]}' of {error.title} would be {detail['input']}, which is out of range."
        raise ShapeError(message, "Use other numbers.") from None


def _said(shape: Shape) -> str:
    """A shape in a message."""
    return f"a vector of {shape}" if isinstance(shape, Vector) else str(shape)
