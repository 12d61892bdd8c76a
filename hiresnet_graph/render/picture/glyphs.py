"""The shapes of glyphs, for all writers."""

from __future__ import annotations

from collections.abc import Mapping

from hiresnet_graph.render.layout.geometry import Point
from hiresnet_graph.render.picture.picture import Glyph, Link, Symbol

GLYPH = 4.0
"""Radius of a glyph."""
_STROKES: Mapping[Symbol, tuple[tuple[float, float, float, float], ...]] = {
    "add": ((-0.62, 0, 0.62, 0), (0, -0.62, 0, 0.62)),
    "concat": ((-0.25, -0.62, -0.25, 0.62), (0.25, -0.62, 0.25, 0.62)),
    "gate": ((-0.45, -0.45, 0.45, 0.45), (-0.45, 0.45, 0.45, -0.45)),
    "scale": ((-0.35, -0.55, 0.55, 0), (0.55, 0, -0.35, 0.55), (-0.35, 0.55, -0.35, -0.55)),
    "other": ((-0.4, -0.4, 0.4, -0.4), (-0.4, 0, 0.4, 0), (-0.4, 0.4, 0.4, 0.4)),
}
"""The lines of each symbol in a circle of radius 1: x and y of both ends."""


def glyph_strokes(glyph: Glyph) -> list[tuple[Point, Point]]:
    """Both ends of each line of a glyph."""
    x, y = glyph.at
    return [
        (Point(x + GLYPH * x0, y + GLYPH * y0), Point(x + GLYPH * x1, y + GLYPH * y1))
        for x0, y0, x1, y1 in _STROKES[glyph.symbol]
    ]


def arrowhead(link: Link) -> list[Point]:
    """The corners of an arrowhead, whose point is `inset` before the tip of the line."""
    before, tip = link.curve.points[-1], link.curve.tip
    length = max(((tip.x - before.x) ** 2 + (tip.y - before.y) ** 2) ** 0.5, 1e-6)
    dx, dy = (tip.x - before.x) / length, (tip.y - before.y) / length
    end = Point(tip.x - dx * link.inset, tip.y - dy * link.inset)
    base = Point(end.x - dx * link.head, end.y - dy * link.head)
    half = link.head * 0.38
    return [end, Point(base.x - dy * half, base.y + dx * half), Point(base.x + dy * half, base.y - dx * half)]
