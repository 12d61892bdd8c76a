"""Points, rectangles and lines on a page, and how much room text needs. Lengths are in points, y goes upwards."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

from hiresnet_graph.render.scene import Box, Group, Scene

Direction = Literal["LR", "TB"]

TITLE, LINE, NOTE, LABEL = 11.0, 10.0, 8.0, 8.5
"""Sizes of the type: of titles, lines and notes in boxes, and of labels at arrows."""
HEAD = 6.5
"""Length of an arrow's head."""
LEADING = 1.25


class Point(NamedTuple):
    """A place on the page, y upwards."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle by its edges; `low` and `high` are y, upwards."""

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

    def meets(self, other: Rect) -> bool:
        """Whether they share a point."""
        return self.left < other.right and other.left < self.right and self.low < other.high and other.low < self.high

    def holds(self, point: Point) -> bool:
        """Whether a point is inside."""
        return self.left < point.x < self.right and self.low < point.y < self.high


@dataclass(frozen=True, slots=True)
class Path:
    """A line of cubic Bezier pieces: `points` has 3n + 1 of them, `tip` is the arrow's point."""

    points: tuple[Point, ...]
    tip: Point

    def samples(self, number: int = 12) -> list[Point]:
        """Points along it."""
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
    """A text with the middle of its place."""

    lines: tuple[str, ...]
    at: Point

    def rects(self) -> list[Rect]:
        """Where its lines are."""
        found = []
        for i, line in enumerate(self.lines):
            width, y = text_width(line, LABEL), self.at.y + LEADING * LABEL * ((len(self.lines) - 1) / 2 - i)
            found.append(Rect(self.at.x - width / 2, y - LABEL * 0.6, self.at.x + width / 2, y + LABEL * 0.6))
        return found


@dataclass(slots=True)
class Places:
    """Where everything is."""

    page: Rect
    caption: Point
    boxes: dict[str, Rect] = field(default_factory=dict)
    groups: dict[str, Rect] = field(default_factory=dict)
    headers: dict[str, Point] = field(default_factory=dict)
    arrows: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)


# text

_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]/ \"`-"), set("mwMWOQGDCHNU%@&…")


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text in points, rather too much than too little, as fonts differ from place to place."""
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


def box_size(box: Box) -> tuple[float, float]:
    """Width and height that the text of a box needs."""
    widths = [text_width(box.title, TITLE if box.role != "op" else LINE, bold=True)]
    widths += [text_width(line, LINE if box.role != "op" else NOTE) for line in box.lines]
    widths += [text_width(note, NOTE) for note in box.notes]
    title, line = (LINE, NOTE) if box.role == "op" else (TITLE, LINE)
    height = LEADING * (title + line * len(box.lines) + NOTE * len(box.notes))
    return max(widths) + 18, height + 2 * (1 + len(box.lines) + len(box.notes)) + 11


def header_size(group: Group) -> tuple[float, float]:
    """Width and height of the text of a group."""
    width = max(text_width(group.title, LINE, bold=True), text_width(group.note, NOTE))
    return width + 8, LEADING * (LINE + (NOTE if group.note else 0)) + 6


# lines


def bounds_of(points: Sequence[Point]) -> Rect:
    """The smallest rectangle around points, and a little more, so that it has an inside."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Rect(min(xs), min(ys), max(xs), max(ys)).grown(0.1)


def halved(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """One Bezier piece as two, so that its points stay close to the line."""
    found, rest = [points[0]], [points[-1]]
    level = list(points)
    while len(level) > 1:
        level = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairwise(level)]
        found.append(level[0])
        rest.append(level[-1])
    return [*found, *reversed(rest[:-1])]


def halves(label: str) -> tuple[str, ...]:
    """A label on two lines of about one width, if it has a comma."""
    parts = label.split(", ")
    breaks = [(", ".join(parts[:i]) + ",", ", ".join(parts[i:])) for i in range(1, len(parts))]
    return min(breaks, key=lambda lines: max(map(len, lines))) if breaks else (label,)


def broken(label: str, most: int) -> tuple[str, ...]:
    """A label on at most so many lines, broken at its commas, as narrow as can be."""
    parts = label.split(", ")
    ways: list[tuple[str, ...]] = [(label,)]
    for number in range(2, min(most, len(parts)) + 1):
        for cuts in combinations(range(1, len(parts)), number - 1):
            runs = pairwise((0, *cuts, len(parts)))
            ways.append(tuple(", ".join(parts[a:b]) + ("," if b < len(parts) else "") for a, b in runs))
    return min(ways, key=lambda lines: (max(map(len, lines)), sum(len(line) ** 2 for line in lines)))


def straight(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """A straight Bezier piece; a single point if the ends are one."""
    if abs(start[0] - end[0]) + abs(start[1] - end[1]) < 0.01:
        return [start]
    dx, dy = (end[0] - start[0]) / 3, (end[1] - start[1]) / 3
    return [start, (start[0] + dx, start[1] + dy), (start[0] + 2 * dx, start[1] + 2 * dy), end]


def rounded(corners: list[tuple[float, float]], radius: float) -> list[tuple[float, float]]:
    """Bezier points of a line through corners, rounded off."""
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


@dataclass(frozen=True, slots=True)
class Axes:
    """Directions on the page: u, that of the flow, is right and v up; or, `upright`, u is down and v left."""

    upright: bool

    def point(self, u: float, v: float) -> Point:
        """Where (u, v) is on the page."""
        return Point(-v, -u) if self.upright else Point(u, v)

    def rect(self, u0: float, v0: float, u1: float, v1: float) -> Rect:
        """The rectangle with these two corners."""
        a, b = self.point(u0, v0), self.point(u1, v1)
        return Rect(min(a.x, b.x), min(a.y, b.y), max(a.x, b.x), max(a.y, b.y))


def on_page(places: Places, scene: Scene) -> Places:
    """Everything moved so that the page starts at (0, 0), with the caption below."""
    rects = [*places.boxes.values(), *places.groups.values()]
    points = [point for path in places.arrows.values() for point in path.samples()]
    for label in places.labels.values():
        rects += label.rects()
    left = min([rect.left for rect in rects] + [point.x for point in points])
    right = max([rect.right for rect in rects] + [point.x for point in points])
    low = min([rect.low for rect in rects] + [point.y for point in points])
    high = max([rect.high for rect in rects] + [point.y for point in points])
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

    return Places(
        Rect(0, 0, round(right - left, 2), round(high - low + caption, 2)),
        Point((right - left) / 2, (caption - 12) / 2),
        {name: rect(r) for name, r in places.boxes.items()},
        {name: rect(r) for name, r in places.groups.items()},
        {name: point(p) for name, p in places.headers.items()},
        {name: Path(tuple(map(point, path.points)), point(path.tip)) for name, path in places.arrows.items()},
        {name: Label(label.lines, point(label.at)) for name, label in places.labels.items()},
    )
