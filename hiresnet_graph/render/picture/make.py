"""Makes the picture of a scene and its layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import hypot

from hiresnet_graph.figure_style import POINTS_PER_CM
from hiresnet_graph.formats import one_line
from hiresnet_graph.render.layout.geometry import (
    HEAD,
    LABEL,
    LEADING,
    LINE,
    NOTE,
    TITLE,
    Curve,
    Point,
    Rect,
    title_lines,
)
from hiresnet_graph.render.layout.layout import Layout
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.glyphs import GLYPH
from hiresnet_graph.render.picture.picture import Glyph, Link, Panel, Picture, Symbol, Text
from hiresnet_graph.render.picture.theme import SKIP_DASHES, THEMES, Theme
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Scene

_MARGIN = 10.0
_FACTOR_AT = (15.0, 25.0, 40.0, 60.0, 80.0, 100.0)
"""Distances of the glyph of a factor from the tip of its line, the best first."""
_GAP = 2.0
"""Space between the lines of a box."""


def make_picture(scene: Scene, layout: Layout, options: RenderOptions) -> Picture:
    """The shapes of a scene, in the theme, the font and the width of the options."""
    moved = _Mover(layout)
    theme = THEMES[options.theme]
    panels = [_frame(group, layout, moved) for group in scene.groups]
    panels += [_box(box, moved.rect(layout.boxes[box.name]), scene) for box in scene.boxes]
    page = moved.page
    scale = 1.0 if options.width_cm is None else options.width_cm * POINTS_PER_CM / page.width
    return Picture(
        one_line(scene.title) or "network",
        page,
        tuple(panels),
        _links(scene, layout, moved, theme),
        _stack([(line, LABEL, "soft", False) for line in scene.caption], moved.point(layout.caption), LEADING, 0.0),
        theme,
        options.font_families,
        scale,
    )


class _Mover:
    """Adds the margin."""

    def __init__(self, layout: Layout) -> None:
        self.page = Rect(0, 0, layout.page.width + 2 * _MARGIN, layout.page.height + 2 * _MARGIN)

    def point(self, point: Point) -> Point:
        return Point(point.x + _MARGIN, point.y + _MARGIN)

    def rect(self, rect: Rect) -> Rect:
        return Rect(rect.left + _MARGIN, rect.low + _MARGIN, rect.right + _MARGIN, rect.high + _MARGIN)

    def curve(self, curve: Curve) -> Curve:
        return Curve(tuple(map(self.point, curve.points)), self.point(curve.tip))


# texts

_Row = tuple[str, float, str, bool]
"""Text, size, tone, whether bold."""


def _stack(rows: list[_Row], centre: Point, leading: float = LEADING, gap: float = _GAP) -> tuple[Text, ...]:
    """Lines of text below each other, with their common centre."""
    heights = [size * leading + gap for _, size, _, _ in rows]
    y = centre.y + sum(heights) / 2
    found = []
    for (text, size, tone, is_bold), height in zip(rows, heights, strict=True):
        found.append(Text(one_line(text), Point(centre.x, y - height / 2), size, tone, is_bold))
        y -= height
    return tuple(found)


def _box(box: Box, rect: Rect, scene: Scene) -> Panel:
    small = box.role == "op"
    rows: list[_Row] = [(line, LINE if small else TITLE, "ink", True) for line in title_lines(box.title)]
    rows += [(line, NOTE if small else LINE, "soft" if small else "ink", False) for line in box.lines]
    rows += [(note, NOTE, "soft", False) for note in box.notes]
    return Panel(box.name, rect, box_style_name(box, scene), _stack(rows, rect.centre), box.tooltip, True)


def _frame(group: Group, layout: Layout, moved: _Mover) -> Panel:
    rows: list[_Row] = [(line, LINE, "ink", True) for line in title_lines(group.title)]
    if group.note:
        rows.append((group.note, NOTE, "soft", False))
    style = "frame" if group.family is None else "frame edge"
    texts = _stack(rows, moved.point(layout.headers[group.name]), gap=0.0)
    return Panel(group.name, moved.rect(layout.groups[group.name]), style, texts, group.name, False)


def box_style_name(box: Box, scene: Scene) -> str:
    """The style of a box: its change in a difference, else its role."""
    if scene.is_difference:
        return f"box {box.change or 'same'}"
    return f"box {box.role}" + (" output" if box.output else "")


# lines


def style_name(arrow: Arrow, scene: Scene) -> str:
    """The style of an arrow: its change in a difference, else its family, and for skips the rank of its distance."""
    if scene.is_difference:
        return arrow.change or "same"
    name: str = arrow.family
    if arrow.heading != "forward" and arrow.family not in ("shortcut", "gate"):
        name = arrow.heading
    elif arrow.family == "skip":
        name = f"skip {(max(1, arrow.hue) - 1) % len(SKIP_DASHES) + 1}"
    elif arrow.family == "edge":
        name = "flow"
    return (
        f"{name} delayed" if arrow.delay and not scene.unrolled else name
    )  # unrolled, time is a direction of the page


def _links(scene: Scene, layout: Layout, moved: _Mover, theme: Theme) -> tuple[Link, ...]:
    merging = Counter(arrow.target for arrow in scene.arrows if arrow.family == "flow" and arrow.merge)
    taken: list[tuple[str, Point]] = []
    found = []
    for arrow in scene.arrows:
        curve = moved.curve(layout.arrows[arrow.name])
        style = style_name(arrow, scene)
        glyphs, inset = [], 0.0
        is_merged = arrow.merge and (arrow.family != "flow" or merging[arrow.target] > 1)
        if is_merged and scene.level != "ops" and arrow.family not in ("shortcut", "gate"):
            is_near = any(
                target == arrow.target and hypot(at.x - curve.tip.x, at.y - curve.tip.y) < 2 * GLYPH
                for target, at in taken
            )
            if not is_near:
                taken.append((arrow.target, curve.tip))
                glyphs.append(Glyph(_symbol(arrow.merge), curve.tip))
                inset = GLYPH
        label = layout.labels.get(arrow.name)
        texts: tuple[Text, ...] = ()
        if arrow.factor:
            covered = [] if label is None else [moved.rect(rect) for rect in label.rects()]
            glyphs.append(Glyph(arrow.factor, _factor_point(curve, inset, covered)))
        if label is not None:
            tone = theme.styles[style].text
            rows: list[_Row] = [(line, LABEL, tone, False) for line in label.lines]
            texts = _stack(rows, moved.point(label.at), gap=0.0)
        head = HEAD * (0.8 if arrow.family == "shortcut" else 1.0)
        ends = (arrow.source, arrow.target)
        link = Link(arrow.name, *ends, curve, style, head, inset, texts, tuple(glyphs), arrow.tooltip, arrow.families)
        found.append(link)
    return tuple(found)


def _symbol(merge: str) -> Symbol:
    if merge == "add":
        return "add"
    return "concat" if merge == "concat" else "other"


def _factor_point(curve: Curve, inset: float, covered: Sequence[Rect]) -> Point:
    """Where the glyph of a factor is: before the arrowhead, and beside the label."""
    places = [_before_tip(curve, inset + distance) for distance in _FACTOR_AT]
    area = [Rect(at.x, at.y, at.x, at.y).grown(GLYPH) for at in places]
    free = (at for at, rect in zip(places, area, strict=True) if not any(rect.overlaps(other) for other in covered))
    return next(free, places[0])


def _before_tip(curve: Curve, distance: float) -> Point:
    """The point of a line at a distance from its tip; the middle of a shorter line."""
    points = curve.samples(24)
    length = sum(hypot(b.x - a.x, b.y - a.y) for a, b in pairwise(points))
    left = min(distance, length / 2)
    for b, a in pairwise(reversed(points)):
        piece = hypot(b.x - a.x, b.y - a.y)
        if piece >= left and piece > 0:
            share = left / piece
            return Point(b.x + (a.x - b.x) * share, b.y + (a.y - b.y) * share)
        left -= piece
    return points[0]
