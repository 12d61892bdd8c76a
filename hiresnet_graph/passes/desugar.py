"""A section of a spec as a graph of block calls: stages unrolled, patches applied, flow and skips turned into edges.

This is the only place that knows the spec's sugar. What it makes has calls and edges alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

from pydantic import PrivateAttr

from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.errors import ExpressionError, Problem, SpecError, did_you_mean
from hiresnet_graph.graph import CycleError, Edge, Family, Graph, Node, Origin, PartPatch
from hiresnet_graph.merges import MERGES, AddMerge, Merge
from hiresnet_graph.ops import OPS, Op
from hiresnet_graph.passes.names import NAME, Addresses, End, matches, name_fault
from hiresnet_graph.projections import PROJECTIONS, IdentityProjection, Projection, StandardProjection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.spec.model import MAX_DEPTH, ConnectionSpec, NodeSpec, SkipSpec
from hiresnet_graph.spec.problems import Path, Problems, known_keys
from hiresnet_graph.spec.section import Section, block_section, evaluated, is_block_entry, texts
from hiresnet_graph.spec.source import MarkedDict, format_path, merge
from hiresnet_graph.spec.template import resolve_params
from hiresnet_graph.wire import Wire


class WrittenBlock(Block):
    """A block that the spec itself defines with nodes and edges; expands into their graph.

    Attributes:
        values: Its params; templates among their defaults are kept, since they may need the input's width.
    """

    kind: ClassVar[str] = "written"
    name: str
    values: dict[str, Any]
    _params: MarkedDict = PrivateAttr()
    _path: Path = PrivateAttr()
    _definition: MarkedDict = PrivateAttr()
    _blocks: Mapping[str, Any] = PrivateAttr()
    _tree: Any = PrivateAttr()

    @classmethod
    def make(cls, name: str, params: MarkedDict, blocks: Mapping[str, Any], tree: Any) -> WrittenBlock:
        """The use of the entry `name` of `blocks` with these params."""
        block = cls(name=name, values=dict(params))
        block._params, block._path, block._definition = params, ("blocks", name), blocks[name]
        block._blocks, block._tree = blocks, tree
        return block

    def changed(self, fields: Mapping[str, Any]) -> WrittenBlock:
        """The same block with other params.

        Raises:
            ValueError: It has no such param.
        """
        for key in fields:
            if key not in self.values:
                raise ValueError(f"unknown key '{key}'. {did_you_mean(key, self.values)}".strip())
        return self.make(self.name, _laid_over(self._params, fields), self._blocks, self._tree)

    def describe(self) -> str:
        """Its name in `blocks`."""
        return self.name

    def expand(self, x: Wire) -> Wire:
        """Its graph, for an input of this shape.

        Raises:
            SpecError: The definition has mistakes that show only with these params and this shape.
        """
        return x.inline(self.graph(x.shape))

    def graph(self, shape: Shape) -> Graph:
        """Its graph, for an input of this shape."""
        problems = Problems(self._tree)
        names: dict[str, Any] = {"in_width": shape.channels}
        try:
            names |= resolve_params(self._params, names)
        except SpecError as error:
            prefix = format_path(self._path)
            raise SpecError([replace(problem, path=f"{prefix}.{problem.path}") for problem in error.problems]) from None
        section = block_section(self._definition, self._path, names, shape, self._blocks, problems)
        graph = desugar(section, problems) if section is not None else None
        problems.raise_if_any()
        assert graph is not None
        return graph


_NODE_KEYS = known_keys(NodeSpec)


def desugar(section: Section, problems: Problems) -> Graph | None:
    """The graph of block calls of a section, or None after its mistakes are noted."""
    return _Desugar(section, problems).run()


MAX_NODES = 100_000
MAX_EDGES = 100_000
MAX_LEVELS = 1_000
MAX_NESTING = 32
"""What one section may hold, so that a short line cannot ask for more than a machine has."""


class _TooLarge(Exception):
    """The section holds more than it may; the problem is noted."""


class _Desugar:
    def __init__(self, section: Section, problems: Problems) -> None:
        self.section = section
        self.problems = problems
        self.nodes: dict[str, Node] = {}
        self.broken: set[str] = set()
        self.stages: dict[str, list[str]] = {}
        self.edges: list[Edge] = []
        self.patches: dict[str, Any] = {}
        self.patterns: list[str] = []
        self.inner_patches: dict[str, list[str]] = {}
        self.used_patches: set[str] = set()
        self.own_merges: dict[str, Merge] = {}

    def run(self) -> Graph | None:
        try:
            return self._run()
        except _TooLarge:
            return None

    def _run(self) -> Graph | None:
        self._inputs()
        self._nodes()
        self.addresses = Addresses(
            list(self.section.inputs),
            [name for name in (*self.nodes, *self.broken) if name not in self.section.inputs],
            {stage: calls for stage, calls in self.stages.items() if calls},
        )
        self._flow()
        self._single_edges()
        self._skips()
        if self.problems.found:
            return None
        self._connect_inputs()
        self._rank(self._merges())
        reached = self._reach()
        outputs = self._outputs(reached)
        graph = Graph(self.section.name, self.nodes.values(), self.edges, outputs)
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

    # nodes

    def _inputs(self) -> None:
        for name, shape in self.section.inputs.items():
            path = self.section.input_paths.get(name, self._path("input"))
            if name != "input":
                self._check_name(name, path)
            self.nodes[name] = Node(name, None, name, self._origin(path), shape=shape)

    def _check_name(self, name: str, path: Path) -> bool:
        fault = name_fault(name)
        if fault:
            self.problems.add(path, fault, "Choose another name.", key=True)
        return not fault

    def _nodes(self) -> None:
        written: dict[str, Any] = {}
        patches: dict[str, Any] = {}
        for name, value in self.section.nodes.items():
            path = self._path("nodes", name)
            if "." in name or "*" in name:
                if isinstance(value, dict):
                    patches[name] = value
                else:
                    self.problems.add(path, "a patch wants a mapping of fields.")
            elif name in self.section.inputs:
                self.problems.add(path, f"'{name}' is an input already.", "Choose another name.", key=True)
            elif self._check_name(name, path):
                written[name] = value
            else:
                self.broken.add(name)
        if not written:
            self.problems.add(self._path("nodes"), "there are no nodes.", "Write at least one, like 'stem: {...}'.")
        self.patches = patches
        self.patterns = [key for key in patches if "*" in key]
        for key in patches:
            parts = key.split(".")
            for i in range(1, len(parts) if "*" not in key else 0):
                self.inner_patches.setdefault(".".join(parts[:i]), []).append(key)
        for name, value in written.items():
            self._node(name, value)
        whole = {key for key in self.patterns if any(matches(key, name) for name in self.nodes)}
        for name, node in self.nodes.items():
            if any(patch.key in whole for patch in node.patches):
                marked = tuple(replace(patch, optional=patch.key in whole) for patch in node.patches)
                self.nodes[name] = replace(node, patches=marked)
        for address in patches:
            if address not in self.used_patches and not self._inside_broken(address):
                known = [*written, *self.nodes]
                self.problems.add(
                    self._path("nodes", address),
                    f"'{address}' patches nothing: there is no such node or block.",
                    did_you_mean(address, known),
                    key=True,
                )

    def _inside_broken(self, address: str) -> bool:
        return address.split(".")[0] in self.broken or ("*" in address.split(".")[0] and bool(self.broken))

    def _node(self, name: str, value: Any) -> None:
        path = self._path("nodes", name)
        if isinstance(value, str):
            position = self.problems.position(path)
            value = evaluated(self.problems, value, self.section.names, path)
            if value is None:
                self.broken.add(name)
                return
            if isinstance(value, str):
                value = MarkedDict({"block": value}, position, None, {"block": position} if position else None)
        if not isinstance(value, dict):
            self.problems.add(path, "a node wants a mapping like '{block: conv, width: 16}', or the name of a block.")
            self.broken.add(name)
            return
        below = self._patched(name, {})
        fields = _merged(below, value) if below else value
        depth = fields.get("depth")
        if isinstance(depth, str):
            fields = _marked(fields).copy()
            at = fields.value_positions.get("depth")
            depth = evaluated(self.problems, depth, self.section.names, (*path, "depth"), at)
            fields["depth"] = depth
        is_stage = "depth" in fields and fields["depth"] is not None
        count = depth if is_stage and isinstance(depth, int) and 1 <= depth <= MAX_DEPTH else 1
        if len(self.nodes) + count > MAX_NODES:
            self.problems.add(path, f"with this one there are more than {MAX_NODES:,} nodes.", "Leave some out.")
            raise _TooLarge
        members = [f"{name}.block{i + 1}" for i in range(count)] if is_stage else [name]
        if is_stage:
            self.stages[name] = members
        # The stride of a stage is that of its first block; a patch may give another block its own.
        strided = "stride" in fields
        later = _subset(fields, [key for key in fields if key != "stride"])
        for i, call in enumerate(members):
            names = {**self.section.names, "i": i} if is_stage else self.section.names
            own = self._patched(call, later if i else fields) if is_stage else fields
            if is_stage and own.get("depth") != depth:
                message = f"'{call}' is a block of a stage, and has no 'depth' of its own."
                self.problems.add(self._path("nodes", call, "depth"), message, f"Set that of '{name}'.", key=True)
            made = self._call(call, own, names, path, stage=name if is_stage else None, unstride=strided if i else None)
            if made is None:
                self.broken.update(members)
                return
            self.nodes[call] = made
        for i in range(1, count):
            self._edge(
                End(members[i - 1], members[i - 1]),
                End(members[i], members[i]),
                path,
                "flow",
                "input",
                f"flow.{members[i]}",
            )

    def _patched(self, name: str, fields: Any) -> Any:
        """The fields of a node or block after the patches with this address; exact beats pattern."""
        exact = self.patches.get(name)
        origin: dict[str, str] = {}
        for key in self.patterns:
            if not matches(key, name):
                continue
            patch = self.patches[key]
            self.used_patches.add(key)
            for field in patch:
                if field in origin and not (exact and field in exact):
                    self.problems.add(
                        self._path("nodes", key, field),
                        f"'{key}' and '{origin[field]}' both set '{field}' of '{name}'.",
                        f"Set it under '{name}' itself, or in one pattern.",
                        key=True,
                    )
                origin.setdefault(field, key)
            fields = _merged(fields, patch)
        if exact is not None:
            self.used_patches.add(name)
            fields = _merged(fields, exact)
        return fields

    def _inner_patches(self, call: str, names: Mapping[str, Any]) -> tuple[PartPatch, ...]:
        """The patches of parts inside a block: patterns first, so that exact ones win."""
        found = []
        parts = call.count(".") + 1
        for key in [*self.patterns, *self.inner_patches.get(call, ())]:
            key_parts = key.split(".")
            if len(key_parts) > parts and matches(".".join(key_parts[:parts]), call):
                self.used_patches.add(key)
                path = self._path("nodes", key)
                fields = evaluated(self.problems, self.patches[key], names, path)
                found.append(PartPatch(key, ".".join(key_parts[parts:]), fields or {}, self._origin(path)))
        return tuple(found)

    def _call(
        self, call: str, fields: Any, names: Mapping[str, Any], path: Path, *, stage: str | None, unstride: bool | None
    ) -> Node | None:
        """The node of one call; `unstride` tells, for a later block of a stage, whether the stage has a stride."""
        fields = evaluated(self.problems, fields, names, path)
        if fields is None:
            return None
        spec = self.problems.model(NodeSpec, fields, path)
        if spec is None:
            return None
        own = _subset(fields, spec.model_extra or {})
        if unstride is not None and (unstride or self._is_preset(spec.block, "stride")):
            own.setdefault("stride", 1)
        block = self._block(spec.block, own, path)
        merge_ = self._merge(spec.merge, (*path, "merge"))
        if spec.merge is not None and merge_ is not None:
            self.own_merges[call] = merge_
        weights, private = self._weights(spec, call, path, stage)
        if block is None or merge_ is None or weights is None:
            return None
        return Node(
            call,
            block,
            weights,
            self._origin(path),
            merge=merge_,
            named_weights=spec.weights not in (None, "shared"),
            private_norms=private,
            patches=self._inner_patches(call, names),
            owner=stage or "",
        )

    def _is_preset(self, block: str, field: str) -> bool:
        """Whether an entry of `blocks` sets this field of the kind that it stands for."""
        seen: set[str] = set()
        while block not in seen:
            seen.add(block)
            entry = self.section.blocks.get(block)
            if not isinstance(entry, dict) or "nodes" in entry or not isinstance(entry.get("block"), str):
                return False
            if field in entry:
                return True
            block = entry["block"]
        return False

    def _weights(self, spec: NodeSpec, call: str, path: Path, stage: str | None) -> tuple[str | None, bool]:
        if spec.weights == "shared":
            if stage is None:
                self.problems.add(
                    (*path, "weights"),
                    "'weights: shared' ties the blocks of a stage, and this node has no 'depth'.",
                    "Give it 'depth', or a name that another node uses too.",
                )
                return None, False
            return stage, spec.per_step != "none"
        if spec.per_step is not None:
            self.problems.add(
                (*path, "per_step"), "'per_step' stands on a stage with 'weights: shared'.", "Add it or leave this out."
            )
            return None, False
        if spec.weights is None:
            return call, False
        if fault := name_fault(spec.weights):
            self.problems.add((*path, "weights"), fault, "Choose another name.")
            return None, False
        return spec.weights + (call[len(stage) :] if stage else ""), False

    def _block(self, name: str, fields: dict[str, Any], path: Path, seen: tuple[str, ...] = ()) -> Block | Op | None:
        entry = self.section.blocks.get(name)
        if entry is None:
            if name not in BLOCKS and name not in OPS:
                known = [*BLOCKS, *OPS, *self.section.blocks]
                self.problems.add((*path, "block"), f"there is no block '{name}'.", did_you_mean(name, known))
                return None
            registry = BLOCKS if name in BLOCKS else OPS
            return cast(
                "Block | Op | None", self.problems.kind(registry, name, fields, path, (*path, "block"), _NODE_KEYS)
            )
        entry_path = ("blocks", name)
        if isinstance(entry, str):
            entry = {"block": entry}
        if not is_block_entry(entry):
            return None  # which is told where the section is read
        if name in seen:
            self.problems.add(entry_path, f"the block is defined by itself: {' -> '.join([*seen, name])}.")
            return None
        if len(seen) >= MAX_NESTING:
            self.problems.add(entry_path, f"blocks may be built on each other {MAX_NESTING} deep, this lies deeper.")
            return None
        if "nodes" in entry:
            return self._written(name, entry, fields, path)
        preset = _subset(entry, [key for key in entry if key != "block"])
        preset = evaluated(self.problems, preset, self.section.names, entry_path)
        return None if preset is None else self._block(entry["block"], _laid_over(preset, fields), path, (*seen, name))

    def _written(self, name: str, entry: Any, fields: dict[str, Any], path: Path) -> Block | None:
        params = entry.get("params") or {}
        if not isinstance(params, dict):
            self.problems.add(("blocks", name, "params"), "this wants a mapping.")
            return None
        fine = True
        for key in fields:
            if key not in params:
                fine = False
                hint = did_you_mean(key, params) if params else f"'{name}' has no 'params'."
                self.problems.add((*path, key), f"unknown key '{key}'.", hint, key=True)
        values = _laid_over(params, fields)
        for key in params:
            if values[key] is None:
                fine = False
                self.problems.add(path, f"the key '{key}' is missing: block '{name}' has no default for it.")
        return WrittenBlock.make(name, values, self.section.blocks, self.problems.tree) if fine else None

    # kinds on edges

    def _merge(self, value: Any, path: Path) -> Merge | None:
        """The merge that a value names; `add` for none."""
        if value is None:
            return AddMerge()
        name, fields = (value, {}) if isinstance(value, str) else (value.get("kind", "add"), _without(value, "kind"))
        at = (*path, "kind") if isinstance(value, dict) and "kind" in value else path
        return cast("Merge | None", self.problems.kind(MERGES, name, fields, path, at))

    def _projection(self, value: Any, path: Path, default: Projection) -> Projection | None:
        if value is None:
            return default
        if isinstance(value, str):
            return cast("Projection | None", self.problems.kind(PROJECTIONS, value, {}, path, path))
        name, fields = value.get("kind", "standard"), _without(value, "kind")
        at = (*path, "kind") if "kind" in value else path
        return cast("Projection | None", self.problems.kind(PROJECTIONS, name, fields, path, at))

    # edges

    def _edge(
        self, source: End, target: End, path: Path, family: Family, slot: str, name: str, **fields: Any
    ) -> Edge | None:
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
        edge = Edge(
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
        return edge

    def _grow(self, count: int, path: Path) -> None:
        if len(self.edges) + count > MAX_EDGES:
            self.problems.add(path, f"with this there are more than {MAX_EDGES:,} edges.", "Choose fewer.")
            raise _TooLarge

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
                        path, "a chain wants a node on each side of '->'.", "Write 'stem -> stage1'.", offset=at
                    )
                    previous = None
                    continue
                if not all(NAME.match(part) for part in name.split(".")):
                    self.problems.add(path, f"'{name}' is no node's name.", "Write 'stem -> stage1'.", offset=at)
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
                            f"the edge {previous.label} -> {target.label} is there already.",
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
        names: dict[str, Path] = {}
        for spec, path in self.section.edges:
            slot = spec.slot or "input"
            sources = self._ends(spec.source, (*path, "from"), None)
            targets = self._ends(spec.target, (*path, "to"), slot)
            block = self._block(spec.block, dict(spec.model_extra or {}), path) if spec.block else None
            if isinstance(block, Op):
                block = OpOnEdge(op=block)
            common = self._common(spec, path, IdentityProjection())
            if common is None or (spec.block and block is None):
                continue
            if spec.name is not None:
                if fault := name_fault(spec.name):
                    self.problems.add((*path, "name"), fault, "Choose another name.")
                    continue
                if len(sources) * len(targets) > 1:
                    self.problems.add((*path, "name"), "one name cannot serve several edges.", "Write them apart.")
                    continue
            for source in sources:
                for target in targets:
                    name = f"edges.{spec.name}" if spec.name else f"edges.{_plain(source)}__{_plain(target)}"
                    if self._taken(names, name, path):
                        continue
                    self._edge(source, target, path, "edge", slot, name, block=block, **common)
        self.edge_names = names

    def _taken(self, names: dict[str, Path], name: str, path: Path) -> bool:
        if name in names:
            self.problems.add(
                path,
                f"the edge '{name.removeprefix('edges.')}' is there already, in {format_path(names[name])}.",
                "Remove one, or give this one a 'name'.",
            )
            return True
        names[name] = path
        return False

    def _common(self, spec: ConnectionSpec, path: Path, default: Projection) -> dict[str, Any] | None:
        """What `skips` and `edges` say alike, as fields of an edge."""
        merge_ = None if spec.merge is None else self._merge(spec.merge, (*path, "merge"))
        projection = self._projection(spec.projection, (*path, "projection"), default)
        gate = None
        if spec.gate is not None:
            gates = self._ends(spec.gate, (*path, "gate"), None)
            if len(gates) > 1:
                self.problems.add((*path, "gate"), "a gate is one node.", "Name it without '*'.")
            if not gates or len(gates) > 1:
                return None
            gate = gates[0].call
        if projection is None or (spec.merge is not None and merge_ is None):
            return None
        return {"merge": merge_, "projection": projection, "gate": gate, "delay": spec.delay or 0}

    def _skips(self) -> None:
        for group, (spec, path) in self.section.skips.items():
            if group and not self._check_name(group, path):
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
                if self._taken(self.edge_names, name, (*path, "edges")):
                    continue
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
                self.problems.add((*path, "levels"), f"the levels name {twice}.", "Leave one out.")
                return []
            tensors[call] = level

        if len(levels) > MAX_LEVELS:
            self.problems.add(
                (*path, "levels"), f"these are {len(levels):,} levels; at most {MAX_LEVELS:,} may be named."
            )
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
                raise ExpressionError(f"these are more than {MAX_EDGES:,} edges.")
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
                self.problems.add((*path, "levels"), f"'{key[1]}' is an input; no edge may end there.", "Leave it out.")
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
            order = Graph("", self.nodes.values(), edges, {}).order()
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
        ranked: list[Edge] = []
        gates: list[Edge] = []
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
                    Edge(
                        edge.gate, edge.target, f"{edge.name}.gate", edge.origin, family="gate", slot="gate", rank=rank
                    )
                )
        self.edges = ranked + gates
        for (name, slot), merge_ in merges.items():
            if slot == "input":
                self.nodes[name] = replace(self.nodes[name], merge=merge_)

    def _merges(self) -> dict[tuple[str, str], Merge]:
        """One merge for each (target, slot): what the edges say, or the node says of its input."""
        chosen = {(name, "input"): merge_ for name, merge_ in self.own_merges.items()}
        for edge in self.edges:
            if edge.merge is None:
                continue
            key = (edge.target, edge.slot)
            if key in chosen and edge.merge not in (chosen[key], chosen[key].changed({"order": None})):
                other = f"'{chosen[key].kind}'" + (" with other fields" if chosen[key].kind == edge.merge.kind else "")
                self.problems.note(
                    Problem(
                        f"'{edge.ends[1]}' gets merge '{edge.merge.kind}' at its slot '{edge.slot}', "
                        f"but has {other} there.",
                        edge.origin.position,
                        edge.origin.path,
                        "Put a node '{block: identity}' between, or use one merge.",
                    )
                )
            chosen.setdefault(key, edge.merge)
        return chosen

    def _outputs(self, reached: set[str]) -> dict[str, str]:
        sources = {edge.source for edge in self.edges}
        sinks = [name for name in self.nodes if name not in sources and name not in self.section.inputs]
        sinks = [name for name in sinks if name in reached] or sinks
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
                    self.problems.add(path, f"an output is one node, '{address}' is not.", "Name nodes or blocks.")
                if address in outputs:
                    self.problems.add(path, f"'{address}' is there twice.", "Leave one out.")
                outputs[address] = ends[0].call
            return outputs
        if len(sinks) != 1:
            labels = ", ".join(self.addresses.sources(sink)[0].label for sink in sinks)
            if not sinks and all(edge.delay == 0 for edge in self.edges):
                pass  # then there is a cycle, which is told
            elif not sinks:
                self.problems.add(
                    self._path("nodes"),
                    "no node is an end: every value goes on into another node.",
                    "Say which are the outputs: 'outputs: [head]'.",
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

    def _place_of(self, call: str) -> Path:
        return self._path("nodes", self.nodes[call].owner or call)

    def _cycle(self, error: CycleError) -> None:
        names = error.names
        pairs = set(zip(names, [*names[1:], names[0]], strict=True))
        closing = [edge for edge in self.edges if (edge.source, edge.target) in pairs]
        chosen = next((edge for edge in closing if edge.family != "flow"), closing[-1])
        self.problems.note(
            Problem(
                str(error),
                chosen.origin.position,
                chosen.origin.path,
                "Turn the edge that closes the loop round, or remove it.",
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
            label = node.owner or name
            if name not in reached and label not in told:
                told.add(label)
                self.problems.add(
                    self._place_of(name),
                    f"no path leads from the input to '{label}'.",
                    f"Put it into 'flow' (a chain may begin 'input -> {label}'), give it an edge, or remove it.",
                    key=True,
                )
        return reached


class OpOnEdge(Block):
    """A single operation as the block of an edge."""

    kind: ClassVar[str] = "operation"
    op: Op

    def describe(self) -> str:
        """The operation's kind."""
        return self.op.kind

    def expand(self, x: Wire) -> Wire:
        """One call."""
        return x.apply(self.op)


def _subset(fields: Any, keys: Iterable[str]) -> MarkedDict:
    """The fields with these keys, positions kept."""
    return MarkedDict(
        {key: fields[key] for key in keys},
        position=getattr(fields, "position", None),
        key_positions={k: v for k, v in getattr(fields, "key_positions", {}).items() if k in keys},
        value_positions={k: v for k, v in getattr(fields, "value_positions", {}).items() if k in keys},
    )


def _plain(end: End) -> str:
    return end.label.replace(".", "_")


def _without(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k != key}


def _marked(value: Any) -> MarkedDict:
    return value if isinstance(value, MarkedDict) else MarkedDict(value)


def _laid_over(base: Any, fields: Mapping[str, Any]) -> MarkedDict:
    """A mapping with some values replaced as they are; positions go with their values."""
    out = _marked(base).copy()
    for positions in (out.key_positions, out.value_positions):
        for key in fields:
            positions.pop(key, None)
    out.update(fields)
    if isinstance(fields, MarkedDict):
        out.key_positions |= fields.key_positions
        out.value_positions |= fields.value_positions
    return out


def _merged(base: Any, patch: Any) -> MarkedDict:
    return merge(_marked(base), _marked(patch))
