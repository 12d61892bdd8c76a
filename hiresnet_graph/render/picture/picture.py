"""The shapes of a diagram, with positions and styles. Lengths are in points (1/72 inch), y points upwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from hiresnet_graph.render.layout.geometry import Curve, Point, Rect
from hiresnet_graph.render.picture.theme import Theme

Symbol = Literal["add", "concat", "gate", "scale", "other"]


class Text(NamedTuple):
    """One line of text with its centre; `tone` is that of the theme."""

    text: str
    at: Point
    size: float
    tone: str
    is_bold: bool = False


class Glyph(NamedTuple):
    """A small circle with a symbol: how values are merged at a target, or that an edge has a factor."""

    symbol: Symbol
    at: Point


@dataclass(frozen=True, slots=True)
class Panel:
    """A box, or the frame of a group; `style` is a name in the theme."""

    name: str
    rect: Rect
    style: str
    texts: tuple[Text, ...]
    tooltip: str
    is_box: bool


@dataclass(frozen=True, slots=True)
class Link:
    """The line of an arrow with its head, label and glyphs.

    Attributes:
        head: Length of the arrowhead.
        inset: Distance of the arrowhead from the tip of the curve, where a glyph is.
        families: The sets that a page can switch on and off: `skip`, `p1`, `in`, ...
    """

    name: str
    source: str
    target: str
    curve: Curve
    style: str
    head: float
    inset: float
    texts: tuple[Text, ...]
    glyphs: tuple[Glyph, ...]
    tooltip: str
    families: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A diagram as a list of shapes, drawn in this order: frames, boxes, lines, caption.

    Attributes:
        page: From (0, 0), with its margin.
        scale: Points of the file for one point of the picture.
        font: CSS list of font families.
    """

    title: str
    page: Rect
    panels: tuple[Panel, ...]
    links: tuple[Link, ...]
    caption: tuple[Text, ...]
    theme: Theme
    font: str
    scale: float = 1.0
