"""Places for a network that is unrolled in time: a column for each step, a row for each node.

The first node is the lowest row, so that what is bottom-up in the network is so on the page. A value that takes no
time goes up or down its column, one that does goes to the right: to the next column straight, further on through a
lane between two rows. As in `chain`, u is the direction of time and v points upwards; with `TB` time goes down, and the
first node is on the left.
"""

from __future__ import annotations

from hiresnet_graph.render.geometry import (
    HEAD,
    Axes,
    Direction,
    Path,
    Places,
    Point,
    Rect,
    box_size,
    halved,
    header_size,
    on_page,
    rounded,
)
from hiresnet_graph.render.scene import Arrow, Scene

_PAD, _BETWEEN, _LANE = 9.0, 24.0, 4.5


def place_steps(scene: Scene, direction: Direction) -> Places:
    """Places for an unrolled scene."""
    return _Grid(scene, direction).run()


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
            elif pair in joined or self._between(arrow):
                self.beside.append(arrow)
            else:
                joined.add(pair)
                self.upwards.append(arrow)
        self.rects: dict[str, tuple[float, float, float, float]] = {}  # u0, v0, u1, v1
        self.frames: dict[str, tuple[float, float, float, float]] = {}
        self._set_cells(len(rows), columns)

    def _between(self, arrow: Arrow) -> bool:
        """Whether boxes lie on the straight line of an arrow within its column."""
        low, high = sorted((self.row[arrow.source], self.row[arrow.target]))
        return any((self.column[arrow.source], row) in self.taken for row in range(low + 1, high))

    def _rise(self, arrow: Arrow) -> int:
        """How many rows further up an arrow ends."""
        return self.row[arrow.target] - self.row[arrow.source]

    def _v(self, row: int) -> float:
        """The middle of a row."""
        return row * (self.across + _BETWEEN) * (-1 if self.axes.upright else 1)

    def _set_cells(self, rows: int, columns: list[str]) -> None:
        sizes = [header_size(group) for group in self.scene.groups]
        wide, high = max(w for w, _ in sizes), max(h for _, h in sizes)
        bulge = max((self._bulge(arrow) for arrow in self.beside), default=0.0)
        steepest = max((abs(self._rise(arrow)) for arrow in self.onwards), default=0)
        self.gutter = min(40.0 + 12.0 * steepest, 100.0)
        inner = self.along + bulge
        if not self.axes.upright:
            inner = max(inner, wide)
        pitch = inner + 2 * _PAD + self.gutter
        ends = sorted((self._v(0), self._v(rows - 1)))
        v0, v1 = ends[0] - self.across / 2 - _PAD, ends[1] + self.across / 2 + _PAD
        v1 += wide + _PAD if self.axes.upright else high
        for k, name in enumerate(columns):
            self.frames[name] = (k * pitch - _PAD, v0, k * pitch + inner + _PAD, v1)
        spare = (inner - bulge - self.along) / 2
        for box in self.scene.boxes:
            u, v = self.column[box.name] * pitch + spare, self._v(self.row[box.name])
            self.rects[box.name] = (u, v - self.across / 2, u + self.along, v + self.across / 2)

    def _bulge(self, arrow: Arrow) -> float:
        """How far an arrow beside its column goes out."""
        return 8.0 + 6.0 * min(abs(self._rise(arrow)), 6)

    # arrows

    def _ports(self) -> dict[tuple[str, bool], float]:
        """Where the arrows between columns leave and arrive: those along a row midway, others by where they lead."""
        uses: dict[tuple[str, bool], list[tuple[float, str]]] = {}
        for arrow in self.onwards:
            rise = float(self._rise(arrow))
            around = 0.5 if rise == 0 and self._is_long(arrow) else 0.0
            uses.setdefault((arrow.source, True), []).append((rise + around, arrow.name))
            uses.setdefault((arrow.target, False), []).append((around - rise, arrow.name))
        most = 1
        places: dict[tuple[str, bool], int] = {}
        for (_, leaves), ends in uses.items():
            below = sum(rise < 0 for rise, _ in ends)
            level = any(rise == 0 for rise, _ in ends)
            for i, (_, name) in enumerate(sorted(ends)):
                places[name, leaves] = i - below + (0 if level or i < below else 1)
                most = max(most, abs(places[name, leaves]))
        room = 0.25 if self.beside else 0.42
        step = min(8.0, room * self.across / most) * (-1 if self.axes.upright else 1)
        middle = {
            (arrow.name, leaves): self._v(self.row[box])
            for arrow in self.onwards
            for box, leaves in ((arrow.source, True), (arrow.target, False))
        }
        return {end: middle[end] + step * place for end, place in places.items()}

    def _is_long(self, arrow: Arrow) -> bool:
        """Whether it passes a column."""
        return self.column[arrow.target] - self.column[arrow.source] > 1

    def _lines(self) -> dict[str, list[tuple[float, float]]]:
        """The corners of the arrows between columns, and of those straight up or down one."""
        lines: dict[str, list[tuple[float, float]]] = {}
        for arrow in self.upwards:
            a, b = self.rects[arrow.source], self.rects[arrow.target]
            middle = (a[0] + a[2]) / 2
            lines[arrow.name] = [(middle, a[3]), (middle, b[1])] if a[3] < b[1] else [(middle, a[1]), (middle, b[3])]
        ports = self._ports()
        lanes: dict[float, list[tuple[int, int]]] = {}
        for arrow in self.onwards:
            a, b = self.rects[arrow.source], self.rects[arrow.target]
            start, end = (a[2], ports[arrow.name, True]), (b[0], ports[arrow.name, False])
            lines[arrow.name] = [start, end]
            if self._is_long(arrow):
                v = self._lane(arrow, lanes)
                turn = _PAD + self.gutter * 0.6
                lines[arrow.name] = [start, (start[0] + turn, v), (end[0] - turn, v), end]
        return lines

    def _lane(self, arrow: Arrow, lanes: dict[float, list[tuple[int, int]]]) -> float:
        """A free place between the row of the source and the next one on the way."""
        span = (self.column[arrow.source], self.column[arrow.target])
        side = -1 if self._rise(arrow) < 0 else 1
        middle = (self._v(self.row[arrow.source]) + self._v(self.row[arrow.source] + side)) / 2
        tries = [middle + _LANE * shift for shift in (0, 1, -1, 2, -2)]
        free = (v for v in tries if all(span[1] <= low or high <= span[0] for low, high in lanes.get(v, ())))
        v = next(free, middle)
        lanes.setdefault(v, []).append(span)
        return v

    def run(self) -> Places:
        """The places, on a page that starts at (0, 0)."""
        places = Places(Rect(0, 0, 0, 0), Point(0, 0))
        places.boxes = {name: self.axes.rect(*rect) for name, rect in self.rects.items()}
        groups = {group.name: group for group in self.scene.groups}
        for name, frame in self.frames.items():
            rect = places.groups[name] = self.axes.rect(*frame)
            width, height = header_size(groups[name])
            beside = Point(rect.left + _PAD + width / 2, rect.centre.y)
            places.headers[name] = beside if self.axes.upright else Point(rect.centre.x, rect.high - 4 - height / 2)
        for name, corners in self._lines().items():
            (u0, v0), (u1, v1) = corners[-2:]
            length = max(((u1 - u0) ** 2 + (v1 - v0) ** 2) ** 0.5, 1e-6)
            share = min(HEAD, 0.8 * length) / length
            end = (u1 - (u1 - u0) * share, v1 - (v1 - v0) * share)
            places.arrows[name] = self._path(rounded([*corners[:-1], end], 12.0), corners[-1])
        for arrow in self.beside:
            a, b = self.rects[arrow.source], self.rects[arrow.target]
            side = 0.36 * self.across * (1 if a[1] < b[1] else -1)
            away = a[2] + self._bulge(arrow) * 4 / 3
            low, high = a[1] + self.across / 2 + side, b[1] + self.across / 2 - side
            points = halved((a[2], low), (away, low), (away, high), (b[2] + HEAD, high))
            places.arrows[arrow.name] = self._path(points, (b[2], high))
        return on_page(places, self.scene)

    def _path(self, points: list[tuple[float, float]], tip: tuple[float, float]) -> Path:
        return Path(tuple(self.axes.point(*point) for point in points), self.axes.point(*tip))
