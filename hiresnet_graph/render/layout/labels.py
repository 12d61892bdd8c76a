"""The labels of arrows in a chain, each placed where it covers least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hiresnet_graph.render.layout.arcs import Areas, Lines
from hiresnet_graph.render.layout.columns import Chain
from hiresnet_graph.render.layout.geometry import (
    LABEL,
    LEADING,
    Curve,
    Label,
    Point,
    Rect,
    bounds_of,
    halves,
    text_width,
    wrapped,
)
from hiresnet_graph.render.layout.layout import Axes, Layout
from hiresnet_graph.render.scene.scene import Arrow

MAX_FLOW_LINES = 3
"""Lines of a label between two boxes."""
_SHIFTS = (0.0, 0.05, -0.05, 0.1, -0.1, 0.16, -0.16, 0.22, -0.22, 0.28, -0.28)
"""Positions of a label along its arc, from the apex, as shares of the arc's extent."""


def place_labels(chain: Chain, areas: Areas, lines: Lines, layout: Layout) -> None:
    """Add the labels of all arrows but shortcuts to a layout."""
    curves = [layout.arrows[arrow.name].samples(40) for arrow in chain.scene.arrows]
    obstacles = [(bounds_of(points), points) for points in curves]
    taken: list[Rect] = [*layout.boxes.values()]
    candidates = _Candidates(chain, areas, lines)
    arrows = sorted((arrow for arrow in chain.scene.arrows if arrow.label), key=candidates.rank)
    for arrow in arrows:
        if arrow.family == "shortcut":
            continue
        best: tuple[float, Label] | None = None
        for penalty, label in candidates.of(arrow, layout.arrows[arrow.name]):
            for rect in label.rects():
                near = (points for bounds, points in obstacles if rect.overlaps(bounds))
                penalty += 3.0 * sum(any(map(rect.contains, points)) for points in near)
                penalty += 6.0 * sum(rect.overlaps(other) for other in taken)
            if best is None or penalty < best[0]:
                best = (penalty, label)
        assert best is not None
        layout.labels[arrow.name] = best[1]
        taken += [rect.grown(1) for rect in best[1].rects()]


class _Candidates:
    """Possible labels of an arrow, each with a penalty."""

    def __init__(self, chain: Chain, areas: Areas, lines: Lines) -> None:
        self._chain, self._areas, self._lines = chain, areas, lines
        self._axes = Axes(chain.upright)

    def rank(self, arrow: Arrow) -> tuple[float, str]:
        """The order in which labels are placed: from the flow outwards."""
        apex = self._lines.apex.get(arrow.name)
        return (abs(apex.v) if apex is not None else 0.0, arrow.name)

    def of(self, arrow: Arrow, curve: Curve) -> Iterable[tuple[float, Label]]:
        """The candidates for the label of an arrow."""
        is_arc = arrow.name in self._lines.apex
        for line_penalty, lines in self._arc_lines(arrow) if is_arc else self._flow_lines(arrow):
            width = max(text_width(line, LABEL) for line in lines)
            height = LEADING * LABEL * len(lines)
            positions = self._arc_positions if is_arc else self._flow_positions
            for penalty, centre in positions(arrow, curve, width, height):
                yield penalty + line_penalty, Label(lines, centre)

    # line breaks

    def _flow_lines(self, arrow: Arrow) -> Iterable[tuple[float, tuple[str, ...]]]:
        available = self._areas.boxes[arrow.target].u0 - self._areas.boxes[arrow.source].u1 - 10.0
        for number in range(1, MAX_FLOW_LINES + 1):
            lines = wrapped(arrow.label, number)
            fits = self._chain.upright or max(text_width(line, LABEL) for line in lines) <= available
            yield 0.1 * number + (0.0 if fits else 2.0), lines

    def _arc_lines(self, arrow: Arrow) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._chain.upright:
            yield 0.0, tuple(arrow.label.split(", "))
            return
        is_near = abs(self._chain.columns_apart(arrow)) == 1
        yield (0.6 if is_near else 0.0), (arrow.label,)
        two = halves(arrow.label)
        if len(two) > 1:
            yield (0.0 if is_near else 1.0), two

    # positions

    def _flow_positions(self, arrow: Arrow, curve: Curve, width: float, height: float) -> Iterable[tuple[float, Point]]:
        points = curve.samples()
        middle = points[len(points) // 2]
        if len(curve.points) == 4:  # a straight line
            middle = Point((points[0].x + curve.tip.x) / 2, (points[0].y + curve.tip.y) / 2)
        yield 0.0, Point(middle.x, middle.y + height / 2 + 2)
        yield 0.2, Point(middle.x, middle.y - height / 2 - 2)
        yield 0.3, Point(middle.x + width / 2 + 4, middle.y)

    def _arc_positions(self, arrow: Arrow, curve: Curve, width: float, height: float) -> Iterable[tuple[float, Point]]:
        apex = self._lines.apex[arrow.name]
        top = self._axes.point((apex.u, apex.v))
        samples = curve.samples(40)
        extent = max(abs(samples[0].x - samples[-1].x), abs(samples[0].y - samples[-1].y))
        is_inner = arrow in self._chain.all_inner_arcs
        for shift in _SHIFTS:
            penalty = abs(shift) * 4
            if self._chain.upright:
                y = top.y + shift * extent
                x = _nearest(samples, y, lambda point: point.y).x
                away = -1 if apex.is_outward or is_inner else 1
                is_near = abs(self._chain.columns_apart(arrow)) == 1
                yield penalty + (0.5 if is_near else 0.0), Point(x + away * (width / 2 + 4), y)
                yield penalty + (0.0 if is_near else 0.5), Point(x - away * (width / 2 + 4), y)
            elif is_inner:
                yield penalty, Point(top.x - width / 2 - 3, top.y + shift * extent)
            else:
                x = top.x + shift * extent
                y = _nearest(samples, x, lambda point: point.x).y
                away = 1 if apex.is_outward else -1
                inside = 0.0 if round(height / (LEADING * LABEL)) > 1 else 0.5
                yield penalty + 0.5 - inside, Point(x, y + away * (height / 2 + 1.5))
                yield penalty + inside, Point(x, y - away * (height / 2 + 5))
                yield penalty + inside + 0.3, Point(x, y - away * (height / 2 + 9))


def _nearest(points: Sequence[Point], value: float, key: Callable[[Point], float]) -> Point:
    """The point whose key is nearest to a value, not counting the ends of a curve."""
    return min(points[3:-3] or points, key=lambda point: abs(key(point) - value))
