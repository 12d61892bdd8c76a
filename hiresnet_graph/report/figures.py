"""The figures of a report, for a paper and for the HTML page: Vega-Lite, made with altair.

In the page, two parameters of a chart are set from outside: `chosen` (the variant that is highlighted, or none) and
`shown` (the variants that are drawn).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, Literal, NamedTuple

from hiresnet_graph.errors import UsageError
from hiresnet_graph.figure_style import HUES, POINTS_PER_CM, WIDTHS_CM
from hiresnet_graph.report.effects import edge_effects
from hiresnet_graph.report.figure_data import (
    FigureRow,
    accuracy_rows,
    band_rows,
    distinguishing_edges,
    effect_rows,
    labels_of,
    size_rows,
)
from hiresnet_graph.spec.edge_set import PLUS
from hiresnet_graph.sweep.results import Results

FIGURES = ("accuracy", "curves", "effects", "pareto")
FigureFormat = Literal["svg", "pdf", "png"]
FIGURE_FORMATS: tuple[FigureFormat, ...] = ("svg", "pdf", "png")
COLORS = (*HUES, "#666666")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
_SHAPES = ("circle", "square", "diamond", "triangle-up")
LOOKS = len(COLORS) * len(DASHES)
"""The networks that a figure can tell apart; of more it shows the number of skips instead."""
FIGURE_SHAPE = 0.55  # height of a plot, as a share of the width of its figure
ROW_PX = 16
"""Pixels of a variant or an edge."""
_THIN_PX, _BAR_PX, _GAP_PX = 7, 12, 4  # of a bar among several and alone, and between lines of bars
GROUP = ": "
"""Between the group of a line and its name: in figures, the group has a line of its own."""
_ROWS = "rows"
_NAMED, _SHORT = 12, 16  # points that have their names beside them, and letters of such names
_LETTERS_PER_CM = 4.8
_ENTRY_LETTERS = 10  # the least room of an entry of a legend
_SUBSET_PX, _EDGE_PX = 11, 12  # of a row and a column of the matrix of subsets
_LONG = 0.5  # of the width of a figure, that names may take
_FAINT = 0.12
_FEW_EPOCHS = 12  # that have a tick each
_RING_PX = 11
_LINE_PX = 18  # of a line in a legend: two of the longest dashes


class Look(NamedTuple):
    """How a figure is drawn.

    Attributes:
        width_cm: Of the whole figure.
        is_interactive: Whether it has the parameters of the page.
        networks: Names of all networks of the study: their places give the colours, also where some are not drawn.
    """

    width_cm: float = WIDTHS_CM["single"]
    is_interactive: bool = False
    networks: tuple[str, ...] = ()

    @property
    def are_many(self) -> bool:
        """Whether the networks are more than a figure can tell apart."""
        return len(self.networks) > LOOKS

    @property
    def width_px(self) -> float:
        """The width in pixels of an SVG or PDF."""
        return self.width_cm * POINTS_PER_CM


Figure = dict[str, Any]
"""A figure in Vega-Lite, with its rows as the data set `rows`."""


def make_figure(results: Results, kind: str, look: Look | None = None) -> Figure:
    """One of `FIGURES`.

    Raises:
        UsageError: There is no such figure, or the study has no data for it.
    """
    look = _with_networks(look, results)
    makers = {"accuracy": _accuracy, "curves": _curves, "effects": _effects, "pareto": _pareto}
    if kind not in makers:
        raise UsageError(f"there is no figure '{kind}'. Figures: {', '.join(FIGURES)}.")
    return finish_figure(*makers[kind](results, look), look)


def _with_networks(look: Look | None, results: Results) -> Look:
    return (look or Look())._replace(networks=tuple(labels_of(results)))


def finish_figure(rows: Sequence[FigureRow], chart: Any, look: Look) -> Figure:
    """A chart of rows, in the width and the style of a report."""
    import altair as alt

    chart = chart.properties(autosize={"type": "fit-x", "contains": "padding"}, width=look.width_px)
    chart = chart.configure_view(stroke=None).configure_axis(labelLimit=0, titleFontWeight="normal")
    return {**chart.properties(data=alt.NamedData(_ROWS)).to_dict(), "datasets": {_ROWS: list(rows)}}


_CAPTIONS = {
    "accuracy": "A dot is a run, a mark the mean of its network.",
    "curves": "Mean over seeds, in a band of one standard deviation to each side.",
    "pareto": (
        "Mean over seeds, and one standard deviation to each side. Rings mark the Pareto front by validation accuracy: "
        "the networks that no other beats in it with as few parameters. Test accuracy had no part in the choice."
    ),
}


def figure_captions(results: Results, look: Look | None = None) -> dict[str, str]:
    """What the marks of each figure are, where its axes and its legend do not say it."""
    look = _with_networks(look, results)
    found = dict(_CAPTIONS)
    if _matrix_edges(results, look):
        found["accuracy"] += " A row is a network, the best one first; dots on the left are its skips."
    if look.are_many:
        found["curves"] = "A line is the mean over seeds of a network."
        found["pareto"] += " 'hrg report DIR --what pareto' names them."
    return found


def make_figures(results: Results, look: Look | None = None) -> dict[str, Figure]:
    """All figures that a study has data for."""
    found = {}
    for kind in FIGURES:
        with suppress(UsageError):
            found[kind] = make_figure(results, kind, look)
    return found


def figure_bytes(figure: Figure, format: FigureFormat) -> bytes:
    """A figure as a file; equal figures have equal bytes, except for `pdf`."""
    import vl_convert

    version = vega_lite_version()
    if format == "svg":
        return vl_convert.vegalite_to_svg(figure, vl_version=version).encode()
    if format == "pdf":
        return vl_convert.vegalite_to_pdf(figure, vl_version=version)
    return vl_convert.vegalite_to_png(figure, vl_version=version, scale=4)


def vega_lite_version() -> str:
    """The version of the figures, as vl-convert names it: `6.1`."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


