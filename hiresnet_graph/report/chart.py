"""A line chart over whole numbers, with error bars: drawn by altair, written by vl-convert.

altair is imported inside the functions, as it takes long and only pictures require it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import altair as alt

Kind = Literal["svg", "png", "pdf", "html"]
"""File formats of a chart."""

# Okabe and Ito's colours, which are distinguishable with any colour vision; black first, without the pale yellow.
_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])  # the next one each time the colours repeat
_WIDTH, _HEIGHT = 420, 280
_DOT_SIZE = 50  # square pixels
_MAX_TICKS = 12  # of the x axis


class Dot(NamedTuple):
    """A point of a line, with an error bar of `spread` up and down.

    Attributes:
        is_filled: Otherwise the dot is a hollow diamond.
    """

    x: int
    y: float
    spread: float | None = None
    is_filled: bool = True


class Line(NamedTuple):
    """The dots of a line, from left to right; dots at successive x are joined. Labels are unique in a chart."""

    label: str
    dots: tuple[Dot, ...]


class Fills(NamedTuple):
    """The meaning of filled and hollow dots."""

    filled: str
    hollow: str


def line_chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, fills: Fills) -> alt.LayerChart:
    """A chart of lines, with a legend for the lines if there are several, and for the dots if some are hollow.

    At least one line must have a dot.
    """
    import altair as alt

    labels = [line.label for line in lines]
    rows = [row for line in lines for row in _rows(line, fills)]
    dots = [dot for line in lines for dot in line.dots]
    low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
    ticks = list(range(low, high + 1, math.ceil((high - low + 1) / _MAX_TICKS)))
    colors = alt.Scale(domain=labels, range=[_COLORS[i % len(_COLORS)] for i in range(len(lines))])
    dashes = alt.Scale(domain=labels, range=[_DASHES[i // len(_COLORS) % len(_DASHES)] for i in range(len(lines))])
    shapes = alt.Scale(domain=list(fills), range=["circle", "diamond"])

    key = alt.Legend(title=None, labelLimit=0, symbolLimit=len(lines), symbolType="stroke", symbolOpacity=1)
    line_key = key if len(lines) > 1 else None
    inside = alt.ExprRef(str(alt.expr.if_(alt.datum.value == fills.hollow, "white", "black")))
    dot_key = alt.Legend(title=None, labelLimit=0, symbolFillColor=inside, symbolStrokeColor="black")

    x = alt.X("x:Q").title(x_label).scale(domain=[low - 0.5, high + 0.5], nice=False).axis(values=ticks, format="d")
    y = alt.Y("y:Q").title(y_label).scale(_heights(dots))
    chart = alt.Chart(alt.InlineData(values=rows)).encode(
        x=x, color=alt.Color("label:N", scale=colors).legend(line_key)
    )
    curve = chart.mark_line(strokeWidth=1.5).encode(
        y=y, detail="piece:N", strokeDash=alt.StrokeDash("label:N", scale=dashes).legend(line_key)
    )
    bars = chart.mark_errorbar(ticks=True).encode(y=alt.Y("low:Q").title(y_label), y2="high:Q")
    hollow = not all(dot.is_filled for dot in dots)
    marks = chart.mark_point(strokeWidth=1.5, opacity=1, size=_DOT_SIZE).encode(
        y=y,
        fill=alt.Fill("label:N", scale=colors).legend(None),
        fillOpacity=alt.FillOpacity("means:N", scale=alt.Scale(domain=list(fills), range=[1, 0])).legend(None),
        shape=alt.Shape("means:N", scale=shapes).legend(dot_key if hollow else None),
    )
    # The line would show through a hollow dot. A condition on `fill` instead would also colour the legend.
    white = alt.value("white")
    background = chart.mark_point(shape="diamond", filled=True, opacity=1, size=_DOT_SIZE).encode(y=y, color=white)
    layers = [
        curve,
        *([bars] if any(dot.spread for dot in dots) else []),
        *([background.transform_filter(alt.datum.means == fills.hollow)] if hollow else []),
        marks,
    ]
    return alt.LayerChart(layer=layers, width=_WIDTH, height=_HEIGHT, title=title)


def chart_bytes(chart: alt.LayerChart, kind: Kind) -> bytes:
    """A chart as a file; equal charts have equal bytes, except for `pdf`. The `html` page is self-contained."""
    if kind == "html":
        text = io.StringIO()
        actions = {
            "export": True,
            "source": False,
            "compiled": False,
            "editor": False,  # an online service
        }
        chart.save(text, format="html", inline=True, embed_options={"actions": actions})
        return text.getvalue().encode()
    if kind == "svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        return text.getvalue().encode()
    data = io.BytesIO()
    chart.save(data, format=kind, scale_factor=2 if kind == "png" else 1)
    return data.getvalue()


def _rows(line: Line, fills: Fills) -> Iterator[dict[str, object]]:
    """The dots as data; those that are joined have the same `piece`."""
    piece = 0
    for i, dot in enumerate(line.dots):
        piece += i > 0 and dot.x != line.dots[i - 1].x + 1
        spread = {"low": dot.y - dot.spread, "high": dot.y + dot.spread} if dot.spread else {}
        means = fills.filled if dot.is_filled else fills.hollow
        yield {"label": line.label, "piece": piece, "means": means, "x": dot.x, "y": dot.y, **spread}


def _heights(dots: Sequence[Dot]) -> alt.Scale:
    """A scale from the lowest to the highest number, with space around a single one."""
    import altair as alt

    low, high = min(dot.y - (dot.spread or 0) for dot in dots), max(dot.y + (dot.spread or 0) for dot in dots)
    return alt.Scale(zero=False) if low < high else alt.Scale(zero=False, domain=[low - 1, high + 1])
