"""The layout of networks that are no chain, and of all primitive calls: drawn like a circuit.

What belongs together (the calls of a node or edge, the blocks of a stage) is a column of boxes, one after the other
across the flow, or several columns where it branches. Wires between columns run in the gutters between them, each on
its own track, and beyond the next column in lanes: beside all columns, or inside the frame if both ends are there.

Wires with different sources never lie on one another, and no wire crosses a box: tracks and lanes are distinct; wires
leave boxes at multiples of `_GRID`, and arrive halfway between those unless nothing else is at this height.

A long circuit is wrapped into rows. A wire between rows runs in a lane of each, and on a track beyond all their ends.

Coordinates are (u, v): u is the direction of the flow, v points to the side of the lanes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from hiresnet_graph.render.layout.geometry import (
    HEAD,
    LABEL,
    LEADING,
    Corner,
    Label,
    Point,
    box_size,
    first_free,
    halves,
    header_size,
    rounded,
    text_width,
    without_head,
)
from hiresnet_graph.render.layout.layout import Area, Axes, Direction, Layout, on_page
from hiresnet_graph.render.layout.ranks import Owner, Ranks
from hiresnet_graph.render.scene.scene import Arrow, Box, Scene

_GRID = 4.0
_TRACK, _LANE, _STEP = 7.0, 8.0, 8.0
_INNER, _PAD, _BETWEEN, _ASIDE = 16.0, 8.0, 16.0, 8.0


_ROW_GAP = 20.0
_END = 10**6
"""A gutter beyond all others: the end of a row."""


def circuit_layout(scene: Scene, direction: Direction, max_length: float | None = None) -> Layout:
    """The layout of any scene, wrapped into rows that are no longer than `max_length` where stages allow it."""
    circuit = _Circuit(scene, direction)
    layout = circuit.layout()
    breaks = [] if max_length is None else circuit.breaks(max_length)
    return _Circuit(scene, direction, breaks).layout() if breaks else layout


@dataclass(slots=True)
class _Wire:
    """An arrow between columns.

    Attributes:
        leaves, arrives: The gutters at its ends, each the one after a column.
        home: The owner in whose frame its lane is; None for a lane beside all columns.
        lane: Its number; negative if both ends are at one gutter.
        rows: The rows of its ends.
        last_lane: The lane in the row of its target, if that is another row.
        margin: The track between its rows.
    """

    arrow: Arrow
    leaves: int
    arrives: int
    home: Owner | None
    lane: int = -1
    rows: tuple[int, int] = (0, 0)
    last_lane: int = -1
    margin: int = -1

    @property
    def is_wrapped(self) -> bool:
        """Whether it leads to another row."""
        return self.rows[0] != self.rows[1]

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last gutter that it passes."""
        arrives = _before(self.arrives)
        return min(self.leaves, arrives), max(self.leaves, arrives)


@dataclass(slots=True)
class _Bypass:
    """An arrow beside a run of boxes, past some of them or back; its track is counted from the run."""

    arrow: Arrow
    low: int
    high: int
    track: int = 0


@dataclass(slots=True)
class _Gutter:
    """The wires in the gutter after a column, in the order of their tracks; u is that of the first track.

    `label` is the space between tracks and the next column.
    """

    parts: list[tuple[_Wire, str]] = field(default_factory=list)
    u: float = 0.0
    label: float = 0.0