# ---- the figures


def _accuracy(results: Results, look: Look) -> tuple[list[FigureRow], Any]:
    """Test accuracy of each variant: a dot for each seed, a bar at the mean."""
    import altair as alt

    rows = accuracy_rows(results)
    if not rows:
        raise UsageError(f"'{results.name}' has no finished run, so there is no accuracy to draw.")
    base = draw_chart(look)
    edges = _matrix_edges(results, look)
    names = _best_first(rows) if edges else order_of(rows)
    row_px = _SUBSET_PX if edges else ROW_PX
    y = alt.Y("label:N", sort=names).title(None)
    if edges:  # the matrix stands in the place of the labels
        y = y.axis(labels=False, ticks=False, domain=False, minExtent=_EDGE_PX * (len(edges) + 1))
    x = alt.X("accuracy:Q").title("test accuracy (%)").scale(zero=False)
    dots = base.mark_point(filled=True, size=22).encode(
        x=x,
        y=y,
        color=alt.value(COLORS[0]) if edges else label_color(look, rows),
        shape=alt.value(_SHAPES[0]) if edges else label_cycle(look, rows, alt.Shape, _SHAPES, ""),
        opacity=_opacity(look, 0.6),
        tooltip=["label:N", "seed:N", "accuracy:Q"],
    )
    means = base.mark_tick(thickness=2, size=row_px - 4, color="#222222").encode(
        x=alt.X("mean(accuracy):Q"), y=y, opacity=_opacity(look)
    )
    chart = alt.layer(dots, means)
    if edges:
        chart = alt.layer(chart, _matrix(base, edges, y, look)).resolve_scale(x="independent")
    return rows, chart.properties(height=row_px * len(names))


def _matrix_edges(results: Results, look: Look) -> tuple[str, ...]:
    """The columns of a matrix of subsets, where the subsets are many or their names too long; else empty."""
    is_long = max(map(len, look.networks), default=0) > _LONG * look.width_cm * _LETTERS_PER_CM
    return distinguishing_edges(results) if is_long or look.are_many else ()


