"""Several pictures on one sheet, each below its name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil

from hiresnet_graph.figure_style import POINTS_PER_CM
from hiresnet_graph.render.layout.geometry import TITLE, Curve, Point, Rect
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.picture import Glyph, Link, Panel, Picture, Text

_HEADER, _GAP = 26.0, 14.0
_ASPECT = 1.4
"""Width of a sheet for its height, as nearly as whole pictures allow."""


def make_sheet(
    pictures: Sequence[tuple[str, Picture]], title: str, options: RenderOptions, columns: int | None = None
) -> Picture:
    """One picture of several with their names, in the width of the options.

    Args:
        columns: Number of pictures side by side (default: a sheet with about the proportions of a page).
    """
    width = max(picture.page.width for _, picture in pictures)
    columns = min(columns or _columns(pictures, width), len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(picture.page.height for _, picture in row) + _HEADER for row in rows]
    page = Rect(0, 0, columns * (width + _GAP) - _GAP, sum(heights) + _GAP * (len(rows) - 1))
    panels: list[Panel] = []
    links: list[Link] = []
    texts: list[Text] = []
    top = page.high
    for row, height in zip(rows, heights, strict=True):
        for i, (name, picture) in enumerate(row):
            left = i * (width + _GAP)
            texts.append(Text(name, Point(left + width / 2, top - _HEADER / 2), TITLE, "ink", is_bold=True))
            move = Point(left + (width - picture.page.width) / 2, top - _HEADER - picture.page.height)
            panels += [_panel(panel, name, move) for panel in picture.panels]
            links += [_link(link, name, move) for link in picture.links]
            texts += _texts((text for text in picture.caption if text.text != name), move)
        top -= height + _GAP
    scale = 1.0 if options.width_cm is None else options.width_cm * POINTS_PER_CM / page.width
    first = pictures[0][1]
    return Picture(title, page, tuple(panels), tuple(links), tuple(texts), first.theme, first.font, scale)


def _columns(pictures: Sequence[tuple[str, Picture]], width: float) -> int:
    """How many pictures side by side give a sheet with about the proportions of a page."""
    height = max(picture.page.height for _, picture in pictures) + _HEADER + _GAP

    def misfit(columns: int) -> float:
        aspect = columns * (width + _GAP) / (ceil(len(pictures) / columns) * height)
        return max(aspect / _ASPECT, _ASPECT / aspect)

    return min(range(1, len(pictures) + 1), key=misfit)


def _moved(point: Point, by: Point) -> Point:
    return Point(point.x + by.x, point.y + by.y)


def _texts(texts: Iterable[Text], by: Point) -> tuple[Text, ...]:
    return tuple(text._replace(at=_moved(text.at, by)) for text in texts)


def _panel(panel: Panel, prefix: str, by: Point) -> Panel:
    low, high = _moved(Point(panel.rect.left, panel.rect.low), by), _moved(Point(panel.rect.right, panel.rect.high), by)
    rect = Rect(low.x, low.y, high.x, high.y)
    return replace(panel, name=f"{prefix}/{panel.name}", rect=rect, texts=_texts(panel.texts, by))


def _link(link: Link, prefix: str, by: Point) -> Link:
    curve = Curve(tuple(_moved(point, by) for point in link.curve.points), _moved(link.curve.tip, by))
    return replace(
        link,
        name=f"{prefix}/{link.name}",
        source=f"{prefix}/{link.source}",
        target=f"{prefix}/{link.target}",
        curve=curve,
        texts=_texts(link.texts, by),
        glyphs=tuple(Glyph(glyph.symbol, _moved(glyph.at, by)) for glyph in link.glyphs),
    )
