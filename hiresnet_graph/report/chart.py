"""A line chart of numbers against whole numbers, with bars for their spread: drawn by altair, written by vl-convert.

altair is imported inside the functions, so that only who wants a picture waits for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import altair as alt

KINDS = ("svg", "png", "pdf", "html")
"""The formats a chart can be written in."""

# Okabe and Ito's colours, which people with any colour vision tell apart; black first, the pale yellow left out.
_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])  # one after the other, when the colours start anew
_WIDTH, _HEIGHT = 420, 280
_SIZE = 50  # of a dot, in square pixels


class Dot(NamedTuple):
    """A number at a place; `spread` up and down from it.

    Attributes:
        is_filled: Other dots are hollow.
    """

    x: int
    y: float
    spread: float | None = None
    is_filled: bool = True


class Line(NamedTuple):
    """The dots of one thing, from left to right; those at neighbouring places are joined. No two have one label."""

    label: str
    dots: tuple[Dot, ...]


class Fills(NamedTuple):
    """What filled and hollow dots mean."""

    filled: str
    hollow: str


def line_chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, fills: Fills) -> alt.LayerChart:
    """The lines as a chart; a key names them if there are several, and the dots if some are hollow.

    At least one line has a dot.
    """
    import altair as alt

    labels = [line.label for line in lines]
    rows = [row for line in lines for row in _rows(line, fills)]
    dots = [dot for line in lines for dot in line.dots]
    low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
    key = alt.Legend(title=None, labelLimit=0, symbolLimit=len(lines)) if len(lines) > 1 else None
    fill_key = None if all(dot.is_filled for dot in dots) else alt.Legend(title=None, labelLimit=0)
    colors = [_COLORS[i % len(_COLORS)] for i in range(len(lines))]
    dashes = [_DASHES[i // len(_COLORS) % len(_DASHES)] for i in range(len(lines))]

    x = alt.X("x:Q").title(x_label).scale(domain=[low - 0.5, high + 0.5], nice=False).axis(tickMinStep=1, format="d")
    color = alt.Color("label:N").scale(domain=labels, range=colors).legend(key)
    chart = alt.Chart(alt.Data(values=rows)).encode(x=x, color=color)
    curve = chart.mark_line(strokeWidth=1.5).encode(
        y=alt.Y("y:Q").title(y_label).scale(_heights(dots)),
        strokeDash=alt.StrokeDash("label:N").scale(domain=labels, range=dashes).legend(key),
        detail="piece:N",
    )
    bars = chart.mark_errorbar(ticks=True).encode(y=alt.Y("low:Q").title(y_label), y2="high:Q")
    marks = chart.mark_point(opacity=1, strokeWidth=1.5, size=_SIZE).encode(
        y=alt.Y("y:Q").title(y_label),
        fill=alt.when("datum.is_filled").then(color.legend(None)).otherwise(alt.value("white")),
        shape=alt.Shape("means:N").scale(domain=list(fills), range=["circle", "diamond"]).legend(fill_key),
    )
    layers = [curve, *([bars] if any(dot.spread for dot in dots) else []), marks]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=title)


def chart_bytes(chart: alt.LayerChart, kind: str) -> bytes:
    """A chart as a file of one of the `KINDS`. The page of `html` has all it needs in itself."""
    if kind in ("svg", "html"):
        text = io.StringIO()
        actions = {"export": True, "source": False, "compiled": False, "editor": False}  # the editor is on the web
        chart.save(text, format=kind, inline=True, embed_options={"actions": actions})
        return text.getvalue().encode()
    data = io.BytesIO()
    chart.save(data, format=kind, scale_factor=2)
    return data.getvalue()


def _rows(line: Line, fills: Fills) -> Iterator[dict[str, object]]:
    """The dots as data; those that are joined are of one piece."""
    piece = 0
    for i, dot in enumerate(line.dots):
        piece += i > 0 and dot.x != line.dots[i - 1].x + 1
        spread = {"low": dot.y - dot.spread, "high": dot.y + dot.spread} if dot.spread else {}
        means = fills.filled if dot.is_filled else fills.hollow
        yield {"label": line.label, "piece": piece, "x": dot.x, "y": dot.y, **spread} | {
            "is_filled": dot.is_filled,
            "means": means,
        }


def _heights(dots: Sequence[Dot]) -> alt.Scale:
    """From the lowest to the highest number; room around one that is alone."""
    import altair as alt

    low, high = min(dot.y - (dot.spread or 0) for dot in dots), max(dot.y + (dot.spread or 0) for dot in dots)
    return alt.Scale(zero=False) if low < high else alt.Scale(zero=False, domain=[low - 1, high + 1])
