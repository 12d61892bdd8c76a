"""A section of a spec as a graph of block calls: stages unrolled, patches applied, flow and skips turned into edges.

This is the only place that knows the spec's sugar. What it makes has calls and edges alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import ExpressionError, Problem
from hiresnet_graph.graph import BlockEdge, BlockGraph, CycleError, Family, Origin
from hiresnet_graph.merges import AddMerge, Merge
from hiresnet_graph.ops import Op
from hiresnet_graph.passes.calls import Calls
from hiresnet_graph.passes.kinds import Kinds, OpOnEdge, WrittenBlock
from hiresnet_graph.passes.limits import MAX_EDGES, MAX_LEVELS, TooLarge
from hiresnet_graph.passes.names import NAME, Addresses, End, name_fault
from hiresnet_graph.projections import IdentityProjection, Projection, StandardProjection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.spec.model import ConnectionSpec, EdgeSpec, SkipSpec, TransitionSpec
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import Section, texts
from hiresnet_graph.spec.source import format_path


def desugar(section: Section, problems: Problems) -> BlockGraph | None:
    """The graph of block calls of a section, or None after its mistakes are noted."""
    return _Desugar(section, problems).run()


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


class _Desugar:
    def __init__(self, section: Section, problems: Problems) -> None:
        self.section = section
        self.problems = problems
        self.kinds = Kinds(section, problems)
        self.edges: list[BlockEdge] = []
        self.edge_names: dict[str, Path] = {}
        self.undelayed: set[str] = set()

    def run(self) -> BlockGraph | None:
        try:
            return self._run()
        except TooLarge:
            return None

    def _run(self) -> BlockGraph | None:
        self.calls = Calls(self.section, self.problems, self.kinds)
        self.nodes, self.broken = self.calls.nodes, self.calls.broken
        self.addresses = Addresses(
            list(self.section.inputs),
            [name for name in (*self.nodes, *self.broken) if name not in self.section.inputs],
            {stage: calls for stage, calls in self.calls.stages.items() if calls},
        )
        self._stages()
        self._flow()
        self._single_edges()
        self._transitions()
        self._skips()
        if self.problems.found:
            return None
        self._connect_inputs()
        self._rank(self._merges())
        reached = self._reach()
        outputs = self._outputs(reached)
        self._delay(outputs.values())
        graph = BlockGraph(self.section.name, self.nodes.values(), self.edges, outputs, time=self.section.time)
        try:
            graph.order()
        except CycleError as error:
            self._cycle(error)
            return None
        return None if self.problems.found else graph

    def _path(self, *parts: str | int) -> Path:
        return (*self.section.path, *parts)

    def _origin(self, path: Path) -> Origin:
        return Origin(format_path(path), self.problems.position(path))

    # edges

    def _edge(
        self, source: End, target: End, path: Path, family: Family, slot: str, name: str, **fields: Any
    ) -> BlockEdge | None:
        if source.call in self.broken or target.call in self.broken:
            return None
        block = self.nodes[target.call].block
        slots = block.slots if isinstance(block, Block) else ("input", "output")
        if slot not in slots:
            kind = block.kind if block is not None else "an input"
            message = f"'{target.label}' ({kind}) has no slot '{slot}'."
            owner = path[:-1] if family == "skip" else path
            self.problems.add((*owner, "slot"), message, f"It has: {', '.join(slots)}.")
            return None
        edge = BlockEdge(
            source.call,
            target.call,
            name,
            self._origin(path),
            family=family,
            slot=slot,
            part=source.part,
            ends=(source.label, target.label),
            **fields,
        )
        self._grow(1, path)
        self.edges.append(edge)
        if family == "flow":
            self.undelayed.add(name)
        return edge

    def _grow(self, count: int, path: Path) -> None:
        if len(self.edges) + count > MAX_EDGES:
            self.problems.add(path, f"there are more than {MAX_EDGES:,} edges.", "Choose fewer.")
            raise TooLarge

    def _stages(self) -> None:
        """The edges between the blocks of each stage."""
        for stage, calls in self.calls.stages.items():
            for before, call in pairwise(calls):
                path = self._path("nodes", stage)
                self._edge(End(before, before), End(call, call), path, "flow", "input", f"flow.{call}")

    def _flow(self) -> None:
        seen: dict[tuple[str, str], Path] = {}
        mentioned: set[str] = set()
        first: End | None = None
        for text, path in self.section.flow:
            offset, previous = 0, None
            for word in text.split("->"):
                name = word.strip()
                at = offset + len(word) - len(word.lstrip())
                offset += len(word) + 2
                if not name:
                    self.problems.add(
                        path, "a chain requires a node on each side of '->'.", "Write 'stem -> stage1'.", offset=at
                    )
                    previous = None
                    continue
                if not all(NAME.match(part) for part in name.split(".")):
                    self.problems.add(path, f"'{name}' is not a node name.", "Write 'stem -> stage1'.", offset=at)
                    previous = None
                    continue
                try:
                    source = self.addresses.sources(name)[0]
                    target = source if name in self.section.inputs else self.addresses.targets(name, "input")[0]
                except ExpressionError as error:
                    self.problems.add(path, error.message, error.hint, offset=at)
                    previous = None
                    continue
                mentioned.add(name)
                if first is None:
                    first = target
                if previous is not None:
                    if name in self.section.inputs:
                        self.problems.add(path, f"'{name}' is an input; no edge may end there.", offset=at)
                    elif (previous.call, target.call) in seen:
                        self.problems.add(
                            path,
                            f"the edge {previous.label} -> {target.label} already exists.",
                            f"It is in {format_path(seen[previous.call, target.call])}; remove one.",
                            offset=at,
                        )
                    else:
                        seen[previous.call, target.call] = path
                        self._edge(
                            previous, target, path, "flow", "input", f"flow.{_plain(previous)}__{_plain(target)}"
                        )
                previous = source
        self._first = first

    def _ends(self, value: Any, path: Path, slot: str | None) -> list[End]:
        found: list[End] = []
        for text, at in texts(value, path):
            try:
                found += self.addresses.sources(text) if slot is None else self.addresses.targets(text, slot)
            except ExpressionError as error:
                self.problems.expression(at, error)
        return found

    def _single_edges(self) -> None:
        for spec, path in self.section.edges:
            slot = spec.slot or "input"
            sources = self._ends(spec.source, (*path, "from"), None)
            targets = self._ends(spec.target, (*path, "to"), slot)
            self._written(spec, path, [(source, target) for source in sources for target in targets], slot, 0)

    def _written(
        self,
        spec: EdgeSpec | TransitionSpec,
        path: Path,
        pairs: Sequence[tuple[End, End]],
        slot: str,
        delay: int,
    ) -> None:
        """The edges of one entry of `edges` or of `transitions`; `delay` is theirs if it gives none."""
        fields_ = dict(spec.model_extra or {})
        block = self.kinds.block(spec.block, fields_, path, beside=type(spec)) if spec.block else None
        if isinstance(block, Op):
            block = OpOnEdge(op=block)
        common = self._common(spec, path, IdentityProjection())
        if common is None or (spec.block and block is None):
            return
        for key in ("name", "weights"):
            if (text := getattr(spec, key)) is not None and (fault := name_fault(text)):
                self.problems.add((*path, key), fault, "Choose another name.")
                return
        if spec.name is not None and len(pairs) > 1:
            self.problems.add(
                (*path, "name"), "one name cannot serve several edges.", "Write them as separate entries."
            )
            return
        if spec.per_step is not None and not self._has_time(path, "per_step"):
            return
        fields = {**common, "block": block, "weights": spec.weights or "", "per_step": spec.per_step}
        fields["delay"] = delay if spec.delay is None else spec.delay
        for source, target in pairs:
            name = f"edges.{spec.name}" if spec.name else f"edges.{_plain(source)}__{_plain(target)}"
            if not self._taken(name, path):
                self._edge(source, target, path, "edge", slot, name, **fields)

    def _transitions(self) -> None:
        """The entries of the matrix that are chosen, as edges with a delay of one step."""
        found: dict[tuple[str, str], list[tuple[TransitionSpec, Path, End, End]]] = {}
        start = len(self.section.path) + 2
        for row, column, spec, path in self.section.transitions:
            source = self._line(row, path[:start], None)
            target = self._line(column, path[: start + 1], spec.slot or "input")
            if source is not None and target is not None:
                found.setdefault((source.label, target.label), []).append((spec, path, source, target))
        if found and not self._has_time(self._path("transitions"), ""):
            return
        for pair in self._chosen_transitions(found):
            for spec, path, source, target in found[pair]:
                self._written(spec, path, [(source, target)], spec.slot or "input", 1)

    def _line(self, name: str, path: Path, slot: str | None) -> End | None:
        """The end that a row or a column of `transitions` names, or None after its mistake is noted."""
        try:
            ends = self.addresses.sources(name) if slot is None else self.addresses.targets(name, slot)
        except ExpressionError as error:
            self.problems.add(path, error.message, error.hint, key=True)
            return None
        if len(ends) != 1 or "*" in name:
            self.problems.add(
                path, "each row and column of 'transitions' must be a single node.", "Leave out '*'.", key=True
            )
            return None
        return ends[0]

    def _chosen_transitions(self, found: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """The pairs of labels that `transitions.edges` selects, in the order in which they were written."""
        if self.section.transition_set is None:
            return list(found)
        index = {self.addresses.sources(name)[0].label: i for i, name in enumerate(self.nodes)}
        ends = {label for pair in found for label in pair}
        levels = sorted(ends, key=lambda label: index.get(label, 0))
        text, path = self.section.transition_set

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            starts, stops = ({e.label for e in self.addresses.sources(name)} for name in (source, target))
            return [pair for pair in found if pair[0] in starts and pair[1] in stops]

        try:
            chosen = EdgeSet.parse(text).select(levels, single)
        except ExpressionError as error:
            item = getattr(error, "item", None)
            at = (*path, item) if isinstance(text, list) and item is not None else path
            self.problems.expression(at, error)
            return []
        return [pair for pair in found if pair in chosen]

    def _has_time(self, path: Path, key: str) -> bool:
        """Whether the section has `time`; if not, what asks for it is a mistake."""
        if self.section.time is None:
            what = f"'{key}'" if key else "'transitions'"
            self.problems.add(
                (*path, key) if key else path,
                f"{what} requires 'time'.",
                "Add it, for example 'time: {steps: 5}'.",
                key=True,
            )
        return self.section.time is not None

    def _taken(self, name: str, path: Path) -> bool:
        names = self.edge_names
        if name in names:
            self.problems.add(
                path,
                f"the edge '{name.removeprefix('edges.')}' already exists, in {format_path(names[name])}.",
                "Remove one, or give this one a 'name'.",
            )
            return True
        names[name] = path
        return False

    def _common(self, spec: ConnectionSpec, path: Path, default: Projection) -> dict[str, Any] | None:
        """What `skips` and `edges` say alike, as fields of an edge."""
        merge_ = None if spec.merge is None else self.kinds.merge(spec.merge, (*path, "merge"))
        projection = self.kinds.projection(spec.projection, (*path, "projection"), default)
        gate = None
        if spec.gate is not None:
            gates = self._ends(spec.gate, (*path, "gate"), None)
            if len(gates) > 1:
                self.problems.add((*path, "gate"), "a gate must be a single node.", "Name it without '*'.")
            if not gates or len(gates) > 1:
                return None
            gate = gates[0].call
        if projection is None or (spec.merge is not None and merge_ is None):
            return None
        timed = {"delay": spec.delay, "at": spec.at}
        if not all(self._has_time(path, key) for key, value in timed.items() if value not in (None, 0)):
            return None
        steps = None if spec.at is None else tuple(sorted({spec.at} if isinstance(spec.at, int) else {*spec.at}))
        return {"merge": merge_, "projection": projection, "gate": gate, "delay": spec.delay or 0, "at": steps}

    def _skips(self) -> None:
        for group, (spec, path) in self.section.skips.items():
            if group and not self.calls.check_name(group, path):
                continue
            common = self._common(spec, path, StandardProjection())
            if common is None:
                continue
            merge_ = common["merge"]
            slot = spec.slot or (merge_.default_slot if merge_ is not None else "output")
            pairs = self._selected(spec, path, slot)
            prefix = f"edges.{group}." if group else "edges."
            for source, target in pairs:
                name = f"{prefix}{_plain(source)}__{_plain(target)}"
                if self._taken(name, (*path, "edges")):
                    continue
                if spec.delay is None:
                    self.undelayed.add(name)
                self._edge(source, target, (*path, "edges"), "skip", slot, name, **common)

    def _selected(self, spec: SkipSpec, path: Path, slot: str) -> list[tuple[End, End]]:
        """The pairs that an edge-set expression selects, in the order of the levels, or of the nodes."""
        levels: list[str] = []
        try:
            items = texts(spec.levels, (*path, "levels")) if spec.levels is not None else []
            levels = self._in_flow_order(self.addresses.levels([text for text, _ in items]))
        except ExpressionError as error:
            self.problems.add(items[error.offset][1], error.message, error.hint)
            return []
        tensors: dict[str, str] = {}
        for level in levels:
            call = self.addresses.sources(level)[0].call
            if call in tensors:
                twice = (
                    f"'{level}' twice" if tensors[call] == level else f"'{tensors[call]}' and '{level}' (one tensor)"
                )
                self.problems.add((*path, "levels"), f"the levels name {twice}.", "Remove one.")
                return []
            tensors[call] = level

        if len(levels) > MAX_LEVELS:
            self.problems.add((*path, "levels"), f"there are {len(levels):,} levels; the limit is {MAX_LEVELS:,}.")
            return []

        # An edge is known by its calls here, so that `stem>stage2` and this pair of levels are one edge.
        targets = {
            call: self.addresses.targets(level, slot)[0]
            for call, level in tensors.items()
            if level not in self.addresses.inputs
        }
        arriving = {end.call: call for call, end in reversed(targets.items())}
        ends: dict[tuple[str, str], tuple[End, End]] = {}

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            starts = self.addresses.sources(source)
            try:
                stops = self.addresses.targets(target, slot)
            except ExpressionError as error:
                raise ExpressionError(error.message, len(source) + 1, error.hint) from None
            if len(starts) * len(stops) > MAX_EDGES:
                raise ExpressionError(f"this selects more than {MAX_EDGES:,} edges.")
            for start in starts:
                for stop in stops:
                    key = (f"{start.call}.{start.part}".strip("."), arriving.get(stop.call, f">{stop.call}"))
                    ends[key] = (start, stop)
                    yield key

        try:
            chosen = EdgeSet.parse(spec.edges).select(list(tensors), single)
        except ExpressionError as error:
            item = getattr(error, "item", None)
            at = (*path, "edges", item) if isinstance(spec.edges, list) and item is not None else (*path, "edges")
            self.problems.expression(at, error)
            return []
        self._grow(len(chosen), (*path, "edges"))
        for key in sorted(chosen - ends.keys()):
            if key[1] not in targets:
                self.problems.add((*path, "levels"), f"'{key[1]}' is an input; no edge may end there.", "Remove it.")
                return []
            ends[key] = (self.addresses.sources(tensors[key[0]])[0], targets[key[1]])
        index = {name: i for i, name in enumerate(self.nodes)}
        return sorted(
            (ends[key] for key in chosen),
            key=lambda pair: (index.get(pair[0].call, -1), pair[0].part, index.get(pair[1].call, -1)),
        )

    def _in_flow_order(self, names: list[str]) -> list[str]:
        """Nodes sorted by their place in the flow; those of equal place stay in the order of `nodes`."""
        order = self._flow_depth()
        index = {name: i for i, name in enumerate(self.nodes)}
        calls = {name: self.addresses.sources(name)[0].call for name in names}
        return sorted(names, key=lambda name: (order.get(calls[name], 0), index.get(calls[name], 0)))

    # structure

    def _flow_depth(self) -> dict[str, int]:
        """Longest path from any start, along the flow and single edges without delay; skips do not count."""
        edges = [edge for edge in self.edges if edge.family in ("flow", "edge") and edge.delay == 0]
        depth: dict[str, int] = dict.fromkeys(self.nodes, 0)
        try:
            order = BlockGraph("", self.nodes.values(), edges, {}).order()
        except CycleError:
            return {name: i for i, name in enumerate(self.nodes)}
        successors: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in edges:
            successors[edge.source].append(edge.target)
        for name in order:
            for target in successors[name]:
                depth[target] = max(depth[target], depth[name] + 1)
        return depth

    def _connect_inputs(self) -> None:
        """Start at the input if no edge does; any other input must be used."""
        used = {edge.source for edge in self.edges}
        if "input" in self.section.inputs and "input" not in used:
            first = self._first or End(*[next(name for name in self.nodes if name not in self.section.inputs)] * 2)
            self._edge(
                End("input", "input"), first, self._path("flow"), "flow", "input", f"flow.input__{_plain(first)}"
            )
        for name in self.section.inputs:
            if name != "input" and name not in used:
                self.problems.add(
                    self.section.input_paths[name],
                    f"the input '{name}' is not used.",
                    f"Start a chain there: 'flow: [{name} -> ...]'.",
                    key=True,
                )

    def _rank(self, merges: Mapping[tuple[str, str], Merge]) -> None:
        """Give each edge its merge and its place among the operands, and add gates."""
        depth = self._flow_depth()
        index = {name: i for i, name in enumerate(self.nodes)}
        add = AddMerge()
        ranked: list[BlockEdge] = []
        gates: list[BlockEdge] = []
        for edge in self.edges:
            flow = edge.family == "flow"
            rank = (
                0 if flow else 1,
                0 if flow else -depth[edge.source],
                index[edge.source],
                edge.delay,
                edge.part,
                edge.name,
            )
            ranked.append(replace(edge, rank=rank, merge=merges.get((edge.target, edge.slot), add)))
            if edge.gate is not None:
                gates.append(
                    BlockEdge(
                        edge.gate, edge.target, f"{edge.name}.gate", edge.origin, family="gate", slot="gate", rank=rank
                    )
                )
        self.edges = ranked + gates
        for (name, slot), merge_ in merges.items():
            if slot == "input":
                self.nodes[name] = replace(self.nodes[name], merge=merge_)

    def _merges(self) -> dict[tuple[str, str], Merge]:
        """One merge for each (target, slot): what the edges say, or the node says of its input."""
        chosen = {(name, "input"): merge_ for name, merge_ in self.calls.merges.items()}
        for edge in self.edges:
            if edge.merge is None:
                continue
            key = (edge.target, edge.slot)
            if key in chosen and edge.merge not in (chosen[key], chosen[key].changed({"order": None})):
                other = f"'{chosen[key].kind}'" + (" with other fields" if chosen[key].kind == edge.merge.kind else "")
                self.problems.report(
                    Problem(
                        f"'{edge.ends[1]}' gets merge '{edge.merge.kind}' at its slot '{edge.slot}', "
                        f"but has {other} there.",
                        edge.origin.position,
                        edge.origin.path,
                        "Insert a node '{block: identity}', or use one merge.",
                    )
                )
            chosen.setdefault(key, edge.merge)
        return chosen

    def _outputs(self, reached: set[str]) -> dict[str, str]:
        sources = {edge.source for edge in self.edges}
        sinks = [name for name in self.nodes if name not in sources and name not in self.section.inputs]
        if not sinks and self.section.time is not None:  # the end of the flow, from which values come back later
            now = {edge.source for edge in self.edges if edge.family == "flow" or edge.delay == 0}
            sinks = [name for name in self.nodes if name not in now and name not in self.section.inputs]
        sinks = [name for name in sinks if name in reached] or sinks
        sinks = [name for name in sinks if not self._is_state(name)] or sinks  # ablations make states that none reads
        given = self.section.outputs
        if given is not None:
            outputs = {}
            for i, address in enumerate(given):
                # A text alone has no items; its place is that of the key, then.
                path = self._path("outputs", i)
                try:
                    ends = self.addresses.sources(address)
                except ExpressionError as error:
                    self.problems.add(path, error.message, error.hint)
                    continue
                if len(ends) > 1 or "*" in address or ends[0].part:
                    self.problems.add(
                        path, f"an output must be a single node, and '{address}' is not.", "Name nodes or blocks."
                    )
                if address in outputs:
                    self.problems.add(path, f"'{address}' is listed twice.", "Remove one.")
                outputs[address] = ends[0].call
            return outputs
        if len(sinks) != 1:
            labels = ", ".join(self.addresses.sources(sink)[0].label for sink in sinks)
            if not sinks and all(edge.delay == 0 for edge in self.edges):
                pass  # then there is a cycle, which is told
            elif not sinks:
                self.problems.add(
                    self._path("nodes"),
                    "no node is an output: another node reads every value.",
                    "Set the outputs: 'outputs: [head]'.",
                    key=True,
                )
            else:
                place = self._place_of(sinks[0])
                self.problems.add(
                    place,
                    f"there are {len(sinks)} ends: {labels}.",
                    f"Connect all but one, or set 'outputs: [{labels}]'.",
                    key=True,
                )
            return {}
        return {self.addresses.sources(sinks[0])[0].label: sinks[0]}

    def _delay(self, outputs: Collection[str]) -> None:
        """Give flow and skips that have no delay of their own that of `time`; none within a stage, and at both ends."""
        if self.section.time is None or self.section.time.delay == 0:
            return
        for i, edge in enumerate(self.edges):
            stage = self.nodes[edge.source].stage
            within = edge.family == "flow" and stage != "" and stage == self.nodes[edge.target].stage
            ends = edge.source in self.section.inputs or edge.target in outputs
            if edge.name in self.undelayed and edge.family != "gate" and not within and not ends:
                delay = self.section.time.delay
                self.edges[i] = replace(edge, delay=delay, rank=(*edge.rank[:3], delay, *edge.rank[4:]))

    def _is_state(self, call: str) -> bool:
        """Whether a node of a network in time is a place of declared shape."""
        block = self.nodes[call].block
        return isinstance(block, Block) and block.declared is not None and self.section.time is not None

    def _place_of(self, call: str) -> Path:
        return self._path("nodes", self.nodes[call].stage or call)

    def _cycle(self, error: CycleError) -> None:
        names = error.names
        pairs = set(zip(names, [*names[1:], names[0]], strict=True))
        closing = [edge for edge in self.edges if (edge.source, edge.target) in pairs]
        chosen = next((edge for edge in closing if edge.family != "flow"), closing[-1])
        self.problems.report(
            Problem(
                str(error),
                chosen.origin.position,
                chosen.origin.path,
                "Reverse the edge that closes the loop, or remove it."
                if self.section.time is None
                else "Give one of its edges 'delay: 1'.",
            )
        )

    def _reach(self) -> set[str]:
        """The nodes to which a path leads from an input."""
        successors: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            successors[edge.source].append(edge.target)
        reached = set(self.section.inputs)
        todo = list(reached)
        while todo:
            for target in successors[todo.pop()]:
                if target not in reached:
                    reached.add(target)
                    todo.append(target)
        told = set()
        if self.problems.found:
            return reached  # an input that nothing uses is told, and why the rest is not reached
        for name, node in self.nodes.items():
            label = node.stage or name
            if self._is_state(name):
                continue  # it may be empty at all times: ablations make such, and a warning tells it
            if name not in reached and label not in told:
                told.add(label)
                self.problems.add(
                    self._place_of(name),
                    f"no path leads from the input to '{label}'.",
                    f"Add it to 'flow' (a chain may begin 'input -> {label}'), give it an edge, or remove it.",
                    key=True,
                )
        return reached


def _plain(end: End) -> str:
    return end.label.replace(".", "_")
