"""The layout of a network whose flow is one chain, as nearly all are.

The chain runs along one axis, a stage is a column across it, and everything else is an arc beside it: forward arcs on
one side, backward ones on the other, so that nested skips look nested. Other graphs are drawn as a circuit.

Coordinates are (u, v): u is the direction of the flow, v points to the side of the forward arcs.
"""

from __future__ import annotations

from hiresnet_graph.render.layout.arcs import Arcs, Lines
from hiresnet_graph.render.layout.columns import Chain, ChainColumn
from hiresnet_graph.render.layout.geometry import (
    LABEL,
    Corner,
    Point,
    box_size,
    halves,
    header_size,
    text_width,
    wrapped,
)
from hiresnet_graph.render.layout.labels import MAX_FLOW_LINES, place_labels
from hiresnet_graph.render.layout.layout import Area, Axes, Direction, Layout, on_page
from hiresnet_graph.render.scene.scene import Arrow, Scene

_GAP, _VALLEY_DROP = 34.0, 42.0
_PAD = 9.0


def chain_layout(scene: Scene, direction: Direction) -> Layout:
    """The layout of a scene whose flow is one chain."""
    chain = Chain(scene, upright=direction == "TB")
    areas = ChainAreas(chain)
    lines = Lines()
    for arrow in chain.flow:
        lines.add(arrow.name, _flow_corners(chain, areas, arrow))
    Arcs(chain, areas, lines).draw()
    axes = Axes(chain.upright)
    layout = axes.layout(areas.boxes, areas.frames)
    for name, points in lines.points.items():
        layout.arrows[name] = axes.curve(points, lines.tips[name])
    _set_headers(chain, layout)
    if scene.labelled:
        place_labels(chain, areas, lines, layout)
    return on_page(layout, scene)


