"""The network as a graph, and what must hold of it.

One type serves two levels. After `passes.desugar` a node is a call of a block, and edges carry slots, merges and
projections. After `passes.expand` a node is a call of one primitive operation, and an edge is one of its operands.
A node is a call, weights are a name: calls that share weights are different nodes with one `weights`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Literal

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import HrgError, Position
from hiresnet_graph.merges import Merge
from hiresnet_graph.ops import Layer, Op, Tensor
from hiresnet_graph.projections import Projection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep, TimeSpec

if TYPE_CHECKING:
    import networkx as nx

Family = Literal["flow", "skip", "edge", "shortcut", "gate"]
Role = Literal["call", "merge", "edge", "arrival", "value"]
"""What a call is in a graph of one step: part of a node, the merge of a slot, part of an edge, the end of an edge, or
the place where a node's value is read. The first three compute."""


class GraphError(HrgError):
    """An invariant of a graph does not hold. `origin` is what caused it, if one thing did."""

    def __init__(self, message: str, origin: Origin | None = None) -> None:
        super().__init__(message)
        self.origin = origin


class CycleError(GraphError):
    """A cycle has total delay 0, so its order is undefined. `names` are its nodes, in order."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"the cycle {' -> '.join([*names, names[0]])} has total delay 0.")
        self.names = names


@dataclass(frozen=True, slots=True)
class Origin:
    """What in the spec caused a node or an edge.

    Attributes:
        path: Address in the spec, like `nodes.stage1` or `skips.edges`.
        position: Its place in a file, if it came from one.
    """

    path: str
    position: Position | None = None

    def __str__(self) -> str:
        return f"{self.position} ({self.path})" if self.position else self.path


@dataclass(frozen=True, slots=True)
class PartPatch:
    """Fields to change in one part of a block.

    Attributes:
        key: The address as the spec has it; exact ones win over patterns.
        address: What of it lies inside the block.
        optional: It names a whole node elsewhere, so nothing is amiss if there is no such part.
    """

    key: str
    address: str
    fields: Mapping[str, object]
    origin: Origin
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A call of a block or of an operation.

    Attributes:
        block: What is called; None for an input.
        weights: Name of its weights; a prefix of the names of all tensors in it.
        merge: How values that arrive at the slot `input` become one; None for a call of an operation whose edges are
            its operands.
        named_weights: The spec gave the name of the weights; such names are global, also inside blocks.
        private: What inside takes its tensors from the name of the call, not from `weights` (in a tied stage).
        per_step: What inside has a copy for each time step; None for what the graph says.
        patches: Fields to change in parts of a block.
        shape: Of the output, without the batch; known for inputs and after expansion.
        owner: The node or edge of the spec's level that an operation belongs to.
        role: What an operation is in a graph of one step.
        at: Steps at which the edge is open that an operation belongs to; None for all.
        step: The step at which an operation of an unrolled graph runs.
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
    owner: str = ""
    role: Role = "call"
    at: tuple[int, ...] | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection.

    Attributes:
        name: Prefix of the tensors on the edge.
        slot: Where it arrives.
        part: The part of the source's block whose output is meant; empty for the block's own output.
        rank: Place among the operands of the slot.
        merge, projection, block, gate, delay: As in the spec; None where it says nothing.
        at: Steps at which a value may arrive; None for all.
        weights: Name of the weights, if it is not that of the edge.
        per_step: What on it has a copy for each time step; None for what the graph says.
        ends: Source and target as the spec names them (a stage rather than its last block).
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
    gate: str | None = None
    delay: int = 0
    at: tuple[int, ...] | None = None
    weights: str = ""
    per_step: PerStep | None = None
    ends: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of the spec's level, for tables and diagrams. `value` names the call that gives its output."""

    name: str
    block: str
    value: str
    shape: Shape
    stage: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """One edge of the spec's level, for tables and diagrams.

    Attributes:
        merge: Empty where it arrives alone.
        gate: The node by whose value it is multiplied, or nothing.
        at: Steps at which it is open; None for all.
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
    gate: str = ""
    at: tuple[int, ...] | None = None


class Graph:
    """Nodes and edges, with named outputs: a directed multigraph. Never changed after construction.

    networkx is imported where it is asked for (`to_networkx`, the search for a cycle): importing it, and a dict for
    each edge, would be a good part of the time that a check takes.

    Args:
        outputs: Name of an output -> name of the node whose value it is.
        nodes, edges: In the order in which they were written or made.
        records: What the nodes and edges were at the spec's level, once expanded.
        time: How it runs in time; None where it runs once. Then edges may have delays, and it is the graph of one step.
        folded: Of an unrolled graph, the graph of one step.

    Raises:
        GraphError: Two nodes have one name, or an edge ends at no node.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[Node],
        edges: Iterable[Edge],
        outputs: Mapping[str, str],
        records: tuple[tuple[NodeRecord, ...], tuple[EdgeRecord, ...]] = ((), ()),
        time: TimeSpec | None = None,
        folded: Graph | None = None,
    ) -> None:
        self.name = name
        self.time = time
        self.folded = folded
        self.outputs = dict(outputs)
        self.records = records
        self._checked = False
        self._nodes: dict[str, Node] = {}
        for node in nodes:
            if node.name in self._nodes:
                raise GraphError(f"two nodes are called '{node.name}'.")
            self._nodes[node.name] = node
        self._outgoing: dict[str, list[Edge]] = {name: [] for name in self._nodes}
        for edge in edges:
            for end in (edge.source, edge.target):
                if end not in self._nodes:
                    raise GraphError(f"the edge '{edge.name}' ends at '{end}', which is not a node.")
            self._outgoing[edge.source].append(edge)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    @property
    def nodes(self) -> Iterator[Node]:
        """All nodes, in their order."""
        return iter(self._nodes.values())

    @property
    def edges(self) -> Iterator[Edge]:
        """All edges, by source in the order of nodes."""
        return chain.from_iterable(self._outgoing.values())

    def incoming(self, name: str) -> Sequence[Edge]:
        """The edges into a node, by slot and rank."""
        return self._incoming[name]

    @cached_property
    def _incoming(self) -> dict[str, list[Edge]]:
        found: dict[str, list[Edge]] = {name: [] for name in self._nodes}
        for edge in self.edges:
            found[edge.target].append(edge)
        for edges in found.values():
            if len(edges) > 1:
                edges.sort(key=lambda edge: (edge.slot, edge.rank))
        return found

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes without a block."""
        return tuple(node for node in self.nodes if node.block is None)

    @property
    def expanded(self) -> bool:
        """Whether every node is a call of one operation."""
        return all(node.block is None or (isinstance(node.block, Op) and node.merge is None) for node in self.nodes)

    def restricted(self, keep: Callable[[str], bool], same: Mapping[str, str] | None = None) -> Graph:
        """The graph without some calls; edges and outputs move from a call in `same` to the one it stands for.

        Records of nodes whose value is gone, and of the edges at them, go too.
        """
        stand_in = same or {}
        nodes = [node for node in self.nodes if keep(node.name)]
        edges = [
            replace(edge, source=stand_in[edge.source]) if edge.source in stand_in else edge
            for edge in self.edges
            if keep(edge.target) and keep(stand_in.get(edge.source, edge.source))
        ]
        outputs = {name: stand_in.get(value, value) for name, value in self.outputs.items()}
        kept = {node.name for node in nodes}
        node_records = [
            replace(record, value=stand_in[record.value]) if record.value in stand_in else record
            for record in self.records[0]
        ]
        node_records = [record for record in node_records if record.value in kept]
        named = {record.name for record in node_records}
        edge_records = [record for record in self.records[1] if record.source in named and record.target in named]
        records = (tuple(node_records), tuple(edge_records))
        return Graph(self.name, nodes, edges, outputs, records, self.time, self.folded)

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """As networkx has it: nodes with the attribute `node`, edges with `edge`."""
        import networkx as nx

        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        graph.add_nodes_from((name, {"node": node}) for name, node in self._nodes.items())
        graph.add_edges_from((edge.source, edge.target, {"edge": edge}) for edge in self.edges)
        return graph

    def order(self) -> Sequence[str]:
        """A topological order along the edges without delay; among the free nodes, the first written comes first.

        Raises:
            CycleError: A cycle has total delay 0.
        """
        return self._order

    @cached_property
    def _order(self) -> list[str]:
        names = list(self._nodes)
        index = {name: i for i, name in enumerate(names)}
        waiting = [0] * len(names)
        successors: list[list[int]] = [[] for _ in names]
        for edge in self.edges:
            if edge.delay == 0:
                successors[index[edge.source]].append(index[edge.target])
                waiting[index[edge.target]] += 1
        ready = [i for i, count in enumerate(waiting) if count == 0]
        order: list[str] = []
        while ready:
            i = heapq.heappop(ready)
            order.append(names[i])
            for j in successors[i]:
                waiting[j] -= 1
                if waiting[j] == 0:
                    heapq.heappush(ready, j)
        if len(order) < len(names):
            import networkx as nx

            stuck: nx.DiGraph[str] = nx.DiGraph()
            for i, count in enumerate(waiting):
                if count:
                    stuck.add_edges_from((names[i], names[j]) for j in successors[i] if waiting[j])
            raise CycleError([source for source, _ in nx.find_cycle(stuck)])
        return order

    def check(self) -> None:
        """Hold the graph against its invariants.

        Raises:
            GraphError: A cycle has total delay 0; an output is no node; a call of an operation has the wrong number of
                operands or another shape than its rule gives; shared weights have unequal shapes.
        """
        if self._checked:
            return
        self.order()
        for output, name in self.outputs.items():
            if name not in self:
                raise GraphError(f"the output '{output}' is '{name}', which is not a node.")
        if self.expanded:
            self._check_calls()
        self._checked = True

    def _check_calls(self) -> None:
        tensors: dict[str, tuple[tuple[Tensor, ...], Layer | None, Node]] = {}
        for node in self.nodes:
            if not isinstance(node.block, Op):
                continue
            operands = self.incoming(node.name)
            arity = node.block.arity
            if not operands and node.role == "arrival":
                continue  # at a state that no edge leads to
            if not operands or (arity is not None and len(operands) != arity):
                raise GraphError(f"'{node.name}' has {len(operands)} operands.")
            shapes = [self._shape(edge.source) for edge in operands]
            if node.block.shape(*shapes) != node.shape:
                raise GraphError(
                    f"'{node.name}' has the shape {node.shape}, but its rule gives {node.block.shape(*shapes)}."
                )
            own = node.block.tensors(*shapes)
            if own:
                layer = node.block.layer(*shapes)
                known, known_layer, first = tensors.setdefault(node.weights, (own, layer, node))
                fault = ""
                if first.block is not None and first.block.kind != node.block.kind:
                    fault = f"one is a '{first.block.kind}' and the other a '{node.block.kind}'"
                elif known != own:
                    fault = f"the tensors would be {_sizes(known)} and {_sizes(own)}"
                elif layer != known_layer and node.block.apply(*shapes) is None:
                    fault = f"they differ in fields of '{node.block.kind}' that must agree"
                if fault:
                    both = f"'{first.name}' and '{node.name}'"
                    raise GraphError(f"{both} share the weights '{node.weights}', but {fault}.", node.origin)

    def _shape(self, name: str) -> Shape:
        shape = self[name].shape
        if shape is None:
            raise GraphError(f"the shape of '{name}' is not known.")
        return shape


def _sizes(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in tensors if tensor.trainable)
