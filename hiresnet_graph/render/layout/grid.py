"""The layout of a network unrolled in time: a column for each step, a row for each node.

The first node is the lowest row, so that bottom-up connections point up. An arrow without delay goes up or down its
column, one with a delay goes to the right: straight to the next column, or through a lane between two rows to a later
one. Each lane, and each piece of a line that leads to it or from it, has a place of its own.

Coordinates are (u, v): u is the direction of time, v points up; with `TB` time goes down, and the first node is on the
left.
"""

from __future__ import annotations

from collections import Counter

from hiresnet_graph.render.layout.geometry import (
    HEAD,
    Corner,
    Point,
    bisected,
    box_size,
    first_free,
    header_size,
    rounded,
    without_head,
)
from hiresnet_graph.render.layout.layout import Area, Axes, Direction, Layout, on_page
from hiresnet_graph.render.scene.scene import Arrow, Scene

_PAD, _BETWEEN, _LANE, _TRACK = 9.0, 24.0, 4.5, 5.0
_LEAVE, _ARRIVE = 0.27, (0.31, 0.45)
"""Where arrows beside a column leave and arrive: their distance from the middle of a box, as a share of its extent."""


def grid_layout(scene: Scene, direction: Direction) -> Layout:
    """The layout of an unrolled scene."""
    return _Grid(scene, direction).layout()


