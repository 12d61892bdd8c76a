"""Expand blocks into primitive operations: shapes are inferred, projections inserted and slots merged on the way.

A block needs the shape of its input (a depthwise convolution, a squeeze-and-excitation), and a projection needs two
shapes. So expansion, shape inference and projection are one pass in topological order. It depends on no kind: the merge
states the shape that it requires, the projection whether it can produce it, the block its operations.

A graph with `time` becomes a one-step graph, whose nodes have roles: where an edge reads its source, what is computed
on it, where it arrives, what belongs to a merge, where the value of a node is read. `passes.unroll` uses nothing else.
A delayed edge may start at a node that is expanded later, or at its own target. Then only the anchor where it arrives
is made at first, with the shape that is required there; its other calls follow when all nodes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import Problem, ShapeError, SpecError
from hiresnet_graph.graph import (
    BlockEdge,
    BlockGraph,
    BlockNode,
    EdgeRecord,
    GraphError,
    NodeRecord,
    OpGraph,
    OpNode,
    Origin,
    Records,
)
from hiresnet_graph.merges import AddMerge
from hiresnet_graph.ops import Op
from hiresnet_graph.passes.desugar import desugar_block
from hiresnet_graph.passes.desugaring.kinds import WrittenBlock
from hiresnet_graph.passes.expansion.arrivals import Arrivals
from hiresnet_graph.passes.expansion.patches import apply_patches
from hiresnet_graph.passes.expansion.recorder import CallRecorder
from hiresnet_graph.passes.expansion.state import Expansion, Failed, Scope, Value
from hiresnet_graph.passes.expansion.time_order import time_order
from hiresnet_graph.passes.limits import MAX_NESTING, TooLarge
from hiresnet_graph.passes.step import anchor_name
from hiresnet_graph.passes.unroll import unroll
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec
from hiresnet_graph.wire import Wire


def expand(graph: BlockGraph, *, probes: bool = False, inner_probes: bool = False) -> OpGraph:
    """The graph of primitive operations; of one step, if the graph has `time`.

    Args:
        probes: Whether each value that arrives at a slot of a node passes through an `EdgeProbe`, except in blocks.
        inner_probes: Whether blocks that the spec defines have probes, too, where a shortcut arrives at a sum.

    Raises:
        SpecError: Shapes do not fit, or a patch names a part that does not exist; with all such errors.
    """
    expansion = Expansion(probes=probes, inner_probes=inner_probes, norms=graph.norms)
    try:
        values = _expand(expansion, graph, Scope())
    except TooLarge:
        raise SpecError(expansion.problems) from None
    for key, (_, problem) in expansion.unused_patches.items():
        if key not in expansion.used_patches:
            expansion.report(problem)
    if expansion.problems:
        raise SpecError(expansion.problems)
    outputs = {name: values[node].name for name, node in graph.outputs.items()}
    records = Records(tuple(expansion.node_records), tuple(expansion.edge_records))
    expanded = OpGraph(graph.name, expansion.nodes, outputs, records, graph.time)
    try:
        expanded.check()
    except GraphError as error:
        origin = error.origin or Origin("")
        raise SpecError([Problem(str(error), origin.position, origin.path, error.hint)]) from None
    return expanded


def _expand(expansion: Expansion, graph: BlockGraph, scope: Scope) -> dict[str, Value]:
    """Expand every node and give the value of each. Nodes that read a failed one are left out."""
    graph = apply_patches(graph, scope.patches, expansion)
    if graph.time is None:
        values: dict[str, Value] = {}
        for name in graph.order():
            _expand_node(expansion, graph, graph[name], scope, values)
        return values
    values = {
        node.name: Value(anchor_name(scope.below(node.name)), node.declared)
        for node in graph.nodes
        if node.declared is not None
    }
    outer, expansion.delayed = expansion.delayed, []
    for name in time_order(graph, expansion.report):
        _expand_node(expansion, graph, graph[name], scope, values)
    for complete in expansion.delayed:
        with suppress(Failed):
            complete()
    expansion.delayed = outer
    return values


def _expand_node(
    expansion: Expansion, graph: BlockGraph, node: BlockNode, scope: Scope, values: dict[str, Value]
) -> None:
    if node.block is None:
        values[node.name] = _input(expansion, node, scope)
        return
    expansion.count(node.stage or node.name, node.origin)
    edges = graph.incoming(node.name)
    if any(edge.source not in values for edge in edges if edge.delay == 0):
        return
    try:
        values[node.name] = _NodeExpansion(expansion, graph, node, scope, edges, values).run(node.block)
    except Failed:
        pass
    except SpecError as error:
        for problem in error.problems:
            expansion.report(problem)


def _input(expansion: Expansion, node: BlockNode, scope: Scope) -> Value:
    if node.name in scope.inputs:
        return scope.inputs[node.name]
    assert node.shape is not None
    value = Value(node.name, node.shape)
    expansion.nodes.append(OpNode(node.name, None, (), node.shape, node.name, node.origin))
    expansion.values[node.name] = value
    expansion.node_records.append(NodeRecord(node.name, "input", node.name, node.shape, "", node.origin))
    return value


class _NodeExpansion(CallRecorder):
    """The expansion of a node and of the edges that arrive at it."""

    def __init__(
        self,
        expansion: Expansion,
        graph: BlockGraph,
        node: BlockNode,
        scope: Scope,
        edges: Sequence[BlockEdge],
        values: dict[str, Value],
    ) -> None:
        super().__init__(expansion, graph, node, scope)
        self.arrivals = Arrivals(self, edges, values)
        self.is_inlined = False

    def run(self, block: Block | Op) -> Value:
        """Expand the node and give its value."""
        x = replace(self.arrivals.merged("input", (), self.node.merge), scope=self.name)
        with self.explained(f"'{self.name}'", self.node.origin):
            out = self.named_call(block, (x,), self.name) if isinstance(block, Op) else block.expand(x)
        out = self.arrivals.merged("output", (out,), None)
        self._check_declared(out.shape)
        if self.time is not None:
            out = self.anchor(anchor_name(self.name), "value", out.shape, out.name)
        if not self.is_inlined:
            parts = [name.removeprefix(f"{self.name}.") for name in self.parts]
            for patch in self.node.patches:
                self.expansion.report_patch(patch, patch.key in self.used_patches, self.name, parts)
        value = Value(out.name, out.shape)
        self.expansion.values[self.name] = value
        if self.scope.is_top:
            kind = block.describe() if isinstance(block, Block) else block.kind
            self.expansion.node_records.append(
                NodeRecord(self.name, kind, out.name, out.shape, self.node.stage, self.node.origin)
            )
        return value

    def _check_declared(self, shape: Shape) -> None:
        """Check that the edges into the output leave the shape that the spec declares, which other nodes rely on."""
        declared = self.node.declared
        if declared in (None, shape):
            return
        edge = next(edge for edge in reversed(self.arrivals.edges) if edge.slot == "output")
        self.fail(
            f"the shape of '{self.name}' is declared as {declared}, but with the edges into its slot 'output' it is "
            f"{shape}.",
            "Use a merge that keeps the shape, like 'add', or merge in a node before it.",
            edge.origin,
        )

    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        """The value after the edges into a slot."""
        if self.edge is None:
            return replace(self.arrivals.merged(slot, (wire, *operands), None), scope=wire.scope)
        # The block is on an edge, and the edges into the node are not edges into that block.
        own = tuple(replace(operand, scope=f"{wire.scope}.{slot}") for operand in (wire, *operands))
        return replace(AddMerge().combine(own), scope=wire.scope) if operands else wire

    def shortcut(self, wire: Wire, target: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        """The block's own shortcut."""
        before = len(self.expansion.nodes)
        with self.explained(f"the shortcut of '{self.name}' must project {wire.shape} to {target}", self.node.origin):
            try:
                out = project(replace(wire, scope=scope), target)
            except ShapeError as error:
                raise ShapeError(error.message, error.hint.replace("'projection: ", "'shortcut: ")) from None
        if self.scope.is_top and self.edge is None:
            projection = getattr(project, "__self__", None)
            projects = len(self.expansion.nodes) > before
            text = projection.describe(target) if projects and projection is not None else ""
            name = self.node.name
            self.expansion.edge_records.append(
                EdgeRecord(scope, name, name, "shortcut", "residual", "add", text, 0, (name, name), self.node.origin)
            )
        return replace(out, scope=wire.scope)

    def inline(self, wire: Wire, block: WrittenBlock) -> Wire:
        """The output of a block that the spec defines."""
        graph = desugar_block(block, wire.shape)
        if self.scope.depth >= MAX_NESTING:
            message = f"'{graph.name}' is nested too deeply: the limit is {MAX_NESTING} levels of blocks."
            self.problem(message, "A block must not contain itself.", self.node.origin)
            raise TooLarge
        self.is_inlined = True
        self.expansion.blocks += 10  # to read a definition takes about as long as to expand ten nodes
        scope = Scope(
            calls=wire.scope,
            weights=self.weights_of(wire.scope),
            owner=self.owner_of(wire.scope),
            private=self.private,
            per_step=self.per_step,
            norm_scale=self.norm_scale,
            split=self.split,
            patches=self.node.patches,
            inputs={node.name: Value(wire.name, wire.shape) for node in graph.inputs},
            depth=self.scope.depth + 1,
        )
        nodes = self.expansion.nodes
        start = len(nodes)
        values = _expand(self.expansion, graph, scope)
        (output,) = graph.outputs.values()
        if output not in values:
            raise Failed
        value, inner = values[output], nodes[start:]
        del nodes[start:]
        if graph.time is not None:
            value, inner = self._unrolled(wire, graph.time, value.name, inner)
        nodes += map(self.contained, inner)
        return self.wire(value, wire.scope)

    def _unrolled(self, wire: Wire, time: TimeSpec, output: str, inner: Sequence[OpNode]) -> tuple[Value, list[OpNode]]:
        """The output and the calls of all steps of an inner graph with `time`, from its one-step graph."""
        source = OpNode(wire.name, None, (), wire.shape, wire.name, self.node.origin)
        flat = unroll(OpGraph(wire.scope, [source, *inner], {wire.scope: output}, time=time))
        (name,) = flat.outputs.values()
        calls = []
        for node in flat.nodes:
            if node.op is not None:
                # Zeros belong to the input of the graph, which here is a value of another node.
                owner = self.owner_of(wire.scope) if node.owner == wire.name else node.owner
                self.expansion.count(owner or node.name, node.origin)
                calls.append(replace(node, per_step=self.per_step, step=None, owner=owner))
        return Value(name, flat[name].shape), calls
