"""The two graphs of a network, and their invariants.

A `BlockGraph` is what a spec describes: its nodes are calls of blocks, its edges have slots, merges, projections and
delays. An `OpGraph` is what is computed: its nodes are calls of primitive operations, each with its operands in order.
`passes.desugar` makes the first, `passes.expand` makes the second from it. In both, a node is a call and weights are a
name: calls that share weights are different nodes with equal `weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Generic, Literal, NamedTuple, TypeVar

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import HrgError, Position, Problem
from hiresnet_graph.merges import Merge
from hiresnet_graph.ops import FixedScale, Layer, LearnedScale, Op, Tensor
from hiresnet_graph.projections import Projection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep, TimeSpec
from hiresnet_graph.traversal import topological_order

Family = Literal["flow", "skip", "edge", "shortcut", "gate"]
Scale = LearnedScale | FixedScale
"""The factor of an edge."""
Role = Literal["call", "merge", "edge", "arrival", "value"]
"""What a node is in a one-step graph: a call inside a block, a merge, a call on an edge; or an anchor that computes
nothing, where an edge arrives or where the value of a node is read."""


class GraphError(HrgError):
    """An invariant of a graph does not hold. `origin` is the entry of the spec that caused it, if there is one."""

    def __init__(self, message: str, origin: Origin | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.origin, self.hint = origin, hint


class CycleError(GraphError):
    """A cycle has total delay 0, so its order is undefined. `names` are its nodes, in order."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"the cycle {' -> '.join([*names, names[0]])} has total delay 0.")
        self.names = names


@dataclass(frozen=True, slots=True)
class Origin:
    """The entry of the spec that caused a node or an edge.

    Attributes:
        path: Address in the spec, like `nodes.stage1` or `skips.edges`.
        position: Line and column, if the spec is a file.
    """

    path: str
    position: Position | None = None

    def __str__(self) -> str:
        return f"{self.position} ({self.path})" if self.position else self.path


@dataclass(frozen=True, slots=True)
class PartPatch:
    """Fields to change in a part of a block.

    Attributes:
        key: The address in the spec; an exact address overrides a pattern.
        address: The rest of the address, inside the block.
        optional: The pattern also names a whole node, so a block without such a part is no error.
    """

    key: str
    address: str
    fields: Mapping[str, object]
    origin: Origin
    optional: bool = False


@dataclass(frozen=True, slots=True)
class BlockNode:
    """A call of a block, or of a single operation in place of one.

    Attributes:
        block: None for an input.
        weights: Prefix of the names of its tensors.
        merge: Combines the values at the slot `input`; None for an input.
        named_weights: The spec names the weights. Such names are global, also inside blocks.
        private: In a tied stage, the tensors that each block has for itself; they are named after the call.
        per_step: The tensors with a copy for each time step; None for the default of the graph.
        patches: Fields to change in parts of the block.
        shape: Of an input, without the batch.
        stage: The stage that it belongs to, or empty.
    """

    name: str
    block: Block | Op | None
    weights: str
    origin: Origin
    merge: Merge | None = None
    named_weights: bool = False
    private: PerStep = "none"
    per_step: PerStep | None = None
    patches: tuple[PartPatch, ...] = ()
    shape: Shape | None = None
    stage: str = ""

    @property
    def declared(self) -> Shape | None:
        """The shape that the block has regardless of its inputs, if it declares one."""
        return self.block.declared if isinstance(self.block, Block) else None


