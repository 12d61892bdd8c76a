"""The calls of one node as operations with names, weights, owners and roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

from pydantic import ValidationError

from hiresnet_graph.errors import Problem, ShapeError
from hiresnet_graph.graph import (
    BlockEdge,
    BlockGraph,
    BlockNode,
    EdgeRecord,
    NodeRecord,
    OpNode,
    Origin,
    PartPatch,
    Role,
)
from hiresnet_graph.ops import Identity, Op
from hiresnet_graph.passes.expansion.patches import patched
from hiresnet_graph.passes.limits import MAX_CALLS, TooLarge
from hiresnet_graph.passes.names import matches
from hiresnet_graph.passes.step import has_copies
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep
from hiresnet_graph.wire import Builder, Wire


class Failed(Exception):
    """A node cannot be expanded. The problem is recorded."""


class Value(NamedTuple):
    """The output of a call: its name and shape."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Scope:
    """The context in which a graph is expanded: the network, or a block that the spec defines.

    Attributes:
        calls, weights: Prefixes of the names of calls and of weights.
        owner: The node or edge of the network that it belongs to.
        private, per_step: The tensors with a copy for each block of a tied stage, and for each time step.
        norm_scale: Initial scale of the norms that do not set it.
        split: Running statistics are separate from scale and shift, because only they have copies somewhere.
        patches: Fields to change in parts of its blocks.
        inputs: Values of the inputs of an inner graph.
        depth: Number of enclosing blocks.
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
    def is_top(self) -> bool:
        """Whether it is the network."""
        return not self.calls

    def below(self, name: str) -> str:
        """The name of a call in this context."""
        return _joined(self.calls, name)


class Expansion:
    """What an expansion has made so far.

    Attributes:
        nodes: The operations, in order of creation.
        values: The outputs of all calls and nodes, by name.
        delayed: Completes the delayed edges whose sources come later, when all nodes of the current graph are known.
        used_patches, unused_patches: Keys of the patches that found their part; the problems of those that did not.
        blocks: Number of blocks so far, for the limit.
    """

    def __init__(self) -> None:
        self.nodes: list[OpNode] = []
        self.values: dict[str, Value] = {}
        self.delayed: list[Callable[[], None]] = []
        self.node_records: list[NodeRecord] = []
        self.edge_records: list[EdgeRecord] = []
        self.problems: list[Problem] = []
        self.used_patches: set[str] = set()
        self.unused_patches: dict[str, Problem] = {}
        self.blocks = 0

    def report(self, problem: Problem) -> None:
        """Record a problem, unless it is recorded already: the blocks of a stage often share one."""
        if problem not in self.problems:
            self.problems.append(problem)

    def report_patch(self, patch: PartPatch, found: bool, parts: list[str]) -> None:
        """Record whether a patch found its part in a block. An exact one must; a pattern must in some block."""
        if found or patch.optional:
            self.used_patches.add(patch.key)
            return
        message = f"there is no part '{patch.address}' to patch."
        hint = f"Parts: {', '.join(sorted(set(parts)))}." if parts else ""
        problem = Problem(message, patch.origin.position, patch.origin.path, hint)
        self.unused_patches.setdefault(patch.key, problem)

    def count(self, name: str, origin: Origin) -> None:
        """Count one more block or operation.

        Raises:
            TooLarge: There are more than the limit.
        """
        self.blocks += 1
        if self.blocks + len(self.nodes) > MAX_CALLS:
            message = f"with '{name}' the network has more than {MAX_CALLS:,} blocks and operations."
            self.report(Problem(message, origin.position, origin.path, "Make the network smaller."))
            raise TooLarge


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
        while name in self.parts:
            number += 1
            name = f"{base}{number}"
        return self.named_call(op, inputs, name)

    def named_call(self, op: Op, inputs: tuple[Wire, ...], name: str) -> Wire:
        """A call with this name, after its patches and with the defaults of its context."""
        self.parts.add(name)
        if self.node.patches and self.edge is None:
            part = name.removeprefix(f"{self.name}.")
            patches = [patch for patch in self.node.patches if matches(patch.address, part)]
            self.used_patches |= {patch.key for patch in patches}
            op = patched(op, patches, name, self.expansion.report)
        if op.normalizes and self.norm_scale != 1 and "scale" in type(op).model_fields.keys() - op.model_fields_set:
            op = op.changed({"scale": self.norm_scale})
        halves = op.split() if self.split else None
        if halves is not None:
            stats = self._record(halves[0], inputs, f"{name}.stats")
            return self._record(halves[1], (stats,), name)
        return self._record(op, inputs, name)

    def _record(self, op: Op, inputs: tuple[Wire, ...], name: str) -> Wire:
        shapes = [wire.shape for wire in inputs]
        shape, tensors = op.shape(*shapes), op.tensors(*shapes)
        private = not tensors or has_copies(op, self.private, any(tensor.trainable for tensor in tensors))
        on_edge = self.edge is not None
        node = OpNode(
            name,
            op,
            tuple(wire.name for wire in inputs),
            shape,
            weights=name if private else self.weights_of(name),
            origin=self.edge.origin if self.edge is not None else self.node.origin,
            owner=self.owner_of(name),
            role="edge" if on_edge else self.role,
            per_step=self.per_step,
            at=self.edge.at if self.edge is not None else None,
        )
        self.expansion.nodes.append(node)
        self.expansion.values[name] = Value(name, shape)
        return Wire(self, name, shape, inputs[0].scope)

    def anchor(self, name: str, role: Role, shape: Shape, source: str = "", delay: int = 0) -> Wire:
        """A node that computes nothing, where a value is read or arrives; without `source`, it has no operand yet."""
        origin = self.edge.origin if self.edge is not None else self.node.origin
        at = self.edge.at if self.edge is not None else None
        operands = (source,) if source else ()
        owner = self.owner_of(name)
        self.expansion.nodes.append(
            OpNode(name, Identity(), operands, shape, name, origin, owner, role=role, at=at, delay=delay)
        )
        return Wire(self, name, shape, name.removesuffix("@"))

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
            weights = self.edge.weights or _joined(self.scope.weights, self.edge.name)
            return weights + name[len(self.scope.below(self.edge.name)) :]
        weights = self.node.weights if self.node.named_weights else _joined(self.scope.weights, self.node.weights)
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


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


@contextmanager
def computed_fields() -> Iterator[None]:
    """Report a field that a block or projection computes out of its range as a problem of the shapes."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        message = f"the field '{detail['loc'][0]}' of {error.title} would be {detail['input']}, which is out of range."
        raise ShapeError(message, "Use other numbers.") from None
