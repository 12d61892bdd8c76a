"""The figure of an analysis: bars, a matrix, or cells along a series, for all networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hiresnet_graph.formats import one_line
from hiresnet_graph.report.analyses import Analysis, AnalysisRow, label_of_row, mean_of
from hiresnet_graph.report.figure_data import FigureRow
from hiresnet_graph.report.figures import (
    ROW_PX,
    Figure,
    Look,
    draw_bars,
    draw_chart,
    finish_figure,
    label_color,
)
from hiresnet_graph.report.scores import spread

_MAX_ROWS = 400
_GROUP = ": "
"""Between the group of a row and its name: in figures, the group has a line of its own."""
_PX_PER_LETTER = 6
_LEGEND_PX = 100


def analysis_figure(analysis: Analysis, look: Look | None = None) -> Figure:
    """The first quantity of each row: as bars with one standard deviation over seeds, as a matrix, or along a series.

    Numbers that others are compared with, as of random edges, are dashed lines, too.
    """
    look = (look or Look())._replace(networks=analysis.networks)
    if analysis.question.is_matrix:
        return _matrix(analysis, look)
    return _series(analysis, look) if analysis.question.series else _bars(analysis, look)


def _bars(analysis: Analysis, look: Look) -> Figure:
    import altair as alt

    rows = _bar_rows(analysis)
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    lines = _lines(_merged_order(rows))[:_MAX_ROWS]
    rows = [row for row in rows if row["name"] in set(lines)]
    quantity = analysis.question.quantities[0]
    title = [quantity.axis or quantity.header]
    if any(row["low"] != row["high"] for row in rows):
        title.append("(mean ± standard deviation)")
    color = label_color(look, rows, "square")
    base, offset = draw_chart(look).encode(y=_y("name:N", lines)), alt.YOffset("label:N", sort=labels)
    chart = draw_bars(base, offset, title, color, ["label:N", "name:N"])
    if any(row["is_reference"] for row in rows):
        reference = draw_chart(look).transform_filter("datum.is_reference").mark_rule(strokeDash=[3, 3])
        ink = color if len(labels) > 1 else alt.value("#222222")
        chart = alt.layer(chart, reference.encode(x=alt.X("value:Q").title(title), color=ink))
    return finish_figure(rows, chart.properties(height=ROW_PX * len(lines) * max(1, len(labels))), look)


def _matrix(analysis: Analysis, look: Look) -> Figure:
    """The first quantity for each pair of two keys; the matrices of networks are stacked."""
    import altair as alt

    rows: list[FigureRow] = []
    several = len({label_of_row(row) for row in analysis.rows}) > 1
    for row in analysis.rows:
        value, label = mean_of(row.values[0]), label_of_row(row)
        for a, b in dict.fromkeys([row.keys, row.keys[::-1]]):
            name = f"{label}{_GROUP}{a}" if several else str(a)
            rows.append({"label": label, "row": name, "column": str(b), "value": value})
    lines = _lines(dict.fromkeys(str(row["row"]) for row in rows))
    columns = list(dict.fromkeys(str(row["column"]) for row in rows))
    is_wide = _PX_PER_LETTER * max(map(len, columns)) * len(columns) < look.width_px / 2
    base = draw_chart(look).encode(
        x=alt.X("column:N", sort=columns).title(None).axis(labelAngle=0 if is_wide else -90), y=_y("row:N", lines)
    )
    squares = base.mark_rect().encode(
        color=alt.Color("value:Q")
        .scale(domain=[0, 1], scheme="viridis", clamp=True)
        .title(analysis.question.quantities[0].header),
        tooltip=["label:N", "row:N", "column:N", "value:Q"],
    )
    light = alt.condition("datum.value > 0.6", alt.value("black"), alt.value("white"))
    numbers = base.mark_text(fontSize=8).encode(text=alt.Text("value:Q", format=".2f"), color=light)
    return finish_figure(rows, alt.layer(squares, numbers).properties(height=ROW_PX * len(lines)), look)


def _series(analysis: Analysis, look: Look) -> Figure:
    """The first quantity along a series, as colours on a logarithmic scale: a line of cells for each other key."""
    import altair as alt

    keys = list(analysis.question.keys)
    at = keys.index(analysis.question.series)
    several = len({label_of_row(row) for row in analysis.rows}) > 1
    rows: list[FigureRow] = []
    for row in analysis.rows:
        label, name = label_of_row(row), one_line(", ".join(str(key) for i, key in enumerate(row.keys) if i != at))
        value = mean_of(row.values[0]) or None  # 0 has no logarithm
        name = f"{label}{_GROUP}{name}" if several else name
        rows.append({"label": label, "row": name, "at": row.keys[at], "value": value})
    lines = _lines(dict.fromkeys(str(row["row"]) for row in rows))[:_MAX_ROWS]
    rows = [row for row in rows if row["row"] in set(lines)]
    legend = alt.Legend(orient="bottom", format=".0e", gradientLength=_LEGEND_PX, titleFontWeight="normal")
    color = alt.Color("value:Q").scale(type="log", scheme="viridis").title(analysis.question.quantities[0].header)
    cells = draw_chart(look).mark_rect()
    cells = cells.encode(
        x=alt.X("at:O").title(keys[at]).axis(labelAngle=0, labelOverlap=True),
        y=_y("row:N", lines),
        color=color.legend(legend),
        tooltip=["label:N", "row:N", "at:O", "value:Q"],
    )
    return finish_figure(rows, cells.properties(height=ROW_PX * len(lines)), look)


def _y(field: str, lines: Sequence[str]) -> Any:
    """The vertical axis; names of groups are bold, and not repeated in the names of their rows."""
    import altair as alt

    if not any(_GROUP in line for line in lines):
        return alt.Y(field).scale(domain=lines).title(None)
    is_group = f"indexof(datum.value, '{_GROUP}') < 0"
    axis = alt.Axis(
        title=None,
        labelExpr=f"{is_group} ? datum.label : slice(datum.label, indexof(datum.label, '{_GROUP}') + {len(_GROUP)})",
        labelFontWeight=alt.condition(is_group, alt.value("bold"), alt.value("normal")),
        ticks=False,
    )
    return alt.Y(field).scale(domain=lines).axis(axis)


def _lines(names: Iterable[str]) -> list[str]:
    """The rows of a figure, with a line for the name of each group before its rows."""
    found: dict[str, None] = {}
    for name in names:
        group, mark, _ = name.partition(_GROUP)
        if mark:
            found.setdefault(group)
        found.setdefault(name)
    return list(found)


def _merged_order(rows: Sequence[FigureRow]) -> list[str]:
    """The names of all networks, each after the one that precedes it in its network."""
    found: list[str] = []
    last: dict[object, str] = {}
    for row in rows:
        name, before = str(row["name"]), last.get(row["label"])
        if name not in found:
            found.insert(0 if before is None else found.index(before) + 1, name)
        last[row["label"]] = name
    return found


def _bar_rows(analysis: Analysis) -> list[FigureRow]:
    question = analysis.question
    found: list[FigureRow] = []
    for row in analysis.rows:
        value = spread(row.values[0])
        if value is not None and row.keys[0] not in question.not_drawn:
            std = value.std or 0.0
            is_reference = bool(question.reference) and str(row.keys[0]).startswith(question.reference)
            found.append(
                {
                    "label": label_of_row(row),
                    # The same for networks with other numbers of draws.
                    "name": "random edges" if is_reference else _name(analysis, row),
                    "value": value.mean,
                    "low": value.mean - std,
                    "high": value.mean + std,
                    "is_reference": is_reference,
                }
            )
    return found


def _name(analysis: Analysis, row: AnalysisRow) -> str:
    """Name of a bar: its group and its last key, without keys that only describe it."""
    named = [
        f"step {key}" if name == "step" else str(key)
        for name, key in zip(analysis.question.keys, row.keys, strict=True)
        if key is not None and name not in analysis.question.unnamed
    ]
    *group, name = map(one_line, named)
    if not group:
        return name
    name = {group[0]: "function", f"{group[0]}.shortcut": "shortcut"}.get(name, name)
    return f"{' '.join(group)}{_GROUP}{name}"