@dataclass(frozen=True, slots=True)
class BlockEdge:
    """A connection of two nodes.

    Attributes:
        name: Prefix of the names of its tensors.
        slot: Where it arrives at the target.
        part: The part of the source's block that is read; empty for the output of the block.
        rank: Sort key among the edges into one slot.
        merge, projection, block, gate, delay: As in the spec; None where it does not set them.
        scale: The factor; None for that of the merge. A factor of 1 is no operation.
        at: Steps at which a value may arrive; None for all.
        weights: Name of the weights, if it differs from that of the edge.
        per_step: The tensors with a copy for each time step; None for the default of the graph.
        ends: Source and target as the spec names them (a stage instead of its last block).
        distance: Number of levels from source to target; None for edges that are not between levels of skips.
    """

    source: str
    target: str
    name: str
    origin: Origin
    family: Family = "flow"
    slot: str = "input"
    part: str = ""
    rank: tuple[float | str, ...] = ()
    merge: Merge | None = None
    projection: Projection | None = None
    block: Block | None = None
    scale: Scale | None = None
    gate: str | None = None
    delay: int = 0
    at: tuple[int, ...] | None = None
    weights: str = ""
    per_step: PerStep | None = None
    ends: tuple[str, str] = ("", "")
    distance: int | None = None


@dataclass(frozen=True, slots=True)
class OpNode:
    """A call of a primitive operation.

    The last five attributes describe graphs in time: `step` an unrolled graph, the others a one-step graph.

    Attributes:
        op: None for an input.
        operands: The nodes whose values it takes, in order.
        shape: Of the output, without the batch.
        owner: The node or edge of the block graph that it belongs to.
        step: The time step at which it runs.
        role: See `Role`.
        per_step: The tensors with a copy for each time step.
        at: Steps at which the edge that it belongs to is open; None for all.
        delay: How many steps earlier its operands are read.
    """

    name: str
    op: Op | None
    operands: tuple[str, ...]
    shape: Shape
    weights: str
    origin: Origin
    owner: str = ""
    step: int | None = None
    role: Role = "call"
    per_step: PerStep | None = None
    at: tuple[int, ...] | None = None
    delay: int = 0


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of the block graph, for tables and diagrams.

    `value` is the call that gives its output, `at_steps` that of each time step (in an unrolled graph).
    """

    name: str
    block: str
    value: str
    shape: Shape
    stage: str
    origin: Origin
    at_steps: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """An edge of the block graph, for tables and diagrams.

    Attributes:
        merge: Empty where it arrives alone.
        scale: Its factor; None without one.
        gate: The node whose value it is multiplied by, or empty.
        at: Steps at which it is open; None for all.
        distance: As in `BlockEdge`.
    """

    name: str
    source: str
    target: str
    family: Family
    slot: str
    merge: str
    projection: str
    delay: int
    ends: tuple[str, str]
    origin: Origin
    scale: Scale | None = None
    gate: str = ""
    at: tuple[int, ...] | None = None
    distance: int | None = None


class Records(NamedTuple):
    """What the nodes and edges of an `OpGraph` were in the block graph."""

    nodes: tuple[NodeRecord, ...] = ()
    edges: tuple[EdgeRecord, ...] = ()


_NO_RECORDS = Records()

N = TypeVar("N", BlockNode, OpNode)


class _Graph(Generic[N]):
    """Named nodes in the order in which they were made, and named outputs. Never changed after construction."""

    def __init__(self, name: str, nodes: Iterable[N], outputs: Mapping[str, str], time: TimeSpec | None) -> None:
        self.name = name
        self.outputs = dict(outputs)
        self.time = time
        self._checked = False
        self._nodes: dict[str, N] = {}
        for node in nodes:
            if node.name in self._nodes:
                raise GraphError(f"two nodes are called '{node.name}'.")
            self._nodes[node.name] = node

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self)} nodes>"

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> N:
        return self._nodes[name]

    @property
    def nodes(self) -> Iterator[N]:
        """All nodes, in their order."""
        return iter(self._nodes.values())

    def order(self) -> Sequence[str]:
        """The names in topological order of the connections without delay; among free nodes, the first made is first.

        Raises:
            CycleError: A cycle has total delay 0.
        """
        return self._order

    @cached_property
    def _order(self) -> list[str]:
        names = list(self._nodes)
        successors = self._successors({name: i for i, name in enumerate(names)})
        order = [names[i] for i in topological_order(successors)]
        if len(order) < len(names):
            import networkx as nx  # only here: it takes longer to import than most graphs take to check

            left = self._nodes.keys() - order
            stuck: nx.DiGraph[str] = nx.DiGraph()
            for name, followers in zip(names, successors, strict=True):
                if name in left:
                    stuck.add_edges_from((name, names[i]) for i in followers if names[i] in left)
            raise CycleError([source for source, _ in nx.find_cycle(stuck)])
        return order

    def _successors(self, index: Mapping[str, int]) -> list[list[int]]:
        """For each node, the indices of those that read its value without delay."""
        raise NotImplementedError

    def check(self) -> None:
        """Check the invariants.

        Raises:
            GraphError: A cycle has total delay 0; an output is not a node; or another invariant does not hold.
        """
        if self._checked:
            return
        self.order()
        for output, name in self.outputs.items():
            if name not in self:
                raise GraphError(f"the output '{output}' is '{name}', which is not a node.")
        self._check_nodes()
        self._checked = True

    def _check_nodes(self) -> None: ...


class BlockGraph(_Graph[BlockNode]):
    """Calls of blocks and the edges between them: a directed multigraph.

    Args:
        outputs: Name of an output -> the node whose value it is.
        time: How the network runs in time; None if it runs once. Only with it may edges have delays.
        warnings: What is allowed in the spec but probably unintended.
        left_out: Edges of the spec at nodes that are left out, since they reach no output or no input reaches them.
        norms: Fields of all norms that do not set them.

    Raises:
        GraphError: Two nodes have one name, or an end of an edge is not a node.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[BlockNode],
        edges: Iterable[BlockEdge],
        outputs: Mapping[str, str],
        time: TimeSpec | None = None,
        warnings: tuple[Problem, ...] = (),
        left_out: tuple[BlockEdge, ...] = (),
        norms: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(name, nodes, outputs, time)
        self.warnings, self.left_out, self.norms = warnings, left_out, dict(norms or {})
        self._outgoing: dict[str, list[BlockEdge]] = {name: [] for name in self._nodes}
        for edge in edges:
            for end in (edge.source, edge.target):
                if end not in self._nodes:
                    raise GraphError(f"the edge '{edge.name}' ends at '{end}', which is not a node.")
            self._outgoing[edge.source].append(edge)

    @property
    def inputs(self) -> tuple[BlockNode, ...]:
        """The nodes without a block."""
        return tuple(node for node in self.nodes if node.block is None)

    @property
    def edges(self) -> Iterator[BlockEdge]:
        """All edges, by source in the order of nodes."""
        return chain.from_iterable(self._outgoing.values())

    def incoming(self, name: str) -> Sequence[BlockEdge]:
        """The edges into a node, by slot and rank."""
        return self._incoming[name]

    @cached_property
    def _incoming(self) -> dict[str, list[BlockEdge]]:
        found: dict[str, list[BlockEdge]] = {name: [] for name in self._nodes}
        for edge in self.edges:
            found[edge.target].append(edge)
        for edges in found.values():
            if len(edges) > 1:
                edges.sort(key=lambda edge: (edge.slot, edge.rank))
        return found

    def _successors(self, index: Mapping[str, int]) -> list[list[int]]:
        return [[index[edge.target] for edge in edges if edge.delay == 0] for edges in self._outgoing.values()]


