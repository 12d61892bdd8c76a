"""Turn a section of a spec into a graph of block calls.

Only this pass and its parts in `desugaring` know the shorthands of specs: stages, patches, flow, edge sets, defaults.
A `BlockGraph` has only nodes and edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hiresnet_graph.errors import ExpressionError, Problem
from hiresnet_graph.graph import BlockEdge, BlockGraph, BlockNode, CycleError
from hiresnet_graph.passes.desugaring.context import SectionContext
from hiresnet_graph.passes.desugaring.definitions import check_definitions
from hiresnet_graph.passes.desugaring.edges import SectionEdges
from hiresnet_graph.passes.desugaring.kinds import Kinds, WrittenBlock
from hiresnet_graph.passes.desugaring.nodes import SectionNodes
from hiresnet_graph.passes.desugaring.operands import choose_merges, delayed, ranked, spread_factors
from hiresnet_graph.passes.limits import TooLarge
from hiresnet_graph.passes.names import Addresses
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.section import Section
from hiresnet_graph.traversal import reachable


def desugar(section: Section, problems: Problems) -> BlockGraph | None:
    """The graph of a section, or None after its problems are recorded."""
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
        edges.connect_inputs()
    except TooLarge:
        return None
    merges = choose_merges(edges.edges, made.merges, problems)
    nodes = {
        name: replace(node, merge=merges[name, "input"]) if (name, "input") in merges else node
        for name, node in made.nodes.items()
    }
    assembly = _Assembly(section, problems, addresses, nodes, ranked(nodes, edges.edges, merges))
    return assembly.graph(edges.undelayed, spread_factors(edges.edges, made.merges, merges))


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


class _Assembly(SectionContext):
    """The graph of nodes and edges: its outputs, its delays, and what must hold of the whole."""

    def __init__(
        self,
        section: Section,
        problems: Problems,
        addresses: Addresses,
        nodes: Mapping[str, BlockNode],
        edges: list[BlockEdge],
    ) -> None:
        super().__init__(section, problems)
        self.addresses, self.nodes, self.edges = addresses, nodes, edges

    def graph(self, undelayed: set[str], warnings: tuple[Problem, ...]) -> BlockGraph | None:
        """The graph, or None after a problem.

        Args:
            undelayed: Names of the edges that take their delay from `time`.
        """
        outputs = self._outputs(self._reached())
        edges = self._with_delays(undelayed, set(outputs.values()))
        graph = BlockGraph(self.section.name, self.nodes.values(), edges, outputs, self.section.time, warnings)
        try:
            graph.order()
        except CycleError as error:
            self._report_cycle(error, edges)
        return None if self.problems.found else graph

    def _reached(self) -> set[str]:
        """The nodes to which a path leads from an input; of others, those where their paths start are problems."""
        successors: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            successors[edge.source].append(edge.target)
        reached = reachable(self.section.inputs, successors.__getitem__)
        if self.problems.found:
            return reached  # the nodes after an unused input need no problem of their own
        # An empty state is a warning: ablations make them.
        lost = [name for name in self.nodes if name not in reached and not self._is_state(name)]
        entered = {edge.target for edge in self.edges if edge.source not in reached and edge.source != edge.target}
        told: set[str] = set()
        for name in (*(name for name in lost if name not in entered), *lost):
            if name not in told:
                behind = [other for other in reachable([name], successors.__getitem__) if other in lost]
                self._report_lost(name, {*behind} - told)
                told.update(behind)
        return reached

    def _report_lost(self, name: str, behind: set[str]) -> None:
        """Report a node to which no path leads, and so none to these."""
        label = self.nodes[name].stage or name
        others = {self.nodes[other].stage or other for other in behind} - {label}
        also = f" (nor to the {len(others)} nodes after it)" if len(others) > 1 else ""
        hint = f"Add it to 'flow' (a chain may begin 'input -> {label}'), give it an edge, or remove it."
        if not any(edge.family == "flow" and edge.source in self.section.inputs for edge in self.edges):
            hint = f"As another edge starts at the input, the flow does not: begin the chain with 'input -> {label}'."
        message = f"no path leads from the input to '{label}'{also}."
        self.problems.add(self.path("nodes", label), message, hint, key=True)

    def _outputs(self, reached: set[str]) -> dict[str, str]:
        """Name -> node, as `outputs` lists them; by default the one node without an edge to another."""
        if self.section.outputs is not None:
            return self._listed_outputs(self.section.outputs)
        if self.problems.found:
            return {}  # nodes that should be connected look like ends
        sinks = self._sinks(reached)
        labels = ", ".join(self.addresses.sources(sink)[0].label for sink in sinks)
        if len(sinks) == 1:
            return {labels: sinks[0]}
        if sinks:
            message = f"there are {len(sinks)} ends: {labels}."
            hint = f"Connect all but one, or set 'outputs: [{labels}]'."
            self.problems.add(self.path("nodes", self.nodes[sinks[0]].stage or sinks[0]), message, hint, key=True)
        elif any(edge.delay > 0 for edge in self.edges):  # without delays, there is a cycle, which is a problem itself
            message = "no node is an output: another node reads every value."
            last = list(self.nodes.values())[-1]
            hint = f"Set the outputs, like 'outputs: [{last.stage or last.name}]'."
            self.problems.add(self.path("nodes"), message, hint, key=True)
        return {}

    def _listed_outputs(self, listed: tuple[str, ...]) -> dict[str, str]:
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

    def _sinks(self, reached: set[str]) -> list[str]:
        """The nodes without an edge to another. States that nothing reads do not count: ablations make them."""
        calls = [name for name in self.nodes if name not in self.section.inputs]
        sources = {edge.source for edge in self.edges}
        sinks = [name for name in calls if name not in sources]
        if not sinks and self.section.time is not None:  # the end of the flow, whose value is read at later steps
            sources = {edge.source for edge in self.edges if edge.family == "flow" or edge.delay == 0}
            sinks = [name for name in calls if name not in sources]
        sinks = [name for name in sinks if name in reached] or sinks
        return [name for name in sinks if not self._is_state(name)] or sinks

    def _is_state(self, call: str) -> bool:
        """Whether a node of a network in time declares its shape."""
        return self.section.time is not None and self.nodes[call].declared is not None

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
