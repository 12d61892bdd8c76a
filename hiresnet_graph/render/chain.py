"""Places for the boxes and arrows of a network that is one chain, as nearly all are.

The chain runs along one axis, a stage is a column across it, and everything that is not the chain is an arc beside it:
forward arcs on one side, backward ones on the other, so that nested skips look nested. General graphs are Graphviz's
business: `place_chain` gives None for them.

All is worked out along the axes (u, v): u is the direction of the flow, v points to the side of the forward arcs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hiresnet_graph.render.geometry import (
    HEAD,
    LABEL,
    LEADING,
    Axes,
    Direction,
    Label,
    Path,
    Places,
    Point,
    Rect,
    bounds_of,
    box_size,
    broken,
    halved,
    halves,
    header_size,
    on_page,
    rounded,
    straight,
    text_width,
)
from hiresnet_graph.render.scene import Arrow, Box, Group, Scene

_MOST_LINES = 3
"""Lines of a label between two boxes."""
_MOST_COLUMNS, _MOST_STAGES = 10, 6
"""More columns than this, and nodes at which no arc ends are stacked; fewer beside stages, which are columns anyway."""


def _chain(scene: Scene) -> list[Box] | None:
    """The boxes in order, if the flow joins each to the next; None if it branches."""
    if not scene.boxes:
        return None
    boxes = list(scene.boxes)
    joined = {(arrow.source, arrow.target) for arrow in scene.arrows if arrow.family in ("flow", "edge")}
    for box, following in pairwise(boxes):
        if (box.name, following.name) not in joined:
            return None
    index = {box.name: i for i, box in enumerate(boxes)}
    for arrow in scene.arrows:
        if arrow.family == "flow" and index[arrow.target] - index[arrow.source] != 1 and not arrow.delay:
            return None
    ended = [group.name for group in scene.groups]
    runs = [box.group for i, box in enumerate(boxes) if box.group and (i == 0 or boxes[i - 1].group != box.group)]
    return boxes if len(runs) == len(ended) else None


def place_chain(scene: Scene, direction: Direction) -> Places | None:
    """Places for a scene whose flow is one chain; None for any other."""
    boxes = _chain(scene)
    return _Placement(scene, boxes, direction).run() if boxes is not None else None


@dataclass(slots=True)
class _Column:
    """Boxes across the flow; `group` is the stage that they are."""

    boxes: list[Box]
    group: Group | None
    u0: float = 0.0
    u1: float = 0.0
    top: float = 0.0
    bottom: float = 0.0


class _Placement:
    def __init__(self, scene: Scene, boxes: list[Box], direction: Direction) -> None:
        self.scene = scene
        self.boxes = boxes
        self.upright = direction == "TB"
        self.axes = Axes(self.upright)
        self.groups = {group.name: group for group in scene.groups}
        sizes = [box_size(box) for box in boxes]
        self.width, self.height = max(w for w, _ in sizes), max(h for _, h in sizes)
        self.across = self.width if self.upright else self.height
        self.rects: dict[str, tuple[float, float, float, float]] = {}  # u0, v0, u1, v1
        self.frames: dict[str, tuple[float, float, float, float]] = {}
        self.index = {box.name: i for i, box in enumerate(boxes)}
        links: set[tuple[str, str]] = set()
        self.flow: list[Arrow] = []
        self.own: list[Arrow] = []
        self.arcs: list[Arrow] = []
        for arrow in scene.arrows:
            pair = (arrow.source, arrow.target)
            if arrow.family == "shortcut":
                self.own.append(arrow)
            elif (
                arrow.family in ("flow", "edge")
                and self.index[arrow.target] - self.index[arrow.source] == 1
                and pair not in links
            ):
                links.add(pair)
                self.flow.append(arrow)
            else:
                self.arcs.append(arrow)
        self.cells = self._valley()
        self.columns = self._columns()
        self.column_of = {box.name: k for k, column in enumerate(self.columns) for box in column.boxes}
        self.paths: dict[str, list[tuple[float, float]]] = {}
        self.tips: dict[str, tuple[float, float]] = {}
        self.apex: dict[str, tuple[float, float, bool]] = {}

    # columns

    def _columns(self) -> list[_Column]:
        """A stage is a column if arcs end at the stage, or inside it at one column; or else each block is one."""
        if self.cells:
            number = max(column for column, _ in self.cells.values()) + 1
            return [_Column([box for box in self.boxes if self.cells[box.name][0] == k], None) for k in range(number)]
        split = {box.group for box in self.boxes if box.group} & self._crossed()
        columns: list[_Column] = []
        for box in self.boxes:
            group = self.groups.get(box.group)
            last = columns[-1] if columns else None
            if group is not None and last is not None and last.group is group and box.group not in split:
                last.boxes.append(box)
            else:
                columns.append(_Column([box], group))
        most = _MOST_STAGES if self.groups and not self.upright else _MOST_COLUMNS
        if len(columns) > most and not split:
            columns = self._stacked(columns, most)
        return columns

    def _valley(self) -> dict[str, tuple[int, int]]:
        """Column and row of each box of a network that goes down in size and up again, as a U-Net is drawn.

        Empty for other networks, and where an arc would not run along one row.
        """
        sizes = [box.shape.spatial[0] if box.shape is not None and box.shape.spatial else 0 for box in self.boxes]
        down = next((i for i, (a, b) in enumerate(pairwise(sizes)) if b < a), len(sizes))
        if self.groups or not any(0 < a < b for a, b in pairwise(sizes[down:])):
            return {}
        cells: dict[str, tuple[int, int]] = {}
        column = row = 0
        for before, size, box in zip([sizes[0], *sizes], sizes, self.boxes, strict=False):
            if 0 < size != before:
                row += 1 if size < before else -1
            else:
                column += 1
            while (column, row) in cells.values():
                column += 1
            cells[box.name] = (column, row)
        first = min(column for column, _ in cells.values())
        flat = all(
            cells[arrow.source][1] == cells[arrow.target][1] and cells[arrow.source][0] < cells[arrow.target][0]
            for arrow in self.arcs
        )
        return {name: (column - first, row) for name, (column, row) in cells.items()} if flat else {}

    def _crossed(self) -> set[str]:
        """Stages with a block at which an arc from elsewhere ends."""
        group_of = {box.name: box.group for box in self.boxes}
        found = set()
        for arrow in self.arcs:
            ends = ((arrow.source, arrow.source_group), (arrow.target, arrow.target_group))
            inside = group_of[arrow.source] == group_of[arrow.target] != ""
            for box, stage in ends:
                if group_of[box] and not stage and not (inside and self.scene.level == "blocks"):
                    found.add(group_of[box])
        return found

    def _stacked(self, columns: list[_Column], most: int) -> list[_Column]:
        """Fewer columns: runs of boxes outside of stages at which no arc ends are stacked, or put below a stage."""
        ends = {name for arrow in self.arcs for name in (arrow.source, arrow.target)}
        tallest = max(3 if self.groups else 4, *(len(column.boxes) for column in columns))
        free = [column.group is None and column.boxes[0].name not in ends for column in columns]
        runs: list[_Column] = []
        for i, column in enumerate(columns):
            if free[i] and i and free[i - 1] and len(runs[-1].boxes) < tallest:
                runs[-1].boxes += column.boxes
            else:
                runs.append(_Column(column.boxes, column.group))
        if len(runs) <= most:
            return runs
        found: list[_Column] = []
        for run in runs:
            below = found[-1] if found else None
            loose = run.group is None and run.boxes[0].name not in ends
            if loose and below is not None and below.group and len(below.boxes) + len(run.boxes) <= tallest + 1:
                below.boxes += run.boxes
            else:
                found.append(run)
        return found

    def _along(self, column: _Column) -> float:
        """Extent of a column's boxes along the flow: one for all where there are no stages."""
        if self.upright:
            return self.height
        return max(box_size(box)[0] for box in column.boxes) if self.groups else self.width

    def _gap(self) -> float:
        """Room between columns: enough for the labels of arcs between neighbours, which stand side by side."""
        gap = 34.0
        if self.scene.labelled and not self.upright:
            for arrow in self.arcs:
                ends = [self.column_of[arrow.source], self.column_of[arrow.target]]
                if abs(ends[0] - ends[1]) == 1:
                    wide = max(text_width(line, LABEL) for line in halves(arrow.label))
                    gap = max(gap, wide + 34 - sum(self._along(self.columns[k]) for k in ends) / 2)
            for arrow in self.flow:
                if arrow.label:
                    gap = max(gap, max(text_width(line, LABEL) for line in broken(arrow.label, _MOST_LINES)) + 16.0)
        return gap

    def _set_columns(self) -> None:
        gap, pad = self._gap(), 9.0
        inner = 22.0 if self.upright else 20.0
        deepest = max((header_size(group)[1] for group in self.groups.values()), default=0.0)
        u = 0.0
        previous: _Column | None = None
        for column in self.columns:
            group = column.group
            continued = group is not None and previous is not None and previous.group is group
            if previous is not None:
                u += inner if continued else gap
            column.u0 = u
            along, room = self._along(column), self._inner_room(column)
            bulge = 14.0 if self._has_own(column) else 0.0
            wide, high = header_size(group) if group is not None else (0.0, 0.0)
            before = pad + (deepest if self.upright else 0.0) if group is not None else 0.0
            spare = 0.0
            if group is not None and not self.upright and not self._continues(column):
                spare = max(0.0, wide - (2 * pad + room + along + bulge)) / 2
            first = u + (0.0 if continued else before) + spare + room
            across, framed = 0.0, 0.0
            for box in column.boxes:
                if group is not None and not box.group and framed == across:
                    across += pad  # below the frame
                low, high_ = -across - self.across / 2, -across + self.across / 2
                self.rects[box.name] = (first, low, first + along, high_)
                across += self.across + inner
                if box.group:
                    framed = across
            u = column.u1 = first + along + bulge + spare
            previous = column
            if group is None:
                continue
            v0, v1 = inner - framed + self.across / 2 - pad, self.across / 2 + pad
            if len(column.boxes) == 1 and self.own:
                v0 -= 8.0
            if self.upright:
                v0 = min(v0, -wide - 12)
            elif self._continues(column):
                v0 -= high  # arcs end at the blocks: the header goes below them
            else:
                v1 += high
            u0 = self.frames[group.name][0] if continued else column.u0
            u1 = u + pad if self.upright else max(u + pad, u0 + wide)
            self.frames[group.name] = (u0, v0, u1, v1)
            last = next(other for other in reversed(self.columns) if other.group is group)
            if column is last:
                u = column.u1 = u1

    def _continues(self, column: _Column) -> bool:
        """Whether its stage has other columns too."""
        return column.group is not None and sum(other.group is column.group for other in self.columns) > 1

    def _set_valley(self) -> None:
        gap, drop = 34.0, 42.0
        along = self._along(self.columns[0])
        for box in self.boxes:
            column, row = self.cells[box.name]
            u, v = column * (along + gap), -row * (self.across + drop)
            self.rects[box.name] = (u, v - self.across / 2, u + along, v + self.across / 2)

    def _set_bridges(self) -> None:
        """Arcs of a valley: along their row, just above its boxes."""
        for arrow in self.arcs:
            a, b = self.rects[arrow.source], self.rects[arrow.target]
            inset = (a[2] - a[0]) * 0.25
            u0, u1, low = a[2] - inset, b[0] + inset, a[3]
            self._set_line(arrow, [(u0, low), (u0, low + 16), (u1, low + 16), (u1, low)])
            self.apex[arrow.name] = ((u0 + u1) / 2, low + 16, True)

    def _has_own(self, column: _Column) -> bool:
        """Whether shortcuts bulge out of the side of its boxes."""
        names = {box.name for box in column.boxes}
        return len(column.boxes) > 1 and any(arrow.source in names for arrow in self.own)

    def _inner_arcs(self, column: _Column) -> list[Arrow]:
        names = {box.name for box in column.boxes}
        if len(names) == 1:
            return []
        return [arrow for arrow in self.arcs if arrow.source in names and arrow.target in names]

    def _inner_room(self, column: _Column) -> float:
        """Room beside a column for the arcs inside it."""
        arcs = self._inner_arcs(column)
        if not arcs:
            return 0.0
        labels = [text_width(arrow.label, LABEL) for arrow in arcs if self.scene.labelled]
        return (
            14.0
            + 11.0 * max(arrow.distance for arrow in arcs)
            + (max(labels, default=0.0) if not self.upright else 12.0)
        )

    # flow

    def _flow_path(self, arrow: Arrow) -> None:
        a, b = self.rects[arrow.source], self.rects[arrow.target]
        row_a, row_b = (a[1] + a[3]) / 2, (b[1] + b[3]) / 2
        mid_a, mid_b = (a[0] + a[2]) / 2, (b[0] + b[2]) / 2
        if abs(mid_a - mid_b) < 0.01:
            ends = (a[1], b[3]) if row_b < row_a else (a[3], b[1])
            self._set_line(arrow, [(mid_a, ends[0]), (mid_b, ends[1])])
        elif abs(row_a - row_b) < 0.01:
            self._set_line(arrow, [(a[2], row_a), (b[0], row_b)])
        else:
            column = self.columns[self.column_of[arrow.source]]
            following = self.columns[self.column_of[arrow.target]]
            low = a[1] - 10.0
            box = column.boxes[-1]
            if box.group in self.frames:
                low = self.frames[box.group][1] - 10.0
            gutter = (column.u1 + following.u0) / 2
            self._set_line(arrow, [(mid_a, a[1]), (mid_a, low), (gutter, low), (gutter, row_b), (b[0], row_b)])

    def _set_line(self, arrow: Arrow, corners: list[tuple[float, float]]) -> None:
        """A line through corners, which are rounded, with room for the head."""
        (x0, y0), (x1, y1) = corners[-2:]
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-6)
        back = min(HEAD, length * 0.9)
        end = (x1 - (x1 - x0) / length * back, y1 - (y1 - y0) / length * back)
        self.paths[arrow.name] = rounded([*corners[:-1], end], 9.0)
        self.tips[arrow.name] = corners[-1]

    # arcs

    def _side(self, arrow: Arrow) -> Literal["high", "low", "left", "skip"]:
        if arrow in self._within:
            return "left"
        forward = self.index[arrow.target] > self.index[arrow.source]
        return "high" if forward and arrow.family != "gate" else "low"

    def _set_arcs(self) -> None:
        self._within = [arrow for column in self.columns for arrow in self._inner_arcs(column)]
        for arrow in self.own:
            self._set_own(arrow)
        if self.cells:
            self._set_bridges()
            return
        high = [arrow for arrow in self.arcs if self._side(arrow) == "high"]
        low = [arrow for arrow in self.arcs if self._side(arrow) == "low"]
        self._set_domes(high, 1.0)
        self._set_domes(low, -1.0)
        for column in self.columns:
            self._set_inner(column)

    def _end(self, box: str, group: str) -> tuple[str, tuple[float, float, float, float]]:
        if group in self.frames and not self._continues(self.columns[self.column_of[box]]):
            return group, self.frames[group]
        return box, self.rects[box]

    def _set_domes(self, arcs: list[Arrow], sign: float) -> None:
        """Arcs on one side of the chain: ends spread so that nested arcs do not cross, heights by their span."""
        if not arcs:
            return
        ports: dict[str, list[tuple[float, bool, str]]] = {}
        rects: dict[str, tuple[float, float, float, float]] = {}
        spans: dict[str, int] = {}
        loops = self._loops(arcs)
        for arrow in arcs:
            source, source_rect = self._end(arrow.source, arrow.source_group)
            target, target_rect = self._end(arrow.target, arrow.target_group)
            rects[source], rects[target] = source_rect, target_rect
            span = self.column_of[arrow.target] - self.column_of[arrow.source]
            spans[arrow.name] = abs(span)
            # From left to right: what comes from the left, nearest first; what goes to the right, farthest first.
            # With arcs that run backwards it is the other end that lies on the left.
            leaving, arriving = (2, -abs(span)), (0, abs(span))
            if span < 0:
                leaving, arriving = (0, abs(span)), (2, -abs(span))
            elif span == 0:
                depth = loops.get(arrow.name, 0) + 1
                leaving, arriving = (1, depth), (1, -depth)
            ports.setdefault(source, []).append((leaving[0] * 1e6 + leaving[1], True, arrow.name))
            ports.setdefault(target, []).append((arriving[0] * 1e6 + arriving[1], False, arrow.name))
        at: dict[tuple[str, bool], float] = {}
        for name, uses in ports.items():
            u0, _, u1, _ = rects[name]
            step = min(15.0, (u1 - u0) * 0.9 / len(uses))
            # The flow leaves a column in the middle of its other side.
            middle = (u0 + u1) / 2 if sign > 0 or name not in self.frames else u0 + (u1 - u0) / 5
            start = middle - step * (len(uses) - 1) / 2
            for i, (_, leaving_, arrow_name) in enumerate(sorted(uses)):
                at[arrow_name, leaving_] = start + i * step
        distinct = sorted(set(spans.values()))
        edge = max(rect[3] * sign if sign > 0 else -rect[1] for rect in [*self.rects.values(), *self.frames.values()])
        heights = self._heights(arcs, {span: _extent(arcs, spans, at, span) for span in distinct})
        for arrow in arcs:
            source, source_rect = self._end(arrow.source, arrow.source_group)
            target, target_rect = self._end(arrow.target, arrow.target_group)
            u0, u1 = at[arrow.name, True], at[arrow.name, False]
            if source == target:
                self._set_loop(arrow, u0, u1, source_rect[1], 30.0 + 20.0 * loops.get(arrow.name, 0))
                continue
            v0, v1 = (source_rect[3], target_rect[3]) if sign > 0 else (source_rect[1], target_rect[1])
            height = sign * (edge + heights[spans[arrow.name]])
            # Legs go straight to the edge of all boxes; the arch stands on that, so that arches nest.
            start, end = sign * edge, max(sign * edge, v1 + HEAD) if sign > 0 else min(sign * edge, v1 - HEAD)
            control = (height - (start + end) / 8) * 4 / 3
            arch = halved((u0, start), (u0, control), (u1, control), (u1, end))
            legs = (straight((u0, v0), (u0, start)), straight((u1, end), (u1, v1 + sign * HEAD)))
            self.paths[arrow.name] = [*legs[0][:-1], *arch, *legs[1][1:]]
            self.tips[arrow.name] = (u1, v1)
            self.apex[arrow.name] = ((u0 + u1) / 2, height, sign > 0)

    def _loops(self, arcs: Iterable[Arrow]) -> dict[str, int]:
        """How many shorter arcs from a box to itself lie inside each such arc."""
        found: dict[str, int] = {}
        inside: Counter[str] = Counter()
        for arrow in sorted(arcs, key=lambda arrow: arrow.delay):
            if arrow.source == arrow.target:
                found[arrow.name] = inside[arrow.source]
                inside[arrow.source] += 1
        return found

    def _set_loop(self, arrow: Arrow, u0: float, u1: float, v: float, drop: float) -> None:
        """An arc from a box to itself."""
        wide = max(8.0, abs(u1 - u0) / 2)
        middle = (u0 + u1) / 2
        ends = (middle + wide, middle - wide)
        points = ((ends[0], v), (ends[0] + 4, v - drop), (ends[1] - 4, v - drop), (ends[1], v - HEAD))
        self.paths[arrow.name] = halved(*points)
        self.tips[arrow.name] = (ends[1], v)
        self.apex[arrow.name] = (middle, v - 0.75 * drop - 0.5, False)

    def _heights(self, arcs: Sequence[Arrow], extents: dict[int, float]) -> dict[int, float]:
        """How far arcs of each span rise: a lane more for each longer span, and enough not to cut those that they span.

        Two arches from one place do not cut if their heights are as the roots of their extents.
        """
        label = 0.0
        if self.scene.labelled and self.upright:
            label = max((text_width(part, LABEL) for arrow in arcs for part in arrow.label.split(", ")), default=0.0)
        lane = 34.0 if self.scene.labelled else 14.0
        lane = max(min(lane, 420.0 / max(1, len(extents))), label + 18.0 if label else 0.0)
        height = max(40.0, label + 20.0)
        first = height / max(min((e for span, e in extents.items() if span), default=1.0), 1.0) ** 0.5
        found: dict[int, float] = {}
        for span, extent in extents.items():
            if any(found):
                height = max(height + lane, first * extent**0.5)
            found[span] = height
        return found

    def _set_inner(self, column: _Column) -> None:
        """Arcs between the boxes of one column, on the side where the flow comes in."""
        for arrow in self._inner_arcs(column):
            a, b = self.rects[arrow.source], self.rects[arrow.target]
            away = 14.0 + 11.0 * arrow.distance
            low, high = (a[1] + a[3]) / 2, (b[1] + b[3]) / 2
            down = arrow.source != arrow.target
            start = low - (self.across * 0.22 if down else -self.across * 0.3)
            end = high + (self.across * 0.22 if down else -self.across * 0.3)
            control = a[0] - away * 4 / 3
            self.paths[arrow.name] = [(a[0], start), (control, start), (control, end), (b[0] - HEAD, end)]
            self.tips[arrow.name] = (b[0], end)
            self.apex[arrow.name] = (a[0] - away, (start + end) / 2, False)

    def _set_own(self, arrow: Arrow) -> None:
        """A block's own shortcut: around the block, from where its input comes to where its output goes."""
        u0, v0, u1, v1 = self.rects[arrow.source]
        if len(self.columns[self.column_of[arrow.source]].boxes) > 1:
            start, end = v1 - (v1 - v0) * 0.16, v0 + (v1 - v0) * 0.16
            self.paths[arrow.name] = [(u1, start), (u1 + 15, start), (u1 + 15, end), (u1 + HEAD * 0.8, end)]
            self.tips[arrow.name] = (u1, end)
        else:
            start, end = u0 + (u1 - u0) * 0.2, u1 - (u1 - u0) * 0.2
            self.paths[arrow.name] = [(start, v0), (start, v0 - 15), (end, v0 - 15), (end, v0 - HEAD * 0.8)]
            self.tips[arrow.name] = (end, v0)

    # the page

    def run(self) -> Places:
        """The places, on a page that starts at (0, 0)."""
        if self.cells:
            self._set_valley()
        else:
            self._set_columns()
        for arrow in self.flow:
            self._flow_path(arrow)
        self._set_arcs()
        places = Places(Rect(0, 0, 0, 0), Point(0, 0))
        places.boxes = {name: self.axes.rect(*rect) for name, rect in self.rects.items()}
        places.groups = {name: self.axes.rect(*rect) for name, rect in self.frames.items()}
        for name, points in self.paths.items():
            places.arrows[name] = Path(
                tuple(self.axes.point(*point) for point in points), self.axes.point(*self.tips[name])
            )
        for name, rect in places.groups.items():
            width, height = header_size(self.groups[name])
            x = (rect.left + rect.right) / 2
            if self.upright:  # beside the arrow that comes in from above
                x = max(x, 8 + width / 2)
            split = any(column.group is self.groups[name] and self._continues(column) for column in self.columns)
            below = split and not self.upright
            places.headers[name] = Point(x, rect.low + 3 + height / 2 if below else rect.high - 5 - height / 2)
        if self.scene.labelled:
            self._set_labels(places)
        return on_page(places, self.scene)

    def _set_labels(self, places: Places) -> None:
        """Labels at the tops of arcs, moved to where the fewest other things are."""
        crowd = [
            (bounds_of(points), points)
            for points in (places.arrows[arrow.name].samples(40) for arrow in self.scene.arrows)
        ]
        taken: list[Rect] = [*places.boxes.values()]
        arrows = sorted((arrow for arrow in self.scene.arrows if arrow.label), key=lambda arrow: self._rank(arrow))
        for arrow in arrows:
            if arrow.family == "shortcut":
                continue
            best: tuple[float, Label] | None = None
            for against, lines in self._wordings(arrow):
                width = max(text_width(line, LABEL) for line in lines)
                height = LEADING * LABEL * len(lines)
                for cost, centre in self._candidates(arrow, places.arrows[arrow.name], width, height):
                    label = Label(lines, centre)
                    cost += against
                    for rect in label.rects():
                        near = (points for bounds, points in crowd if rect.meets(bounds))
                        cost += 3.0 * sum(any(map(rect.holds, points)) for points in near)
                        cost += 6.0 * sum(rect.meets(other) for other in taken)
                    if best is None or cost < best[0]:
                        best = (cost, label)
            assert best is not None
            places.labels[arrow.name] = best[1]
            taken += [rect.grown(1) for rect in best[1].rects()]

    def _wordings(self, arrow: Arrow) -> Iterable[tuple[float, tuple[str, ...]]]:
        """Ways to break a label into lines, the best first, each with what is against it."""
        if self.upright and arrow.name in self.apex:
            yield 0.0, tuple(arrow.label.split(", "))
            return
        if arrow.name not in self.apex:
            room = self.rects[arrow.target][0] - self.rects[arrow.source][2] - 10.0
            for most in range(1, _MOST_LINES + 1):
                lines = broken(arrow.label, most)
                fits = self.upright or max(text_width(line, LABEL) for line in lines) <= room
                yield 0.1 * most + (0.0 if fits else 2.0), lines
            return
        near = abs(self.column_of[arrow.target] - self.column_of[arrow.source]) == 1
        yield (0.6 if near else 0.0), (arrow.label,)
        two = halves(arrow.label)
        if len(two) > 1:
            yield (0.0 if near else 1.0), two

    def _rank(self, arrow: Arrow) -> tuple[float, str]:
        apex = self.apex.get(arrow.name)
        return (abs(apex[1]) if apex is not None else 0.0, arrow.name)

    def _candidates(self, arrow: Arrow, path: Path, width: float, height: float) -> Iterable[tuple[float, Point]]:
        """Places for a label, the best first, each with what is against it."""
        if arrow.name not in self.apex:
            points = path.samples()
            middle = points[len(points) // 2]
            if len(path.points) == 4:  # a straight line
                middle = Point((points[0].x + path.tip.x) / 2, (points[0].y + path.tip.y) / 2)
            yield 0.0, Point(middle.x, middle.y + height / 2 + 2)
            yield 0.2, Point(middle.x, middle.y - height / 2 - 2)
            yield 0.3, Point(middle.x + width / 2 + 4, middle.y)
            return
        u, v, outwards = self.apex[arrow.name]
        top = self.axes.point(u, v)
        samples = path.samples(40)
        span = max(abs(samples[0].x - samples[-1].x), abs(samples[0].y - samples[-1].y))
        for share in (0.0, 0.05, -0.05, 0.1, -0.1, 0.16, -0.16, 0.22, -0.22, 0.28, -0.28):
            if self.upright:
                y = top.y + share * span
                x = _nearest(samples, y, lambda point: point.y, lambda point: point.x)
                away = -1 if outwards or arrow in self._within else 1
                near = abs(self.column_of[arrow.target] - self.column_of[arrow.source]) == 1
                yield abs(share) * 4 + (0.5 if near else 0.0), Point(x + away * (width / 2 + 4), y)
                yield abs(share) * 4 + (0.0 if near else 0.5), Point(x - away * (width / 2 + 4), y)
            elif arrow in self._within:
                y = top.y + share * span
                yield abs(share) * 4, Point(top.x - width / 2 - 3, y)
            else:
                x = top.x + share * span
                y = _nearest(samples, x, lambda point: point.x, lambda point: point.y)
                away = 1 if outwards else -1
                lines = round(height / (LEADING * LABEL))
                inside = 0.0 if lines > 1 else 0.5
                yield abs(share) * 4 + 0.5 - inside, Point(x, y + away * (height / 2 + 1.5))
                yield abs(share) * 4 + inside, Point(x, y - away * (height / 2 + 5))
                yield abs(share) * 4 + inside + 0.3, Point(x, y - away * (height / 2 + 9))


def _extent(arcs: Iterable[Arrow], spans: dict[str, int], at: dict[tuple[str, bool], float], span: int) -> float:
    """The longest extent of the arcs of one span."""
    return max(abs(at[arrow.name, True] - at[arrow.name, False]) for arrow in arcs if spans[arrow.name] == span)


def _nearest(points: list[Point], wanted: float, key: object, value: object) -> float:
    assert callable(key) and callable(value)
    return float(value(min(points[3:-3] or points, key=lambda point: abs(key(point) - wanted))))
