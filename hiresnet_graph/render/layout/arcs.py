"""The arcs of a chain: arrows beside the flow, forward ones on one side and backward ones on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hiresnet_graph.render.layout.columns import Chain, ChainColumn
from hiresnet_graph.render.layout.geometry import (
    HEAD,
    LABEL,
    Corner,
    bisected,
    rounded,
    straight,
    text_width,
    without_head,
)
from hiresnet_graph.render.layout.layout import Area
from hiresnet_graph.render.scene.scene import Arrow


class Areas(Protocol):
    """The areas of boxes and frames, and the extent of a box across the flow."""

    boxes: dict[str, Area]
    frames: dict[str, Area]
    across: float


class Apex(NamedTuple):
    """The top of an arc, where its label is; `is_outward` if the arc bulges towards positive v."""

    u: float
    v: float
    is_outward: bool


@dataclass(slots=True)
class Lines:
    """Bezier points and tip of each arrow, and the apex of each arc."""

    points: dict[str, list[Corner]] = field(default_factory=dict)
    tips: dict[str, Corner] = field(default_factory=dict)
    apex: dict[str, Apex] = field(default_factory=dict)

    def add(self, name: str, corners: list[Corner]) -> None:
        """Add a line through corners, which are rounded."""
        self.points[name] = rounded(without_head(corners, 0.9), 9.0)
        self.tips[name] = corners[-1]

    def add_curve(self, name: str, points: list[Corner], tip: Corner, apex: Apex | None = None) -> None:
        """Add a curve through Bezier points."""
        self.points[name], self.tips[name] = points, tip
        if apex is not None:
            self.apex[name] = apex


class Arcs:
    """Adds the arcs and the blocks' own shortcuts to the lines of a chain."""

    def __init__(self, chain: Chain, areas: Areas, lines: Lines) -> None:
        self._chain, self._areas, self._lines = chain, areas, lines
        self._depth = _loop_depths(chain.arcs)

    def draw(self) -> None:
        """Add all of them."""
        chain = self._chain
        for arrow in chain.shortcuts:
            self._add_shortcut(arrow)
        if chain.cells:
            for arrow in chain.arcs:
                self._add_bridge(arrow)
            return
        outer = [arrow for arrow in chain.arcs if arrow not in chain.all_inner_arcs]
        self._add_domes([arrow for arrow in outer if self._is_high(arrow)], 1.0)
        self._add_domes([arrow for arrow in outer if not self._is_high(arrow)], -1.0)
        for column in chain.columns:
            self._add_inner_arcs(column)

    def _is_high(self, arrow: Arrow) -> bool:
        return self._chain.index[arrow.target] > self._chain.index[arrow.source] and arrow.family != "gate"

    # domes

    def _end(self, box: str, group: str) -> tuple[str, Area]:
        """The name and the area of what an arc ends at: a box, or the frame of its stage."""
        if group in self._areas.frames and not self._chain.is_split(self._chain.column(box)):
            return group, self._areas.frames[group]
        return box, self._areas.boxes[box]

    def _add_domes(self, arcs: list[Arrow], sign: float) -> None:
        """Add the arcs on one side of the chain; the more columns they span, the higher they are."""
        if not arcs:
            return
        spans = {arrow.name: abs(self._chain.columns_apart(arrow)) for arrow in arcs}
        ports = self._ports(arcs, sign)
        edge = max(
            area.v1 * sign if sign > 0 else -area.v0
            for area in [*self._areas.boxes.values(), *self._areas.frames.values()]
        )
        heights = self._heights(arcs, {span: _extent(arcs, spans, ports, span) for span in sorted(set(spans.values()))})
        for arrow in arcs:
            source, source_area = self._end(arrow.source, arrow.source_group)
            target, target_area = self._end(arrow.target, arrow.target_group)
            u0, u1 = ports[arrow.name, True], ports[arrow.name, False]
            if source == target:
                self._add_loop(arrow, u0, u1, source_area.v0)
                continue
            v0, v1 = (source_area.v1, target_area.v1) if sign > 0 else (source_area.v0, target_area.v0)
            height = sign * (edge + heights[spans[arrow.name]])
            # Legs go straight to the edge of all boxes; the arch stands on that, so that arches nest.
            start, end = sign * edge, max(sign * edge, v1 + HEAD) if sign > 0 else min(sign * edge, v1 - HEAD)
            control = (height - (start + end) / 8) * 4 / 3
            arch = bisected((u0, start), (u0, control), (u1, control), (u1, end))
            legs = (straight((u0, v0), (u0, start)), straight((u1, end), (u1, v1 + sign * HEAD)))
            points = [*legs[0][:-1], *arch, *legs[1][1:]]
            self._lines.add_curve(arrow.name, points, (u1, v1), Apex((u0 + u1) / 2, height, sign > 0))

    def _ports(self, arcs: list[Arrow], sign: float) -> dict[tuple[str, bool], float]:
        """Where arcs leave (arrow, True) and arrive (arrow, False), spread so that nested arcs do not cross."""
        uses: dict[str, list[tuple[float, bool, str]]] = {}
        areas: dict[str, Area] = {}
        for arrow in arcs:
            source, source_area = self._end(arrow.source, arrow.source_group)
            target, target_area = self._end(arrow.target, arrow.target_group)
            areas[source], areas[target] = source_area, target_area
            # From left to right: what comes from the left, nearest first; what goes to the right, farthest first.
            # With arcs that run backwards it is the other end that lies on the left.
            span = self._chain.columns_apart(arrow)
            leaving, arriving = (2, -abs(span)), (0, abs(span))
            if span < 0:
                leaving, arriving = (0, abs(span)), (2, -abs(span))
            elif span == 0:
                depth = self._depth.get(arrow.name, 0) + 1
                leaving, arriving = (1, depth), (1, -depth)
            uses.setdefault(source, []).append((leaving[0] * 1e6 + leaving[1], True, arrow.name))
            uses.setdefault(target, []).append((arriving[0] * 1e6 + arriving[1], False, arrow.name))
        found: dict[tuple[str, bool], float] = {}
        for name, ends in uses.items():
            u0, u1 = areas[name].u0, areas[name].u1
            step = min(15.0, (u1 - u0) * 0.9 / len(ends))
            # The flow leaves a column in the middle of its other side.
            middle = (u0 + u1) / 2 if sign > 0 or name not in self._areas.frames else u0 + (u1 - u0) / 5
            start = middle - step * (len(ends) - 1) / 2
            for i, (_, leaves, arrow_name) in enumerate(sorted(ends)):
                found[arrow_name, leaves] = start + i * step
        return found

    def _heights(self, arcs: Sequence[Arrow], extents: dict[int, float]) -> dict[int, float]:
        """The height of arcs of each span: a lane more for each longer span, and enough not to cut shorter arcs.

        Two arches from one place do not cut if their heights are as the roots of their extents.
        """
        chain, label = self._chain, 0.0
        if chain.scene.labelled and chain.upright:
            label = max((text_width(part, LABEL) for arrow in arcs for part in arrow.label.split(", ")), default=0.0)
        lane = 34.0 if chain.scene.labelled else 14.0
        lane = max(min(lane, 420.0 / max(1, len(extents))), label + 18.0 if label else 0.0)
        height = max(40.0, label + 20.0)
        first = height / max(min((e for span, e in extents.items() if span), default=1.0), 1.0) ** 0.5
        found: dict[int, float] = {}
        for span, extent in extents.items():
            if any(found):
                height = max(height + lane, first * extent**0.5)
            found[span] = height
        return found

    def _add_loop(self, arrow: Arrow, u0: float, u1: float, v: float) -> None:
        """Add an arc from a box to itself."""
        drop = 30.0 + 20.0 * self._depth.get(arrow.name, 0)
        wide = max(8.0, abs(u1 - u0) / 2)
        middle = (u0 + u1) / 2
        start, end = middle + wide, middle - wide
        points = bisected((start, v), (start + 4, v - drop), (end - 4, v - drop), (end, v - HEAD))
        self._lines.add_curve(arrow.name, points, (end, v), Apex(middle, v - 0.75 * drop - 0.5, False))

    # within a column, around a block, along a row

    def _add_inner_arcs(self, column: ChainColumn) -> None:
        """Add the arcs between the boxes of one column, on the side where the flow comes in."""
        across = self._areas.across
        arcs = self._chain.inner_arcs(column)
        for arrow in arcs:
            a, b = self._areas.boxes[arrow.source], self._areas.boxes[arrow.target]
            away = 14.0 + 11.0 * arrow.distance
            is_loop = arrow.source == arrow.target
            start = a.v - (-across * 0.3 if is_loop else across * 0.22)
            near = sorted((o.distance, o.name) for o in arcs if o.target == arrow.target and o.source != arrow.target)
            rank = near.index((arrow.distance, arrow.name)) if len(near) > 1 and not is_loop else 0
            spread = 0.22 if len(near) < 2 else 0.44 - 0.36 * rank / (len(near) - 1)  # the nearest arc is the innermost
            end = b.v + across * (-0.3 if is_loop else spread)
            control = a.u0 - away * 4 / 3
            points = [(a.u0, start), (control, start), (control, end), (b.u0 - HEAD, end)]
            self._lines.add_curve(arrow.name, points, (b.u0, end), Apex(a.u0 - away, (start + end) / 2, False))

    def _add_shortcut(self, arrow: Arrow) -> None:
        """Add a block's own shortcut: around the block, from its input to its output."""
        u0, v0, u1, v1 = self._areas.boxes[arrow.source]
        if len(self._chain.column(arrow.source).boxes) > 1:
            start, end = v1 - (v1 - v0) * 0.16, v0 + (v1 - v0) * 0.16
            points = [(u1, start), (u1 + 15, start), (u1 + 15, end), (u1 + HEAD * 0.8, end)]
            self._lines.add_curve(arrow.name, points, (u1, end))
        else:
            start, end = u0 + (u1 - u0) * 0.2, u1 - (u1 - u0) * 0.2
            points = [(start, v0), (start, v0 - 15), (end, v0 - 15), (end, v0 - HEAD * 0.8)]
            self._lines.add_curve(arrow.name, points, (end, v0))

    def _add_bridge(self, arrow: Arrow) -> None:
        """Add an arc of a valley: along its row, just above the boxes."""
        a, b = self._areas.boxes[arrow.source], self._areas.boxes[arrow.target]
        inset = (a.u1 - a.u0) * 0.25
        u0, u1, low = a.u1 - inset, b.u0 + inset, a.v1
        self._lines.add(arrow.name, [(u0, low), (u0, low + 16), (u1, low + 16), (u1, low)])
        self._lines.apex[arrow.name] = Apex((u0 + u1) / 2, low + 16, True)


def _loop_depths(arcs: Iterable[Arrow]) -> dict[str, int]:
    """The number of shorter loops inside each arc from a box to itself."""
    found: dict[str, int] = {}
    inside: Counter[str] = Counter()
    for arrow in sorted(arcs, key=lambda arrow: arrow.delay):
        if arrow.source == arrow.target:
            found[arrow.name] = inside[arrow.source]
            inside[arrow.source] += 1
    return found


def _extent(arcs: Iterable[Arrow], spans: dict[str, int], ports: dict[tuple[str, bool], float], span: int) -> float:
    """The longest extent of the arcs of one span."""
    return max(abs(ports[arrow.name, True] - ports[arrow.name, False]) for arrow in arcs if spans[arrow.name] == span)
