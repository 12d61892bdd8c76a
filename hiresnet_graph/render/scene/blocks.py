"""The scene of nodes: a box for each block, or for each stage.

In a network with `time` a box stands for all steps of its node, and the labels of arrows show delays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hiresnet_graph.cost import Cost, count_parts
from hiresnet_graph.graph import EdgeRecord, NodeRecord
from hiresnet_graph.ops import format_scale
from hiresnet_graph.passes.timing import format_step_ranges, timing
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.scene.labels import EdgeLabels, edge_tooltip, format_cost, format_origin, format_parameters
from hiresnet_graph.render.scene.scene import Arrow, Box, Factor, Group, Heading, Level, Role
from hiresnet_graph.shapes import Shape

_LONGEST_STAGE = 6
"""Longer stages are folded: one box stands for the blocks between the second and the last."""
_MAX_TOOLTIP_LINES = 12


def stage_distances(plan: Plan) -> dict[str, int]:
    """The distance between the ends of each edge: for skips in levels, so that `p2` has those of distance 2.

    For others, stages and nodes outside stages count as levels. Where skips join blocks of a stage, its blocks are the
    levels; edges within any other stage are counted in blocks.
    """
    nodes = {node.name: node for node in plan.nodes}
    ends = {end for edge in plan.edges if edge.family == "skip" for end in edge.ends if end in nodes}
    split = {nodes[end].stage for end in ends}
    level = {node.name: node.name if node.stage in split else node.stage or node.name for node in plan.nodes}
    unit = {name: i for i, name in enumerate(dict.fromkeys(level.values()))}
    index = {name: i for i, name in enumerate(nodes)}
    found = {}
    for edge in plan.edges:
        if edge.source in nodes and edge.target in nodes:
            distance = abs(unit[level[edge.target]] - unit[level[edge.source]])
            found[edge.name] = edge.distance or distance or abs(index[edge.target] - index[edge.source])
    return found


def edge_families(plan: Plan, distances: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The sets of each edge: its family; for skips also `in`, `out` and `p1`, `p2`, ..., as edge sets name them.

    `in` are the skips from the first node that has any, `out` those to the last one.
    """
    index = {node.name: i for i, node in enumerate(plan.nodes)}
    skips = [edge for edge in plan.edges if edge.family == "skip" and {edge.source, edge.target} <= set(index)]
    first = min((index[edge.source] for edge in skips), default=-1)
    last = max((index[edge.target] for edge in skips), default=-1)
    found: dict[str, tuple[str, ...]] = {edge.name: (edge.family,) for edge in plan.edges}
    for edge in skips:
        sets = {"in": index[edge.source] == first, "out": index[edge.target] == last}
        named = [name for name, contains in sets.items() if contains]
        found[edge.name] = ("skip", *named, f"p{distances.get(edge.name, 1)}")
    return found


def factor_of(edge: EdgeRecord) -> Factor:
    """What the value of an edge is multiplied by: a gate, another factor, or nothing."""
    scale = format_scale(edge.scale)
    if edge.gate or scale.startswith("gate"):
        return "gate"
    return "scale" if scale else ""


def gate_edge(edge: EdgeRecord) -> EdgeRecord:
    """The signal that gates an edge, as an edge without delay."""
    ends = (edge.gate, "")
    return replace(
        edge,
        name=f"{edge.name}.gate",
        source=edge.gate,
        family="gate",
        slot="gate",
        delay=0,
        ends=ends,
        gate="",
        scale=None,
    )