class _Grid:
    def __init__(self, scene: Scene, direction: Direction) -> None:
        self.scene = scene
        self.axes = Axes(direction == "TB")
        upright = self.axes.upright
        rows = list(dict.fromkeys(box.members for box in scene.boxes))
        columns = [group.name for group in scene.groups]
        self.row = {box.name: rows.index(box.members) for box in scene.boxes}
        self.column = {box.name: columns.index(box.group) for box in scene.boxes}
        sizes = [box_size(box) for box in scene.boxes]
        width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
        self.along, self.across = (height, width) if upright else (width, height)
        self.taken = {(self.column[box.name], self.row[box.name]) for box in scene.boxes}
        self.upwards: list[Arrow] = []
        self.beside: list[Arrow] = []
        self.onwards: list[Arrow] = []
        joined: set[tuple[str, str]] = set()
        for arrow in scene.arrows:
            pair = (arrow.source, arrow.target)
            if self.column[arrow.source] != self.column[arrow.target]:
                self.onwards.append(arrow)
            elif pair in joined or self._has_boxes_between(arrow):
                self.beside.append(arrow)
            else:
                joined.add(pair)
                self.upwards.append(arrow)
        self.boxes: dict[str, Area] = {}
        self.frames: dict[str, Area] = {}
        self._set_rows(len(rows))
        self._set_cells(columns)

    def _has_boxes_between(self, arrow: Arrow) -> bool:
        """Whether there are boxes between the ends of an arrow within a column."""
        low, high = sorted((self.row[arrow.source], self.row[arrow.target]))
        return any((self.column[arrow.source], row) in self.taken for row in range(low + 1, high))

    def _rise(self, arrow: Arrow) -> int:
        """The number of rows from the source of an arrow up to its target."""
        return self.row[arrow.target] - self.row[arrow.source]

    def _set_rows(self, number: int) -> None:
        """Set the middle of each row, and the lane of each long arrow: in the gap beyond its source's row."""
        taken: dict[int, list[list[tuple[int, int]]]] = {}
        self.lanes: dict[str, tuple[int, int]] = {}
        for arrow in self.onwards:
            if self._is_long(arrow):
                gap = self._gap(arrow, number)
                span = (self.column[arrow.source], self.column[arrow.target])
                self.lanes[arrow.name] = (gap, first_free(taken.setdefault(gap, []), *span))
        self.most = {gap: len(lanes) for gap, lanes in taken.items()}
        self.rows = [0.0]
        for row in range(number - 1):
            between = max(_BETWEEN, _LANE * (self.most.get(row, 0) + 2))
            self.rows.append(self.rows[-1] + self.across + between)

    def _gap(self, arrow: Arrow, number: int) -> int:
        """The gap of an arrow's lane: that after this row; beside the headers there is none."""
        row, rise = self.row[arrow.source], self._rise(arrow)
        if number == 1:
            return 0 if self.axes.upright else -1
        return row - 1 if rise < 0 or row == number - 1 else row

    def _v(self, row: int) -> float:
        """The middle of a row."""
        return self.rows[row] * (-1 if self.axes.upright else 1)

    def _lane(self, arrow: Arrow) -> float:
        """The height of an arrow's lane."""
        gap, i = self.lanes[arrow.name]
        middle = self.rows[max(gap, 0)] + (self.across + _BETWEEN) / 2 * (1 if gap >= 0 else -1)
        if 0 <= gap < len(self.rows) - 1:
            middle = (self.rows[gap] + self.rows[gap + 1]) / 2
        return (middle + _LANE * (i - (self.most[gap] - 1) / 2)) * (-1 if self.axes.upright else 1)

    def _tracks(self) -> tuple[dict[tuple[str, bool], int], int]:
        """The number of the piece to each lane (arrow, True) and from it (arrow, False) in its gutter; the most."""
        found: dict[tuple[str, bool], int] = {}
        used: Counter[tuple[int, bool]] = Counter()
        for arrow in self.onwards:
            if self._is_long(arrow):
                for box, leaves in ((arrow.source, True), (arrow.target, False)):
                    found[arrow.name, leaves] = used[self.column[box], leaves]
                    used[self.column[box], leaves] += 1
        return found, max(used.values(), default=0)

    def _set_cells(self, columns: list[str]) -> None:
        sizes = [header_size(group) for group in self.scene.groups]
        wide, high = max(w for w, _ in sizes), max(h for _, h in sizes)
        bulge = max((self._bulge(arrow) for arrow in self.beside), default=0.0)
        steepest = max((abs(self._rise(arrow)) for arrow in self.onwards), default=0)
        self.tracks, most = self._tracks()
        self.gutter = max(min(40.0 + 12.0 * steepest, 100.0), 2 * _TRACK * (most + 1) + 2 * HEAD)
        inner = self.along + bulge
        if not self.axes.upright:
            inner = max(inner, wide)
        pitch = inner + 2 * _PAD + self.gutter
        ends = sorted((self._v(0), self._v(len(self.rows) - 1)))
        v0, v1 = ends[0] - self.across / 2 - _PAD, ends[1] + self.across / 2 + _PAD
        v1 += wide + _PAD if self.axes.upright else high
        for k, name in enumerate(columns):
            self.frames[name] = Area(k * pitch - _PAD, v0, k * pitch + inner + _PAD, v1)
        spare = (inner - bulge - self.along) / 2
        for box in self.scene.boxes:
            u, v = self.column[box.name] * pitch + spare, self._v(self.row[box.name])
            self.boxes[box.name] = Area(u, v - self.across / 2, u + self.along, v + self.across / 2)

    def _bulge(self, arrow: Arrow) -> float:
        """The distance from its column of an arrow beside it."""
        return 8.0 + 6.0 * min(abs(self._rise(arrow)), 6)

    # arrows

    def _ports(self) -> dict[tuple[str, bool], float]:
        """Where the arrows between columns leave and arrive, in the order of their directions; level ones midway."""
        uses: dict[tuple[str, bool], list[tuple[float, str]]] = {}
        for arrow in self.onwards:
            rise = float(self._rise(arrow))
            around = 0.5 if rise == 0 and self._is_long(arrow) else 0.0
            uses.setdefault((arrow.source, True), []).append((rise + around, arrow.name))
            uses.setdefault((arrow.target, False), []).append((around - rise, arrow.name))
        most = 1
        offsets: dict[tuple[str, bool], int] = {}
        for (_, leaves), ends in uses.items():
            below = sum(rise < 0 for rise, _ in ends)
            level = any(rise == 0 for rise, _ in ends)
            for i, (_, name) in enumerate(sorted(ends)):
                offsets[name, leaves] = i - below + (0 if level or i < below else 1)
                most = max(most, abs(offsets[name, leaves]))
        space = 0.25 if self.beside else 0.42
        step = min(8.0, space * self.across / most) * (-1 if self.axes.upright else 1)
        middle = {
            (arrow.name, leaves): self._v(self.row[box])
            for arrow in self.onwards
            for box, leaves in ((arrow.source, True), (arrow.target, False))
        }
        return {end: middle[end] + step * offset for end, offset in offsets.items()}

    def _beside_ports(self) -> dict[str, float]:
        """How far from the middle of its box each arrow beside a column arrives, the nearest source outermost."""
        found: dict[tuple[str, bool], list[Arrow]] = {}
        for arrow in self.beside:
            found.setdefault((arrow.target, self._rise(arrow) > 0), []).append(arrow)
        ports = {}
        for arrows in found.values():
            arrows.sort(key=lambda arrow: (abs(self._rise(arrow)), arrow.name))
            for i, arrow in enumerate(arrows):
                share = i / (len(arrows) - 1) if len(arrows) > 1 else 0.5
                ports[arrow.name] = _ARRIVE[1] - (_ARRIVE[1] - _ARRIVE[0]) * share
        return ports

    def _is_long(self, arrow: Arrow) -> bool:
        """Whether an arrow passes a column."""
        return self.column[arrow.target] - self.column[arrow.source] > 1

    def _lines(self) -> dict[str, list[Corner]]:
        """The corners of the arrows between columns, and of those straight up or down one."""
        lines: dict[str, list[Corner]] = {}
        for arrow in self.upwards:
            a, b = self.boxes[arrow.source], self.boxes[arrow.target]
            lines[arrow.name] = [(a.u, a.v1), (a.u, b.v0)] if a.v1 < b.v0 else [(a.u, a.v0), (a.u, b.v1)]
        ports = self._ports()
        for arrow in self.onwards:
            a, b = self.boxes[arrow.source], self.boxes[arrow.target]
            start, end = (a.u1, ports[arrow.name, True]), (b.u0, ports[arrow.name, False])
            lines[arrow.name] = [start, end]
            if self._is_long(arrow):
                v, groups = self._lane(arrow), self.scene.groups
                left, right = (groups[self.column[box]].name for box in (arrow.source, arrow.target))
                up = self.frames[left].u1 + _TRACK * (1 + self.tracks[arrow.name, True])
                down = self.frames[right].u0 - HEAD - _TRACK * (1 + self.tracks[arrow.name, False])
                lines[arrow.name] = [start, (up, start[1]), (up, v), (down, v), (down, end[1]), end]
        return lines

    def layout(self) -> Layout:
        """The layout of boxes, frames, headers and arrows."""
        layout = self.axes.layout(self.boxes, self.frames)
        groups = {group.name: group for group in self.scene.groups}
        for name, rect in layout.groups.items():
            width, height = header_size(groups[name])
            beside = Point(rect.left + _PAD + width / 2, rect.centre.y)
            layout.headers[name] = beside if self.axes.upright else Point(rect.centre.x, rect.high - 4 - height / 2)
        for name, corners in self._lines().items():
            layout.arrows[name] = self.axes.curve(rounded(without_head(corners), 4.0), corners[-1])
        ends = self._beside_ports()
        for arrow in self.beside:
            a, b = self.boxes[arrow.source], self.boxes[arrow.target]
            sign = 1 if a.v0 < b.v0 else -1
            away = a.u1 + self._bulge(arrow) * 4 / 3
            low, high = a.v + sign * _LEAVE * self.across, b.v - sign * ends[arrow.name] * self.across
            points = bisected((a.u1, low), (away, low), (away, high), (b.u1 + HEAD, high))
            layout.arrows[arrow.name] = self.axes.curve(points, (b.u1, high))
        return on_page(layout, self.scene)
