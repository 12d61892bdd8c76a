"""The page: a template, its style and program, the numbers as JSON, and Vega for the charts, all in one file."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from hiresnet_graph.report.analyses import Analysis, analysis_table, label_of_row
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.figure_data import labels_of
from hiresnet_graph.report.figures import Figure, Look, figure_captions, make_figures, vega_lite_version
from hiresnet_graph.report.page.data import page_data
from hiresnet_graph.report.page.lesions import lesion_conclusion
from hiresnet_graph.sweep.results import Results

_WIDTH_CM = 24.0
_TITLES = {
    "accuracy": "Accuracy",
    "curves": "Learning curves",
    "effects": "Effects of the edges",
    "pareto": "Accuracy and size",
}


def html_page(
    results: Results,
    baseline: str | None = None,
    *,
    diagram: str = "",
    spec: str = "",
    analyses: Sequence[Analysis] = (),
    refresh_s: int | None = None,
) -> str:
    """The report of a study as HTML that refers to nothing outside of it. Equal arguments give equal text.

    Args:
        baseline: Label of the variant that is compared with first (default: that of the study, or its first).
        diagram: The network as SVG, with the edges of all variants; or empty.
        spec: Its spec in YAML; or empty.
        analyses: Of its trained networks, each with a section of its own.
        refresh_s: Seconds after which a browser loads the page again; None for never.

    Raises:
        UsageError: The variant is unknown.
    """
    data: dict[str, Any] = page_data(results, baseline)
    look = Look(_WIDTH_CM, is_interactive=True)
    figures = make_figures(results, look)
    for kind, caption in figure_captions(results, look).items():
        data["captions"][kind] = f"{caption} {data['captions'].get(kind, '')}".strip()
    data["charts"] = {kind: _stored(figure, labels_of(results)) for kind, figure in figures.items()}
    data["titles"] = dict(_TITLES)
    for analysis in analyses:
        _add_analysis(data, analysis)
    data["spec"], data["study"] = spec, results.text
    parts = {
        "TITLE": html.escape(results.name),
        "REFRESH": "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">',
        "STYLE": _file("page.css"),
        "DIAGRAM": diagram[diagram.find("<svg") :] if diagram else "",
        "DATA": _script_json(data),
        "VEGA": _vega(),
        "SCRIPT": _file("page.js"),
    }
    # In one pass: a name of the study may look like a place of the template.
    return re.sub(r"@@([A-Z]+)@@", lambda place: parts[place[1]], _file("page.html"))


def _add_analysis(data: dict[str, Any], analysis: Analysis) -> None:
    """Add the chart, the title, the caption and the table of an analysis to the data of a page."""
    name, table = f"analysis-{analysis.name}", analysis_table(analysis)
    labels = list(dict.fromkeys(map(label_of_row, analysis.rows)))
    figure = analysis_figure(analysis, Look(_WIDTH_CM, is_interactive=True))
    data["charts"][name] = _stored(figure, labels, lambda value: float(f"{value:.5g}"))
    data["titles"][name] = _capitalized(analysis.title)
    data["captions"][name] = table.caption
    if analysis.question.name == "lesion":
        data.setdefault("answers", {})[name] = lesion_conclusion(analysis)
    columns = [[column.header, column.is_number] for column in table.columns]
    data.setdefault("tables", {})[name] = {"columns": columns, "rows": table.rows}


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _to_hundredths(value: float) -> float:
    return round(value, 2)


def _stored(figure: Figure, labels: list[str], rounded: Callable[[float], float] = _to_hundredths) -> Figure:
    """A figure with the parameters that the page sets, and with its rows as columns of rounded numbers."""
    params = [{"name": "chosen", "value": ""}, {"name": "shown", "value": labels}]
    columns = {
        name: {column: _column([row[column] for row in rows], rounded) for column in rows[0]}
        for name, rows in figure["datasets"].items()
    }
    return {**{key: value for key, value in figure.items() if key != "$schema"}, "params": params, "datasets": columns}


def _column(values: list[Any], rounded: Callable[[float], float]) -> list[Any]:
    """The different values, and the index of the value of each row."""
    different: dict[Any, int] = {}
    indices = [different.setdefault(rounded(v) if isinstance(v, float) else v, len(different)) for v in values]
    return [list(different), indices]


def _script_json(data: dict[str, Any]) -> str:
    """JSON that may stand inside of a script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`."""
    import vl_convert

    bundle: Callable[..., str] = vl_convert.javascript_bundle  # its stub demands a snippet
    return bundle(vl_version=vega_lite_version()).replace("</script", "<\\/script")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
