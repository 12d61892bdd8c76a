"""The edges of a section: within stages, along the flow, single ones, transitions and skips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import ExpressionError
from hiresnet_graph.graph import BlockEdge, BlockNode, Family
from hiresnet_graph.ops import Op
from hiresnet_graph.passes.desugaring.context import SectionContext
from hiresnet_graph.passes.desugaring.edge_sets import EdgeSetReader, Pair
from hiresnet_graph.passes.desugaring.kinds import Kinds, OpOnEdge
from hiresnet_graph.passes.desugaring.nodes import SectionNodes
from hiresnet_graph.passes.desugaring.operands import flow_depth
from hiresnet_graph.passes.desugaring.outputs import Original
from hiresnet_graph.passes.limits import MAX_EDGES, TooLarge
from hiresnet_graph.passes.names import NAME, Addresses, End
from hiresnet_graph.projections import IdentityProjection, Projection, StandardProjection
from hiresnet_graph.spec.marked import format_path
from hiresnet_graph.spec.model import ConnectionSpec, EdgeSpec, TransitionSpec
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import Section, texts


class _Link(NamedTuple):
    """A node in a chain of the flow, as the target of the edge before it and as the source of the one after it."""

    name: str
    offset: int
    target: End
    source: End


class SectionEdges(SectionContext):
    """The edges of a section, made on construction.

    Attributes:
        edges: All edges, without ranks; `merge` only where they set it themselves.
        undelayed: Names of the edges that take their delay from `time`.

    Raises:
        TooLarge: There are more edges than the limit.
    """

    def __init__(
        self, section: Section, problems: Problems, kinds: Kinds, made: SectionNodes, addresses: Addresses
    ) -> None:
        super().__init__(section, problems)
        self.kinds, self.addresses = kinds, addresses
        self.nodes: Mapping[str, BlockNode] = made.nodes
        self.broken = made.broken
        self.edges: list[BlockEdge] = []
        self.undelayed: set[str] = set()
        self._names: dict[str, Path] = {}
        self._flow_names: set[str] = set()
        self._first: End | None = None
        self._sets = EdgeSetReader(addresses, problems, made.nodes, self._check_size)
        self._inner = {pair for calls in made.stages.values() for pair in pairwise(calls)}
        for stage, calls in made.stages.items():
            for before, call in pairwise(calls):
                self._add(End(before, before), End(call, call), self.path("nodes", stage), "flow", f"flow.{call}")
        self._add_flow()
        self._add_single_edges()
        self._add_transitions()
        self._add_skips()

    def connect_inputs(self, original: Original | None) -> None:
        """Add the edge from the input to the first node, if no edge leaves the input; report other unused inputs.

        A change of the spec may leave an input without a reader, and connects it to nothing else.
        """
        used = {edge.source for edge in self.edges}
        for name in self.section.inputs:
            if name in used or (original is not None and name in original.nodes - original.flow_inputs):
                continue
            if name != "input" and (original is not None or self.section.prune == "dead"):
                continue
            if name == "input":
                first = self._first
                if first is None:
                    call = next(call for call in self.nodes if call not in self.section.inputs)
                    first = End(call, call)
                self._add(End(name, name), first, self.path("flow"), "flow", self._flow_name(End(name, name), first))
            else:
                message = f"the input '{name}' is not used."
                hint = f"Start a chain there: 'flow: [{name} -> ...]'."
                self.problems.add(self.section.input_paths[name], message, hint, key=True)

    def _add(
        self, source: End, target: End, path: Path, family: Family, name: str, slot: str = "input", **fields: Any
    ) -> None:
        """Add an edge, unless an end of it is broken or the target has no such slot."""
        if source.call in self.broken or target.call in self.broken:
            return
        block = self.nodes[target.call].block
        slots = block.slots if isinstance(block, Block) else ("input", "output")
        if slot not in slots:
            kind = block.kind if block is not None else "an input"
            owner = path[:-1] if family == "skip" else path
            message = f"'{target.label}' ({kind}) has no slot '{slot}'."
            self.problems.add((*owner, "slot"), message, f"It has: {', '.join(slots)}.")
            return
        self._check_size(1, path)
        ends = (source.label, target.label)
        origin = self.origin(path)
        edge = BlockEdge(source.call, target.call, name, origin, family, slot, source.part, ends=ends, **fields)
        self.edges.append(edge)
        if family == "flow":
            self.undelayed.add(name)

    def _check_size(self, count: int, path: Path) -> None:
        if len(self.edges) + count > MAX_EDGES:
            self.problems.add(path, f"there are more than {MAX_EDGES:,} edges.", "Choose fewer.")
            raise TooLarge

    def _is_new(self, name: str, path: Path) -> bool:
        """Whether there is no edge of this name yet; if there is, that is a problem."""
        if name in self._names:
            message = f"the edge '{name.removeprefix('edges.')}' already exists, in {format_path(self._names[name])}."
            self.problems.add(path, message, "Remove one, or give this one a 'name'.")
            return False
        self._names[name] = path
        return True

    # flow

    def _add_flow(self) -> None:
        seen: dict[tuple[str, str], Path] = {}
        chains = [text for text, _ in self.section.flow]
        if len(chains) > 1 and not any("->" in text for text in chains) and not self.section.edges:
            message = "a list holds chains, and none of these has a '->'."
            self.problems.add(self.path("flow"), message, f"Write 'flow: {chains[0]} -> {chains[1]} -> ...'.")
            return
        for text, path in self.section.flow:
            previous: End | None = None
            for link in self._chain(text, path):
                if link is None:
                    previous = None
                    continue
                self._first = self._first or link.target
                if previous is not None:
                    self._add_link(previous, link, path, seen)
                previous = link.source

    def _flow_name(self, source: End, target: End) -> str:
        """The name of an edge of the flow; numbered where addresses become one name, like `s.block1` and `s_block1`."""
        name = f"flow.{_plain(source)}__{_plain(target)}"
        found, number = name, 2
        while found in self._flow_names:
            found, number = f"{name}_{number}", number + 1
        self._flow_names.add(found)
        return found

    def _chain(self, text: str, path: Path) -> Iterator[_Link | None]:
        """The nodes of a chain like `stem -> stage1`; None for a word that is not a node."""
        offset = 0
        for word in text.split("->"):
            yield self._link(word.strip(), path, offset + len(word) - len(word.lstrip()))
            offset += len(word) + 2

    def _link(self, name: str, path: Path, offset: int) -> _Link | None:
        hint = "Write 'FROM -> TO', with the names of nodes."
        if not name:
            message = "a chain requires a node on each side of '->'."
        elif not all(NAME.match(part) for part in name.split(".")):
            message = f"'{name}' is not a node name."
        else:
            try:
                source = self.addresses.sources(name)[0]
                target = source if name in self.section.inputs else self.addresses.targets(name, "input")[0]
                return _Link(name, offset, target, source)
            except ExpressionError as error:
                message, hint = error.message, error.hint
        self.problems.add(path, message, hint, offset=offset)
        return None

    def _add_link(self, source: End, link: _Link, path: Path, seen: dict[tuple[str, str], Path]) -> None:
        target = link.target
        pair = (source.call, target.call)
        if link.name in self.section.inputs:
            self.problems.add(path, f"'{link.name}' is an input; no edge may end there.", offset=link.offset)
        elif pair in self._inner:
            pass  # the blocks of a stage follow each other anyway
        elif pair in seen:
            message = f"the edge {source.label} -> {target.label} already exists."
            self.problems.add(path, message, f"It is in {format_path(seen[pair])}; remove one.", offset=link.offset)
        else:
            seen[pair] = path
            self._add(source, target, path, "flow", self._flow_name(source, target))

    # single edges and transitions

    def _add_single_edges(self) -> None:
        for spec, path in self.section.edges:
            slot = spec.slot or "input"
            sources = self._ends(spec.source, (*path, "from"), None)
            targets = self._ends(spec.target, (*path, "to"), slot)
            self._add_written(spec, path, [(source, target) for source in sources for target in targets], slot, 0)

    def _ends(self, value: Any, path: Path, slot: str | None) -> list[End]:
        """The ends that a text or a list of texts names: sources, or targets at a slot."""
        found: list[End] = []
        for text, at in texts(value, path):
            try:
                found += self.addresses.sources(text) if slot is None else self.addresses.targets(text, slot)
            except ExpressionError as error:
                self.problems.expression(at, error)
        return found

    def _add_written(
        self, spec: EdgeSpec | TransitionSpec, path: Path, pairs: Sequence[Pair], slot: str, delay: int
    ) -> None:
        """Add the edges of an entry of `edges` or of `transitions`; `delay` is the default."""
        if spec.block and spec.scale is not None and self.kinds.has_open_field(spec.block, "scale"):
            message = f"'scale' is the factor of the edge, but the block '{spec.block}' has a field of this name, too."
            own = f"my_{spec.block}: {{block: {spec.block}, scale: ...}}"
            hint = f"Set the field in an entry of 'blocks', like '{own}', and name that entry here."
            self.problems.add((*path, "scale"), message, hint, key=True)
            return
        extra = dict(spec.model_extra or {})
        block = self.kinds.block(spec.block, extra, path, beside=type(spec)) if spec.block else None
        if isinstance(block, Op):
            block = OpOnEdge(op=block)
        fields = self._connection(spec, path, IdentityProjection())
        if fields is None or (spec.block and block is None):
            return
        if spec.name is not None and not self.check_name(spec.name, (*path, "name"), key=False):
            return
        if spec.weights is not None and not self.check_weights(spec.weights, (*path, "weights")):
            return
        if spec.name is not None and len(pairs) > 1:
            message = "one name cannot serve several edges."
            self.problems.add((*path, "name"), message, "Write them as separate entries.")
            return
        if spec.per_step is not None and not self.check_time((*path, "per_step"), "per_step"):
            return
        fields |= {"block": block, "weights": spec.weights or "", "per_step": spec.per_step}
        fields["delay"] = delay if spec.delay is None else spec.delay
        for source, target in pairs:
            name = f"edges.{spec.name}" if spec.name else f"edges.{_plain(source)}__{_plain(target)}"
            if self._is_new(name, path):
                self._add(source, target, path, "edge", name, slot, **fields)

    def _add_transitions(self) -> None:
        """Add the selected entries of the matrix, as edges with a default delay of one step."""
        found: dict[tuple[str, str], list[tuple[TransitionSpec, Path, Pair]]] = {}
        start = len(self.section.path) + 2
        for row, column, spec, path in self.section.transitions:
            source = self._line(row, path[:start], None)
            target = self._line(column, path[: start + 1], spec.slot or "input")
            if source is not None and target is not None:
                found.setdefault((source.label, target.label), []).append((spec, path, (source, target)))
        if found and not self.check_time(self.path("transitions"), "transitions"):
            return
        chosen = self.section.transition_set
        for labels in found if chosen is None else self._sets.transitions(*chosen, found):
            for spec, path, pair in found[labels]:
                self._add_written(spec, path, [pair], spec.slot or "input", 1)

    def _line(self, name: str, path: Path, slot: str | None) -> End | None:
        """The end that a row or a column of `transitions` names, or None after a problem."""
        try:
            ends = self.addresses.sources(name) if slot is None else self.addresses.targets(name, slot)
        except ExpressionError as error:
            self.problems.add(path, error.message, error.hint, key=True)
            return None
        if len(ends) != 1 or "*" in name:
            message = "each row and column of 'transitions' must be a single node."
            self.problems.add(path, message, "Leave out '*'.", key=True)
            return None
        return ends[0]

    # skips

    def _add_skips(self) -> None:
        for group, (spec, path) in self.section.skips.items():
            if group and not self.check_name(group, path):
                continue
            fields = self._connection(spec, path, StandardProjection())
            if fields is None:
                continue
            merge = fields["merge"]
            slot = spec.slot or (merge.default_slot if merge is not None else "output")
            chosen = self._sets.skips(spec, path, slot, flow_depth(self.nodes, self.edges))
            prefix = f"edges.{group}." if group else "edges."
            for (source, target), distance in chosen:
                name = f"{prefix}{_plain(source)}__{_plain(target)}"
                if not self._is_new(name, (*path, "edges")):
                    continue
                if spec.delay is None:
                    self.undelayed.add(name)
                self._add(source, target, (*path, "edges"), "skip", name, slot, **fields, distance=distance)

    def _connection(self, spec: ConnectionSpec, path: Path, default: Projection) -> dict[str, Any] | None:
        """What entries of `skips`, `edges` and `transitions` have in common, as fields of an edge."""
        merge = None if spec.merge is None else self.kinds.merge(spec.merge, (*path, "merge"))
        projection = self.kinds.projection(spec.projection, (*path, "projection"), default)
        gate = None
        if spec.gate is not None:
            gates = self._ends(spec.gate, (*path, "gate"), None)
            if len(gates) > 1:
                self.problems.add((*path, "gate"), "a gate must be a single node.", "Name it without '*'.")
            if len(gates) != 1:
                return None
            gate = gates[0].call
        if projection is None or (spec.merge is not None and merge is None):
            return None
        scale = None if spec.scale is None else self.kinds.scale(spec.scale, spec.gate, (*path, "scale"))
        if spec.scale is not None and scale is None:
            return None
        for key, value in (("delay", spec.delay), ("at", spec.at)):
            if value not in (None, 0) and not self.check_time((*path, key), key):
                return None
        steps = None if spec.at is None else tuple(sorted({spec.at} if isinstance(spec.at, int) else {*spec.at}))
        factors = {"scale": scale, "gate": gate}
        return {"merge": merge, "projection": projection, **factors, "delay": spec.delay or 0, "at": steps}


def _plain(end: End) -> str:
    return end.label.replace(".", "_")
