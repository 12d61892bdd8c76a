"""Where lines of a diagram lie on one another, or run through boxes and texts."""

from collections import Counter, defaultdict
from itertools import pairwise
from math import ceil, hypot

from hiresnet_graph.render import Scene
from hiresnet_graph.render.layout.geometry import Curve, Rect
from hiresnet_graph.render.layout.layout import Layout

STEP, NEAR, PARALLEL = 1.0, 0.9, 0.08


def _pieces(curve: Curve) -> list[tuple[float, float, float, float]]:
    """Points on a curve, one point apart, each with the direction of the curve."""
    found = []
    for a, b in pairwise(curve.samples(24)):
        length = hypot(b.x - a.x, b.y - a.y)
        if length < 1e-9:
            continue
        dx, dy = (b.x - a.x) / length, (b.y - a.y) / length
        number = max(1, ceil(length / STEP))
        found += [(a.x + (b.x - a.x) * i / number, a.y + (b.y - a.y) * i / number, dx, dy) for i in range(number)]
    return found


def overlaps(scene: Scene, layout: Layout, *, at_targets: bool = True) -> dict[tuple[str, str], int]:
    """The pairs of arrows of different sources that lie on one another, with the length in points.

    `at_targets`: also those with one target.
    """
    cells: dict[tuple[int, int], list[tuple[str, float, float, float, float]]] = defaultdict(list)
    ends = {arrow.name: (arrow.source, arrow.target) for arrow in scene.arrows}
    shared: Counter[tuple[str, str]] = Counter()
    for arrow in scene.arrows:
        mine = []
        for x, y, dx, dy in _pieces(layout.arrows[arrow.name]):
            touched = set()
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    for other, ox, oy, odx, ody in cells.get((round(x) + i, round(y) + j), ()):
                        if hypot(x - ox, y - oy) < NEAR and abs(dx * ody - dy * odx) < PARALLEL:
                            touched.add(other)
            for other in touched:
                source, target = ends[other]
                if source != arrow.source and (at_targets or target != arrow.target):
                    shared[other, arrow.name] += 1
            mine.append((round(x), round(y), x, y, dx, dy))
        for i, j, x, y, dx, dy in mine:
            cells[i, j].append((arrow.name, x, y, dx, dy))
    return {pair: length for pair, length in shared.items() if length > 3}


def crossed(scene: Scene, layout: Layout) -> list[tuple[str, str]]:
    """The arrows that run through a box, a label or the header of a group, with what they run through."""
    rects = [(name, rect.grown(-0.2)) for name, rect in layout.boxes.items()]
    found = []
    for arrow in scene.arrows:
        points = layout.arrows[arrow.name].samples(24)
        dense = [(x, y) for x, y, _, _ in _pieces(layout.arrows[arrow.name])]
        bounds = Rect(
            min(p.x for p in points), min(p.y for p in points), max(p.x for p in points), max(p.y for p in points)
        ).grown(0.1)
        for name, rect in rects:
            if rect.overlaps(bounds) and any(rect.left < x < rect.right and rect.low < y < rect.high for x, y in dense):
                found.append((arrow.name, name))
    return found
