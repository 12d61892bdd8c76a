"""The figure of an analysis: bars, a matrix, cells along a series, or a curve, for all networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hiresnet_graph.formats import one_line
from hiresnet_graph.report.analyses import Analysis, AnalysisRow, label_of_row, mean_of
from hiresnet_graph.report.figure_data import FigureRow
from hiresnet_graph.report.figures import (
    DASHES,
    FIGURE_SHAPE,
    GROUP,
    ROW_PX,
    Figure,
    Look,
    draw_bars,
    draw_chart,
    finish_figure,
    label_color,
    label_cycle,
    line_px,
    order_of,
    place_bars,
)
from hiresnet_graph.report.scores import spread

_MAX_ROWS = 400
_PAGE_PX = 640
"""Largest height of the bars of a figure for a paper: what a page of 25 cm has beside axis and legend."""
_CELL_PX = 12
_MAX_TICKS = 5
_PX_PER_LETTER = 6
_LEGEND_PX = 100
_READ, _NOT_READ = "read out in training", "not read out in training"
_MAX_CURVE_TICKS = 12


def analysis_figure(analysis: Analysis, look: Look | None = None) -> Figure:
    """The first quantity of each row: as bars with one standard deviation over seeds, as a matrix, along a series, or
    as a curve.

    Numbers that others are compared with, as of random edges, are dashed lines, too.
    """
    look = (look or Look())._replace(networks=analysis.networks)
    if analysis.question.is_matrix:
        return _matrix(analysis, look)
    if analysis.question.curve:
        return _curve(analysis, look)
    return _series(analysis, look) if analysis.question.series else _bars(analysis, look)


def _bars(analysis: Analysis, look: Look) -> Figure:
    import altair as alt

    rows = _bar_rows(analysis)
    quantity = analysis.question.quantities[0]
    title = [quantity.axis or quantity.header]
    if any(row["low"] != row["high"] for row in rows):
        title.append("(mean ± standard deviation)")
    if len(_drawn_rows(analysis)) < len(analysis.rows):
        title.append("at merges with skips")
    names = _merged_order(rows)
    shown = _largest(rows, names, _PAGE_PX if not look.is_interactive else ROW_PX * _MAX_ROWS)
    if len(shown) < len(names):
        title.append(f"(the {len(shown)} largest of {len(names)} rows)")
    placed = place_bars(rows, "name", _lines(shown))
    color = label_color(look, placed.rows, "square")
    chart = draw_bars(draw_chart(look), placed, title, color, ["label:N", "name:N"])
    if any(row["is_reference"] for row in rows):
        reference = draw_chart(look).transform_filter("datum.is_reference").mark_rule(strokeDash=[3, 3])
        ink = color if len(order_of(placed.rows)) > 1 else alt.value("#222222")
        chart = alt.layer(chart, reference.encode(x=alt.X("value:Q").title(title), color=ink))
    return finish_figure(placed.rows, chart.properties(height=placed.height_px), look)


def _largest(rows: Sequence[FigureRow], names: Sequence[str], room_px: float) -> list[str]:
    """The names that have room, in their order: those with the largest bars."""
    sizes: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        sizes[str(row["name"])].append(abs(float(str(row["value"]))))
    chosen: set[str] = set()
    groups: set[str] = set()
    for name in sorted(names, key=lambda name: -max(sizes[name])):
        group, mark, _ = name.partition(GROUP)
        room_px -= line_px(len(sizes[name])) + (ROW_PX if mark and group not in groups else 0)
        if room_px < 0:
            break
        chosen.add(name)
        groups |= {group}
    return [name for name in names if name in chosen]


def _matrix(analysis: Analysis, look: Look) -> Figure:
    """The first quantity for each pair of two keys; the matrices of networks are stacked."""
    import altair as alt

    rows: list[FigureRow] = []
    several = len({label_of_row(row) for row in analysis.rows}) > 1
    for row in analysis.rows:
        value, label = mean_of(row.values[0]), label_of_row(row)
        for a, b in dict.fromkeys([row.keys, row.keys[::-1]]):
            name = f"{label}{GROUP}{a}" if several else str(a)
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
    """The first quantity along a series, as colours on a logarithmic scale: a line of cells for each other key.

    The networks stand beside each other.
    """
    import altair as alt

    keys = list(analysis.question.keys)
    at = keys.index(analysis.question.series)
    rows: list[FigureRow] = []
    for row in analysis.rows:
        name = one_line(", ".join(str(key) for i, key in enumerate(row.keys) if i != at))
        value = mean_of(row.values[0]) or None  # 0 has no logarithm
        rows.append({"label": label_of_row(row), "name": name, "at": row.keys[at], "value": value})
    lines = _merged_order(rows)[:_MAX_ROWS]
    rows = [row for row in rows if row["name"] in set(lines)]
    labels = order_of(rows)
    values = [float(str(row["value"])) for row in rows if row["value"] is not None]
    legend = alt.Legend(
        orient="bottom", format="~g", gradientLength=_LEGEND_PX, titleFontWeight="normal", values=_log_ticks(values)
    )
    color = alt.Color("value:Q").scale(type="log", scheme="viridis").title(analysis.question.quantities[0].header)
    x: dict[str, Any] = {"x": alt.X("at:O").title(keys[at]).axis(labelAngle=0, labelOverlap=True)}
    if len(labels) > 1:
        last = max(int(str(row["at"])) for row in rows)
        is_wide = _PX_PER_LETTER * max(map(len, labels)) * len(labels) < look.width_px / 2
        axis = alt.Axis(labelAngle=0 if is_wide else -90)
        x = {
            "x": alt.X("label:N", sort=labels, axis=axis).title(f"each from {keys[at]} 1 to {last}"),
            "xOffset": alt.XOffset("at:O"),
        }
    cells = draw_chart(look).mark_rect()
    cells = cells.encode(
        **x,
        y=alt.Y("name:N").scale(domain=lines).title(None),
        color=color.legend(legend),
        tooltip=["label:N", "name:N", "at:O", "value:Q"],
    )
    return finish_figure(rows, cells.properties(height=_CELL_PX * len(lines)), look)


def _curve(analysis: Analysis, look: Look) -> Figure:
    """The first quantity against a key: a line for each network, with one standard deviation over seeds.

    Dots are filled where the next key is true. Lines have gaps where the key skips a number.
    """
    import altair as alt

    rows = _curve_rows(analysis)
    places = [int(str(row["at"])) for row in rows]
    ticks = list(range(min(places), max(places) + 1, math.ceil((max(places) - min(places) + 1) / _MAX_CURVE_TICKS)))
    quantity = analysis.question.quantities[0]
    has_bars = any(row["low"] != row["high"] for row in rows)
    title = f"{analysis.part} {quantity.header} ({'%, mean ± standard deviation' if has_bars else '%'})"
    symbol = "stroke" if len(order_of(rows)) > 1 else ""
    color = label_color(look, rows, symbol)
    x = alt.X("at:Q").title("readout step (counted from 0)").axis(values=ticks, format="d")
    domain = [min(places) - 0.5, max(places) + 0.5]
    base = draw_chart(look).encode(x=x.scale(domain=domain, nice=False), color=color)
    y = alt.Y("value:Q").title(title).scale(zero=False)
    line = base.mark_line(strokeWidth=1.4).encode(
        y=y, detail="piece:N", strokeDash=label_cycle(look, rows, alt.StrokeDash, DASHES, symbol)
    )
    bars = base.mark_rule().encode(y=alt.Y("low:Q").title(title), y2="high:Q")
    marks = alt.Scale(domain=[_READ, _NOT_READ], range=["circle", "diamond"])
    key = alt.Legend(title=None, orient="bottom", labelLimit=0)
    is_mixed = len({row["read"] for row in rows}) > 1
    dots = base.mark_point(size=40, opacity=1, strokeWidth=1.4).encode(
        y=y,
        shape=alt.Shape("read:N", scale=marks).legend(key if is_mixed else None),
        fill=alt.condition(f"datum.read == '{_READ}'", color, alt.value("white")),
        tooltip=["label:N", "at:Q", "value:Q", "low:Q", "high:Q", "read:N"],
    )
    return finish_figure(rows, alt.layer(line, bars, dots).properties(height=look.width_px * FIGURE_SHAPE), look)


def _curve_rows(analysis: Analysis) -> list[FigureRow]:
    at = list(analysis.question.keys).index(analysis.question.curve)
    found: list[FigureRow] = []
    pieces: dict[str, tuple[int, int]] = {}  # network -> its last step, and the number of its line
    for row in analysis.rows:
        value = spread(row.values[0])
        if value is None:
            continue
        label, step, std = label_of_row(row), int(str(row.keys[at])), value.std or 0.0
        last, piece = pieces.get(label, (step - 1, 0))
        piece += step != last + 1
        pieces[label] = step, piece
        read = _READ if row.keys[at + 1] else _NOT_READ
        values = {"value": value.mean, "low": value.mean - std, "high": value.mean + std}
        found.append({"label": label, "at": step, "piece": piece, "read": read, **values})
    return found


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers within the values, for a logarithmic scale: 1, 2 and 5 times a power of 10, or powers alone."""
    if not values:
        return []
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{step}e{power}") for power in powers for step in steps]
        inside = [value for value in found if low <= value <= high]
        if len(inside) <= _MAX_TICKS:
            return inside
    return inside[:: math.ceil(len(inside) / _MAX_TICKS)]


