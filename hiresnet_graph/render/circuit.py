"""Places for the primitive calls of a network, drawn like a circuit.

Each node is a column of its calls, one after the other across the flow. What edges do stands in a column of its own
before the node at which they end. Wires between columns run in the gutters between them, each on its own track, and
beyond the neighbour in lanes beside all columns, so that no wire runs through a box or along another.
As in `chain`, u is the direction of the flow and v points to the side of the lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.render.geometry import (
    HEAD,
    Axes,
    Direction,
    Path,
    Places,
    Point,
    Rect,
    box_size,
    header_size,
    on_page,
    rounded,
)
from hiresnet_graph.render.scene import Arrow, Box, Group, Scene

_TRACK, _LANE = 7.0, 8.0
_INNER, _PAD, _BETWEEN, _ASIDE = 16.0, 8.0, 14.0, 8.0


def place_calls(scene: Scene, direction: Direction) -> Places:
    """Places for a scene of calls."""
    return _Circuit(scene, direction).run()


@dataclass(slots=True)
class _Stack:
    """The calls of one owner; without a group, a single one."""

    boxes: list[Box]
    group: Group | None


@dataclass(slots=True)
class _Wire:
    """An arrow between columns: the gutters where it leaves and arrives (named by the column before), and its lane."""

    arrow: Arrow
    leaves: int
    arrives: int
    lane: int = -1

    @property
    def span(self) -> tuple[int, int]:
        """The gutters that it passes, from the first to the last."""
        return min(self.leaves, self.arrives), max(self.leaves, self.arrives)


class _Circuit:
    def __init__(self, scene: Scene, direction: Direction) -> None:
        self.scene = scene
        self.axes = Axes(direction == "TB")
        self.columns = self._columns()
        self.column_of = {b.name: k for k, column in enumerate(self.columns) for stack in column for b in stack.boxes}
        self.stack_of = {b.name: stack for column in self.columns for stack in column for b in stack.boxes}
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
        self.rects: dict[str, tuple[float, float, float, float]] = {}  # u0, v0, u1, v1
        self.frames: dict[str, tuple[float, float, float, float]] = {}
        self.gutters: dict[int, float] = {}

    # columns

    def _columns(self) -> list[list[_Stack]]:
        """A column for each node in order; before it one for the edges that end at it, if they do anything."""
        groups = {group.name: group for group in self.scene.groups}
        stacks: dict[str, _Stack] = {}
        owner: dict[str, str] = {}
        for box in self.scene.boxes:
            owner[box.name] = box.group or box.name
            stacks.setdefault(owner[box.name], _Stack([], groups.get(box.group))).boxes.append(box)
        leads: dict[str, str] = {}
        for arrow in self.scene.arrows:
            if owner[arrow.source] != owner[arrow.target]:
                leads.setdefault(owner[arrow.source], owner[arrow.target])
        before: dict[str, list[_Stack]] = {}
        nodes: list[str] = []
        for name, stack in stacks.items():
            if stack.group is None or stack.group.family is None:
                nodes.append(name)
                continue
            end, passed = name, {name}
            while (found := stacks[end].group) is not None and found.family is not None and end in leads:
                end = leads[end]
                if end in passed:
                    break
                passed.add(end)
            before.setdefault(end, []).append(stack)
        columns: list[list[_Stack]] = []
        for name in nodes:
            if name in before:
                columns.append(before.pop(name))
            columns.append([stacks[name]])
        return columns + list(before.values())

    def _set_columns(self) -> None:
        upright = self.axes.upright
        sizes = {box.name: box_size(box) for box in self.scene.boxes}
        widest, highest = (max(size[axis] for size in sizes.values()) for axis in (0, 1))
        across = widest if upright else highest
        head = max((header_size(group)[1] for group in self.scene.groups), default=0.0)
        u = self._gutter(-1, 0.0) if -1 in self.tracks else 0.0
        for k, column in enumerate(self.columns):
            along = highest if upright else max(sizes[box.name][0] for stack in column for box in stack.boxes)
            wide = max((header_size(stack.group)[0] + 2 * _PAD for stack in column if stack.group), default=0.0)
            bulge = self._bulge(k)
            spare = 0.0 if upright else max(0.0, wide - (along + bulge + 2 * _PAD)) / 2
            first = u + _PAD + (head if upright else 0.0) + spare
            end = first + along + bulge + spare + _PAD
            cursor = 0.0
            for stack in column:
                v = cursor - _PAD - (0.0 if upright else head)
                for box in stack.boxes:
                    self.rects[box.name] = (first, v - across, first + along, v)
                    v -= across + _INNER
                v += _INNER - _PAD
                if stack.group is not None:
                    title = across / 2 + _ASIDE + header_size(stack.group)[0] + 2 * _PAD
                    low = min(v, cursor - title) if upright else v
                    self.frames[stack.group.name] = (u, low, end, cursor)
                    v = low
                cursor = v - _BETWEEN
            u = self._gutter(k, end)

    def _gutter(self, k: int, u: float) -> float:
        """Make the gutter after column k, which starts at u; gives its end."""
        self.gutters[k] = u + 8.0
        return u + 8.0 + _TRACK * len(self.tracks.get(k, ())) + HEAD + 8.0

    # wires

    def _set_lanes(self) -> None:
        """A lane for each wire that goes beyond the next column: short ones nearest, none upon another."""
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
        """The wires in each gutter, in the order of their tracks, so that they cut each other as little as can be.

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
        """Room beside a column for the arcs between its own calls."""
        far = [self._steps(arrow) for arrow in self.inner if self.column_of[arrow.source] == k]
        longest = max((steps for steps in far if steps != 1), default=0)
        return 12.0 + 4.0 * min(longest, 6) if longest else 0.0

    def _steps(self, arrow: Arrow) -> int:
        """How many calls further down the column an arrow within it leads; 1 is the next of the same owner."""
        source, target = self.stack_of[arrow.source], self.stack_of[arrow.target]
        names = [box.name for stack in self.columns[self.column_of[arrow.source]] for box in stack.boxes]
        steps = abs(names.index(arrow.target) - names.index(arrow.source))
        return steps if source is target else max(steps, 2)

    def _lines(self) -> dict[str, list[tuple[float, float]]]:
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
            source, target = self.rects[arrow.source], self.rects[arrow.target]
            others = arriving[arrow.target]
            step = min(7.0, (target[3] - target[1]) * 0.7 / len(others))
            start = (source[2], (source[1] + source[3]) / 2)
            v = (target[1] + target[3]) / 2 + step * ((len(others) - 1) / 2 - others.index(arrow.name))
            if wire.lane < 0:
                x = track[arrow.name, "across"]
                lines[arrow.name] = [start, (x, start[1]), (x, v), (target[0], v)]
            else:
                up, down, lane = track[arrow.name, "up"], track[arrow.name, "down"], 12.0 + _LANE * wire.lane
                corners = [start, (up, start[1]), (up, lane), (down, lane), (down, v), (target[0], v)]
                lines[arrow.name] = corners
        for arrow in self.inner:
            source, target = self.rects[arrow.source], self.rects[arrow.target]
            steps = self._steps(arrow)
            middle = (source[0] + source[2]) / 2
            if steps == 1 and target[3] <= source[1]:
                lines[arrow.name] = [(middle, source[1]), (middle, target[3])]
            else:
                away = source[2] + 8.0 + 4.0 * min(steps, 6)
                quarter = (source[3] - source[1]) / 4
                low, high = (source[1] + source[3]) / 2 - quarter, (target[1] + target[3]) / 2 + quarter
                lines[arrow.name] = [(source[2], low), (away, low), (away, high), (target[2], high)]
        return lines

    # the page

    def run(self) -> Places:
        """The places, on a page that starts at (0, 0)."""
        self._set_columns()
        places = Places(Rect(0, 0, 0, 0), Point(0, 0))
        places.boxes = {name: self.axes.rect(*rect) for name, rect in self.rects.items()}
        places.groups = {name: self.axes.rect(*rect) for name, rect in self.frames.items()}
        groups = {group.name: group for group in self.scene.groups}
        for name, rect in places.groups.items():
            width, height = header_size(groups[name])
            x = rect.centre.x
            if self.axes.upright:  # beside the wire that comes in from above
                first = next(box.name for box in self.scene.boxes if box.group == name)
                x = places.boxes[first].centre.x + _ASIDE + width / 2
            places.headers[name] = Point(x, rect.high - 3 - height / 2)
        for name, corners in self._lines().items():
            (u0, v0), (u1, v1) = corners[-2:]
            length = max(abs(u1 - u0) + abs(v1 - v0), 1e-6)
            share = min(HEAD, 0.8 * length) / length
            end = (u1 - (u1 - u0) * share, v1 - (v1 - v0) * share)
            points = rounded([*corners[:-1], end], 4.0)
            places.arrows[name] = Path(
                tuple(self.axes.point(*point) for point in points), self.axes.point(*corners[-1])
            )
        return on_page(places, self.scene)
