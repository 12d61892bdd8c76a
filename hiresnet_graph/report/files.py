"""A report as files: tables and figures for a paper, and all numbers for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hiresnet_graph.figure_style import WIDTHS_CM
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.report.analyses import FOLDER, FORMATS
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.figures import FIGURE_FORMATS, Look, figure_bytes, make_figures
from hiresnet_graph.report.formats import to_csv, to_json, to_latex, to_markdown
from hiresnet_graph.report.page import html_page
from hiresnet_graph.report.questions import saved_analyses
from hiresnet_graph.report.report import available_parts, make_report
from hiresnet_graph.report.stored_network import stored_network
from hiresnet_graph.sweep.results import Results, read_results


def write_report(folder: Path, target: Path, baseline: str | None = None) -> list[Path]:
    """Write the report of a study as Markdown, CSV, LaTeX, JSON and figures into a folder; returns the paths.

    The analyses in the folder of the study are in the subfolder `analysis`. Figures have the width of one column
    (`-single`) and of two (`-double`). Files of an earlier report are replaced.

    Raises:
        UsageError: The baseline is unknown.
        RunError: The study cannot be read, or a file cannot be written.
    """
    results = read_results(folder)
    written = []
    for name, content in chain(_contents(results, baseline), _analysis_contents(folder, results)):
        path = target / name
        make_folder(path.parent)
        write_atomic(path, content)
        written.append(path)
    return written


def make_page(folder: Path, results: Results, baseline: str | None = None, *, refresh_s: int | None = None) -> str:
    """The report of a study as one HTML file, with the diagram of its network and the analyses in its folder.

    Args:
        results: Those of the folder.
        refresh_s: Seconds after which a browser loads the page again; None for never.

    Raises:
        UsageError: The baseline is unknown.
        RunError: The study cannot be read.
    """
    from hiresnet_graph.render import RenderOptions, to_svg

    network = stored_network(folder)
    diagram = "" if network is None else to_svg(network.plan, RenderOptions(level="stages"), title=network.title)
    spec = "" if network is None else network.to_yaml()
    return html_page(
        results, baseline, diagram=diagram, spec=spec, analyses=saved_analyses(folder, results), refresh_s=refresh_s
    )


def old_analyses(folder: Path) -> list[str]:
    """A sentence for each analysis in the folder of a study that lacks finished runs.

    Raises:
        RunError: The study or an analysis cannot be read.
    """
    found = saved_analyses(folder, read_results(folder))
    return [f"{FOLDER}/{one.name}.json: {one.warning}" for one in found if one.warning]


def _analysis_contents(folder: Path, results: Results) -> Iterator[tuple[str, bytes]]:
    for analysis in saved_analyses(folder, results):
        for suffix, form in FORMATS.items():
            yield f"{FOLDER}/{analysis.name}.{suffix}", form(analysis).encode()
        for width, centimetres in WIDTHS_CM.items():
            figure = analysis_figure(analysis, Look(centimetres))
            for format in FIGURE_FORMATS:
                yield f"figures/{FOLDER}-{analysis.name}-{width}.{format}", figure_bytes(figure, format)


def _contents(results: Results, baseline: str | None) -> Iterator[tuple[str, bytes]]:
    whole = make_report(results, baseline, [*available_parts(results), "curves"])
    report = replace(whole, parts=tuple(part for part in whole.parts if part != "curves"))
    yield "report.json", to_json(report).encode()
    yield "table.md", to_markdown(report).encode()
    yield "table.tex", to_latex(report).encode()
    for part in whole.parts:
        yield f"{part}.csv", to_csv(replace(whole, parts=(part,))).encode()
    for width, centimetres in WIDTHS_CM.items():
        for kind, figure in make_figures(results, Look(centimetres)).items():
            for format in FIGURE_FORMATS:
                yield f"figures/{kind}-{width}.{format}", figure_bytes(figure, format)
