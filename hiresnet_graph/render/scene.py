"""What a diagram shows, before any of it has a place: boxes, groups of boxes, arrows, a caption.

A scene is made from a plan alone, so that it shows what is computed and not what a file says. It knows nothing of
Graphviz: `layout` gives places, `dot` writes, `draw` paints.

A network with `time` is drawn rolled, with one box for all steps of a node and the delays at the arrows; or unrolled,
with a box for each step at which the node is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from hiresnet_graph.cost import Cost, count_folded, count_parts, macs_per_step
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.graph import EdgeRecord, Family, NodeRecord, OpGraph, Origin
from hiresnet_graph.ops import Identity, Op
from hiresnet_graph.passes.timing import along_flow, format_step_ranges, timing
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.render import words
from hiresnet_graph.render.trace import trace
from hiresnet_graph.shapes import Shape

Level = Literal["stages", "blocks", "ops"]
Role = Literal["input", "block", "stage", "fold", "op", "zeros"]
Way = Literal["forward", "lateral", "feedback", "silent"]

LONGEST_STAGE = 6
"""Deeper stages are folded: their first two blocks and the last one are shown, and one box for those between."""
MOST_WORDS = 4
"""A projection of more operations than this is told by its kind, not by its operations."""
MOST_LABELS = 20
"""Where more arrows than this have a label, the caption tells the labels instead."""
WAYS: dict[Way, str] = {
    "lateral": "green: lateral",
    "feedback": "orange: feedback",
    "silent": "grey: not in the readout",
}
"""What the colours of arrows mean, if they do not lead forwards."""


@dataclass(frozen=True, slots=True)
class Box:
    """Something that gives a value.

    Attributes:
        name: Unique in the scene: a node, a stage, a call, or `stage1.block3...block17`.
        title, lines, notes: What is written: in bold, plainly, and small.
        group: Name of the group that it is in, or nothing.
        members: The nodes or calls that it stands for.
        role: `zeros` is a node at a step at which nothing has come from the input yet.
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
    """A frame around boxes: a stage, a time step, or the operations of one node or edge.

    `family` is that of the edge.
    """

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
        way: In a network with `time`: to a later node, to the same, to an earlier one, or never to the readout.
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
    way: Way = "forward"


@dataclass(frozen=True, slots=True)
class Scene:
    """A diagram without places.

    Attributes:
        title: Name of the network.
        caption: Lines below the picture.
        labelled: Whether the labels of skips stand at the arrows; otherwise the caption has them.
        unrolled: There is a box for each node at each step, and a group for each step.
    """

    title: str
    level: Level
    boxes: tuple[Box, ...]
    groups: tuple[Group, ...]
    arrows: tuple[Arrow, ...]
    caption: tuple[str, ...]
    labelled: bool
    unrolled: bool = False


def make_scene(plan: Plan, *, level: Level = "blocks", title: str | None = None, unrolled: bool = False) -> Scene:
    """The scene of a plan.

    Args:
        level: `stages` has a box for each stage and each node outside of stages; `blocks` a box for each node, with
            stages as groups, long ones folded; `ops` a box for each primitive call.
        title: What the network is called; the name of the plan unless told.
        unrolled: Draw each time step; the primitive calls are those of all steps anyway.

    Raises:
        UsageError: There is no such level, or nothing to unroll.
    """
    levels = get_args(Level)
    if level not in levels:
        raise UsageError(
            f"there is no level '{level}' of detail. {did_you_mean(level, levels)} Known: {', '.join(levels)}."
        )
    name = title if title is not None else (plan.name or "network")
    if unrolled and plan.folded is None:
        raise UsageError(f"'{name}' has no 'time', so there is nothing to unroll. Leave 'unrolled' out.")
    if plan.folded is not None:
        plan = replace(plan, nodes=along_flow(plan.nodes, plan.edges))
    unrolled = unrolled and level != "ops"
    maker = _Ops(plan) if level == "ops" else _Steps(plan, level) if unrolled else _Nodes(plan, level)
    arrows = _coloured(maker.arrows(), by_distance=plan.folded is None)
    labelled = sum(bool(arrow.label) and arrow.family != "shortcut" for arrow in arrows) <= MOST_LABELS
    caption = _caption(name, plan, maker.boxes, arrows, labelled)
    return Scene(name, level, tuple(maker.boxes), tuple(maker.groups), arrows, caption, labelled, unrolled)


