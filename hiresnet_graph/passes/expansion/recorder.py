"""The calls of one node as operations with names, weights, owners and roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from pydantic import ValidationError

from hiresnet_graph.errors import Problem, ShapeError
from hiresnet_graph.graph import BlockEdge, BlockGraph, BlockNode, OpNode, Origin, Role
from hiresnet_graph.ops import EdgeProbe, Identity, Op
from hiresnet_graph.passes.expansion.patches import named_weights, patched
from hiresnet_graph.passes.expansion.state import Expansion, Failed, Scope, Value, joined
from hiresnet_graph.passes.step import has_copies
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep
from hiresnet_graph.spec.pattern import matches
from hiresnet_graph.wire import Builder, Wire


class CallRecorder(Builder):
    """Records the calls of a node and of the edges that arrive at it.

    Attributes:
        edge: The edge that is being expanded; None for the node itself.
        role: The role of the calls of the node.
        parts: Names of all calls of the node.
        used_patches: Keys of the patches of the node that found their part.
    """

    def __init__(self, expansion: Expansion, graph: BlockGraph, node: BlockNode, scope: Scope) -> None:
        self.expansion = expansion
        self.graph = graph
        self.time = graph.time
        self.node = node
        self.scope = scope
        self.name = scope.below(node.name)
        self.private = node.private if node.private != "none" else scope.private
        self.edge: BlockEdge | None = None
        self.role: Role = "call"
        self.parts: set[str] = set()
        self.used_patches: set[str] = set()

    def wire(self, value: Value, scope: str) -> Wire:
        """A value, with the scope of the calls that follow."""
        return Wire(self, value.name, value.shape, scope)

    def problem(self, message: str, hint: str, origin: Origin) -> None:
        """Record a problem."""
        self.expansion.report(Problem(message, origin.position, origin.path, hint))

    @contextmanager
    def explained(self, context: str, origin: Origin) -> Iterator[None]:
        """Report an error of shapes as a problem of the node: the context, then the message."""
        try:
            with computed_fields():
                yield
        except ShapeError as error:
            self.fail(f"{context}: {error.message}", error.hint, origin)

    def fail(self, message: str, hint: str, origin: Origin) -> NoReturn:
        """Record a problem and give up the node."""
        self.problem(message, hint, origin)
        raise Failed

    @contextmanager
    def on_edge(self, edge: BlockEdge) -> Iterator[str]:
        """The calls that follow belong to an edge; gives the prefix of their names."""
        self.edge = edge
        try:
            yield self.scope.below(edge.name)
        finally:
            self.edge = None

    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        """A call, named below the scope; a second part of one name gets a number."""
        base = f"{scope}.{part or op.part or op.kind}"
        name, number = base, 1
        while name in self.parts or name in self.expansion.calls:
            number += 1
            name = f"{base}{number}"
        return self.named_call(op, inputs, name)

    def named_call(self, op: Op, inputs: tuple[Wire, ...], name: str) -> Wire:
        """A call with this name, after its patches and with the defaults of its context."""
        self.parts.add(name)
        named = ""
        if self.node.patches and self.edge is None:
            part = name.removeprefix(f"{self.name}.")
            patches = [patch for patch in self.node.patches if matches(patch.address, part)]
            self.used_patches |= {patch.key for patch in patches}
            op, named = patched(op, patches, name, self.expansion), named_weights(patches)
        op = self._with_defaults(op)
        halves = op.split() if self.split else None
        if halves is not None:
            stats = self._record(halves[0], inputs, f"{name}.stats", named and f"{named}.stats")
            return self._record(halves[1], (stats,), name, named)
        return self._record(op, inputs, name, named)

    def _with_defaults(self, op: Op) -> Op:
        """A norm with the fields that the file or its time sets for all norms, where it does not set them itself."""
        defaults: dict[str, float] = {}
        if op.normalizes:
            defaults = {**self.expansion.norms, **({"scale": self.norm_scale} if self.norm_scale != 1 else {})}
        unset = type(op).model_fields.keys() - op.model_fields_set
        defaults = {field: value for field, value in defaults.items() if field in unset}
        return op.changed(defaults) if defaults else op

    def _record(self, op: Op, inputs: tuple[Wire, ...], name: str, named: str = "") -> Wire:
        """Record a call.

        Args:
            named: The name that the spec gives to the weights of this part.
        """
        shapes = [wire.shape for wire in inputs]
        shape, tensors = op.shape(*shapes), op.tensors(*shapes)
        private = not tensors or has_copies(op, self.private, any(tensor.trainable for tensor in tensors))
        weights = name if private else self.weights_of(name)
        weights = named if tensors and named else weights
        role = self.role if self.edge is None else "edge"
        self._append(name, op, tuple(wire.name for wire in inputs), shape, weights, role, per_step=self.per_step)
        self.expansion.values[name] = Value(name, shape)
        return Wire(self, name, shape, inputs[0].scope)

    def anchor(self, name: str, role: Role, shape: Shape, source: str = "", delay: int = 0) -> Wire:
        """A node that computes nothing, where a value is read or arrives; without `source`, it has no operand yet."""
        self._append(name, Identity(), (source,) if source else (), shape, name, role, delay=delay)
        return Wire(self, name, shape, name.removesuffix("@"))

    def probe(self, wire: Wire, probe: EdgeProbe, name: str) -> Wire:
        """A value after its probe; where it is empty, so is the result."""
        self._append(name, probe, (wire.name,), wire.shape, name, "edge")
        return replace(wire, name=name)

    def _append(
        self, name: str, op: Op, operands: tuple[str, ...], shape: Shape, weights: str, role: Role, **fields: Any
    ) -> None:
        origin, at = (self.node.origin, None) if self.edge is None else (self.edge.origin, self.edge.at)
        owner = self.owner_of(name)
        self.expansion.calls.add(name)
        self.expansion.nodes.append(
            OpNode(name, op, operands, shape, weights, origin, owner, role=role, at=at, **fields)
        )

    @property
    def per_step(self) -> PerStep:
        """The tensors with a copy for each time step, in the node or on the edge that is being expanded."""
        if self.time is None:
            return self.scope.per_step
        own = self.node.per_step if self.edge is None else self.edge.per_step
        return own or self.time.per_step

    @property
    def norm_scale(self) -> float:
        """Initial scale of the norms that do not set it."""
        return self.scope.norm_scale if self.time is None else self.time.norm_scale

    @property
    def split(self) -> bool:
        """Whether running statistics are separate from scale and shift."""
        return self.scope.split or "norm_stats" in (self.private, self.per_step)

    def weights_of(self, name: str) -> str:
        """The name of the weights of a call, if it shares them."""
        if self.edge is not None:
            weights = self.edge.weights or joined(self.scope.weights, self.edge.name)
            return weights + name[len(self.scope.below(self.edge.name)) :]
        weights = self.node.weights if self.node.named_weights else joined(self.scope.weights, self.node.weights)
        return weights + name[len(self.name) :]

    def owner_of(self, name: str) -> str:
        """The node or edge of the network that a call belongs to; the shortcut of a block is an edge."""
        if not self.scope.is_top:
            return self.scope.owner
        if self.edge is not None:
            return self.edge.name
        shortcut = f"{self.name}.shortcut"
        return shortcut if name.startswith(f"{shortcut}.") else self.name

    def contained(self, node: OpNode) -> OpNode:
        """A call of an inner graph, as one of the node or edge that contains the graph."""
        if self.time is None:
            return node
        if self.edge is None:
            return replace(node, role=self.role, at=None)
        return replace(node, role="edge", at=self.edge.at)


@contextmanager
def computed_fields() -> Iterator[None]:
    """Report a field that a block or projection computes out of its range as a problem of the shapes."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        message = f"the field '{detail['loc'][0]}' of {error.title} would be {detail['input']}, which is out of range."
        raise ShapeError(message, "Use other numbers.") from None
