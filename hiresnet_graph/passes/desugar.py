"""A section of a spec as a graph of block calls: stages unrolled, patches applied, flow and skips turned into edges.

This is the only place that knows the spec's sugar. What it makes has calls and edges alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from pydantic import PrivateAttr

from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.errors import ExpressionError, Problem, SpecError, did_you_mean
from hiresnet_graph.graph import CycleError, Edge, Family, Graph, Node, Origin, PartPatch
from hiresnet_graph.merges import MERGES, AddMerge, Merge
from hiresnet_graph.ops import OPS, Op
from hiresnet_graph.passes.names import NAME, RESERVED, Addresses, End, matches
from hiresnet_graph.projections import PROJECTIONS, IdentityProjection, Projection, StandardProjection
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.spec.model import ConnectionSpec, NodeSpec, SkipSpec
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import Section, block_section, evaluated, texts
from hiresnet_graph.spec.source import MarkedDict, format_path, merge
from hiresnet_graph.spec.template import names_in
from hiresnet_graph.wire import Wire


class WrittenBlock(Block):
    """A block that the spec itself defines with nodes and edges; expands into their graph.

    Attributes:
        values: Its params, evaluated.
    """

    kind: ClassVar[str] = "written"
    name: str
    values: dict[str, Any]
    _path: Path = PrivateAttr()
    _definition: MarkedDict = PrivateAttr()
    _blocks: Mapping[str, Any] = PrivateAttr()
    _tree: Any = PrivateAttr()

    @classmethod
    def make(cls, name: str, values: dict[str, Any], blocks: Mapping[str, Any], tree: Any) -> WrittenBlock:
        """The use of the entry `name` of `blocks` with these params."""
        block = cls(name=name, values=values)
        block._path, block._definition, block._blocks, block._tree = ("blocks", name), blocks[name], blocks, tree
        return block

    def expand(self, x: Wire) -> Wire:
        """Its graph, for an input of this shape.

        Raises:
            SpecError: The definition has mistakes that show only with these params and this shape.
        """
        return x.inline(self.graph(x.shape))

    def graph(self, shape: Shape) -> Graph:
        """Its graph, for an input of this shape."""
        problems = Problems(self._tree)
        names = {**self.values, "in_width": shape.channels}
        section = block_section(self._definition, self._path, names, shape, self._blocks, problems)
        graph = desugar(section, problems) if section is not None else None
        problems.raise_if_any()
        assert graph is not None
        return graph


def desugar(section: Section, problems: Problems) -> Graph | None:
    """The graph of block calls of a section, or None after its mistakes are noted."""
    return _Desugar(section, problems).run()


class _Desugar:
    def __init__(self, section: Section, problems: Problems) -> None:
        self.section = section
        self.problems = problems
        self.before = len(problems.found)
        self.nodes: dict[str, Node] = {}
        self.broken: set[str] = set()
        self.stages: dict[str, list[str]] = {}
        self.edges: list[Edge] = []
        self.used_patches: set[str] = set()
        self.own_merges: dict[str, Merge] = {}

    def run(self) -> Graph | None:
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
        if len(self.problems.found) > self.before:
            return None
        self._rank()
        self._merges()
        outputs = self._outputs()
        graph = Graph(self.section.name, self.nodes.values(), self.edges, outputs)
        try:
            graph.order()
        except CycleError as error:
            self._cycle(error)
            return None
        self._reach()
        return None if len(self.problems.found) > self.before else graph

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
        if not NAME.match(name) or "__" in name:
            self.problems.add(path, f"'{name}' is no name.", "Use letters, digits and '_', without '__'.", key=True)
            return False
        if name in RESERVED:
            self.problems.add(path, f"the name '{name}' is reserved.", "Choose another.", key=True)
            return False
        return True

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
        for name, value in written.items():
            self._node(name, value)
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
        return address.split(".")[0] in self.broken or "*" in address.split(".")[0] and bool(self.broken)

    def _node(self, name: str, value: Any) -> None:
        path = self._path("nodes", name)
        if isinstance(value, str):
            value = {"block": value}
        if not isinstance(value, dict):
            self.problems.add(path, "a node wants a mapping like '{block: conv, width: 16}', or the name of a block.")
            self.broken.add(name)
            return
        below = self._patched(name, {}, path)
        fields = _merged(below, value) if below else value
        depth = fields.get("depth")
        if isinstance(depth, str):
            depth = evaluated(self.problems, depth, self.section.names, (*path, "depth"))
            fields = {**_marked(fields), "depth": depth}
        is_stage = "depth" in fields and fields["depth"] is not None
        count = depth if is_stage and isinstance(depth, int) and 1 <= depth <= 10_000 else 1
        members = [f"{name}.block{i + 1}" for i in range(count)] if is_stage else [name]
        if is_stage:
            self.stages[name] = members
        deferred = is_stage and any("i" in names_in(text) for text in _texts(fields))
        for i, call in enumerate(members):
            names = {**self.section.names, "i": i} if deferred else self.section.names
            own = self._patched(call, fields, path) if is_stage else fields
            made = self._call(call, own, names, path, stage=name if is_stage else None, index=i)
            if made is None:
                self.broken.update(members)
                return
            self.nodes[call] = made
        for i in range(1, count):
            self._edge(
                End(members[i - 1], members[i - 1]), End(members[i], members[i]), path, "flow", "input", f"flow.{members[i]}"
            )

    def _patched(self, name: str, fields: Any, path: Path) -> Any:
        """The fields of a node or block after the patches with this address; exact beats pattern."""
        exact = self.patches.get(name)
        patterns = [(key, patch) for key, patch in self.patches.items() if "*" in key and matches(key, name)]
        origin: dict[str, str] = {}
        for key, patch in patterns:
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

    def _inner_patches(self, call: str) -> tuple[PartPatch, ...]:
        """The patches of parts inside a block: patterns first, so that exact ones win."""
        found = []
        parts = call.count(".") + 1
        for key, patch in self.patches.items():
            key_parts = key.split(".")
            if len(key_parts) > parts and matches(".".join(key_parts[:parts]), call):
                self.used_patches.add(key)
                path = self._path("nodes", key)
                inner = evaluated(self.problems, patch, self.section.names, path)
                found.append(PartPatch(".".join(key_parts[parts:]), inner or {}, self._origin(path)))
        return tuple(sorted(found, key=lambda patch: "*" not in patch.address))

    def _call(
        self, call: str, fields: Any, names: Mapping[str, Any], path: Path, *, stage: str | None, index: int
    ) -> Node | None:
        fields = evaluated(self.problems, fields, names, path)
        if fields is None:
            return None
        spec = self.problems.model(NodeSpec, fields, path)
        if spec is None:
            return None
        own = _subset(fields, spec.model_extra or {})
        if stage is not None and index > 0 and "stride" in own:
            own["stride"] = 1
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
            patches=self._inner_patches(call),
            owner=stage or "",
        )

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
        if not NAME.match(spec.weights) or "__" in spec.weights or spec.weights == "edges":
            self.problems.add((*path, "weights"), f"'{spec.weights}' is no name.", "Use letters, digits and '_'.")
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
            return cast("Block | Op | None", self.problems.kind(registry, name, fields, path, (*path, "block")))
        entry_path = ("blocks", name)
        if isinstance(entry, str):
            entry = {"block": entry}
        if not isinstance(entry, dict):
            self.problems.add(entry_path, "an entry of 'blocks' wants a mapping with 'block' or with 'nodes'.")
            return None
        if name in seen:
            self.problems.add(entry_path, f"the block is defined by itself: {' -> '.join([*seen, name])}.")
            return None
        if "nodes" in entry:
            return self._written(name, entry, fields, path)
        if "block" not in entry or not isinstance(entry["block"], str):
            self.problems.add(
                entry_path, "an entry of 'blocks' wants 'block' (a kind with fields set) or 'nodes' (a small file)."
            )
            return None
        preset = evaluated(
            self.problems, {k: v for k, v in entry.items() if k != "block"}, self.section.names, entry_path
        )
        return self._block(entry["block"], {**(preset or {}), **fields}, path, (*seen, name))

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
        values: dict[str, Any] = {**params, **fields}
        for key in params:
            if values[key] is None:
                fine = False
                self.problems.add(path, f"the key '{key}' is missing: block '{name}' has no default for it.")
        values = evaluated(self.problems, values, {**self.section.names, **values}, path) if fine else {}
        return WrittenBlock.make(name, values, self.section.blocks, self.problems.tree) if fine and values is not None else None

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
            self.problems.add(
                (*path, "slot"), f"'{target.label}' ({kind}) has no slot '{slot}'.", f"It has: {', '.join(slots)}."
            )
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
        self.edges.append(edge)
        return edge

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
                        self._edge(previous, target, path, "flow", "input", f"flow.{_plain(previous)}__{_plain(target)}")
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
                if not NAME.match(spec.name) or "__" in spec.name:
                    self.problems.add((*path, "name"), f"'{spec.name}' is no name.", "Use letters, digits and '_'.")
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
                twice = f"'{level}' twice" if tensors[call] == level else f"'{tensors[call]}' and '{level}' (one tensor)"
                self.problems.add((*path, "levels"), f"the levels name {twice}.", "Leave one out.")
                return []
            tensors[call] = level

        ends: dict[tuple[str, str], tuple[End, End]] = {}

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            for start in self.addresses.sources(source):
                for stop in self.addresses.targets(target, slot):
                    key = (f"{start.label}", f"{stop.label}")
                    ends[key] = (start, stop)
                    yield key

        labels = [self.addresses.sources(level)[0].label for level in levels]
        text: str | Sequence[str] = spec.edges
        try:
            chosen = EdgeSet.parse(text).select(labels, single)
        except ExpressionError as error:
            item = getattr(error, "item", None)
            at = (*path, "edges", item) if isinstance(text, list) and item is not None else (*path, "edges")
            self.problems.expression(at, error)
            return []
        index = {label: i for i, label in enumerate([*labels, *self.addresses])}
        found = []
        for key in sorted(chosen, key=lambda pair: (index.get(pair[0], -1), index.get(pair[1], -1), pair)):
            if key not in ends:
                ends[key] = (self.addresses.sources(key[0])[0], self.addresses.targets(key[1], slot)[0])
            found.append(ends[key])
        return found

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

    def _rank(self) -> None:
        """Connect the input if nothing does, add gates, and give each edge its place among the operands."""
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
        depth = self._flow_depth()
        index = {name: i for i, name in enumerate(self.nodes)}
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
            ranked.append(replace(edge, rank=rank))
            if edge.gate is not None:
                gates.append(
                    Edge(edge.gate, edge.target, f"{edge.name}.gate", edge.origin, family="gate", slot="gate", rank=rank)
                )
        self.edges = ranked + gates

    def _merges(self) -> None:
        """One merge for each slot: what the edges say, or the node says of its input."""
        chosen = {(name, "input"): merge_ for name, merge_ in self.own_merges.items()}
        for edge in self.edges:
            if edge.merge is None or edge.family == "gate":
                continue
            key = (edge.target, edge.slot)
            if key in chosen and chosen[key] != edge.merge:
                self.problems.note(
                    Problem(
                        f"'{edge.ends[1]}' gets merge '{edge.merge.kind}' at its slot '{edge.slot}', "
                        f"but has '{chosen[key].kind}' there.",
                        edge.origin.position,
                        edge.origin.path,
                        "Put a node '{block: identity}' between, or use one merge.",
                    )
                )
            chosen.setdefault(key, edge.merge)
        self.edges = [
            edge if edge.family == "gate" else replace(edge, merge=chosen.get((edge.target, edge.slot), AddMerge()))
            for edge in self.edges
        ]

    def _outputs(self) -> dict[str, str]:
        sources = {edge.source for edge in self.edges}
        sinks = [name for name in self.nodes if name not in sources and name not in self.section.inputs]
        given = self.section.outputs
        if given is not None:
            outputs = {}
            for i, address in enumerate(given):
                try:
                    end = self.addresses.sources(address)[0]
                except ExpressionError as error:
                    path = self._path("outputs")
                    self.problems.add((*path, i) if len(given) > 1 else path, error.message, error.hint)
                    continue
                if address in outputs:
                    self.problems.add(self._path("outputs"), f"'{address}' is there twice.", "Leave one out.")
                outputs[address] = end.call
            return outputs
        if len(sinks) != 1:
            labels = ", ".join(self.addresses.sources(sink)[0].label for sink in sinks)
            if not sinks:
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
                "Set 'delay: 1' on the edge that closes the loop, or turn it round.",
            )
        )

    def _reach(self) -> None:
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
        for name, node in self.nodes.items():
            label = node.owner or name
            if name not in reached and label not in told:
                told.add(label)
                self.problems.add(
                    self._place_of(name),
                    f"no path leads from the input to '{label}'.",
                    "Put it into 'flow', give it an edge, or remove it.",
                    key=True,
                )


class OpOnEdge(Block):
    """A single operation as the block of an edge."""

    kind: ClassVar[str] = "operation"
    op: Op

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


def _merged(base: Any, patch: Any) -> MarkedDict:
    return merge(_marked(base), _marked(patch))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
