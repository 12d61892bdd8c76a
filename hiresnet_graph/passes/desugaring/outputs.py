"""The outputs of a section, and the part of it that they need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hiresnet_graph.errors import ExpressionError
from hiresnet_graph.graph import BlockEdge, BlockGraph, BlockNode
from hiresnet_graph.passes.desugaring.context import SectionContext
from hiresnet_graph.passes.desugaring.weights import named_weights
from hiresnet_graph.passes.names import Addresses
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.section import Section
from hiresnet_graph.traversal import reachable


@dataclass(frozen=True)
class Original:
    """The network of a spec before a change, such as a variant or another edge set.

    What the change leaves without a reader is no new output, and no error.

    Attributes:
        nodes: Its nodes and stages, as the spec names them.
        outputs: Names of its outputs.
        flow_inputs: Its inputs where the flow starts.
        weights: The names that `weights` gives.
    """

    nodes: frozenset[str]
    outputs: tuple[str, ...]
    flow_inputs: frozenset[str]
    weights: frozenset[str]

    @classmethod
    def of(cls, graph: BlockGraph, nodes: Iterable[str]) -> Original:
        """The part of a graph that its changed versions are compared with.

        Args:
            nodes: The keys of `nodes` in its spec, which may name more nodes than are left in the graph.
        """
        inputs = {node.name for node in graph.inputs}
        flow = {edge.source for edge in graph.edges if edge.family == "flow"}
        weights = frozenset(named_weights(graph.nodes, graph.edges))
        return cls(frozenset(inputs.union(nodes)), tuple(graph.outputs), frozenset(inputs & flow), weights)


class SectionOutputs(SectionContext):
    """The outputs of the nodes and edges of a section.

    Args:
        original: Of the spec before its changes; None without changes.
    """

    def __init__(
        self,
        section: Section,
        problems: Problems,
        addresses: Addresses,
        nodes: Mapping[str, BlockNode],
        edges: list[BlockEdge],
        original: Original | None,
    ) -> None:
        super().__init__(section, problems)
        self.addresses, self.nodes, self.edges, self.original = addresses, nodes, edges, original

    def candidates(self, reached: Collection[str]) -> dict[str, str]:
        """Name -> node, as `outputs` lists them; by default the ends: the nodes without an edge to another."""
        if self.section.outputs is not None:
            return self._listed(self.section.outputs)
        ends = self._retained(self._sinks(reached), reached)
        return {self.addresses.sources(end)[0].label: end for end in ends}

    def checked(self, found: dict[str, str]) -> dict[str, str]:
        """The outputs among the candidates; empty after an error."""
        if self.section.outputs is not None or len(found) == 1:
            return found
        if self.problems.found:
            return {}  # nodes that should be connected look like ends
        if found:
            names, first = ", ".join(found), next(iter(found.values()))
            message = f"there are {len(found)} ends: {names}."
            hint = (
                f"Connect all but one, or set 'outputs' to those of them that are outputs, like 'outputs: [{names}]'."
            )
            self.problems.add(self.path("nodes", self.label(first)), message, hint, key=True)
        elif any(edge.delay > 0 for edge in self.edges):  # without delays, there is a cycle, which is a problem itself
            message = "no node is an output: another node reads every value."
            hint = f"Set the outputs, like 'outputs: [{self.label([*self.nodes][-1])}]'."
            self.problems.add(self.path("nodes"), message, hint, key=True)
        return {}

    def required(self, outputs: Mapping[str, str]) -> set[str]:
        """The inputs, the nodes from which a path leads to an output, and those that may not be left out.

        A node may be left out if the spec was changed and had it before, or if dead nodes are pruned. States stay, as
        they may be empty, and so do those from which a path leads to a state.
        """
        sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            sources[edge.target].append(edge.source)
        states = [name for name, node in self.nodes.items() if is_state(node, self.section)]
        found = reachable([*outputs.values(), *states], sources.__getitem__) | self.section.inputs.keys()
        if self.section.prune == "dead" or not outputs:
            return found if outputs else set(self.nodes)
        return found | {name for name in self.nodes if not self.is_original(name)}

    def is_original(self, name: str) -> bool:
        """Whether a node was there before the changes of the spec."""
        return self.original is not None and self.label(name) in self.original.nodes

    def label(self, name: str) -> str:
        """The key of `nodes` that a node is part of."""
        return self.nodes[name].stage or name

    def _retained(self, sinks: Sequence[str], reached: Collection[str]) -> Sequence[str]:
        """The ends that are outputs: those of the spec before its changes that no new node reads, and new ends."""
        if self.original is None:
            return sinks
        read = {edge.source for edge in self.edges if not self.is_original(edge.target)}
        named = {self.label(name) for name in self.nodes}
        calls = [self.addresses.sources(name)[0].call for name in self.original.outputs if name in named]
        old = [call for call in calls if call in self.nodes and call not in read]
        new = [sink for sink in sinks if not self.is_original(sink)]
        if new and not any(call in reached for call in old):
            return new  # they replace the previous outputs, which were disconnected
        return [*old, *new] or sinks

    def _listed(self, listed: tuple[str, ...]) -> dict[str, str]:
        outputs: dict[str, str] = {}
        for i, address in enumerate(listed):
            path = self.path("outputs", i)
            try:
                ends = self.addresses.sources(address)
            except ExpressionError as error:
                self.problems.add(path, error.message, error.hint)
                continue
            if len(ends) > 1 or "*" in address or ends[0].part:
                message = f"an output must be a single node, and '{address}' is not."
                self.problems.add(path, message, "Name nodes or blocks.")
            if address in outputs:
                self.problems.add(path, f"'{address}' is listed twice.", "Remove one.")
            outputs[address] = ends[0].call
        return outputs

    def _sinks(self, reached: Collection[str]) -> list[str]:
        """The nodes without an edge to another. States that nothing reads do not count: ablations make them."""
        calls = [name for name in self.nodes if name not in self.section.inputs]
        sources = {edge.source for edge in self.edges}
        sinks = [name for name in calls if name not in sources]
        if not sinks and self.section.time is not None:  # the end of the flow, whose value is read at later steps
            sources = {edge.source for edge in self.edges if edge.family == "flow" or edge.delay == 0}
            sinks = [name for name in calls if name not in sources]
        sinks = [name for name in sinks if name in reached] or sinks
        return [name for name in sinks if not is_state(self.nodes[name], self.section)] or sinks


def is_state(node: BlockNode, section: Section) -> bool:
    """Whether a node of a network in time declares its shape."""
    return section.time is not None and node.declared is not None


def live_nodes(starts: Iterable[str], edges: Sequence[BlockEdge]) -> set[str]:
    """The starts, and the nodes at whose slot `input` a value arrives that comes from one of them.

    An edge carries a value if its source and its gate have one.
    """
    uses: dict[str, list[BlockEdge]] = {}
    for edge in edges:
        if edge.slot == "input":
            for name in filter(None, (edge.source, edge.gate)):
                uses.setdefault(name, []).append(edge)
    found = set(starts)
    todo = list(found)
    while todo:
        for edge in uses.get(todo.pop(), ()):
            if edge.target not in found and edge.source in found and (edge.gate is None or edge.gate in found):
                found.add(edge.target)
                todo.append(edge.target)
    return found