def _caption(title: str, plan: Plan, boxes: Sequence[Box], arrows: Sequence[Arrow], labelled: bool) -> tuple[str, ...]:
    parts = count_parts(plan)
    total, folded = sum(parts.values(), Cost()), count_folded(plan)
    skips = sum(parts.get(edge.name, Cost()).parameters for edge in plan.edges if edge.family == "skip")
    notes = [f"{skips:,} on skips"] if skips else []
    notes += [f"{folded:,} with one copy of every weight"] if folded != total.parameters else []
    share = f" ({', '.join(notes)})" if notes else ""
    lines = [f"{title}: {total.parameters:,} parameters{share}, {words.amount(total.macs)} MACs"]
    if plan.folded is not None and plan.folded.time is not None:
        lines[0] += f" in {plan.folded.time.steps} steps"
        lines += _caption_of_time(plan.folded, boxes, arrows)
    if labelled:
        return tuple(lines)
    told: dict[str, int] = {}
    for arrow in arrows:
        if arrow.label and arrow.family != "shortcut":
            told[arrow.label] = told.get(arrow.label, 0) + 1
    if told:
        often = sorted(told.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{label} ({number})" for label, number in often[:4]]
        rest = sum(number for _, number in often[4:])
        what = "skips" if any(arrow.family == "skip" for arrow in arrows) else "edges"
        lines.append(f"{what}: " + "; ".join(shown) + (f"; others ({rest})" if rest else ""))
    return tuple(lines)


_INPUT = {"first": "at step 0", "every": "at every step", "sequence": "one frame a step"}


def _caption_of_time(folded: OpGraph, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[str]:
    """How the network runs in time, and what the lines of its arrows mean."""
    found, time = timing(folded), folded.time
    assert time is not None
    plural = "" if len(found.readouts) == 1 else "s"
    parts = [
        f"{' and '.join(found.unrolling)} unrolling",
        f"input {_INPUT[time.input]}",
        f"readout at step{plural} {format_step_ranges(found.readouts)}",
    ]
    signs = []
    if any("t+" in arrow.label for arrow in arrows):
        signs.append("dashed: takes time (t+1: one step)")
    if any(" at " in f" {arrow.label}" for arrow in arrows):
        signs.append("at: the steps when it is open")
    ways = {arrow.way for arrow in arrows if arrow.family != "gate"}
    signs += [sign for way, sign in WAYS.items() if way in ways]
    if any(arrow.family == "skip" and arrow.way == "forward" for arrow in arrows):
        signs.append("blue: skip")
    if any(box.role == "zeros" for box in boxes):
        signs.append("dashed boxes: from zeros alone")
    lines = ["; ".join(parts)]
    return [*lines, "; ".join(signs)] if signs else lines


def _coloured(arrows: Sequence[Arrow], *, by_distance: bool) -> tuple[Arrow, ...]:
    """Arrows with their hue: the distance itself if all are short, or else its rank among the distances there are.

    So one distance has one colour in all variants of a network with few levels. In a network with `time` all skips have
    one colour, as the others tell where an arrow leads.
    """
    if not by_distance:
        return tuple(replace(arrow, hue=1) for arrow in arrows)
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
        self.operations: dict[str, list[Op]] | None = None if plan.folded is None else self._of_step(plan.folded)

    def _of_step(self, folded: OpGraph) -> dict[str, list[Op]]:
        """The operations on each edge in one step."""
        found: dict[str, list[Op]] = {}
        gates = {f"{edge.name}.gate" for edge in folded.records.edges}
        for name in folded.order():
            node = folded[name]
            if name in gates:
                continue
            if node.op is not None and not isinstance(node.op, Identity) and node.owner in self.names:
                found.setdefault(node.owner, []).append(node.op)
        return found

    def chain(self, edge: EdgeRecord) -> list[Op]:
        """Its operations in order, those that it shares with another edge included."""
        if self.operations is not None:
            return self.operations.get(edge.name, [])
        if edge.name not in self.owned:
            return []
        found: list[Call] = []
        call: Call | None = self.owned[edge.name][-1]
        while call is not None and call.owner in self.names and call.name != self.values.get(edge.source):
            found.append(call)
            call = self.calls.get(call.inputs[0])
        return [call.op for call in reversed(found) if call.name != f"{edge.name}.gate"]

    def words(self, edge: EdgeRecord) -> str:
        """What happens on the edge, like `avg pool, 1x1 conv, BN`; nothing where the flow does nothing."""
        chain = self.chain(edge)
        if chain and len(chain) <= MOST_WORDS:
            return ", ".join(op.label(brief=True) for op in chain)
        if edge.projection and edge.projection != "identity":
            return words.projection(edge.projection)
        return "identity" if edge.family in ("skip", "shortcut") else ""


def _edge_tooltip(edge: EdgeRecord, label: str, cost: Cost) -> str:
    merge = f" ({edge.merge})" if edge.merge else ""
    source, target = edge.ends if all(edge.ends) else (edge.source, edge.target)
    parts = [f"{edge.name}: {source} -> {target}, slot {edge.slot}{merge}", label]
    if edge.delay:
        parts.append(f"delay {edge.delay}")
    if edge.at is not None:
        parts.append(f"open at step {format_step_ranges(edge.at)}")
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
        self.place = {box.name: i for i, box in enumerate(self.boxes)}
        silent = () if self.plan.folded is None else timing(self.plan.folded).silent
        self.silent = {edge.name for edge in silent}

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
        found: dict[tuple[object, ...], Arrow] = {}
        for edge in self.plan.edges:
            if edge.source in self.box_of and edge.target in self.box_of:
                self._collect(found, edge, edges.words(edge))
                if edge.gate in self.box_of:
                    self._collect(found, _gate(edge), "gate")
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
        when = [f"t+{edge.delay}"] if edge.delay else []
        when += [f"at {format_step_ranges(edge.at)}"] if edge.at is not None else []
        label = ", ".join([*([label] if label else []), *when])
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
            self.way(edge),
        )
        key = (source, target, *groups, edge.family, label, edge.delay)
        if key in found:
            known = found[key]
            found[key] = replace(known, edges=(*known.edges, edge.name), tooltip=f"{known.tooltip}\n{arrow.tooltip}")
        else:
            found[key] = arrow

    def way(self, edge: EdgeRecord) -> Way:
        """Where an edge leads in a network with `time`; in others there is one way."""
        if edge.name in self.silent:
            return "silent"
        source, target = self.place[self.box_of[edge.source]], self.place[self.box_of[edge.target]]
        if self.plan.folded is None or source < target:
            return "forward"
        return "lateral" if source == target else "feedback"


def _gate(edge: EdgeRecord) -> EdgeRecord:
    """The signal that an edge is multiplied by, as an edge: it takes no time."""
    ends = (edge.gate, "")
    return replace(edge, name=f"{edge.name}.gate", source=edge.gate, family="gate", slot="gate", delay=0, ends=ends)


def _counted(arrow: Arrow) -> Arrow:
    number = len(arrow.edges)
    if number == 1 or arrow.family == "shortcut":
        return arrow
    lines = arrow.tooltip.split("\n")
    tooltip = "\n".join([*lines[:12], "..."] if len(lines) > 12 else lines)
    return replace(arrow, label=f"{number} x {arrow.label}" if arrow.label else "", tooltip=tooltip)


# time steps


class _Steps:
    """The scene of a network with `time`, unrolled: a box for each node or stage at each step that counts."""

    def __init__(self, plan: Plan, level: Level) -> None:
        assert plan.folded is not None
        self.plan = plan
        self.rolled = _Nodes(plan, level)
        self.trace = trace(plan.folded)
        self.boxes = [box for row in self.rolled.boxes for box in self._row(row)]
        self.names = {box.name for box in self.boxes}
        shown = {box.group for box in self.boxes}
        self.groups = [
            Group(_step(step), f"t = {step}", f"{words.amount(macs)} MACs" if macs else "")
            for step, macs in enumerate(macs_per_step(plan))
            if _step(step) in shown
        ]

    def _row(self, row: Box) -> list[Box]:
        """A node or stage at all its steps."""
        found = []
        assert self.plan.folded is not None and self.plan.folded.time is not None
        for step in range(self.plan.folded.time.steps):
            depends = [self.trace.nodes[name, step] for name in row.members if (name, step) in self.trace.nodes]
            if not depends:
                continue
            found.append(
                replace(
                    row,
                    name=f"{row.name}.{_step(step)}",
                    title=row.name if row.role != "fold" else f"{row.group}.{row.title}",
                    lines=(),
                    notes=(str(row.shape),),
                    role=row.role if any(depends) else "zeros",
                    group=_step(step),
                    output=any((name, step) in self.trace.outputs for name in row.members),
                    tooltip=f"{row.tooltip}\nat step {step}" + ("" if any(depends) else ", from zeros alone"),
                )
            )
        return found

    def arrows(self) -> list[Arrow]:
        """One for each pair of boxes and family, at each step at which a value arrives that counts."""
        edges = {edge.name: edge for edge in self.plan.edges}
        found: dict[tuple[str, str, str], Arrow] = {}
        order = {name: i for i, name in enumerate(edges)}
        for name, step in sorted(
            (use for use in self.trace.edges if use[0] in edges), key=lambda use: (use[1], order[use[0]])
        ):
            edge = edges[name]
            self._collect(found, edge, step)
            if edge.gate in self.rolled.box_of:
                self._collect(found, _gate(edge), step)
        return list(found.values())

    def _collect(self, found: dict[tuple[str, str, str], Arrow], edge: EdgeRecord, step: int) -> None:
        box_of = self.rolled.box_of
        if edge.source not in box_of or edge.target not in box_of or edge.family == "shortcut":
            return
        source = f"{box_of[edge.source]}.{_step(step - edge.delay)}"
        target = f"{box_of[edge.target]}.{_step(step)}"
        if source == target or not {source, target} <= self.names:
            return
        cost = self.rolled.costs.get(edge.name, Cost())
        name = f"{edge.name}.{_step(step)}"
        tooltip = f"{_edge_tooltip(edge, '', cost)}\narrives at step {step}"
        distance = self.rolled.distances[edge.name.removesuffix(".gate")]
        arrow = Arrow(
            name,
            source,
            target,
            edge.family,
            "",
            "",
            "",
            edge.delay,
            distance,
            0,
            (edge.name,),
            tooltip,
            self.rolled.way(edge),
        )
        known = found.setdefault((source, target, edge.family), arrow)
        if known is not arrow:
            found[source, target, edge.family] = replace(known, edges=(*known.edges, edge.name))


def _step(step: int) -> str:
    """What stands behind a name at a step."""
    return f"step{step}"


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
            self._add(call.name, call.op.label(), call.shape, "op", _place(call.origin), number)

    def _owners(self) -> Mapping[str, str]:
        """The group of each call; a node that is a single call has none, nor has what is cut from an input."""
        grouped: dict[str, str] = {}
        known: set[str] = set()
        for call in self.plan.calls:
            step = "" if call.step is None else f".{_step(call.step)}"
            name = call.owner + step
            if name == call.name or call.owner in self.plan.inputs:
                continue
            grouped[call.name] = name
            if name not in known:
                known.add(name)
                edge = self.edges.get(call.owner)
                title = call.owner
                if edge is not None:
                    title = "shortcut" if edge.family == "shortcut" else f"{edge.ends[0]} > {edge.ends[1]}"
                note = "" if call.step is None else f"t = {call.step}"
                self.groups.append(Group(name, title, note, edge.family if edge is not None else None))
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