class OpGraph(_Graph[OpNode]):
    """Calls of primitive operations, each with its operands.

    Args:
        outputs: Name of an output -> the node whose value it is.
        records: The nodes and edges of the block graph that it was made from.
        time: How the network runs in time. With it, this is the graph of one step, and operands may be delayed.
        folded: The one-step graph that an unrolled graph was made from.

    Raises:
        GraphError: Two nodes have one name, or an operand is not a node.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[OpNode],
        outputs: Mapping[str, str],
        records: Records = _NO_RECORDS,
        time: TimeSpec | None = None,
        folded: OpGraph | None = None,
    ) -> None:
        super().__init__(name, nodes, outputs, time)
        self.records = records
        self.folded = folded
        for node in self.nodes:
            for operand in node.operands:
                if operand not in self._nodes:
                    raise GraphError(f"the operand '{operand}' of '{node.name}' is not a node.")

    @property
    def inputs(self) -> tuple[OpNode, ...]:
        """The nodes without an operation."""
        return tuple(node for node in self.nodes if node.op is None)

    def operand_shapes(self, node: OpNode) -> tuple[Shape, ...]:
        """The shapes of a node's operands, in order."""
        return tuple(self._nodes[operand].shape for operand in node.operands)

    def restricted(self, keep: Callable[[str], bool], stand_ins: Mapping[str, str] | None = None) -> OpGraph:
        """The graph without some nodes; operands and outputs move from a node in `stand_ins` to the one it maps to.

        Records of nodes whose value is gone, and of the edges at them, go too.
        """
        moved = stand_ins or {}
        nodes = [
            replace(node, operands=tuple(moved.get(operand, operand) for operand in node.operands))
            if moved and not moved.keys().isdisjoint(node.operands)
            else node
            for node in self.nodes
            if keep(node.name)
        ]
        present = {node.name for node in nodes}
        node_records = tuple(
            replace(
                record,
                value=moved.get(record.value, record.value),
                at_steps=tuple((step, moved.get(value, value)) for step, value in record.at_steps),
            )
            for record in self.records.nodes
            if moved.get(record.value, record.value) in present
        )
        named = {record.name for record in node_records}
        edge_records = tuple(edge for edge in self.records.edges if edge.source in named and edge.target in named)
        outputs = {name: moved.get(value, value) for name, value in self.outputs.items()}
        return OpGraph(self.name, nodes, outputs, Records(node_records, edge_records), self.time, self.folded)

    def _successors(self, index: Mapping[str, int]) -> list[list[int]]:
        successors: list[list[int]] = [[] for _ in index]
        for i, node in enumerate(self.nodes):
            if node.delay == 0:
                for operand in node.operands:
                    successors[index[operand]].append(i)
        return successors

    def _check_nodes(self) -> None:
        """Numbers of operands and shapes follow the rules of the operations; calls that share weights agree."""
        shared: dict[str, tuple[OpNode, Op, tuple[Tensor, ...], Layer | None]] = {}
        for node in self.nodes:
            op, shapes = node.op, self.operand_shapes(node)
            if op is None or (not shapes and node.role == "arrival"):
                continue  # no edge leads to a state without operands
            if not shapes or (op.arity is not None and len(shapes) != op.arity):
                raise GraphError(f"'{node.name}' has {len(shapes)} operands.", node.origin)
            if op.shape(*shapes) != node.shape:
                message = f"'{node.name}' has the shape {node.shape}, but its rule gives {op.shape(*shapes)}."
                raise GraphError(message, node.origin)
            tensors = op.tensors(*shapes)
            if not tensors:
                continue
            layer = op.layer(*shapes)
            first, first_op, first_tensors, first_layer = shared.setdefault(node.weights, (node, op, tensors, layer))
            fault = ""
            if first_op.kind != op.kind:
                fault = f"one is a '{first_op.kind}' and the other a '{op.kind}'"
            elif first_tensors != tensors and _sizes(first_tensors) == _sizes(tensors):
                one, other = next(pair for pair in zip(first_tensors, tensors, strict=True) if pair[0] != pair[1])
                fault = f"'{one.name}' starts from {_start(one)} in one and from {_start(other)} in the other"
            elif first_tensors != tensors:
                fault = f"the tensors would be {_sizes(first_tensors)} and {_sizes(tensors)}"
            elif layer != first_layer and op.apply(*shapes) is None:
                fault = f"they differ in fields of '{op.kind}' that must agree"
            if fault:
                both = f"'{first.name}' and '{node.name}'"
                hint = "Give them different 'weights', or equal fields (and 'per_step')."
                raise GraphError(f"{both} share the weights '{node.weights}', but {fault}.", node.origin, hint)


def _sizes(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in tensors if tensor.trainable)


def _start(tensor: Tensor) -> str:
    """The initial value of a tensor, or the rule for it."""
    return {"zeros": "0", "ones": "1", "constant": f"{tensor.value:g}"}.get(tensor.init, tensor.init)
