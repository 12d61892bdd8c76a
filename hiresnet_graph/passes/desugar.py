"""Turn a section of a spec into a graph of block calls.

Only this pass and its parts in `desugaring` know the shorthands of specs: stages, patches, flow, edge sets, defaults.
A `BlockGraph` has only nodes and edges.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import BlockEdge, BlockGraph, CycleError
from hiresnet_graph.passes.desugaring.definitions import check_definitions
from hiresnet_graph.passes.desugaring.edges import SectionEdges
from hiresnet_graph.passes.desugaring.kinds import Kinds, WrittenBlock
from hiresnet_graph.passes.desugaring.nodes import SectionNodes
from hiresnet_graph.passes.desugaring.operands import choose_merges, delayed, ranked, spread_factors
from hiresnet_graph.passes.desugaring.outputs import Original, SectionOutputs, is_state, live_nodes
from hiresnet_graph.passes.desugaring.weights import unshared
from hiresnet_graph.passes.limits import TooLarge
from hiresnet_graph.passes.names import Addresses
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.section import Section
from hiresnet_graph.traversal import reachable


def desugar(section: Section, problems: Problems, original: Original | None = None) -> BlockGraph | None:
    """The graph of a section, or None after its problems are recorded.

    Args:
        original: Of the spec before its changes; None without changes.
    """
    kinds = Kinds(section, problems)
    if not section.path:
        check_definitions(section, problems, desugar)
    try:
        made = SectionNodes(section, problems, kinds)
        addresses = Addresses(
            list(section.inputs),
            [name for name in (*made.nodes, *made.broken) if name not in section.inputs],
            {stage: calls for stage, calls in made.stages.items() if calls},
        )
        edges = SectionEdges(section, problems, kinds, made, addresses)
        if problems.found:
            return None
        edges.connect_inputs(original)
    except TooLarge:
        return None
    merges = choose_merges(edges.edges, made.merges, problems)
    nodes = {
        name: replace(node, merge=merges[name, "input"]) if (name, "input") in merges else node
        for name, node in made.nodes.items()
    }
    assembly = _Assembly(section, problems, addresses, nodes, ranked(nodes, edges.edges, merges), original)
    warnings = spread_factors(edges.edges, made.merges, merges)
    if not section.path:
        known = () if original is None else original.weights
        warnings += unshared(section, nodes.values(), edges.edges, known)
    return assembly.graph(edges.undelayed, warnings)


def desugar_block(block: WrittenBlock, shape: Shape) -> BlockGraph:
    """The graph of a block that the spec defines, for an input of this shape.

    Raises:
        SpecError: The definition has errors with these params and this shape.
    """
    section, problems = block.section(shape)
    graph = None if section is None else desugar(section, problems)
    problems.raise_if_any()
    assert graph is not None
    return graph


class _Assembly(SectionOutputs):
    """The graph of nodes and edges: its outputs, its delays, and what must hold of the whole."""

    def graph(self, undelayed: set[str], warnings: tuple[Problem, ...]) -> BlockGraph | None:
        """The graph, or None after a problem.

        Args:
            undelayed: Names of the edges that take their delay from `time`.
        """
        every = self.edges
        if self.section.prune == "dead":
            self._leave_out_dead()
        reached = self._reached()
        found = self.candidates(reached)
        self._report_unreached(self.required(found) - reached, {*found.values()} <= reached)
        outputs = self.checked(found)
        if outputs:
            self._restrict(self.required(outputs))
        edges = self._with_delays(undelayed, set(outputs.values()))
        kept = set(map(id, self.edges))
        left_out = tuple(edge for edge in every if id(edge) not in kept)
        time, nodes = self.section.time, self.nodes.values()
        graph = BlockGraph(self.section.name, nodes, edges, outputs, time, warnings, left_out, self.section.norms)
        try:
            graph.order()
        except CycleError as error:
            self._report_cycle(error, edges)
        return None if self.problems.found else graph

    def _leave_out_dead(self) -> None:
        """Leave out the nodes that no input reaches; it is an error if a given output is among them."""
        states = [name for name, node in self.nodes.items() if is_state(node, self.section)]
        live = live_nodes([*self.section.inputs, *states], self.edges)
        is_given = self.section.outputs is not None or self.original is not None
        outputs = self.candidates(self._reached()) if is_given else {}
        for label, call in outputs.items():
            if call not in live:
                message = f"no path leads from the input to the output '{label}'."
                path = self.path("nodes", self.label(call))
                self.problems.add(path, message, "Keep an edge that leads there.", key=True)
        if not self.problems.found:
            self._restrict(live)

    def _restrict(self, names: Collection[str]) -> None:
        """Leave out all other nodes, the edges at them, and those that they gate."""
        self.nodes = {name: node for name, node in self.nodes.items() if name in names}
        ends = [(edge, {edge.source, edge.target, edge.gate or edge.source}) for edge in self.edges]
        self.edges = [edge for edge, at in ends if at <= self.nodes.keys()]

    def _reached(self) -> set[str]:
        """The nodes to which a path leads from an input."""
        return reachable(self.section.inputs, self._successors().__getitem__)

    def _successors(self) -> dict[str, list[str]]:
        successors: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            successors[edge.source].append(edge.target)
        return successors

    def _report_unreached(self, unreached: Collection[str], has_outputs: bool) -> None:
        """Report where the paths of nodes start to which no path leads from an input.

        Args:
            has_outputs: Whether a path leads to every output.
        """
        if self.problems.found:
            return  # the nodes after an unused input need no problem of their own
        successors = self._successors()
        # An empty state is a warning: ablations make them.
        lost = [name for name in self.nodes if name in unreached and not is_state(self.nodes[name], self.section)]
        entered = {edge.target for edge in self.edges if edge.source in unreached and edge.source != edge.target}
        told: set[str] = set()
        for name in (*(name for name in lost if name not in entered), *lost):
            if name not in told:
                behind = [other for other in reachable([name], successors.__getitem__) if other in lost]
                self._report_lost(name, {*behind} - told, has_outputs)
                told.update(behind)

    def _report_lost(self, name: str, behind: set[str], has_outputs: bool) -> None:
        """Report a node to which no path leads, and so none to these."""
        label = self.label(name)
        others = {self.label(other) for other in behind} - {label}
        also = f" (nor to the {len(others)} nodes after it)" if len(others) > 1 else ""
        hint = f"Add it to 'flow' (a chain may begin 'input -> {label}'), give it an edge, or remove it."
        if not any(edge.family == "flow" and edge.source in self.section.inputs for edge in self.edges):
            hint = f"As another edge starts at the input, the flow does not: begin the chain with 'input -> {label}'."
        if self.original is not None and label in self.original.nodes:
            hint = "Keep an edge that leads there: without it no path leads to the output."
            if has_outputs:
                hint = "Keep an edge that leads there, or leave out what no input reaches: 'prune: dead'."
        message = f"no path leads from the input to '{label}'{also}."
        self.problems.add(self.path("nodes", label), message, hint, key=True)

    def _with_delays(self, undelayed: set[str], outputs: set[str]) -> list[BlockEdge]:
        """The edges, where those of flow and skips without a delay take that of `time`.

        Edges within a stage, from an input and to an output never do.
        """
        time = self.section.time
        if time is None or time.delay == 0:
            return self.edges
        return [
            delayed(edge, time.delay)
            if edge.name in undelayed
            and edge.family != "gate"
            and not (edge.source in self.section.inputs or edge.target in outputs or self._is_within_stage(edge))
            else edge
            for edge in self.edges
        ]

    def _is_within_stage(self, edge: BlockEdge) -> bool:
        stage = self.nodes[edge.source].stage
        return edge.family == "flow" and stage != "" and stage == self.nodes[edge.target].stage

    def _report_cycle(self, error: CycleError, edges: list[BlockEdge]) -> None:
        pairs = set(zip(error.names, [*error.names[1:], error.names[0]], strict=True))
        closing = [edge for edge in edges if (edge.source, edge.target) in pairs]
        chosen = next((edge for edge in closing if edge.family != "flow"), closing[-1])
        delay = "give it 'delay: 1'" if chosen.family != "flow" else "write it in 'edges', with 'delay: 1'"
        hint = f"Reverse the edge that closes the loop, or remove it; or add 'time: {{steps: 5}}', and {delay}."
        if self.section.time is not None:
            of_flow = "Set 'time.delay: 1', or write an edge of it in 'edges', with 'delay: 1'."
            hint = of_flow if chosen.family == "flow" else "Give one of its edges 'delay: 1'."
        self.problems.report(Problem(str(error), chosen.origin.position, chosen.origin.path, hint))