def _best_first(rows: Sequence[FigureRow]) -> list[str]:
    """The names of networks by their mean accuracy."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(str(row["label"]), []).append(float(str(row["accuracy"])))
    return sorted(values, key=lambda label: -fmean(values[label]))


def _matrix(base: Any, edges: Sequence[str], y: Any, look: Look) -> Any:
    """On the left of a plot, a column for each edge: a dot for each network that has it, a faint one for the others."""
    import altair as alt

    places = alt.Scale(domain=list(edges), range=[-_EDGE_PX * (len(edges) + 1), -_EDGE_PX])
    axis = alt.Axis(orient="top", labelAngle=-90, title=None, domain=False, ticks=False, grid=False)
    x = alt.X("edge:N", scale=places, axis=axis, sort=list(edges))
    networks = base.transform_aggregate(groupby=["label", "edges"])  # have a row for each run
    dots = networks.mark_point(filled=True, size=22, color="#222222")

    def cells(names: str, opacity: float) -> Any:
        found = dots.transform_calculate(edge=f"split({names}, '{PLUS}')").transform_flatten(["edge"])
        found = found.transform_filter("datum.edge != ''")
        return found.encode(x=x, y=y, opacity=_opacity(look, opacity), tooltip=["label:N"])

    return alt.layer(cells(json.dumps(PLUS.join(edges)), _FAINT), cells("datum.edges", 1.0))


def _curves(results: Results, look: Look) -> tuple[list[FigureRow], Any]:
    """Validation accuracy by epoch: the mean over seeds, in a band of one standard deviation."""
    import altair as alt

    rows = band_rows(results)
    if not rows:
        raise UsageError(f"'{results.name}' has no finished run, so there are no learning curves.")
    last = max(int(str(row["epoch"])) for row in rows)
    epochs = list(range(1, last + 1))
    axis = alt.Axis(format="d", values=epochs) if last <= _FEW_EPOCHS else alt.Axis(format="d", tickMinStep=1)
    base = draw_chart(look).encode(x=alt.X("epoch:Q").title("epoch").axis(axis))
    y = alt.Y("mean:Q").title("validation accuracy (%)").scale(zero=False)
    color = label_color(look, rows, "stroke")
    band = base.mark_area(strokeWidth=0).encode(
        y=alt.Y("low:Q").title("validation accuracy (%)"), y2="high:Q", color=color, opacity=_opacity(look, 0.18)
    )
    line = base.mark_line(strokeWidth=0.8 if look.are_many else 1.4).encode(
        y=y,
        color=color,
        detail="label:N",
        strokeDash=label_cycle(look, rows, alt.StrokeDash, DASHES, "stroke"),
        opacity=_opacity(look),
        tooltip=["label:N", "epoch:Q", "mean:Q", "n:Q"],
    )
    chart = alt.layer(line) if look.are_many else alt.layer(band, line)
    return rows, chart.properties(height=look.width_px * FIGURE_SHAPE)


def _pareto(results: Results, look: Look) -> tuple[list[FigureRow], Any]:
    """Test accuracy against parameters, with a ring around each network of the Pareto front by validation accuracy."""
    import altair as alt

    rows = size_rows(results)
    if not rows:
        raise UsageError(f"'{results.name}' has no finished run, so there is no accuracy to draw.")
    title = ["parameters", "(rings: front by validation accuracy)"]
    x = alt.X("parameters:Q").title(title).scale(zero=False, nice=True).axis(format="~s", tickCount=6)
    y = alt.Y("mean:Q").title("test accuracy (%)").scale(zero=False)
    base = draw_chart(look).encode(x=x)
    has_names = len(rows) <= _NAMED and max(len(str(row["label"])) for row in rows) <= _SHORT  # beside the points
    symbol = "" if has_names else "circle"
    front = base.transform_filter("datum.on_front").mark_point(color="#222222", size=_RING_PX**2, strokeWidth=1)
    bars = base.mark_rule(color="#222222").encode(
        y=alt.Y("low:Q").title("test accuracy (%)"), y2="high:Q", opacity=_opacity(look, 0.4)
    )
    dots = base.mark_point(filled=True, size=36).encode(
        y=y,
        color=label_color(look, rows, symbol),
        shape=label_cycle(look, rows, alt.Shape, _SHAPES, symbol),
        opacity=_opacity(look),
        tooltip=["label:N", "parameters:Q", "macs:Q", "mean:Q", "std:Q", "n:Q"],
    )
    layers = [front.encode(y=y, opacity=_opacity(look)), bars, dots]
    if has_names:
        sizes = [int(str(row["parameters"])) for row in rows]
        middle = (min(sizes) + max(sizes)) / 2
        for side, test in ((1, f"datum.parameters <= {middle}"), (-1, f"datum.parameters > {middle}")):
            size = 11 if look.is_interactive else 8
            names = base.mark_text(align="left" if side > 0 else "right", dx=7 * side, dy=-6, fontSize=size)
            layers.append(names.transform_filter(test).encode(y=y, text="label:N", opacity=_opacity(look)))
    return rows, alt.layer(*layers).properties(height=look.width_px * FIGURE_SHAPE)


def _why_no_effects(results: Results) -> str:
    if not results.subsets_of:
        return (
            "its variants were not generated by a subset rule. For the effect of each edge, train subsets of the "
            "edges: 'hrg ablate SPEC --subsets all'."
        )
    if not accuracy_rows(results):
        return "no run is finished."
    return "no two finished subsets differ by a single edge."


def _effects(results: Results, look: Look) -> tuple[list[FigureRow], Any]:
    """Main effect and Shapley value of each edge, in the order of the table, with 95 % intervals."""
    import altair as alt

    rows = effect_rows(edge_effects(results))
    if not rows:
        raise UsageError(f"'{results.name}' has no effects of edges to draw: {_why_no_effects(results)}")
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    placed = place_bars(rows, "edge", list(dict.fromkeys(str(row["edge"]) for row in rows)))
    color = alt.Color("kind:N").scale(domain=kinds, range=list(COLORS[: len(kinds)]))
    color = color.legend(alt.Legend(title=None, orient="bottom") if len(kinds) > 1 else None)
    bars = draw_bars(alt.Chart(), placed, "effect (points of test accuracy)", color, ["edge:N", "kind:N"])
    return placed.rows, bars.properties(height=placed.height_px)


# ---- what they share


def draw_chart(look: Look) -> Any:
    """An empty chart; in the page, of the rows that are shown."""
    import altair as alt

    chart = alt.Chart()
    return chart.transform_filter("indexof(shown, datum.label) >= 0") if look.is_interactive else chart


class PlacedBars(NamedTuple):
    """Bars with vertical places: those of a line stand one below another, without gaps for those that it lacks.

    Attributes:
        rows: With `top`, `middle` and `bottom`, in pixels from the top of the plot.
        height_px: Of the plot.
        names: The middle of each line, in pixels -> its name.
        groups: The middles of lines without bars, which name a group.
    """

    rows: list[FigureRow]
    height_px: float
    names: dict[float, str]
    groups: list[float]


def place_bars(rows: Sequence[FigureRow], name: str, lines: Sequence[str]) -> PlacedBars:
    """Place the bars of some lines; a line without bars is a heading.

    Args:
        name: Field of rows with the name of their line.
        lines: From top to bottom.
    """
    members: dict[str, list[FigureRow]] = {line: [] for line in lines}
    for row in rows:
        if row[name] in members:
            members[str(row[name])].append(row)
    found = PlacedBars([], sum(line_px(len(bars)) for bars in members.values()), {}, [])
    start = 0.0
    for line, bars in members.items():
        height, middle = line_px(len(bars)), start + line_px(len(bars)) / 2
        found.names[middle] = line
        found.groups.extend([] if bars else [middle])
        bar = min(_BAR_PX, (height - _GAP_PX) / max(1, len(bars)))
        for i, row in enumerate(bars):
            top = middle + bar * (i - len(bars) / 2)
            found.rows.append({**row, "top": top, "middle": top + bar / 2, "bottom": top + bar})
        start += height
    return found


def line_px(bars: int) -> float:
    """Pixels of a line with some bars."""
    return max(ROW_PX, _THIN_PX * bars + _GAP_PX)


def draw_bars(chart: Any, placed: PlacedBars, title: str | Sequence[str], color: Any, names: Sequence[str]) -> Any:
    """Bars from zero to `value`, with lines from `low` to `high`; tooltips have these and the named fields.

    Args:
        title: Of the numbers, in one line or several.
    """
    import altair as alt

    texts = ", ".join(f"'{middle:g}': {json.dumps(name)}" for middle, name in placed.names.items())
    is_group = f"indexof({json.dumps(placed.groups)}, datum.value) >= 0"
    label = f"{{{texts}}}['' + datum.value]"
    if placed.groups:  # a row does not repeat the name of its group
        label = f"slice({label}, indexof({label}, '{GROUP}') < 0 ? 0 : indexof({label}, '{GROUP}') + {len(GROUP)})"
    axis = alt.Axis(
        title=None,
        values=list(placed.names),
        labelExpr=label,
        labelOverlap=False,
        labelFontWeight=alt.condition(is_group, alt.value("bold"), alt.value("normal")),
        grid=False,
        ticks=not placed.groups,
    )
    vertical = alt.Scale(domain=[0, placed.height_px], reverse=True, nice=False, zero=False)
    # Anchored at the end, a long title has the room of the labels, too.
    x = alt.X("value:Q").title(title).axis(titleAnchor="end")
    bars = chart.mark_rect().encode(
        y=alt.Y("top:Q", axis=axis, scale=vertical),
        y2="bottom:Q",
        x=x,
        x2=alt.datum(0),
        color=color,
        tooltip=[*names, "value:Q", "low:Q", "high:Q"],
    )
    intervals = chart.mark_rule(color="#222222").encode(
        y=alt.Y("middle:Q", axis=axis, scale=vertical), x=alt.X("low:Q").title(title), x2="high:Q"
    )
    zero = alt.Chart().mark_rule(color="#222222", strokeWidth=0.6).encode(x=alt.datum(0))
    return alt.layer(bars, intervals, zero)


def label_color(look: Look, rows: Sequence[FigureRow], symbol: str = "") -> Any:
    """A colour for each network, explained by lines or dots in a legend, or by nothing.

    Among more than `LOOKS` networks, the colour is the number of skips, if rows have it.
    """
    import altair as alt

    labels = _in_study_order(look, order_of(rows))
    if _show_skips(look, rows):
        counts = sorted({str(row["skips"]) for row in rows})
        color = alt.Color("skips:O").scale(scheme={"name": "viridis", "extent": [0.05, 0.9]})
        return color.legend(label_legend(look, counts, symbol, "skips") if symbol else None)
    colors = [COLORS[i % len(COLORS)] for i in _places(look, labels)]
    color = alt.Color("label:N", sort=labels).scale(domain=labels, range=colors)
    return color.legend(label_legend(look, labels, symbol) if symbol else None)


def label_cycle(look: Look, rows: Sequence[FigureRow], channel: Any, values: Sequence[Any], symbol: str) -> Any:
    """Another dash or shape each time the colours repeat; the first one where the colour is the number of skips."""
    import altair as alt

    labels = _in_study_order(look, order_of(rows))
    if _show_skips(look, rows):
        return alt.value(values[0])
    found = [values[i // len(COLORS) % len(values)] for i in _places(look, labels)]
    encoded = channel("label:N", sort=labels).scale(domain=labels, range=found)
    return encoded.legend(label_legend(look, labels, symbol) if symbol else None)


def _show_skips(look: Look, rows: Sequence[FigureRow]) -> bool:
    return look.are_many and "skips" in rows[0]


def _places(look: Look, labels: Sequence[str]) -> list[int]:
    """The place of each network among those of the study; new ones follow."""
    known = list(dict.fromkeys([*look.networks, *labels]))
    return [known.index(label) for label in labels]


def _in_study_order(look: Look, labels: Sequence[str]) -> list[str]:
    """Networks in the order of the study; new ones follow."""
    return [label for _, label in sorted(zip(_places(look, labels), labels, strict=True))]


def label_legend(look: Look, labels: Sequence[str], symbol: str, title: str | None = None) -> Any:
    """A legend for networks, or their properties, in as many columns as there is room for; None for a single one.

    In the page, the columns follow the width of the chart, which is that of the window.
    """
    import altair as alt

    if len(labels) < 2:
        return None

    entry_cm = max(_ENTRY_LETTERS, max(map(len, labels)) + 7) / _LETTERS_PER_CM
    columns: Any = max(1, int(look.width_cm // entry_cm))
    if look.is_interactive:
        columns = alt.ExprRef(f"max(1, floor(width / {entry_cm * POINTS_PER_CM:.0f}))")
    return alt.Legend(
        title=title,
        orient="bottom",
        columns=columns,
        labelLimit=0,
        symbolLimit=60,
        symbolType=symbol,
        symbolOpacity=1,
        symbolStrokeWidth=2.5 if symbol == "stroke" else 1,
        symbolSize=_LINE_PX**2 if symbol == "stroke" else 100,
    )


def _opacity(look: Look, full: float = 1.0) -> Any:
    import altair as alt

    if not look.is_interactive:
        return alt.value(full)
    is_bright = "chosen == '' || chosen == datum.label"
    return alt.condition(is_bright, alt.value(full), alt.value(full * _FAINT))


def order_of(rows: Sequence[FigureRow]) -> list[str]:
    """The networks of rows, in their order."""
    return list(dict.fromkeys(str(row["label"]) for row in rows))
