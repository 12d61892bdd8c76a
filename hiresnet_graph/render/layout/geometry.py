"""Points, rectangles, curves and the width of text. Lengths are in points (1/72 inch), y points upwards."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

from hiresnet_graph.render.scene.scene import Box, Group

TITLE, LINE, NOTE, LABEL = 11.0, 10.0, 8.0, 8.5
"""Font sizes: of titles, lines and notes in boxes, and of labels at arrows."""
HEAD = 6.5
"""Length of an arrowhead."""
LEADING = 1.25
_TITLE_LENGTH = 28
"""Characters of a line of a title."""

Corner = tuple[float, float]
"""A point (u, v) in the axes of a layout."""


class Point(NamedTuple):
    """A point on the page."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle on the page; `low` and `high` are y."""

    left: float
    low: float
    right: float
    high: float

    @property
    def centre(self) -> Point:
        """Its middle."""
        return Point((self.left + self.right) / 2, (self.low + self.high) / 2)

    @property
    def width(self) -> float:
        """Its extent in x."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Its extent in y."""
        return self.high - self.low

    def grown(self, by: float) -> Rect:
        """The rectangle with a margin."""
        return Rect(self.left - by, self.low - by, self.right + by, self.high + by)

    def overlaps(self, other: Rect) -> bool:
        """Whether the two rectangles overlap."""
        return self.left < other.right and other.left < self.right and self.low < other.high and other.low < self.high

    def contains(self, point: Point) -> bool:
        """Whether a point is inside."""
        return self.left < point.x < self.right and self.low < point.y < self.high


@dataclass(frozen=True, slots=True)
class Curve:
    """The line of an arrow: cubic Bezier pieces with 3n + 1 `points`, and the `tip` of the arrowhead."""

    points: tuple[Point, ...]
    tip: Point

    def samples(self, number: int = 12) -> list[Point]:
        """Points along the curve."""
        found = []
        for start in range(0, len(self.points) - 1, 3):
            a, b, c, d = self.points[start : start + 4]
            for i in range(number):
                t = i / number
                w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
                found.append(
                    Point(
                        w[0] * a.x + w[1] * b.x + w[2] * c.x + w[3] * d.x,
                        w[0] * a.y + w[1] * b.y + w[2] * c.y + w[3] * d.y,
                    )
                )
        return [*found, self.points[-1], self.tip]


@dataclass(frozen=True, slots=True)
class Label:
    """A text with its centre."""

    lines: tuple[str, ...]
    at: Point

    def rects(self) -> list[Rect]:
        """The rectangle of each line."""
        found = []
        for i, line in enumerate(self.lines):
            width, y = text_width(line, LABEL), self.at.y + LEADING * LABEL * ((len(self.lines) - 1) / 2 - i)
            found.append(Rect(self.at.x - width / 2, y - LABEL * 0.6, self.at.x + width / 2, y + LABEL * 0.6))
        return found


# text

