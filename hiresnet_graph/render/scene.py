"""What a diagram shows, before any of it has a place: boxes, groups of boxes, arrows, a caption.

A scene is made from a plan alone, so that it shows what is computed and not what a file says. It knows nothing of
Graphviz: `layout` gives places, `dot` writes, `draw` paints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from hiresnet_graph.cost import Cost, count, count_parts
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.graph import EdgeRecord, Family, NodeRecord, Origin
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.render import words
from hiresnet_graph.shapes import Shape

Level = Literal["stages", "blocks", "ops"]
Role = Literal["input", "block", "stage", "fold", "op"]

LONGEST_STAGE = 6
"""Deeper stages are folded: their first two blocks and the last one are shown, and one box for those between."""
MOST_WORDS = 4
"""A projection of more operations than this is told by its kind, not by its operations."""
MOST_LABELS = 20
"""Where more arrows than this have a label, the caption tells the labels instead."""


@dataclass(frozen=True, slots=True)
class Box:
    """Something that gives a value.

    Attributes:
        name: Unique in the scene: a node, a stage, a call, or `stage1.block3...block17`.
        title, lines, notes: What is written: in bold, plainly, and small.
        group: Name of the group that it is in, or nothing.
        members: The nodes or calls that it stands for.
        output: Its value is an output of the network.
    """

    name: str
    title: str
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    role: Role
    group: str
    members: tuple[str, ...]
    shape: Shape
    output: bool
    tooltip: str


@dataclass(frozen=True, slots=True)
class Group:
    """A frame around boxes: a stage, or the operations of one node or edge. `family` is that of the edge."""

    name: str
    title: str
    note: str
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """A connection of two boxes.

    Attributes:
        name: Unique in the scene.
        source_group, target_group: The group where it starts or ends, if the spec names the stage and not a block.
        label: What happens on the way, in a few words.
        delay: Steps that the value takes.
        distance: How far apart its ends are, counted in stages and single nodes (in blocks within one stage).
        hue: Number of its colour; arrows of one distance have one colour.
        edges: The edges of the plan that it stands for.
    """

    name: str
    source: str
    target: str
    family: Family
    label: str
    source_group: str
    target_group: str
    delay: int
    distance: int
    hue: int
    edges: tuple[str, ...]
    tooltip: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A diagram without places.

    Attributes:
        title: Name of the network.
        caption: Lines below the picture.
        labelled: Whether the labels of skips stand at the arrows; otherwise the caption has them.
    """

    title: str
    level: Level
    boxes: tuple[Box, ...]
    groups: tuple[Group, ...]
    arrows: tuple[Arrow, ...]
    caption: tuple[str, ...]
    labelled: bool


def make_scene(plan: Plan, *, level: Level = "blocks", title: str | None = None) -> Scene:
    """The scene of a plan.

    Args:
        level: `stages` has a box for each stage and each node outside of stages; `blocks` a box for each node, with
            stages as groups, long ones folded; `ops` a box for each primitive call.
        title: What the network is called; the name of the plan unless told.

    Raises:
        UsageError: There is no such level.
    """
    levels = get_args(Level)
    if level not in levels:
        raise UsageError(
            f"there is no level '{level}' of detail. {did_you_mean(level, levels)} Known: {', '.join(levels)}."
        )
    maker = _Ops(plan) if level == "ops" else _Nodes(plan, level)
    name = title if title is not None else (plan.name or "network")
    arrows = _coloured(maker.arrows())
    labelled = sum(bool(arrow.label) and arrow.family != "shortcut" for arrow in arrows) <= MOST_LABELS
    caption = _caption(name, plan, () if labelled else arrows)
    return Scene(name, level, tuple(maker.boxes), tuple(maker.groups), arrows, caption, labelled)