def _y(field: str, lines: Sequence[str]) -> Any:
    """The vertical axis; names of groups are bold, and not repeated in the names of their rows."""
    import altair as alt

    if not any(GROUP in line for line in lines):
        return alt.Y(field).scale(domain=lines).title(None)
    is_group = f"indexof(datum.value, '{GROUP}') < 0"
    axis = alt.Axis(
        title=None,
        labelExpr=f"{is_group} ? datum.label : slice(datum.label, indexof(datum.label, '{GROUP}') + {len(GROUP)})",
        labelFontWeight=alt.condition(is_group, alt.value("bold"), alt.value("normal")),
        ticks=False,
    )
    return alt.Y(field).scale(domain=lines).axis(axis)


def _lines(names: Iterable[str]) -> list[str]:
    """The rows of a figure, with a line for the name of each group before its rows."""
    found: dict[str, None] = {}
    for name in names:
        group, mark, _ = name.partition(GROUP)
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


def _drawn_rows(analysis: Analysis) -> list[AnalysisRow]:
    """The rows of merges where more than plain kinds arrive in some network; all rows if there are none."""
    plain, rows = analysis.question.plain_kinds, list(analysis.rows)
    if not plain:
        return rows
    kind = list(analysis.question.keys).index("kind")
    groups = {_name(analysis, row).partition(GROUP)[0] for row in rows if row.keys[kind] not in plain}
    return [row for row in rows if not groups or _name(analysis, row).partition(GROUP)[0] in groups]


def _bar_rows(analysis: Analysis) -> list[FigureRow]:
    question = analysis.question
    found: list[FigureRow] = []
    for row in _drawn_rows(analysis):
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
    return f"{' '.join(group)}{GROUP}{name}"
