"""The layout of the primitive calls of a network, drawn like a circuit.

Each node is a column of its calls, one after the other across the flow. The calls of edges are in a column of their own
before the node where the edges end. Wires between columns run in the gutters between them, each on its own track, and
beyond the next column in lanes beside all columns, so that no wire crosses a box or covers another.

Coordinates are (u, v): u is the direction of the flow, v points to the side of the lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.render.layout.geometry import (
    HEAD,
    Corner,
    Point,
    box_size,
    header_size,
    rounded,
    without_head,
)
from hiresnet_graph.render.layout.layout import Area, Axes, Direction, Layout, on_page
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Scene

_TRACK, _LANE = 7.0, 8.0
_INNER, _PAD, _BETWEEN, _ASIDE = 16.0, 8.0, 14.0, 8.0


def circuit_layout(scene: Scene, direction: Direction) -> Layout:
    """The layout of a scene of calls."""
    return _Circuit(scene, direction).layout()


@dataclass(slots=True)
class _Owner:
    """The calls of one node or edge; a single call has no group."""

    boxes: list[Box]
    group: Group | None


@dataclass(slots=True)
class _Wire:
    """An arrow between columns: the gutters where it leaves and arrives (each the one after a column), and its lane."""

    arrow: Arrow
    leaves: int
    arrives: int
    lane: int = -1

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last gutter that it passes."""
        return min(self.leaves, self.arrives), max(self.leaves, self.arrives)