def _caption(title: str, plan: Plan, arrows: Iterable[Arrow]) -> tuple[str, ...]:
    parts = count_parts(plan)
    total = count(plan)
    skips = sum(parts.get(edge.name, Cost()).parameters for edge in plan.edges if edge.family == "skip")
    share = f" ({skips:,} on skips)" if skips else ""
    lines = [f"{title}: {total.parameters:,} parameters{share}, {words.amount(total.macs)} MACs"]
    told: dict[str, int] = {}
    for arrow in arrows:
        if arrow.label and arrow.family != "shortcut":
            told[arrow.label] = told.get(arrow.label, 0) + 1
    if told:
        often = sorted(told.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{label} ({number})" for label, number in often[:4]]
        rest = sum(number for _, number in often[4:])
        lines.append("skips: " + "; ".join(shown) + (f"; others ({rest})" if rest else ""))
    return tuple(lines)


def _coloured(arrows: Sequence[Arrow]) -> tuple[Arrow, ...]:
    """Arrows with their hue: the distance itself if all are short, or else its rank among the distances there are.

    So one distance has one colour in all variants of a network with few levels.
    """
    distances = sorted({arrow.distance for arrow in arrows if arrow.family == "skip"})
    short = all(distance <= 6 for distance in distances)
    rank = {distance: distance if short else i + 1 for i, distance in enumerate(distances)}
    return tuple(replace(arrow, hue=rank.get(arrow.distance, arrow.distance)) for arrow in arrows)


# arrows' words


class _Edges:
    """What the edges of a plan do, read from their calls."""

    def __init__(self, plan: Plan) -> None:
        self.calls = {call.name: call for call in plan.calls}
        self.names = {edge.name for edge in plan.edges}
        self.values = {node.name: node.value for node in plan.nodes}
        self.owned: dict[str, list[Call]] = {}
        for call in plan.calls:
            if call.owner in self.names:
                self.owned.setdefault(call.owner, []).append(call)

    def chain(self, edge: EdgeRecord) -> list[Call]:
        """Its calls in order, those that it shares with another edge included."""
        if edge.name not in self.owned:
            return []
        found: list[Call] = []
        call: Call | None = self.owned[edge.name][-1]
        while call is not None and call.owner in self.names and call.name != self.values.get(edge.source):
            found.append(call)
            call = self.calls.get(call.inputs[0])
        return [call for call in reversed(found) if call.name != f"{edge.name}.gate"]

    def words(self, edge: EdgeRecord) -> str:
        """What happens on the edge, like `avg pool, 1x1 conv, BN`; nothing where the flow does nothing."""
        chain = self.chain(edge)
        if chain and len(chain) <= MOST_WORDS:
            return ", ".join(words.operation(call.op, brief=True) for call in chain)
        if edge.projection and edge.projection != "identity":
            return words.projection(edge.projection)
        return "identity" if edge.family in ("skip", "shortcut") else ""

    def gate(self, edge: EdgeRecord) -> str:
        """The call whose value gates the edge, or nothing."""
        call = self.calls.get(f"{edge.name}.gate")
        return call.inputs[1] if call is not None and call.owner == edge.name and len(call.inputs) > 1 else ""


def _edge_tooltip(edge: EdgeRecord, label: str, cost: Cost) -> str:
    merge = f" ({edge.merge})" if edge.merge else ""
    source, target = edge.ends if all(edge.ends) else (edge.source, edge.target)
    parts = [f"{edge.name}: {source} -> {target}, slot {edge.slot}{merge}", label]
    if edge.delay:
        parts.append(f"delay {edge.delay}")
    parts += [words.parameters(cost.parameters), _place(edge.origin)]
    return "\n".join(part for part in parts if part)


def _place(origin: Origin) -> str:
    """What in the spec caused something, without the folder of the file, which is nobody's business."""
    if origin.position is None:
        return origin.path
    file = origin.position.source.name.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{origin.path} ({file}:{origin.position.line})"


def _unit(node: NodeRecord) -> str:
    """What counts as one step of distance: a stage, or a node outside of stages."""
    return node.stage or node.name


def _distances(plan: Plan) -> dict[str, int]:
    """How far apart the ends of each edge are: in units, or in nodes if they are in one unit."""
    nodes = {node.name: node for node in plan.nodes}
    unit = {name: i for i, name in enumerate(dict.fromkeys(map(_unit, plan.nodes)))}
    place = {name: i for i, name in enumerate(nodes)}
    found = {}
    for edge in plan.edges:
        if edge.source in nodes and edge.target in nodes:
            apart = abs(unit[_unit(nodes[edge.target])] - unit[_unit(nodes[edge.source])])
            found[edge.name] = apart or abs(place[edge.target] - place[edge.source])
    return found


# blocks and stages


@dataclass
class _Nodes:
    """The scene of the spec's level: nodes as boxes, or stages as boxes."""

    plan: Plan
    level: Level
    boxes: list[Box] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.costs = count_parts(self.plan)
        self.nodes = {node.name: node for node in self.plan.nodes}
        self.stages: dict[str, list[NodeRecord]] = {}
        for node in self.plan.nodes:
            if node.stage:
                self.stages.setdefault(node.stage, []).append(node)
        self.distances = _distances(self.plan)
        self.box_of: dict[str, str] = {}
        done: set[str] = set()
        for node in self.plan.nodes:
            if not node.stage:
                self._add_node(node, "")
            elif node.stage not in done:
                done.add(node.stage)
                self._add_stage(node.stage)

    def _cost(self, nodes: Iterable[NodeRecord]) -> Cost:
        total = Cost()
        for node in nodes:
            total += self.costs.get(node.name, Cost()) + self.costs.get(f"{node.name}.shortcut", Cost())
        return total

    # boxes

    def _add_stage(self, stage: str) -> None:
        nodes = self.stages[stage]
        if self.level == "stages":
            self._add_box(stage, stage, nodes, "stage", "")
            return
        note = words.parameters(self._cost(nodes).parameters)
        self.groups.append(Group(stage, f"{stage}  {nodes[-1].shape}", note))
        for run in self._folded(nodes):
            if len(run) == 1:
                self._add_node(run[0], stage)
            else:
                first, last = (node.name.removeprefix(f"{stage}.") for node in (run[0], run[-1]))
                self._add_box(f"{stage}.{first}...{last}", f"{first} … {last}", run, "fold", stage)

    def _folded(self, nodes: list[NodeRecord]) -> list[list[NodeRecord]]:
        """The blocks of a stage in runs, each of which is one box."""
        if len(nodes) <= LONGEST_STAGE:
            return [[node] for node in nodes]
        shown = {nodes[0].name, nodes[1].name, nodes[-1].name}
        ends = set()
        for edge in self.plan.edges:
            if edge.family not in ("flow", "shortcut"):
                for end, label in zip((edge.source, edge.target), edge.ends, strict=True):
                    if label not in self.stages:
                        ends.add(end)
        here = shown | (ends & {node.name for node in nodes})
        shown = here if len(here) <= LONGEST_STAGE else shown
        runs: list[list[NodeRecord]] = []
        for node in nodes:
            if node.name not in shown and runs and runs[-1][-1].name not in shown:
                runs[-1].append(node)
            else:
                runs.append([node])
        return runs

    def _add_node(self, node: NodeRecord, group: str) -> None:
        title = node.name.removeprefix(f"{group}.") if group else node.name
        self._add_box(node.name, title, [node], "input" if node.block == "input" else "block", group)

    def _add_box(self, name: str, title: str, nodes: Sequence[NodeRecord], role: Role, group: str) -> None:
        for node in nodes:
            self.box_of[node.name] = name
        kinds = list(dict.fromkeys(node.block for node in nodes))
        lines = []
        if role != "input" and kinds != [title]:
            several = f"{len(nodes)} x " if role in ("stage", "fold") else ""
            lines.append(several + " / ".join(kinds[:3]))
        lines.append(str(nodes[-1].shape))
        outputs = [output for output, value in self.plan.outputs.items() if value in {node.value for node in nodes}]
        notes = [words.parameters(self._cost(nodes).parameters), *self._merges({node.name for node in nodes})]
        if len(self.plan.outputs) > 1:
            notes += [f"output '{output}'" for output in outputs]
        tooltip = "\n".join([name, ", ".join(lines), *filter(None, notes), _place(nodes[0].origin)])
        self.boxes.append(
            Box(
                name,
                title,
                tuple(lines),
                tuple(filter(None, notes)),
                role,
                group,
                tuple(node.name for node in nodes),
                nodes[-1].shape,
                bool(outputs),
                tooltip,
            )
        )

    def _merges(self, targets: set[str]) -> list[str]:
        """Merges other than `add`, like `concat at input`."""
        found = [
            f"{edge.merge} at {edge.slot}"
            for edge in self.plan.edges
            if edge.target in targets and edge.merge not in ("", "add") and edge.family != "gate"
        ]
        return list(dict.fromkeys(found))

    # arrows

    def arrows(self) -> list[Arrow]:
        """One for each pair of boxes, family, label and delay; shortcuts of blocks at the level of blocks only."""
        edges = _Edges(self.plan)
        values = {node.value: node.name for node in self.plan.nodes}
        found: dict[tuple[object, ...], Arrow] = {}
        recorded = {edge.name for edge in self.plan.edges if edge.family == "gate"}
        for edge in self.plan.edges:
            if edge.source not in self.box_of or edge.target not in self.box_of:
                continue
            if edge.family == "gate":
                self._collect(found, edge, "gate")
                continue
            self._collect(found, edge, edges.words(edge))
            gate = values.get(edges.gate(edge), "")
            if gate and f"{edge.name}.gate" not in recorded:
                signal = replace(
                    edge, name=f"{edge.name}.gate", source=gate, family="gate", slot="gate", delay=0, ends=(gate, "")
                )
                self._collect(found, signal, "gate")
        return [_counted(arrow) for arrow in found.values()]

    def _collect(self, found: dict[tuple[object, ...], Arrow], edge: EdgeRecord, label: str) -> None:
        source, target = self.box_of[edge.source], self.box_of[edge.target]
        own = edge.family == "shortcut"
        if own and self.level == "stages":
            return
        if source == target and not own and not edge.delay:
            return
        groups = ["", ""]
        apart = _unit(self.nodes[edge.source]) != _unit(self.nodes[edge.target])
        if apart and edge.family not in ("flow", "shortcut", "gate") and self.level == "blocks":
            groups = [end if end in self.stages else "" for end in edge.ends]
        if edge.delay:
            label = f"{label}, delay {edge.delay}" if label else f"delay {edge.delay}"
        cost = self.costs.get(edge.name, Cost())
        arrow = Arrow(
            edge.name,
            source,
            target,
            edge.family,
            label,
            groups[0],
            groups[1],
            edge.delay,
            self.distances[edge.name.removesuffix(".gate")],
            0,
            (edge.name,),
            _edge_tooltip(edge, label, cost),
        )
        key = (source, target, *groups, edge.family, label, edge.delay)
        if key in found:
            known = found[key]
            found[key] = replace(known, edges=(*known.edges, edge.name), tooltip=f"{known.tooltip}\n{arrow.tooltip}")
        else:
            found[key] = arrow


def _counted(arrow: Arrow) -> Arrow:
    number = len(arrow.edges)
    if number == 1 or arrow.family == "shortcut":
        return arrow
    lines = arrow.tooltip.split("\n")
    tooltip = "\n".join([*lines[:12], "..."] if len(lines) > 12 else lines)
    return replace(arrow, label=f"{number} x {arrow.label}" if arrow.label else "", tooltip=tooltip)


# operations


class _Ops:
    """The scene of the primitive calls."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.edges = {edge.name: edge for edge in plan.edges}
        self.owner = {call.name: call.owner for call in plan.calls} | {name: name for name in plan.inputs}
        self.into: dict[str, list[EdgeRecord]] = {}
        for edge in plan.edges:
            self.into.setdefault(edge.target, []).append(edge)
        self.groups: list[Group] = []
        self.boxes: list[Box] = []
        self._grouped = self._owners()
        for name, shape in plan.inputs.items():
            self._add(name, name, shape, "input", name, 0)
        seen: set[str] = set()
        for call in plan.calls:
            fresh = [tensor for tensor in call.tensors if f"{call.weights}.{tensor.name}" not in seen]
            seen |= {f"{call.weights}.{tensor.name}" for tensor in fresh}
            number = sum(tensor.elements for tensor in fresh if tensor.trainable)
            self._add(call.name, words.operation(call.op), call.shape, "op", _place(call.origin), number)

    def _owners(self) -> Mapping[str, str]:
        """The group of each call; a node that is a single call has none."""
        grouped: dict[str, str] = {}
        for call in self.plan.calls:
            if call.owner == call.name:
                continue
            grouped[call.name] = call.owner
            if all(group.name != call.owner for group in self.groups):
                edge = self.edges.get(call.owner)
                title = call.owner
                if edge is not None:
                    title = "shortcut" if edge.family == "shortcut" else f"{edge.ends[0]} > {edge.ends[1]}"
                self.groups.append(Group(call.owner, title, "", edge.family if edge is not None else None))
        return grouped

    def _add(self, name: str, title: str, shape: Shape, role: Role, origin: str, number: int) -> None:
        outputs = [output for output, value in self.plan.outputs.items() if value == name]
        notes = [f"output '{output}'" for output in outputs] if len(self.plan.outputs) > 1 else []
        tooltip = "\n".join(part for part in (name, title, str(shape), words.parameters(number), origin) if part)
        group = self._grouped.get(name, "")
        lines = (str(shape),)
        self.boxes.append(Box(name, title, lines, tuple(notes), role, group, (name,), shape, bool(outputs), tooltip))

    def arrows(self) -> list[Arrow]:
        """One for each operand of each call."""
        distances = _distances(self.plan)
        found = []
        for call in self.plan.calls:
            for i, source in enumerate(call.inputs):
                edge = self._edge(call, source)
                family = edge.family if edge is not None else "flow"
                name = f"{source}->{call.name}" + (f"#{i}" if call.inputs.index(source) != i else "")
                names = (edge.name,) if edge is not None else ()
                tooltip = f"{source} -> {call.name}" + (f"\n{edge.name}" if edge is not None else "")
                distance = distances.get(edge.name, 1) if edge is not None else 1
                found.append(Arrow(name, source, call.name, family, "", "", "", 0, distance, 0, names, tooltip))
        return found

    def _edge(self, call: Call, source: str) -> EdgeRecord | None:
        """The edge that an operand belongs to: the one whose calls these are, or one that does nothing on its way."""
        for name in (call.owner, self.owner.get(source, "")):
            if name in self.edges:
                return self.edges[name]
        start = self.owner.get(source, "")
        for edge in self.into.get(call.owner, ()):
            if edge.family == "flow" or not call.name.startswith(f"{call.owner}.{edge.slot}."):
                continue
            own = edge.family == "shortcut"
            if (own and start != call.owner) or (not own and edge.source == start):
                return edge
        return None
