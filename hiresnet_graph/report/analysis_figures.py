"""The figure of an analysis: bars over networks, with error bars over seeds."""

from __future__ import annotations

from hiresnet_graph.formats import one_line
from hiresnet_graph.report.analyses import Analysis, AnalysisRow, label_of_row, mean_of
from hiresnet_graph.report.figure_data import FigureRow
from hiresnet_graph.report.figures import COLORS, ROW_PX, Figure, Look, draw_bars, draw_chart, finish_figure
from hiresnet_graph.report.scores import spread

_MAX_BARS = 400


def analysis_figure(analysis: Analysis, look: Look | None = None) -> Figure:
    """The first quantity of each row as a bar; a group of bars for each value of the first key, one row per network.

    Error bars are one standard deviation over seeds.
    """
    import altair as alt

    if analysis.question.is_matrix:
        return _matrix(analysis, look or Look())
    rows = _rows(analysis)[:_MAX_BARS]
    quantity = analysis.question.quantities[0]
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    names = list(dict.fromkeys(str(row["name"]) for row in rows))
    title = quantity.header if len(labels) == 1 else f"{quantity.header} (mean ± standard deviation)"
    colors = [COLORS[i % len(COLORS)] for i in range(len(labels))]
    legend = alt.Legend(title=None, orient="bottom", labelLimit=0) if len(labels) > 1 else None
    look = look or Look()
    base = draw_chart(look).encode(
        y=alt.Y("name:N", sort=names).title(None), yOffset=alt.YOffset("label:N", sort=labels)
    )
    color = alt.Color("label:N", sort=labels).scale(domain=labels, range=colors).legend(legend)
    bars = draw_bars(base, title, color, ["label:N", "name:N"])
    height = ROW_PX * len(names) * max(1, len(labels))
    return finish_figure(rows, bars.properties(height=height), look)


def _matrix(analysis: Analysis, look: Look) -> Figure:
    """The first quantity for each pair of two keys, as a matrix; the matrices of networks are stacked."""
    import altair as alt

    rows: list[FigureRow] = []
    several = len({label_of_row(row) for row in analysis.rows}) > 1
    for row in analysis.rows:
        value, label = mean_of(row.values[0]), label_of_row(row)
        for a, b in dict.fromkeys([row.keys, row.keys[::-1]]):
            rows.append(
                {"label": label, "row": f"{label}: {a}" if several else str(a), "column": str(b), "value": value}
            )
    names, columns = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("row", "column"))
    header = analysis.question.quantities[0].header
    base = draw_chart(look).encode(
        x=alt.X("column:N", sort=columns).title(None), y=alt.Y("row:N", sort=names).title(None)
    )
    squares = base.mark_rect().encode(
        color=alt.Color("value:Q").scale(domain=[0, 1], scheme="viridis", clamp=True).title(header),
        tooltip=["label:N", "row:N", "column:N", "value:Q"],
    )
    light = alt.condition("datum.value > 0.6", alt.value("black"), alt.value("white"))
    numbers = base.mark_text(fontSize=8).encode(text=alt.Text("value:Q", format=".2f"), color=light)
    return finish_figure(rows, alt.layer(squares, numbers).properties(height=ROW_PX * len(names)), look)


def _rows(analysis: Analysis) -> list[FigureRow]:
    found: list[FigureRow] = []
    for row in analysis.rows:
        value = spread(row.values[0])
        if value is not None:
            std = value.std or 0.0
            found.append(
                {
                    "label": label_of_row(row),
                    "name": _name(analysis, row),
                    "value": value.mean,
                    "low": value.mean - std,
                    "high": value.mean + std,
                }
            )
    return found


def _name(analysis: Analysis, row: AnalysisRow) -> str:
    """Name of a bar: the keys that differ between rows."""
    keys = analysis.question.keys
    words = []
    for i, name in enumerate(keys):
        if row.keys[i] is not None and name not in analysis.question.unnamed:
            words.append(f"step {row.keys[i]}" if name == "step" else str(row.keys[i]))
    return one_line(", ".join(words))