class ChainAreas:
    """The areas of boxes and of the frames around stages.

    Attributes:
        across: Extent of a box across the flow.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        sizes = [box_size(box) for box in chain.boxes]
        self._width, self._height = max(w for w, _ in sizes), max(h for _, h in sizes)
        self.across = self._width if chain.upright else self._height
        self.boxes: dict[str, Area] = {}
        self.frames: dict[str, Area] = {}
        if chain.cells:
            self._set_valley()
        else:
            self._set_columns()

    def _along(self, column: ChainColumn) -> float:
        """Extent of a column's boxes along the flow; without stages the same for all columns."""
        if self._chain.upright:
            return self._height
        return max(box_size(box)[0] for box in column.boxes) if self._chain.groups else self._width

    def _gap(self) -> float:
        """Space between columns: enough for the labels of arcs between neighbours, which stand side by side."""
        chain, gap = self._chain, _GAP
        if not chain.scene.labelled or chain.upright:
            return gap
        for arrow in chain.arcs:
            if abs(chain.columns_apart(arrow)) == 1:
                along = sum(self._along(chain.column(box)) for box in (arrow.source, arrow.target))
                gap = max(gap, _text_width(halves(arrow.label)) + 34 - along / 2)
        for arrow in chain.flow:
            if arrow.label:
                gap = max(gap, _text_width(wrapped(arrow.label, MAX_FLOW_LINES)) + 16.0)
        return gap

    def _set_columns(self) -> None:
        chain, gap = self._chain, self._gap()
        inner = 22.0 if chain.upright else 20.0
        tallest_header = max((header_size(group)[1] for group in chain.groups.values()), default=0.0)
        u = 0.0
        previous: ChainColumn | None = None
        for column in chain.columns:
            group = column.group
            continues = group is not None and previous is not None and previous.group is group
            if previous is not None:
                u += inner if continues else gap
            column.u0 = u
            along, room = self._along(column), self._room_for_inner_arcs(column)
            bulge = 14.0 if chain.has_shortcuts(column) else 0.0
            spare = before = 0.0
            if group is not None:
                before = _PAD + (tallest_header if chain.upright else 0.0)
                if not chain.upright and not chain.is_split(column):
                    spare = max(0.0, header_size(group)[0] - (2 * _PAD + room + along + bulge)) / 2
            first = u + (0.0 if continues else before) + spare + room
            framed = self._stack_boxes(column, first, along, inner)
            u = column.u1 = first + along + bulge + spare
            previous = column
            if group is not None:
                frame = self._set_frame(column, inner, framed, u, continues=continues)
                last = next(other for other in reversed(chain.columns) if other.group is group)
                if column is last:
                    u = column.u1 = frame.u1

    def _stack_boxes(self, column: ChainColumn, first: float, along: float, inner: float) -> float:
        """Set the boxes of a column below each other; gives the extent of those inside the frame."""
        across, framed = 0.0, 0.0
        for box in column.boxes:
            if column.group is not None and not box.group and framed == across:
                across += _PAD  # below the frame
            self.boxes[box.name] = Area(first, -across - self.across / 2, first + along, -across + self.across / 2)
            across += self.across + inner
            if box.group:
                framed = across
        return framed

    def _set_frame(self, column: ChainColumn, inner: float, framed: float, u: float, *, continues: bool) -> Area:
        """Set the frame of a column's stage, or extend it."""
        chain, group = self._chain, column.group
        assert group is not None
        wide, high = header_size(group)
        v0, v1 = inner - framed + self.across / 2 - _PAD, self.across / 2 + _PAD
        if len(column.boxes) == 1 and chain.shortcuts:
            v0 -= 8.0
        if chain.upright:
            v0 = min(v0, -wide - 12)
        elif chain.is_split(column):
            v0 -= high  # arcs end at the blocks: the header goes below them
        else:
            v1 += high
        u0 = self.frames[group.name].u0 if continues else column.u0
        u1 = u + _PAD if chain.upright else max(u + _PAD, u0 + wide)
        frame = self.frames[group.name] = Area(u0, v0, u1, v1)
        return frame

    def _room_for_inner_arcs(self, column: ChainColumn) -> float:
        """Space beside a column for the arcs inside it."""
        arcs = self._chain.inner_arcs(column)
        if not arcs:
            return 0.0
        labels = [text_width(arrow.label, LABEL) for arrow in arcs if self._chain.scene.labelled]
        space = 12.0 if self._chain.upright else max(labels, default=0.0)
        return 14.0 + 11.0 * max(arrow.distance for arrow in arcs) + space

    def _set_valley(self) -> None:
        along = self._along(self._chain.columns[0])
        for box in self._chain.boxes:
            column, row = self._chain.cells[box.name]
            u, v = column * (along + _GAP), -row * (self.across + _VALLEY_DROP)
            self.boxes[box.name] = Area(u, v - self.across / 2, u + along, v + self.across / 2)


def _text_width(lines: tuple[str, ...]) -> float:
    return max(text_width(line, LABEL) for line in lines)


def _flow_corners(chain: Chain, areas: ChainAreas, arrow: Arrow) -> list[Corner]:
    """The line of an arrow from a box to the next: along a row or column, or through the gutter between columns."""
    a, b = areas.boxes[arrow.source], areas.boxes[arrow.target]
    if abs(a.u - b.u) < 0.01:
        return [(a.u, a.v0), (b.u, b.v1)] if b.v < a.v else [(a.u, a.v1), (b.u, b.v0)]
    if abs(a.v - b.v) < 0.01:
        return [(a.u1, a.v), (b.u0, b.v)]
    column, following = chain.column(arrow.source), chain.column(arrow.target)
    low = areas.frames.get(column.boxes[-1].group, a).v0 - 10.0
    gutter = (column.u1 + following.u0) / 2
    return [(a.u, a.v0), (a.u, low), (gutter, low), (gutter, b.v), (b.u0, b.v)]


def _set_headers(chain: Chain, layout: Layout) -> None:
    for name, rect in layout.groups.items():
        width, height = header_size(chain.groups[name])
        x = (rect.left + rect.right) / 2
        if chain.upright:  # beside the arrow that comes in from above
            x = max(x, 8 + width / 2)
        is_split = any(column.group is chain.groups[name] and chain.is_split(column) for column in chain.columns)
        is_below = is_split and not chain.upright
        layout.headers[name] = Point(x, rect.low + 3 + height / 2 if is_below else rect.high - 5 - height / 2)