_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]/ \"`-"), set("mwMWOQGDCHNU%@&…")


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text; an upper estimate, as fonts differ between machines."""
    total = 0.0
    for character in text:
        if unicodedata.combining(character):
            continue
        if unicodedata.east_asian_width(character) in "WF":
            total += 1.05
        elif character in _NARROW:
            total += 0.38
        elif character in _WIDE:
            total += 0.9
        elif character.isupper():
            total += 0.72
        else:
            total += 0.63
    return total * size * (1.1 if bold else 1.0)


def title_lines(title: str) -> tuple[str, ...]:
    """A title on several lines if it is long: broken after ` > `, `.`, `_`, `-`, `/` or a space where possible."""
    if len(title) <= _TITLE_LENGTH:
        return (title,)
    lines = [""]
    for part in re.findall(r".*?(?: > |[._/ -]|$)", title):
        while len(part) > _TITLE_LENGTH:
            room = _TITLE_LENGTH - len(lines[-1])
            lines[-1] += part[:room]
            lines.append("")
            part = part[room:]
        if len(lines[-1]) + len(part.rstrip()) > _TITLE_LENGTH:
            lines.append("")
        lines[-1] += part
    return tuple(line.strip() for line in lines if line.strip())


def box_size(box: Box) -> tuple[float, float]:
    """Width and height that the text of a box requires."""
    title, line = (LINE, NOTE) if box.role == "op" else (TITLE, LINE)
    titles = title_lines(box.title)
    widths = [text_width(part, title, bold=True) for part in titles]
    widths += [text_width(text, line) for text in box.lines]
    widths += [text_width(note, NOTE) for note in box.notes]
    height = LEADING * (title * len(titles) + line * len(box.lines) + NOTE * len(box.notes))
    return max(widths) + 18, height + 2 * (len(titles) + len(box.lines) + len(box.notes)) + 11


def header_size(group: Group) -> tuple[float, float]:
    """Width and height of the text of a group."""
    titles = title_lines(group.title)
    width = max([text_width(part, LINE, bold=True) for part in titles] + [text_width(group.note, NOTE)])
    return width + 8, LEADING * (LINE * len(titles) + (NOTE if group.note else 0)) + 6


def halves(label: str) -> tuple[str, ...]:
    """A label on two lines of similar width, if it has a comma."""
    parts = label.split(", ")
    breaks = [(", ".join(parts[:i]) + ",", ", ".join(parts[i:])) for i in range(1, len(parts))]
    return min(breaks, key=lambda lines: max(map(len, lines))) if breaks else (label,)


def wrapped(label: str, max_lines: int) -> tuple[str, ...]:
    """A label on at most `max_lines` lines, broken at its commas, as narrow as possible."""
    parts = label.split(", ")
    candidates: list[tuple[str, ...]] = [(label,)]
    for number in range(2, min(max_lines, len(parts)) + 1):
        for cuts in combinations(range(1, len(parts)), number - 1):
            runs = pairwise((0, *cuts, len(parts)))
            candidates.append(tuple(", ".join(parts[a:b]) + ("," if b < len(parts) else "") for a, b in runs))
    return min(candidates, key=lambda lines: (max(map(len, lines)), sum(len(line) ** 2 for line in lines)))


# lines


def first_free(taken: list[list[tuple[int, int]]], start: int, end: int) -> int:
    """The first of the taken tracks on which an interval overlaps no other, or a new one; it is taken now."""
    free = (i for i, spans in enumerate(taken) if all(end < low or high < start for low, high in spans))
    found = next(free, len(taken))
    if found == len(taken):
        taken.append([])
    taken[found].append((start, end))
    return found


def bounds_of(points: Sequence[Point]) -> Rect:
    """The smallest rectangle around points, slightly grown, so that it has an interior."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Rect(min(xs), min(ys), max(xs), max(ys)).grown(0.1)


def bisected(*points: Corner) -> list[Corner]:
    """A Bezier piece as two, so that its control points are closer to the curve."""
    first, rest = [points[0]], [points[-1]]
    level = list(points)
    while len(level) > 1:
        level = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairwise(level)]
        first.append(level[0])
        rest.append(level[-1])
    return [*first, *reversed(rest[:-1])]


def straight(start: Corner, end: Corner) -> list[Corner]:
    """A straight Bezier piece; a single point if the ends coincide."""
    if abs(start[0] - end[0]) + abs(start[1] - end[1]) < 0.01:
        return [start]
    dx, dy = (end[0] - start[0]) / 3, (end[1] - start[1]) / 3
    return [start, (start[0] + dx, start[1] + dy), (start[0] + 2 * dx, start[1] + 2 * dy), end]


def rounded(corners: list[Corner], radius: float) -> list[Corner]:
    """Bezier points of a line through corners, which are rounded."""
    points = [corners[0]]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        legs = []
        for other in (before, after):
            dx, dy = other[0] - corner[0], other[1] - corner[1]
            length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
            cut = min(radius, length / 2)
            legs.append((corner[0] + dx / length * cut, corner[1] + dy / length * cut))
        points.extend(straight(points[-1], legs[0])[1:])
        k = 0.5523
        first = (legs[0][0] + (corner[0] - legs[0][0]) * k, legs[0][1] + (corner[1] - legs[0][1]) * k)
        second = (legs[1][0] + (corner[0] - legs[1][0]) * k, legs[1][1] + (corner[1] - legs[1][1]) * k)
        points.extend([first, second, legs[1]])
    return [*points, *straight(points[-1], corners[-1])[1:]]


def without_head(corners: list[Corner], max_share: float = 0.8) -> list[Corner]:
    """Corners of an arrow's line, shortened by the length of its head, or by this share of the last piece."""
    (u0, v0), (u1, v1) = corners[-2:]
    length = max(((u1 - u0) ** 2 + (v1 - v0) ** 2) ** 0.5, 1e-6)
    share = min(HEAD, max_share * length) / length
    return [*corners[:-1], (u1 - (u1 - u0) * share, v1 - (v1 - v0) * share)]