class _Circuit:
    def __init__(self, scene: Scene, direction: Direction) -> None:
        self.scene = scene
        self.axes = Axes(direction == "TB")
        self.columns = self._columns()
        self.column_of = {b.name: k for k, column in enumerate(self.columns) for owner in column for b in owner.boxes}
        self.owner_of = {b.name: owner for column in self.columns for owner in column for b in owner.boxes}
        self.inner: list[Arrow] = []
        self.wires: list[_Wire] = []
        for arrow in scene.arrows:
            source, target = self.column_of[arrow.source], self.column_of[arrow.target]
            if source == target:
                self.inner.append(arrow)
            else:
                self.wires.append(_Wire(arrow, source, target - 1))
        self._set_lanes()
        self.tracks = self._tracks()
        self.boxes: dict[str, Area] = {}
        self.frames: dict[str, Area] = {}
        self.gutters: dict[int, float] = {}

    # columns

    def _columns(self) -> list[list[_Owner]]:
        """A column for each node in order, preceded by one for the calls of the edges that end at it."""
        groups = {group.name: group for group in self.scene.groups}
        owners: dict[str, _Owner] = {}
        name_of: dict[str, str] = {}
        for box in self.scene.boxes:
            name_of[box.name] = box.group or box.name
            owners.setdefault(name_of[box.name], _Owner([], groups.get(box.group))).boxes.append(box)
        following: dict[str, str] = {}
        for arrow in self.scene.arrows:
            if name_of[arrow.source] != name_of[arrow.target]:
                following.setdefault(name_of[arrow.source], name_of[arrow.target])
        before: dict[str, list[_Owner]] = {}
        nodes: list[str] = []
        for name, owner in owners.items():
            if owner.group is None or owner.group.family is None:
                nodes.append(name)
                continue
            end, passed = name, {name}
            while (found := owners[end].group) is not None and found.family is not None and end in following:
                end = following[end]
                if end in passed:
                    break
                passed.add(end)
            before.setdefault(end, []).append(owner)
        columns: list[list[_Owner]] = []
        for name in nodes:
            if name in before:
                columns.append(before.pop(name))
            columns.append([owners[name]])
        return columns + list(before.values())

    def _set_columns(self) -> None:
        upright = self.axes.upright
        sizes = {box.name: box_size(box) for box in self.scene.boxes}
        widest, highest = (max(size[axis] for size in sizes.values()) for axis in (0, 1))
        across = widest if upright else highest
        head = max((header_size(group)[1] for group in self.scene.groups), default=0.0)
        u = self._gutter(-1, 0.0) if -1 in self.tracks else 0.0
        for k, column in enumerate(self.columns):
            along = highest if upright else max(sizes[box.name][0] for owner in column for box in owner.boxes)
            wide = max((header_size(owner.group)[0] + 2 * _PAD for owner in column if owner.group), default=0.0)
            bulge = self._bulge(k)
            spare = 0.0 if upright else max(0.0, wide - (along + bulge + 2 * _PAD)) / 2
            first = u + _PAD + (head if upright else 0.0) + spare
            end = first + along + bulge + spare + _PAD
            cursor = 0.0
            for owner in column:
                v = cursor - _PAD - (0.0 if upright else head)
                for box in owner.boxes:
                    self.boxes[box.name] = Area(first, v - across, first + along, v)
                    v -= across + _INNER
                v += _INNER - _PAD
                if owner.group is not None:
                    title = across / 2 + _ASIDE + header_size(owner.group)[0] + 2 * _PAD
                    low = min(v, cursor - title) if upright else v
                    self.frames[owner.group.name] = Area(u, low, end, cursor)
                    v = low
                cursor = v - _BETWEEN
            u = self._gutter(k, end)

    def _gutter(self, k: int, u: float) -> float:
        """Add the gutter after column k, which starts at u; gives its end."""
        self.gutters[k] = u + 8.0
        return u + 8.0 + _TRACK * len(self.tracks.get(k, ())) + HEAD + 8.0

    # wires

    def _set_lanes(self) -> None:
        """Assign a lane to each wire that goes beyond the next column: short ones nearest, without overlaps."""
        taken: list[list[tuple[int, int]]] = []
        far = [wire for wire in self.wires if wire.leaves != wire.arrives]
        for wire in sorted(far, key=lambda wire: (wire.span[1] - wire.span[0], wire.span)):
            start, end = wire.span
            free = (i for i, spans in enumerate(taken) if all(end < low or high < start for low, high in spans))
            wire.lane = next(free, len(taken))
            if wire.lane == len(taken):
                taken.append([])
            taken[wire.lane].append(wire.span)

    def _tracks(self) -> dict[int, list[tuple[_Wire, str]]]:
        """The wires in each gutter, in the order of their tracks, which minimises crossings.

        First those that rise to lanes, the farthest lane first; then those to the next column; then those that come
        down, the nearest lane first.
        """
        found: dict[int, list[tuple[tuple[int, int], int, _Wire, str]]] = {}
        for i, wire in enumerate(self.wires):
            if wire.lane < 0:
                found.setdefault(wire.leaves, []).append(((1, 0), i, wire, "across"))
                continue
            found.setdefault(wire.leaves, []).append(((0, -wire.lane), i, wire, "up"))
            found.setdefault(wire.arrives, []).append(((2, wire.lane), i, wire, "down"))
        return {
            gutter: [(wire, part) for _, _, wire, part in sorted(uses, key=lambda use: use[:2])]
            for gutter, uses in found.items()
        }

    def _bulge(self, k: int) -> float:
        """Space beside a column for the arcs between its own calls."""
        steps = [self._steps(arrow) for arrow in self.inner if self.column_of[arrow.source] == k]
        longest = max((count for count in steps if count != 1), default=0)
        return 12.0 + 4.0 * min(longest, 6) if longest else 0.0

    def _steps(self, arrow: Arrow) -> int:
        """The number of calls down the column from the source of an arrow to its target; 1 is the next of one owner."""
        source, target = self.owner_of[arrow.source], self.owner_of[arrow.target]
        names = [box.name for owner in self.columns[self.column_of[arrow.source]] for box in owner.boxes]
        steps = abs(names.index(arrow.target) - names.index(arrow.source))
        return steps if source is target else max(steps, 2)

    def _lines(self) -> dict[str, list[Corner]]:
        """The corners of each arrow's line."""
        track = {
            (wire.arrow.name, part): self.gutters[gutter] + _TRACK * i
            for gutter, uses in self.tracks.items()
            for i, (wire, part) in enumerate(uses)
        }
        arriving: dict[str, list[str]] = {}
        for wire in sorted(self.wires, key=lambda wire: (wire.lane < 0, -wire.lane)):
            arriving.setdefault(wire.arrow.target, []).append(wire.arrow.name)
        lines = {}
        for wire in self.wires:
            arrow = wire.arrow
            source, target = self.boxes[arrow.source], self.boxes[arrow.target]
            others = arriving[arrow.target]
            step = min(7.0, (target.v1 - target.v0) * 0.7 / len(others))
            start = (source.u1, source.v)
            v = target.v + step * ((len(others) - 1) / 2 - others.index(arrow.name))
            if wire.lane < 0:
                x = track[arrow.name, "across"]
                lines[arrow.name] = [start, (x, start[1]), (x, v), (target.u0, v)]
            else:
                up, down, lane = track[arrow.name, "up"], track[arrow.name, "down"], 12.0 + _LANE * wire.lane
                corners = [start, (up, start[1]), (up, lane), (down, lane), (down, v), (target.u0, v)]
                lines[arrow.name] = corners
        for arrow in self.inner:
            source, target = self.boxes[arrow.source], self.boxes[arrow.target]
            steps = self._steps(arrow)
            if steps == 1 and target.v1 <= source.v0:
                lines[arrow.name] = [(source.u, source.v0), (source.u, target.v1)]
            else:
                away = source.u1 + 8.0 + 4.0 * min(steps, 6)
                quarter = (source.v1 - source.v0) / 4
                low, high = source.v - quarter, target.v + quarter
                lines[arrow.name] = [(source.u1, low), (away, low), (away, high), (target.u1, high)]
        return lines

    def layout(self) -> Layout:
        """The layout of boxes, frames, headers and wires."""
        self._set_columns()
        layout = self.axes.layout(self.boxes, self.frames)
        groups = {group.name: group for group in self.scene.groups}
        for name, rect in layout.groups.items():
            width, height = header_size(groups[name])
            x = rect.centre.x
            if self.axes.upright:  # beside the wire that comes in from above
                first = next(box.name for box in self.scene.boxes if box.group == name)
                x = layout.boxes[first].centre.x + _ASIDE + width / 2
            layout.headers[name] = Point(x, rect.high - 3 - height / 2)
        for name, corners in self._lines().items():
            layout.arrows[name] = self.axes.curve(rounded(without_head(corners), 4.0), corners[-1])
        return on_page(layout, self.scene)