class _Circuit:
    def __init__(self, scene: Scene, direction: Direction, breaks: Sequence[int] = ()) -> None:
        """`breaks` are the columns with which a new row starts."""
        self.scene = scene
        self.starts = breaks
        self.axes = Axes(direction == "TB")
        self.ranks = Ranks(scene)
        self.straight: list[Arrow] = []
        self.bypasses: dict[int, list[_Bypass]] = {}
        self.wires: list[_Wire] = []
        self._sort_arrows()
        self._set_lanes()
        self.boxes: dict[str, Area] = {}
        self.frames: dict[str, Area] = {}
        self.ports: dict[str, float] = {}
        self.gutters = {k: _Gutter() for k in range(-1, len(self.ranks.columns))}
        self.gutters |= {_start_gutter(k): _Gutter() for k in self.starts}
        self.tops = [0.0] * (len(self.starts) + 1)
        self.end = 0.0

    # arrows

    def _sort_arrows(self) -> None:
        place: dict[str, tuple[int, int]] = {}
        for column in self.ranks.columns:
            for _, runs in column:
                for run in runs:
                    place.update({box.name: (id(run), i) for i, box in enumerate(run)})
        joined: set[tuple[str, str]] = set()
        for arrow in self.scene.arrows:
            (key, i), (other_key, j) = place[arrow.source], place[arrow.target]
            k, end = self.ranks.column_of[arrow.source], self.ranks.column_of[arrow.target]
            if key != other_key:
                owner = self.ranks.owner_of[arrow.source]
                is_inside = owner is self.ranks.owner_of[arrow.target] and k < end
                leaves = k if is_inside else self.ranks.last_of[arrow.source]
                rows = (bisect_right(self.starts, k), bisect_right(self.starts, end))
                arrives = _start_gutter(end) if end in self.starts else end - 1
                self.wires.append(_Wire(arrow, leaves, arrives, owner if is_inside else None, rows=rows))
            elif j == i + 1 and (arrow.source, arrow.target) not in joined:
                joined.add((arrow.source, arrow.target))
                self.straight.append(arrow)
            else:
                self.bypasses.setdefault(key, []).append(_Bypass(arrow, min(i, j), max(i, j)))
        for bypasses in self.bypasses.values():
            taken: list[list[tuple[int, int]]] = []
            for bypass in sorted(bypasses, key=lambda bypass: (bypass.high - bypass.low, bypass.low)):
                bypass.track = first_free(taken, bypass.low, bypass.high)

    def _set_lanes(self) -> None:
        """Assign a lane to each wire that goes beyond the next column: short ones nearest, without overlaps."""
        taken: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
        margins: list[list[tuple[int, int]]] = []
        far = [wire for wire in self.wires if wire.leaves != wire.arrives]
        for wire in sorted(far, key=lambda wire: (wire.is_wrapped, wire.span[1] - wire.span[0], wire.span)):
            first, last = ((0 if wire.home is None else id(wire.home), row) for row in wire.rows)
            if wire.is_wrapped:
                wire.lane = first_free(taken.setdefault(first, []), wire.leaves, _END)
                wire.last_lane = first_free(taken.setdefault(last, []), _before(wire.arrives), _END)
                wire.margin = first_free(margins, min(wire.rows), max(wire.rows))
            else:
                wire.lane = first_free(taken.setdefault(first, []), *wire.span)
        self.lanes = [len(taken.get((0, row), [])) for row in range(len(self.starts) + 1)]

    def _label(self, arrow: Arrow) -> tuple[str, ...]:
        if not self.scene.labelled or not arrow.label or arrow.family == "shortcut":
            return ()
        return tuple(arrow.label.split(", ")) if self.axes.upright else halves(arrow.label)

    def _label_size(self, arrow: Arrow) -> tuple[float, float]:
        """The extent of a label along the flow and across it; 0 without one."""
        lines = self._label(arrow)
        if not lines:
            return 0.0, 0.0
        width, height = max(text_width(line, LABEL) for line in lines) + 8.0, LEADING * LABEL * len(lines) + 4.0
        return (height, width) if self.axes.upright else (width, height)

    # across the flow

    def _arrivals(self) -> dict[str, list[_Wire]]:
        """The wires that arrive at each box, from the side of the lanes."""
        found: dict[str, list[_Wire]] = {}
        for wire in sorted(self.wires, key=lambda wire: (wire.lane < 0, wire.home is not None, -wire.lane)):
            found.setdefault(wire.arrow.target, []).append(wire)
        return found

    def _step(self, arrows: list[Arrow]) -> float:
        """The distance between the ports of arrows that arrive at one box."""
        labels = max(self._label_size(arrow)[1] for arrow in arrows)
        return max(-(-labels // _GRID) * _GRID, _STEP if len(arrows) <= 4 else _GRID)

    def _extents(self) -> dict[str, float]:
        """The extent of each box across the flow: enough for its text and its ports."""
        axis = 0 if self.axes.upright else 1
        least = max(box_size(box)[axis] for box in self.scene.boxes)
        ends: dict[str, list[Arrow]] = {}
        for bypass in (bypass for found in self.bypasses.values() for bypass in found):
            ends.setdefault(bypass.arrow.target, []).append(bypass.arrow)
        room = {name: 2 * self._step(arrows) * (len(arrows) + 1) for name, arrows in ends.items()}
        for name, wires in self._arrivals().items():
            number = len(wires) if len(wires) > 3 else 2 * len(wires) - 1
            room[name] = max(room.get(name, 0.0), self._step([wire.arrow for wire in wires]) * number + _STEP)
        return {box.name: _snapped(max(least, room.get(box.name, 0.0)), 2 * _GRID) for box in self.scene.boxes}

    def _set_rows(self) -> None:
        """Set v of all boxes and frames; u follows."""
        extents = self._extents()
        head = max((header_size(group)[1] for group in self.scene.groups), default=0.0)
        lanes: dict[int, int] = {}
        for wire in self.wires:
            if wire.home is not None:
                lanes[id(wire.home)] = max(lanes.get(id(wire.home), 0), wire.lane + 1)
        low: dict[int, float] = {}
        for owner in self.ranks.owners:
            top = low.get(owner.stack, 0.0)
            v = top - _PAD - _LANE * lanes.get(id(owner), 0)
            if self.scene.groups and not self.axes.upright:
                v -= _snapped(head, _GRID)
            ends = [self._set_runs(runs, v, extents) for runs in owner.columns]
            end = min(ends) - _PAD
            if owner.group is not None:
                if self.axes.upright:  # the header is beside the wires that arrive
                    end = min(end, self._header_start(owner) - _snapped(header_size(owner.group)[0] + _PAD, _GRID))
                self.frames[owner.group.name] = Area(0, end, 0, top)
            low[owner.stack] = end - _BETWEEN
        if not self.scene.groups:
            self._centre_rows(low)
        self._set_tops(low)

    def _set_tops(self, low: dict[int, float]) -> None:
        """Move the rows below each other, with space for their lanes."""
        first = {id(owner): self.ranks.column_of[owner.boxes[0].name] for owner in self.ranks.owners}
        row_of = {key: bisect_right(self.starts, column) for key, column in first.items()}
        for row in range(1, len(self.tops)):
            above = [low[owner.stack] for owner in self.ranks.owners if row_of[id(owner)] == row - 1]
            lowest = min(above if self.scene.groups else low.values()) + _BETWEEN
            space = _ROW_GAP + 12.0 + _LANE * self.lanes[row]
            self.tops[row] = self.tops[row - 1] + lowest - _snapped(space, 2 * _GRID)
        for owner in self.ranks.owners:
            shift = self.tops[row_of[id(owner)]]
            for box in owner.boxes:
                area = self.boxes[box.name]
                self.boxes[box.name] = area._replace(v0=area.v0 + shift, v1=area.v1 + shift)
            if owner.group is not None:
                frame = self.frames[owner.group.name]
                self.frames[owner.group.name] = frame._replace(v0=frame.v0 + shift, v1=frame.v1 + shift)

    def _centre_rows(self, low: dict[int, float]) -> None:
        """Move stacks without frames so that their middles are level."""
        lowest = min(low.values())
        for owner in self.ranks.owners:
            shift = _snapped((lowest - low[owner.stack]) / 2, _GRID)
            for box in owner.boxes:
                area = self.boxes[box.name]
                self.boxes[box.name] = area._replace(v0=area.v0 + shift, v1=area.v1 + shift)

    def _set_runs(self, runs: list[list[Box]], v: float, extents: dict[str, float]) -> float:
        for run in runs:
            for box in run:
                self.boxes[box.name] = Area(0, v - extents[box.name], 0, v)
                v -= extents[box.name] + _INNER
        return v + _INNER

    def _header_start(self, owner: Owner) -> float:
        """Where the header of an upright frame starts: past all ports of its first column."""
        runs = owner.columns[0]
        first = self.boxes[runs[0][0].name]
        if len(runs) > 1:
            return self.boxes[runs[-1][0].name].v0 - _ASIDE
        arrivals = [wire for wire in self.wires if wire.arrow.target == runs[0][0].name]
        room = self._step([wire.arrow for wire in arrivals]) * len(arrivals) / 2 if arrivals else 0.0
        return first.v - room - _ASIDE

    def _set_ports(self) -> None:
        """Set where wires arrive: never at the height of another wire that leaves into the same gutter."""
        leaving: dict[tuple[int, float], set[str]] = {}
        for wire in self.wires:
            source = self.boxes[wire.arrow.source]
            leaving.setdefault((wire.leaves, source.v), set()).add(wire.arrow.source)
        for name, wires in self._arrivals().items():
            v, number, step = self.boxes[name].v, len(wires), self._step([wire.arrow for wire in wires])
            wires = self._by_height(wires)
            level = [i for i, wire in enumerate(wires) if wire.lane < 0 and self.boxes[wire.arrow.source].v == v]
            for i, wire in enumerate(wires):
                others = leaving.get((wire.arrives, v), set()) - {wire.arrow.source}
                if number == 1 and not others:
                    offset = 0.0
                elif number <= 3 and level:
                    side = level[0] - i
                    offset = step * side - (_GRID / 2 if side > 0 else -_GRID / 2 if side < 0 else 0.0)
                else:
                    offset = (step * ((number - 1) / 2 - i) // _GRID) * _GRID + _GRID / 2
                self.ports[wire.arrow.name] = v + offset

    def _by_height(self, wires: list[_Wire]) -> list[_Wire]:
        """Wires with those from the last column in the order of their sources."""
        return sorted(wires, key=lambda wire: (wire.lane < 0, -self.boxes[wire.arrow.source].v if wire.lane < 0 else 0))

    # along the flow

    def _set_tracks(self) -> None:
        """Sort the wires of each gutter so that few cross.

        First those that rise to lanes, the farthest lane first; then those to the next column; then those that come
        down, the nearest lane first.
        """
        found: dict[int, list[tuple[tuple[float, ...], int, _Wire, str]]] = {k: [] for k in self.gutters}
        for i, wire in enumerate(self.wires):
            gutter = self.gutters[wire.arrives]
            gutter.label = max(gutter.label, self._label_size(wire.arrow)[0])
            far = (0 if wire.home is None else 1, wire.lane)
            if wire.lane >= 0:
                found[wire.leaves].append(((0, far[0], -far[1]), i, wire, "up"))
                last = wire.last_lane if wire.is_wrapped else wire.lane
                found[wire.arrives].append(((2, -far[0], last), i, wire, "down"))
                continue
            start, end = self.boxes[wire.arrow.source].v, self.ports[wire.arrow.name]
            if start != end:
                found[wire.leaves].append(((1, start < end, -start if start < end else start), i, wire, "across"))
        for k, uses in found.items():
            self.gutters[k].parts = [(wire, part) for _, _, wire, part in sorted(uses, key=lambda use: use[:2])]

    def _set_columns(self) -> None:
        """Set u of all boxes and frames."""
        u = self._pass_gutter(-1, 0.0) if any(wire.arrives < 0 for wire in self.wires) else 0.0
        for k, column in enumerate(self.ranks.columns):
            if k in self.starts:
                u = self._pass_gutter(_start_gutter(k), 0.0)
            runs = [run for _, runs in column for run in runs]
            sizes = [box_size(box) for run in runs for box in run]
            along = max(size[1 if self.axes.upright else 0] for size in sizes)
            bulge = max(map(self._bulge, runs))
            titles = [header_size(owner.group) for owner, own in column if owner.group and owner.columns[0] is own]
            head = max((size[1] for size in titles), default=0.0) if self.axes.upright else 0.0
            wide = max((size[0] + 2 * _PAD for size in titles), default=0.0)
            spare = 0.0 if self.axes.upright else max(0.0, wide - (along + bulge + 2 * _PAD)) / 2
            first = u + _PAD + head + spare
            end = first + along + bulge + spare + _PAD
            for owner, own in column:
                for box in (box for run in own for box in run):
                    self.boxes[box.name] = self.boxes[box.name]._replace(u0=first, u1=first + along)
                if owner.group is not None:
                    frame = self.frames[owner.group.name]
                    start = u if owner.columns[0] is own else frame.u0
                    self.frames[owner.group.name] = frame._replace(u0=start, u1=end)
            u = self._pass_gutter(k, end)
            self.end = max(self.end, u)

    def _bulge(self, run: list[Box]) -> float:
        """Space beside a run for its bypasses and their labels."""
        found = self.bypasses.get(id(run), [])
        if not found:
            return 0.0
        return self._label_space(found) + HEAD + 6.0 + _TRACK * (max(bypass.track for bypass in found) + 1)

    def _label_space(self, bypasses: list[_Bypass]) -> float:
        return max(self._label_size(bypass.arrow)[0] for bypass in bypasses)

    def _pass_gutter(self, k: int, u: float) -> float:
        """Set the tracks of the gutter that starts at u; gives its end."""
        gutter = self.gutters[k]
        gutter.u = u + 8.0
        return gutter.u + _TRACK * len(gutter.parts) + gutter.label + HEAD + 8.0

    # lines

    def _lines(self) -> dict[str, list[Corner]]:
        """The corners of each arrow's line."""
        lines: dict[str, list[Corner]] = {}
        track = {
            (wire.arrow.name, part): gutter.u + _TRACK * i
            for gutter in self.gutters.values()
            for i, (wire, part) in enumerate(gutter.parts)
        }
        for wire in self.wires:
            name, source, target = wire.arrow.name, self.boxes[wire.arrow.source], self.boxes[wire.arrow.target]
            start, end = (source.u1, source.v), (target.u0, self.ports[name])
            if wire.lane >= 0:
                up, down, lane = track[name, "up"], track[name, "down"], self._lane(wire)
                lines[name] = [start, (up, start[1]), (up, lane), (down, lane), (down, end[1]), end]
                if wire.is_wrapped:
                    beyond, last = self.end + _TRACK * (wire.margin + 1), self._row_lane(wire.rows[1], wire.last_lane)
                    between = [(beyond, lane), (beyond, last), (down, last)]
                    lines[name] = [start, (up, start[1]), (up, lane), *between, (down, end[1]), end]
            elif start[1] == end[1]:
                lines[name] = [start, end]
            else:
                u = track[name, "across"]
                lines[name] = [start, (u, start[1]), (u, end[1]), end]
        for arrow in self.straight:
            source, target = self.boxes[arrow.source], self.boxes[arrow.target]
            lines[arrow.name] = [(source.u, source.v0), (source.u, target.v1)]
        for bypasses in self.bypasses.values():
            lines |= self._bypass_lines(bypasses)
        return lines

    def _lane(self, wire: _Wire) -> float:
        """The height of a wire's lane."""
        if wire.home is None:
            return self._row_lane(wire.rows[0], wire.lane)
        top = max(self.boxes[box.name].v1 for runs in wire.home.columns for box in runs[0])
        return top + _LANE * (wire.lane + 0.5)

    def _row_lane(self, row: int, lane: int) -> float:
        return self.tops[row] + 12.0 + _LANE * lane

    def _bypass_lines(self, bypasses: list[_Bypass]) -> dict[str, list[Corner]]:
        """Lines that leave the lower half of a box, and arrive at the upper half of another."""
        lines: dict[str, list[Corner]] = {}
        arriving: dict[str, list[_Bypass]] = {}
        for bypass in sorted(bypasses, key=lambda bypass: bypass.track):
            arriving.setdefault(bypass.arrow.target, []).append(bypass)
        for name, found in arriving.items():
            target, step = self.boxes[name], self._step([bypass.arrow for bypass in found])
            for i, bypass in enumerate(found):
                source = self.boxes[bypass.arrow.source]
                u = source.u1 + self._label_space(bypasses) + HEAD + 6.0 + _TRACK * bypass.track
                start, end = source.v - (source.v1 - source.v0) / 4, target.v + step * (i + 1)
                if bypass.arrow.family == "shortcut" and source == target:  # from the block's input to its output
                    start, end = end, start
                lines[bypass.arrow.name] = [(source.u1, start), (u, start), (u, end), (target.u1, end)]
        return lines

    # page

    def breaks(self, max_length: float) -> list[int]:
        """The columns with which rows must start that are no longer than this; no frame and no stack is broken."""
        found: list[int] = []
        start = 0.0
        last = -1
        for k, column in enumerate(self.ranks.columns):
            stack = column[0][0].stack
            if stack == last:
                continue
            last = stack
            owned = [owner for owner in self.ranks.owners if owner.stack == stack]
            areas = [self.boxes[box.name] for owner in owned for box in owner.boxes]
            if k and max(area.u1 for area in areas) - start > max_length:
                found.append(k)
                start = min(area.u0 for area in areas)
        return found

    def layout(self) -> Layout:
        """The layout of boxes, frames, headers, wires and labels."""
        self._set_rows()
        self._set_ports()
        self._set_tracks()
        self._set_columns()
        layout = self.axes.layout(self.boxes, self.frames)
        for owner in self.ranks.owners:
            if owner.group is not None:
                rect, (width, height) = layout.groups[owner.group.name], header_size(owner.group)
                x = rect.centre.x if len(owner.columns) == 1 else rect.left + _PAD + width / 2
                if self.axes.upright:
                    x = -self._header_start(owner) + width / 2
                layout.headers[owner.group.name] = Point(x, rect.high - 3 - height / 2)
        for name, corners in self._lines().items():
            layout.arrows[name] = self.axes.curve(rounded(without_head(corners), 4.0), corners[-1])
        for arrow in self.scene.arrows:
            lines = self._label(arrow)
            if lines:
                layout.labels[arrow.name] = Label(lines, self._label_point(layout, arrow, lines))
        return on_page(layout, self.scene)

    def _label_point(self, layout: Layout, arrow: Arrow, lines: tuple[str, ...]) -> Point:
        """The middle of a label: at the last piece of its line, before the arrowhead."""
        tip, before = layout.arrows[arrow.name].tip, layout.arrows[arrow.name].points[-1]
        width, height = max(text_width(line, LABEL) for line in lines), LEADING * LABEL * len(lines)
        if abs(tip.x - before.x) < abs(tip.y - before.y):  # an upright line: beside it
            return Point(tip.x + 4 + width / 2, before.y + (1 if before.y > tip.y else -1) * (height / 2 + 1))
        x = before.x + (1 if before.x > tip.x else -1) * (width / 2 + 2)
        return Point(x, tip.y + height / 2 + 1.5)


def _snapped(value: float, unit: float) -> float:
    """The next multiple of a unit."""
    return -(-value // unit) * unit


def _start_gutter(column: int) -> int:
    """The gutter before a column that starts a row: no other has this number."""
    return -1 - column


def _before(gutter: int) -> int:
    """The number of a gutter in the order of columns."""
    return -2 - gutter if gutter < -1 else gutter
