"""The positions of everything in a scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hiresnet_graph.render.layout.geometry import (
    LABEL,
    LEADING,
    Corner,
    Curve,
    Label,
    Point,
    Rect,
    text_width,
)
from hiresnet_graph.render.scene.scene import Scene

Direction = Literal["LR", "TB"]


@dataclass(slots=True)
class Layout:
    """The positions of everything in a scene; `caption` and `headers` are centres of texts."""

    page: Rect
    caption: Point
    boxes: dict[str, Rect] = field(default_factory=dict)
    groups: dict[str, Rect] = field(default_factory=dict)
    headers: dict[str, Point] = field(default_factory=dict)
    arrows: dict[str, Curve] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)


class Area(NamedTuple):
    """A rectangle in the axes of a layout."""

    u0: float
    v0: float
    u1: float
    v1: float

    @property
    def u(self) -> float:
        """The middle in u."""
        return (self.u0 + self.u1) / 2

    @property
    def v(self) -> float:
        """The middle in v."""
        return (self.v0 + self.v1) / 2


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a layout: u, the direction of the flow, to the right and v up; if `upright`, u down and v left."""

    upright: bool

    def point(self, corner: Corner) -> Point:
        """A point (u, v) on the page."""
        u, v = corner
        return Point(-v, -u) if self.upright else Point(u, v)

    def rect(self, area: Area) -> Rect:
        """An area on the page."""
        a, b = self.point((area.u0, area.v0)), self.point((area.u1, area.v1))
        return Rect(min(a.x, b.x), min(a.y, b.y), max(a.x, b.x), max(a.y, b.y))

    def curve(self, points: Iterable[Corner], tip: Corner) -> Curve:
        """The line of an arrow on the page."""
        return Curve(tuple(map(self.point, points)), self.point(tip))

    def layout(self, boxes: Mapping[str, Area], groups: Mapping[str, Area]) -> Layout:
        """A layout with boxes and groups, still without a page."""
        return Layout(
            Rect(0, 0, 0, 0),
            Point(0, 0),
            {name: self.rect(area) for name, area in boxes.items()},
            {name: self.rect(area) for name, area in groups.items()},
        )


def on_page(layout: Layout, scene: Scene) -> Layout:
    """The layout moved so that the page starts at (0, 0), with the caption below."""
    rects = [*layout.boxes.values(), *layout.groups.values()]
    for label in layout.labels.values():
        rects += label.rects()
    points = [point for curve in layout.arrows.values() for point in curve.samples()]
    left, low, right, high = _bounds(rects, points)
    caption = LEADING * LABEL * len(scene.caption) + 12
    wide = max((text_width(line, LABEL) for line in scene.caption), default=0.0)
    if right - left < wide:
        spare = (wide - (right - left)) / 2
        left, right = left - spare, right + spare
    dx, dy = -left, -low + caption

    def point(p: Point) -> Point:
        return Point(round(p.x + dx, 2), round(p.y + dy, 2))

    def rect(r: Rect) -> Rect:
        return Rect(round(r.left + dx, 2), round(r.low + dy, 2), round(r.right + dx, 2), round(r.high + dy, 2))

    return Layout(
        Rect(0, 0, round(right - left, 2), round(high - low + caption, 2)),
        Point((right - left) / 2, (caption - 12) / 2),
        {name: rect(r) for name, r in layout.boxes.items()},
        {name: rect(r) for name, r in layout.groups.items()},
        {name: point(p) for name, p in layout.headers.items()},
        {name: Curve(tuple(map(point, curve.points)), point(curve.tip)) for name, curve in layout.arrows.items()},
        {name: Label(label.lines, point(label.at)) for name, label in layout.labels.items()},
    )


def _bounds(rects: Sequence[Rect], points: Sequence[Point]) -> tuple[float, float, float, float]:
    return (
        min([rect.left for rect in rects] + [point.x for point in points]),
        min([rect.low for rect in rects] + [point.y for point in points]),
        max([rect.right for rect in rects] + [point.x for point in points]),
        max([rect.high for rect in rects] + [point.y for point in points]),
    )
