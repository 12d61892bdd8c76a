"""The values of the edges into a slot: read, projected, scaled, gated and merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import ShapeError, did_you_mean
from hiresnet_graph.graph import BlockEdge, EdgeRecord, Scale
from hiresnet_graph.merges import AddMerge, Merge
from hiresnet_graph.ops import EdgeProbe, FixedScale
from hiresnet_graph.passes.expansion.recorder import CallRecorder, computed_fields
from hiresnet_graph.passes.expansion.state import Failed, Value
from hiresnet_graph.passes.step import anchor_name
from hiresnet_graph.shapes import Shape
from hiresnet_graph.traversal import reachable
from hiresnet_graph.wire import Wire


class Arrivals:
    """The edges that arrive at a node.

    Args:
        calls: Records the calls of the node and its edges.
        edges: In the order in which the slots take them.
        values: Outputs of the nodes that are expanded so far.
    """

    def __init__(self, calls: CallRecorder, edges: Sequence[BlockEdge], values: Mapping[str, Value]) -> None:
        self.calls, self.edges, self.values = calls, edges, values
        self.node, self.name = calls.node, calls.name

    def merged(self, slot: str, own: tuple[Wire, ...], merge: Merge | None) -> Wire:
        """The block's own values at a slot, then those of the edges into it, merged into one."""
        edges = [edge for edge in self.edges if edge.slot == slot]
        if merge is None:
            merge = next((edge.merge for edge in edges if edge.merge is not None), None) or AddMerge()
        operands = [*own, *self._operands(self._ordered(edges, merge), own, merge)]
        declared = self.node.declared
        if not operands and self.calls.time is not None and declared is not None:
            return self.calls.anchor(f"{anchor_name(self.name)}{slot}", "arrival", declared)
        if not operands:
            hint = "Add it to 'flow', or give it an edge without 'slot'."
            self.calls.fail(f"no edge arrives at the input of '{self.name}'.", hint, self.node.origin)
        if len(operands) == 1:
            return operands[0]
        if own:
            operands[: len(own)] = self._probed_own(own, slot)
        origin = edges[-1].origin if edges else self.node.origin
        self.calls.role = "merge"
        with self.calls.explained(f"the values at '{self.name}' ({merge.kind}) do not fit", origin):
            out = merge.combine(tuple(replace(wire, scope=f"{self.name}.{slot}") for wire in operands))
        self.calls.role = "call"
        return out

    def _ordered(self, edges: list[BlockEdge], merge: Merge) -> list[BlockEdge]:
        if merge.order is None:
            return edges
        order = {name: i for i, name in enumerate(merge.order)}
        nodes = {name for node in self.calls.graph.nodes for name in (node.name, node.stage) if name}
        for name in merge.order:
            # A node without an edge to this one is no error: a variant may have removed the edge.
            if name not in nodes:
                origin = self.node.origin if self.node.merge is merge else edges[0].origin
                message = f"the 'order' of merge '{merge.kind}' names '{name}', which is not a node."
                self.calls.problem(message, did_you_mean(name, nodes), origin)
        return sorted(edges, key=lambda edge: order.get(edge.ends[0], order.get(edge.source, len(order))))

    def _operands(self, edges: list[BlockEdge], own: tuple[Wire, ...], merge: Merge) -> list[Wire]:
        """The values of edges, in their order. The first one sets the shape, if the node has none yet."""
        first = own[0].shape if own else self.node.declared
        several = bool(own) or len(edges) > 1
        found: dict[int, Wire] = {}
        for i in sorted(range(len(edges)), key=lambda i: self._lateness(edges[i])):
            if edges[i].source in self.values:
                found[i] = self._arriving(edges[i], first, merge, several)
            else:
                found[i] = self._expected(edges[i], first, merge, several)
            if first is None:
                first = found[i].shape
        return [found[i] for i in range(len(edges))]

    def _lateness(self, edge: BlockEdge) -> tuple[bool, bool]:
        """Sort key: edges with a known source first, and among them flow and edges without delay, to set the shape."""
        return edge.source not in self.values, edge.delay > 0 and edge.family != "flow"

    def _expected(self, edge: BlockEdge, first: Shape | None, merge: Merge, several: bool) -> Wire:
        """An anchor where an edge arrives whose source is expanded later; its calls are completed then."""
        required = None if first is None else merge.target_shape(first, first.with_channels(first.channels + 1))
        if first is None or required != first:
            self.calls.fail(
                f"the shape of '{edge.source}' must be known at '{self.name}' ({merge.kind}), "
                "but depends on later nodes.",
                f"Insert a node '{{block: state, shape: [C, H, W]}}' after '{edge.source}'.",
                edge.origin,
            )
        nodes = self.calls.expansion.nodes
        position = len(nodes)
        with self.calls.on_edge(edge) as scope:
            anchor = self.calls.anchor(anchor_name(scope), "arrival", first)

        def complete() -> None:
            if edge.source not in self.values:
                raise Failed  # the problem of the source is recorded
            wire = self._arriving(edge, first, merge, several, anchored=True)
            nodes[position] = replace(nodes[position], operands=(wire.name,))

        self.calls.expansion.delayed.append(complete)
        return anchor

    def _arriving(
        self, edge: BlockEdge, first: Shape | None, merge: Merge, several: bool, *, anchored: bool = False
    ) -> Wire:
        """The value of an edge at its slot, after its block, its projection, its scale and its gate.

        Args:
            first: Shape of the first value at the slot; None if this is the first.
            several: Whether other values arrive at the slot.
            anchored: Whether the anchor where it arrives exists already.
        """
        source = self._source(edge)
        with self.calls.on_edge(edge) as scope:
            start = self.calls.wire(source, scope)
            if edge.delay:
                read = self.calls.anchor(f"{anchor_name(scope)}source", "edge", source.shape, source.name, edge.delay)
                start = replace(read, scope=scope)
            wire = start if edge.block is None else self._through(edge, edge.block, start, first)
            actual, required = wire.shape, wire.shape if first is None else merge.target_shape(first, wire.shape)
            try:
                if edge.projection is not None:
                    with computed_fields():
                        wire = edge.projection.project(wire, required)
                if wire.shape != required:
                    raise ShapeError("an edge of the flow cannot change shape.", "Use 'edges:' with a 'projection'.")
                projected = wire.name != start.name
            except ShapeError as error:
                self._mismatch(edge, actual, required, merge, error)
                raise Failed from None
            scale = edge.scale or (merge.scale if several else None)
            scale = None if scale == FixedScale(factor=1) else scale
            wire = self._gated(edge, wire if scale is None else wire.apply(scale))
            inner = self._inner_shortcut(edge) if isinstance(merge, AddMerge) else None
            if self._has_probes or inner is not None:
                name = edge.name if inner is None else inner.name
                probe = EdgeProbe(edge=name, target=self.name, slot=edge.slot, alone=not several)
                wire = self.calls.probe(wire, probe, f"{anchor_name(scope)}probe")
            if inner is not None:
                self._record(inner, merge.kind, wire.shape if projected else None, scale)
            if self.calls.time is not None and not anchored:
                wire = self.calls.anchor(anchor_name(scope), "arrival", wire.shape, wire.name)
        if self.calls.scope.is_top:
            self._record(edge, merge.kind if several else "", wire.shape if projected else None, scale)
        return wire

    def _inner_shortcut(self, edge: BlockEdge) -> BlockEdge | None:
        """An edge of a block that the spec defines, by its full name, if it lies beside a path with the same ends."""
        calls = self.calls
        if not calls.expansion.inner_probes or calls.scope.is_top or calls.time is not None or edge.delay:
            return None
        others = [one.source for one in self.edges if one is not edge and one.slot == edge.slot]
        behind = reachable(others, lambda name: [one.source for one in calls.graph.incoming(name)])
        ends = calls.scope.below(edge.ends[0]), edge.ends[1]
        return replace(edge, name=">".join(ends), family="shortcut", ends=ends) if edge.source in behind else None

    @property
    def _has_probes(self) -> bool:
        return self.calls.expansion.probes and self.calls.scope.is_top

    def _probed_own(self, own: tuple[Wire, ...], slot: str) -> list[Wire]:
        """The block's own values at a slot behind probes: its function, then its shortcut."""
        if not self._has_probes:
            return list(own)
        edges = ["", *[f"{self.name}.shortcut"] * (len(own) - 1)]
        return [
            self.calls.probe(
                wire, EdgeProbe(edge=edge, target=self.name, slot=slot), f"{anchor_name(self.name)}{slot}{i}"
            )
            for i, (wire, edge) in enumerate(zip(own, edges, strict=True))
        ]

    def _source(self, edge: BlockEdge) -> Value:
        if not edge.part:
            return self.values[edge.source]
        expanded = self.calls.expansion.values
        prefix = f"{self.calls.scope.below(edge.source)}."
        if prefix + edge.part not in expanded:
            parts = sorted(name.removeprefix(prefix) for name in expanded if name.startswith(prefix))
            self.calls.fail(f"'{edge.source}' has no part '{edge.part}'.", f"Parts: {', '.join(parts)}.", edge.origin)
        return expanded[prefix + edge.part]

    def _through(self, edge: BlockEdge, block: Block, wire: Wire, required: Shape | None) -> Wire:
        """The value after the block on an edge, which may adapt itself to the shape at the slot."""
        source, shape = edge.ends[0], _described(wire.shape)
        with self.calls.explained(f"the block on the edge from '{source}' cannot be applied to {shape}", edge.origin):
            return block.expand_to(wire, required)

    def _gated(self, edge: BlockEdge, wire: Wire) -> Wire:
        """The value of an edge, multiplied by that of its gate."""
        if edge.gate is None:
            return wire
        gate = self.values[edge.gate]
        try:
            return wire.multiply(self.calls.wire(gate, wire.scope), name="gate")
        except ShapeError:
            self.calls.fail(
                f"the gate '{edge.gate}' gives {_described(gate.shape)}, but it multiplies {_described(wire.shape)}.",
                "A gate has the shape of what it multiplies, or 1 channel, or 1x1 height and width.",
                edge.origin,
            )

    def _mismatch(self, edge: BlockEdge, actual: Shape, required: Shape, merge: Merge, error: ShapeError) -> None:
        ends = (self.calls.graph[edge.source], self.node)
        positions = "; ".join(f"'{node.name}' is at {node.origin.position}" for node in ends if node.origin.position)
        needs = f"({merge.kind}) requires {_described(required)} at its slot '{edge.slot}'"
        block = " with the block of the edge" if edge.block is not None else ""
        gives = f"'{edge.ends[0]}'{block} gives {_described(actual)}"
        message = f"'{edge.ends[1]}' {needs}, but {gives}: {error.message}"
        self.calls.problem(message + (f" ({positions}.)" if positions else ""), error.hint, edge.origin)

    def _record(self, edge: BlockEdge, merge: str, projected: Shape | None, scale: Scale | None) -> None:
        """Record an edge.

        Args:
            projected: The shape after its projection; None if it changed nothing.
        """
        text = edge.projection.describe(projected) if projected is not None and edge.projection is not None else ""
        if edge.block is not None:
            text = edge.block.describe()
        self.calls.expansion.edge_records.append(
            EdgeRecord(
                edge.name,
                edge.source,
                self.node.name,
                edge.family,
                edge.slot,
                merge,
                text,
                edge.delay,
                edge.ends,
                edge.origin,
                scale,
                edge.gate or "",
                edge.at,
                edge.distance,
            )
        )


def _described(shape: Shape) -> str:
    return str(shape) if shape.spatial else shape.describe()