class BlockScene:
    """Boxes, groups and arrows at the level of blocks or stages.

    Attributes:
        box_of: Node -> name of the box that contains it.
        costs: Of each node and edge.
        distances: See `stage_distances`.
    """

    def __init__(self, plan: Plan, level: Level, *, counts: bool = True) -> None:
        self.boxes: list[Box] = []
        self.groups: list[Group] = []
        self._counts = counts
        self.box_of: dict[str, str] = {}
        self.costs = count_parts(plan)
        self.distances = stage_distances(plan)
        self._families = edge_families(plan, self.distances)
        self._plan, self._level = plan, level
        self._nodes = {node.name: node for node in plan.nodes}
        self._stages: dict[str, list[NodeRecord]] = {}
        for node in plan.nodes:
            if node.stage:
                self._stages.setdefault(node.stage, []).append(node)
        done: set[str] = set()
        for node in plan.nodes:
            if not node.stage:
                self._add_node(node, "")
            elif node.stage not in done:
                done.add(node.stage)
                self._add_stage(node.stage)
        self._index = {box.name: i for i, box in enumerate(self.boxes)}
        silent = () if plan.folded is None else timing(plan.folded).silent
        self._silent = {edge.name for edge in silent}

    def _cost(self, nodes: Iterable[NodeRecord]) -> Cost:
        """The cost of nodes without their shortcuts, as in the table of nodes."""
        return sum((self.costs.get(node.name, Cost()) for node in nodes), Cost())

    def _count(self, nodes: Iterable[NodeRecord]) -> str:
        """The number of parameters for a box or a frame; empty where counts are left out."""
        return format_parameters(self._cost(nodes).parameters) if self._counts else ""

    # boxes

    def _add_stage(self, stage: str) -> None:
        nodes = self._stages[stage]
        if self._level == "stages":
            self._add_box(stage, stage, nodes, "stage", "")
            return
        note = self._count(nodes)
        self.groups.append(Group(stage, f"{stage}  {nodes[-1].shape}", note))
        for run in self._folded(nodes):
            if len(run) == 1:
                self._add_node(run[0], stage)
            else:
                first, last = (node.name.removeprefix(f"{stage}.") for node in (run[0], run[-1]))
                self._add_box(f"{stage}.{first}...{last}", f"{first} … {last}", run, "fold", stage)

    def _folded(self, nodes: list[NodeRecord]) -> list[list[NodeRecord]]:
        """The blocks of a stage in runs, each of which is one box."""
        if len(nodes) <= _LONGEST_STAGE:
            return [[node] for node in nodes]
        always = {nodes[0].name, nodes[1].name, nodes[-1].name}
        with_ends = always | (self._block_ends() & {node.name for node in nodes})
        shown = with_ends if len(with_ends) <= _LONGEST_STAGE else always
        runs: list[list[NodeRecord]] = []
        for node in nodes:
            if node.name not in shown and runs and runs[-1][-1].name not in shown:
                runs[-1].append(node)
            else:
                runs.append([node])
        return runs

    def _block_ends(self) -> set[str]:
        """The blocks that the spec names as an end of an edge."""
        return {
            end
            for edge in self._plan.edges
            if edge.family not in ("flow", "shortcut")
            for end, label in zip((edge.source, edge.target), edge.ends, strict=True)
            if label not in self._stages
        }

    def _add_node(self, node: NodeRecord, group: str) -> None:
        title = node.name.removeprefix(f"{group}.") if group else node.name
        self._add_box(node.name, title, [node], "input" if node.block == "input" else "block", group)

    def _add_box(self, name: str, title: str, nodes: Sequence[NodeRecord], role: Role, group: str) -> None:
        self.box_of.update(dict.fromkeys((node.name for node in nodes), name))
        kinds = list(dict.fromkeys(node.block for node in nodes))
        lines = []
        if role != "input" and kinds != [title]:
            several = f"{len(nodes)} x " if role in ("stage", "fold") else ""
            lines.append(several + " / ".join(kinds[:3]))
        lines.append(str(nodes[-1].shape))
        outputs = [output for output, value in self._plan.outputs.items() if value in {node.value for node in nodes}]
        notes = [self._count(nodes), *self._merges({node.name for node in nodes})]
        if len(self._plan.outputs) > 1:
            notes += [f"output '{output}'" for output in outputs]
        details = [", ".join(lines), format_cost(self._cost(nodes)), *notes[1:], format_origin(nodes[0].origin)]
        tooltip = "\n".join([name, *filter(None, details)])
        members = tuple(node.name for node in nodes)
        shown_notes = tuple(filter(None, notes))
        box = Box(name, title, tuple(lines), shown_notes, role, group, members, nodes[-1].shape, bool(outputs), tooltip)
        self.boxes.append(box)

    def _merges(self, targets: set[str]) -> list[str]:
        """Merges other than `add`, like `concat at input`."""
        found = [
            f"{edge.merge} at {edge.slot}"
            for edge in self._plan.edges
            if edge.target in targets and edge.merge not in ("", "add") and edge.family != "gate"
        ]
        return list(dict.fromkeys(found))

    # arrows

    def arrows(self) -> list[Arrow]:
        """One for each pair of boxes, family, label and delay; shortcuts of blocks at the level of blocks only."""
        labels = EdgeLabels(self._plan)
        found: dict[tuple[object, ...], Arrow] = {}
        for edge in self._plan.edges:
            if edge.source in self.box_of and edge.target in self.box_of:
                self._collect(found, edge, labels.label(edge), labels.shape(edge))
                if edge.gate in self.box_of:
                    self._collect(found, gate_edge(edge), "gate", None)
        return [_with_count(arrow) for arrow in found.values()]

    def _collect(
        self, found: dict[tuple[object, ...], Arrow], edge: EdgeRecord, operations: str, shape: Shape | None
    ) -> None:
        source, target = self.box_of[edge.source], self.box_of[edge.target]
        is_shortcut = edge.family == "shortcut"
        if is_shortcut and self._level == "stages":
            return
        if source == target and not is_shortcut and not edge.delay:
            return
        source_group, target_group = self._end_groups(edge)
        when = [f"t+{edge.delay}"] if edge.delay else []
        when += [f"at {format_step_ranges(edge.at)}"] if edge.at is not None else []
        label = ", ".join([*([operations] if operations else []), *when])
        shapes = (self._nodes[edge.source].shape, shape)
        arrow = Arrow(
            edge.name,
            source,
            target,
            edge.family,
            edge_tooltip(edge, label, self.costs.get(edge.name, Cost()), shapes),
            self.distances[edge.name.removesuffix(".gate")],
            (edge.name,),
            label,
            edge.delay,
            self.heading(edge),
            source_group,
            target_group,
            merge=edge.merge,
            factor=factor_of(edge),
            families=self._families.get(edge.name.removesuffix(".gate"), ()),
        )
        key = (source, target, source_group, target_group, edge.family, label, edge.delay)
        if key in found:
            known = found[key]
            found[key] = replace(known, edges=(*known.edges, edge.name), tooltip=f"{known.tooltip}\n{arrow.tooltip}")
        else:
            found[key] = arrow

    def _end_groups(self, edge: EdgeRecord) -> tuple[str, str]:
        """The stages that the spec names as the ends of an edge between stages; empty for a block."""
        source, target = self._nodes[edge.source].stage, self._nodes[edge.target].stage
        if (source and source == target) or edge.family in ("flow", "shortcut", "gate") or self._level != "blocks":
            return "", ""
        first, last = (end if end in self._stages else "" for end in edge.ends)
        return first, last

    def heading(self, edge: EdgeRecord) -> Heading:
        """Where an edge leads in a network with `time`; forward in others."""
        if edge.name in self._silent:
            return "silent"
        source, target = self._index[self.box_of[edge.source]], self._index[self.box_of[edge.target]]
        if self._plan.folded is None or source < target:
            return "forward"
        return "lateral" if source == target else "feedback"


def _with_count(arrow: Arrow) -> Arrow:
    """An arrow for several edges has their number in its label."""
    number = len(arrow.edges)
    if number == 1 or arrow.family == "shortcut":
        return arrow
    lines = arrow.tooltip.split("\n")
    tooltip = "\n".join([*lines[:_MAX_TOOLTIP_LINES], "..."] if len(lines) > _MAX_TOOLTIP_LINES else lines)
    return replace(arrow, label=f"{number} x {arrow.label}" if arrow.label else "", tooltip=tooltip)
