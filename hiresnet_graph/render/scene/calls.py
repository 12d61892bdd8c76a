"""The scene of primitive calls: a box for each call, a group for each node or edge with several calls."""

from __future__ import annotations

from hiresnet_graph.graph import EdgeRecord
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.render.scene.blocks import edge_families, stage_distances
from hiresnet_graph.render.scene.labels import format_origin, format_parameters
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Role
from hiresnet_graph.render.scene.steps import step_name
from hiresnet_graph.shapes import Shape


class CallScene:
    """Boxes, groups and arrows at the level of primitive calls."""

    def __init__(self, plan: Plan) -> None:
        self.boxes: list[Box] = []
        self.groups: list[Group] = []
        self._plan = plan
        self._edges = {edge.name: edge for edge in plan.edges}
        self._owner = {call.name: call.owner for call in plan.calls} | {name: name for name in plan.inputs}
        self._incoming: dict[str, list[EdgeRecord]] = {}
        for edge in plan.edges:
            self._incoming.setdefault(edge.target, []).append(edge)
        self._group_of = self._add_groups()
        for name, shape in plan.inputs.items():
            self._add_box(name, name, shape, "input", name, 0)
        seen: set[str] = set()
        for call in plan.calls:
            fresh = [tensor for tensor in call.tensors if f"{call.weights}.{tensor.name}" not in seen]
            seen |= {f"{call.weights}.{tensor.name}" for tensor in fresh}
            number = sum(tensor.elements for tensor in fresh if tensor.trainable)
            self._add_box(call.name, call.op.label(), call.shape, "op", format_origin(call.origin), number)

    def _add_groups(self) -> dict[str, str]:
        """Add the groups; gives the group of each call, except for the only call of a node and for parts of inputs."""
        group_of: dict[str, str] = {}
        known: set[str] = set()
        for call in self._plan.calls:
            step = "" if call.step is None else f".{step_name(call.step)}"
            name = call.owner + step
            if name == call.name or call.owner in self._plan.inputs:
                continue
            group_of[call.name] = name
            if name not in known:
                known.add(name)
                edge = self._edges.get(call.owner)
                title = call.owner
                if edge is not None:
                    title = "shortcut" if edge.family == "shortcut" else f"{edge.ends[0]} > {edge.ends[1]}"
                note = "" if call.step is None else f"t = {call.step}"
                self.groups.append(Group(name, title, note, edge.family if edge is not None else None))
        return group_of

    def _add_box(self, name: str, title: str, shape: Shape, role: Role, origin: str, number: int) -> None:
        outputs = [output for output, value in self._plan.outputs.items() if value == name]
        notes = [f"output '{output}'" for output in outputs] if len(self._plan.outputs) > 1 else []
        tooltip = "\n".join(part for part in (name, title, str(shape), format_parameters(number), origin) if part)
        group = self._group_of.get(name, "")
        lines = (str(shape),)
        self.boxes.append(Box(name, title, lines, tuple(notes), role, group, (name,), shape, bool(outputs), tooltip))

    def arrows(self) -> list[Arrow]:
        """One for each operand of each call."""
        distances = stage_distances(self._plan)
        families = edge_families(self._plan, distances)
        found = []
        for call in self._plan.calls:
            for i, source in enumerate(call.inputs):
                name = f"{source}->{call.name}" + (f"#{i}" if call.inputs.index(source) != i else "")
                tooltip = f"{source} -> {call.name}"
                edge = self._edge_of(call, source)
                if edge is None:
                    found.append(Arrow(name, source, call.name, "flow", tooltip, families=("flow",)))
                else:
                    distance = distances.get(edge.name, 1)
                    tooltip = f"{tooltip}\n{edge.name}"
                    sets = families[edge.name]
                    ends = (source, call.name)
                    found.append(Arrow(name, *ends, edge.family, tooltip, distance, (edge.name,), families=sets))
        return found

    def _edge_of(self, call: Call, source: str) -> EdgeRecord | None:
        """The edge of an operand: the one that owns the call or the operand, or one without calls of its own."""
        for name in (call.owner, self._owner.get(source, "")):
            if name in self._edges:
                return self._edges[name]
        start = self._owner.get(source, "")
        for edge in self._incoming.get(call.owner, ()):
            if edge.family == "flow" or not call.name.startswith(f"{call.owner}.{edge.slot}."):
                continue
            is_shortcut = edge.family == "shortcut"
            if (is_shortcut and start != call.owner) or (not is_shortcut and edge.source == start):
                return edge
        return None
