"""A picture as an `<svg>` element, without external references."""

from __future__ import annotations

import html
from collections.abc import Iterator

from hiresnet_graph.formats import one_line
from hiresnet_graph.render.layout.geometry import Point
from hiresnet_graph.render.picture.glyphs import GLYPH, arrowhead, glyph_strokes
from hiresnet_graph.render.picture.picture import Glyph, Link, Panel, Picture, Text
from hiresnet_graph.render.picture.theme import Style
from hiresnet_graph.render.writers.numbers import BASELINE, RADIUS, number


def to_svg_text(picture: Picture) -> str:
    """The `<svg>` element. Equal pictures give equal text."""
    return "\n".join(_SvgWriter(picture).lines()) + "\n"


class _SvgWriter:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.tones, self.styles = picture.theme.tones, picture.theme.styles

    def lines(self) -> Iterator[str]:
        page, scale = self.picture.page, self.picture.scale
        size = f'width="{number(page.width * scale)}pt" height="{number(page.height * scale)}pt"'
        box = f'viewBox="0 0 {number(page.width)} {number(page.height)}"'
        font = f'font-family="{html.escape(self.picture.font)}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} {font} role="img">'
        yield f"<title>{html.escape(self.picture.title)}</title>"
        # Slightly larger than the page, so that the last row of pixels of a PNG has its colour too.
        area = f'x="-1" y="-1" width="{number(page.width + 2)}" height="{number(page.height + 2)}"'
        yield f'<rect {area} fill="{self.tones["page"]}"/>'
        for panel in self.picture.panels:
            yield from self._panel(panel)
        for link in self.picture.links:
            yield from self._link(link)
        if self.picture.caption:
            yield '<g class="caption">'
            yield from map(self._text, self.picture.caption)
            yield "</g>"
        yield "</svg>"

    def _y(self, y: float) -> str:
        return number(self.picture.page.high - y)

    def _point(self, point: Point) -> str:
        return f"{number(point.x)},{self._y(point.y)}"

    def _text(self, text: Text) -> str:
        bold = ' font-weight="bold"' if text.is_bold else ""
        at = f'x="{number(text.at.x)}" y="{self._y(text.at.y - BASELINE * text.size)}"'
        look = f'font-size="{number(text.size)}" fill="{self.tones[text.tone]}"{bold} text-anchor="middle"'
        return f"<text {at} {look}>{html.escape(text.text)}</text>"

    def _stroke(self, style: Style) -> str:
        dash = f' stroke-dasharray="{",".join(map(number, style.dash))}"' if style.dash else ""
        return f'stroke="{self.tones[style.stroke]}" stroke-width="{number(style.width)}"{dash}'

    def _panel(self, panel: Panel) -> Iterator[str]:
        style, rect = self.styles[panel.style], panel.rect
        kind = "node" if panel.is_box else "cluster"
        yield f'<g class="{kind}" id="{kind}.{_id(panel.name)}">{_title(panel.tooltip)}'
        area = f'x="{number(rect.left)}" y="{self._y(rect.high)}" width="{number(rect.width)}"'
        look = f'rx="{number(RADIUS)}" fill="{self.tones[style.fill]}" {self._stroke(style)}'
        yield f'<rect {area} height="{number(rect.height)}" {look}/>'
        yield from map(self._text, panel.texts)
        yield "</g>"

    def _link(self, link: Link) -> Iterator[str]:
        style = self.styles[link.style]
        families = html.escape(" ".join(link.families))
        ends = f'data-source="{_id(link.source)}" data-target="{_id(link.target)}"'
        yield f'<g class="edge" id="edge.{_id(link.name)}" data-families="{families}" {ends}>{_title(link.tooltip)}'
        start, *rest = link.curve.points
        yield f'<path d="M{self._point(start)}C{" ".join(map(self._point, rest))}" fill="none" {self._stroke(style)}/>'
        color = self.tones[style.stroke]
        yield f'<polygon points="{" ".join(map(self._point, arrowhead(link)))}" fill="{color}"/>'
        yield from map(self._text, link.texts)
        for glyph in link.glyphs:
            yield from self._glyph(glyph)
        yield "</g>"

    def _glyph(self, glyph: Glyph) -> Iterator[str]:
        style = self.styles["glyph"]
        fill = f'r="{number(GLYPH)}" fill="{self.tones[style.fill]}" {self._stroke(style)}'
        yield f'<circle class="{glyph.symbol}" cx="{number(glyph.at.x)}" cy="{self._y(glyph.at.y)}" {fill}/>'
        for a, b in glyph_strokes(glyph):
            line = f'x1="{number(a.x)}" y1="{self._y(a.y)}" x2="{number(b.x)}" y2="{self._y(b.y)}"'
            yield f'<line {line} stroke="{self.tones[style.stroke]}" stroke-width="1"/>'


def _id(name: str) -> str:
    """A name as an id: characters that an id cannot have are written like %20."""
    return html.escape("".join(f"%{ord(c):02X}" if c.isspace() or c == "%" or not c.isprintable() else c for c in name))


def _title(tooltip: str) -> str:
    return f"<title>{html.escape(chr(10).join(map(one_line, tooltip.split(chr(10)))))}</title>"
