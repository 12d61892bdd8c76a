"""Edges, projections and numbers in the few words that fit into a diagram."""

from __future__ import annotations

from hiresnet_graph.cost import Cost
from hiresnet_graph.formats import format_si
from hiresnet_graph.graph import EdgeRecord, OpGraph, Origin
from hiresnet_graph.ops import Identity, Op, format_scale
from hiresnet_graph.passes.timing import format_step_ranges
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Shape

_MAX_OPERATIONS = 4
"""A projection of more operations than this is labelled by its kind."""

_PROJECTION = {
    "avg": "avg pool",
    "max": "max pool",
    "stride": "subsample",
    "adaptive": "adaptive pool",
    "conv1x1": "1x1 conv",
    "pad": "zero pad",
    "slice": "channel slice",
    "batch": "BN",
    "group": "GN",
    "layer": "LN",
}


def shortened(text: str, limit: int = 36) -> str:
    """A text without its middle if it is longer than this; tooltips have all of it."""
    if len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end]}…{text[-end:]}"


def format_projection(text: str) -> str:
    """The description of a projection, like `avg, conv1x1, batch`, in words: `avg pool, 1x1 conv, BN`."""
    parts = text.removesuffix(" (always)").split(", ")
    return ", ".join(_PROJECTION.get(part, part.replace("_", " ")) for part in parts)


def format_factors(edge: EdgeRecord) -> list[str]:
    """What the value of an edge is multiplied by: `scale learned`, `scale 0.5`, `gate`, `gate attend` of a node."""
    scale = format_scale(edge.scale)
    found = [scale if scale.startswith("gate") else f"scale {scale}"] if scale else []
    return [*found, f"gate {edge.gate}"] if edge.gate else found


def format_parameters(number: int) -> str:
    """A number of parameters for a box; empty for none."""
    return f"{number:,} params" if number else ""


def format_cost(cost: Cost) -> str:
    """Parameters and multiply-adds for a tooltip; empty for none."""
    macs = f"{format_si(cost.macs, decimals=1)} MACs" if cost.macs else ""
    return ", ".join(filter(None, (format_parameters(cost.parameters), macs)))


def format_origin(origin: Origin) -> str:
    """The address in the spec, with the name of the file but not its folder."""
    if origin.position is None:
        return origin.path
    file = origin.position.source.name.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{origin.path} ({file}:{origin.position.line})"


class EdgeLabels:
    """Labels for the edges of a plan, from the operations in its calls."""

    def __init__(self, plan: Plan) -> None:
        self._calls = {call.name: call for call in plan.calls}
        self._names = {edge.name for edge in plan.edges}
        self._values = {node.name: node.value for node in plan.nodes}
        self._owned: dict[str, list[Call]] = {}
        for call in plan.calls:
            if call.owner in self._names:
                self._owned.setdefault(call.owner, []).append(call)
        self._operations = None if plan.folded is None else self._operations_of_one_step(plan.folded)

    def _operations_of_one_step(self, folded: OpGraph) -> dict[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        gates = {f"{edge.name}.gate" for edge in folded.records.edges}
        for name in folded.order():
            node = folded[name]
            if name in gates:
                continue
            if node.op is not None and not isinstance(node.op, Identity) and node.owner in self._names:
                found.setdefault(node.owner, []).append(node.op)
        return found

    def _chain(self, edge: EdgeRecord) -> list[Op]:
        """The operations of an edge in order, including those that it shares with another edge."""
        if self._operations is not None:
            return self._operations.get(edge.name, [])
        if edge.name not in self._owned:
            return []
        found: list[Call] = []
        call: Call | None = self._owned[edge.name][-1]
        while call is not None and call.owner in self._names and call.name != self._values.get(edge.source):
            found.append(call)
            call = self._calls.get(call.inputs[0])
        return [call.op for call in reversed(found) if call.name != f"{edge.name}.gate"]

    def shape(self, edge: EdgeRecord) -> Shape | None:
        """The shape of the value that an edge brings, if it has calls of its own in the plan."""
        owned = [call for call in self._owned.get(edge.name, ()) if call.name != f"{edge.name}.gate"]
        return owned[-1].shape if owned else None

    def label(self, edge: EdgeRecord) -> str:
        """The operations, the scale and the gate of an edge, like `1x1 conv, BN, gate`; empty for plain flow."""
        chain, factors = self._chain(edge), format_factors(edge)
        if chain and chain[-1] == edge.scale:
            chain = chain[:-1]
        if chain and len(chain) <= _MAX_OPERATIONS:
            parts = [op.label(brief=True) for op in chain]
        elif edge.projection and edge.projection != "identity":
            parts = [format_projection(edge.projection)]
        else:
            parts = ["identity"] if edge.family in ("skip", "shortcut") and not factors else []
        return ", ".join([*parts, *factors])


def edge_tooltip(edge: EdgeRecord, label: str, cost: Cost, shapes: tuple[Shape, Shape | None]) -> str:
    """The name, ends, label, timing, shapes, cost and origin of an edge, one per line.

    Args:
        shapes: Of the value of the source, and of what arrives if operations change it.
    """
    merge = f" ({edge.merge})" if edge.merge else ""
    source, target = edge.ends if all(edge.ends) else (edge.source, edge.target)
    parts = [f"{edge.name}: {source} -> {target}, slot {edge.slot}{merge}", label or ", ".join(format_factors(edge))]
    if edge.delay:
        parts.append(f"delay {edge.delay}")
    if edge.at is not None:
        parts.append(f"open at step {format_step_ranges(edge.at)}")
    start, end = shapes
    parts += [f"{start} -> {end}" if end is not None and end != start else str(start)]
    parts += [format_cost(cost), format_origin(edge.origin)]
    return "\n".join(part for part in parts if part)
