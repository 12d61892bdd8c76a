"""The scene of a network unrolled in time: a box for each node or stage at each step at which it is computed."""

from __future__ import annotations

from dataclasses import replace

from hiresnet_graph.cost import Cost, macs_per_step
from hiresnet_graph.formats import format_si
from hiresnet_graph.graph import EdgeRecord
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.scene.blocks import BlockScene, gate_edge
from hiresnet_graph.render.scene.labels import edge_tooltip
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Level
from hiresnet_graph.render.scene.trace import trace


class StepScene:
    """Boxes, arrows, and a group for each step."""

    def __init__(self, plan: Plan, level: Level, *, counts: bool = True) -> None:
        assert plan.folded is not None
        self._plan = plan
        self._rolled = BlockScene(plan, level, counts=counts)
        self._shapes = {node.name: node.shape for node in plan.nodes}
        self._trace = trace(plan.folded)
        self.boxes = [box for rolled in self._rolled.boxes for box in self._boxes_of(rolled)]
        self._names = {box.name for box in self.boxes}
        shown = {box.group for box in self.boxes}
        self.groups = [
            Group(step_name(step), f"t = {step}", f"{format_si(macs, decimals=1)} MACs" if macs and counts else "")
            for step, macs in enumerate(macs_per_step(plan))
            if step_name(step) in shown
        ]

    def _boxes_of(self, rolled: Box) -> list[Box]:
        """A box for each step of a node or stage."""
        found = []
        assert self._plan.folded is not None and self._plan.folded.time is not None
        for step in range(self._plan.folded.time.steps):
            depends = [self._trace.nodes[name, step] for name in rolled.members if (name, step) in self._trace.nodes]
            if not depends:
                continue
            found.append(
                replace(
                    rolled,
                    name=f"{rolled.name}.{step_name(step)}",
                    title=rolled.name if rolled.role != "fold" else f"{rolled.group}.{rolled.title}",
                    lines=(),
                    notes=(str(rolled.shape),),
                    role=rolled.role if any(depends) else "zeros",
                    group=step_name(step),
                    output=any((name, step) in self._trace.outputs for name in rolled.members),
                    tooltip=f"{rolled.tooltip}\nat step {step}" + ("" if any(depends) else ", from zeros alone"),
                )
            )
        return found

    def arrows(self) -> list[Arrow]:
        """One for each pair of boxes and family, at each step at which a value arrives that reaches a readout."""
        edges = {edge.name: edge for edge in self._plan.edges}
        found: dict[tuple[str, str, str], Arrow] = {}
        order = {name: i for i, name in enumerate(edges)}
        for name, step in sorted(
            (use for use in self._trace.edges if use[0] in edges), key=lambda use: (use[1], order[use[0]])
        ):
            edge = edges[name]
            self._collect(found, edge, step)
            if edge.gate in self._rolled.box_of:
                self._collect(found, gate_edge(edge), step)
        return list(found.values())

    def _collect(self, found: dict[tuple[str, str, str], Arrow], edge: EdgeRecord, step: int) -> None:
        box_of = self._rolled.box_of
        if edge.source not in box_of or edge.target not in box_of or edge.family == "shortcut":
            return
        source = f"{box_of[edge.source]}.{step_name(step - edge.delay)}"
        target = f"{box_of[edge.target]}.{step_name(step)}"
        if source == target or not {source, target} <= self._names:
            return
        cost = self._rolled.costs.get(edge.name, Cost())
        arrow = Arrow(
            f"{edge.name}.{step_name(step)}",
            source,
            target,
            edge.family,
            f"{edge_tooltip(edge, '', cost, (self._shapes[edge.source], None))}\narrives at step {step}",
            self._rolled.distances[edge.name.removesuffix(".gate")],
            (edge.name,),
            delay=edge.delay,
            heading=self._rolled.heading(edge),
            families=(edge.family,),
        )
        known = found.setdefault((source, target, edge.family), arrow)
        if known is not arrow:
            found[source, target, edge.family] = replace(known, edges=(*known.edges, edge.name))


def step_name(step: int) -> str:
    """The name of a step's group, and the last part of the names of its boxes and arrows."""
    return f"step{step}"
