"""`hrg report`: the results of a study and their statistics."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.console import write, write_message, write_prose, write_table
from hiresnet_graph.cli.output import Force, check_figure_file, check_output_file
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_count

if TYPE_CHECKING:
    from hiresnet_graph.report import ReportTable


_WATCH_S = 30


class Format(StrEnum):
    """Output formats of `hrg report`."""

    TABLE = "table"
    MD = "md"
    CSV = "csv"
    TEX = "tex"
    JSON = "json"


class ReportPart(StrEnum):
    """Parts of a report."""

    TABLE = "table"
    DIFFERENCES = "differences"
    EFFECTS = "effects"
    PARETO = "pareto"
    CURVES = "curves"


class Plot(StrEnum):
    """Figures of a report."""

    ACCURACY = "accuracy"
    CURVES = "curves"
    EFFECTS = "effects"
    PARETO = "pareto"


class Width(StrEnum):
    """Widths of a figure."""

    SINGLE = "single"
    DOUBLE = "double"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study, a search or a run.")],
    what: Annotated[ReportPart | None, typer.Option("--what", "-w", help="Part to print.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", "-b", metavar="LABEL", help="Variant that the others are compared with."),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Output format: for people, a paper, or programs.")
    ] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one HTML file that works offline."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write tables and figures into a folder.",
        ),
    ] = None,
    plot: Annotated[Plot | None, typer.Option("--plot", help="Write one figure, to the file --output.")] = None,
    width: Annotated[Width, typer.Option("--width", help="Width of a figure: one or two columns.")] = Width.SINGLE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page every 30 seconds, until the study is finished.")
    ] = False,
    force: Force = False,
) -> None:
    """Print the results of a study with their statistics, or write them as a page, tables and figures.

    Prints the mean (standard deviation) of the test accuracy over seeds; for several networks and seeds, also the
    differences from the baseline; for subsets of edges instead the contribution of each edge; for a search, the Pareto
    front. JSON has all of them. CSV is one table: the first, unless --what selects another. --what curves prints the
    learning curves.
    """
    if plot is not None and output is None:
        raise UsageError("--plot: name the file with '-o', like '-o figure.pdf' (.svg, .pdf or .png).")
    if watch and page is None:
        raise UsageError("--watch: name the page with '--html', like '--html report.html'.")
    if plot is not None and output is not None:
        _write_figure(folder, output, plot, width, force)
    elif output is not None:
        _write_files(folder, output, baseline)
    if page is not None:
        _write_page(folder, page, baseline, watch, force)
    has_asked = what is not None or json or format is not Format.TABLE
    if has_asked or (page is None and output is None):
        _print(folder, what, baseline, Format.JSON if json else format)


def _print(folder: Path, what: ReportPart | None, baseline: str | None, format: Format) -> None:
    from hiresnet_graph.report import FORMATS, available_parts, make_report, report_tables
    from hiresnet_graph.sweep.results import read_results

    results = read_results(folder)
    parts = None if what is None else [what.value]
    if format is Format.JSON and what is None:
        parts = available_parts(results)
    found = make_report(results, baseline, parts)
    if what not in (None, ReportPart.EFFECTS):
        found = replace(found, conclusion="")
    if format is not Format.TABLE:
        write(FORMATS[format.value](found).rstrip("\n"))
        if format is Format.CSV and found.table.mixed:
            write_message(f"Mixed: {'; '.join(found.table.mixed)}.")
        return
    tables = report_tables(found)
    for i, table in enumerate(tables):
        if i:
            write()
        if i or (what is not None and len(tables) > 1):
            write(f"{table.title}\n")
        write_report_table(table)
    if found.conclusion:
        write()
        write_prose(found.conclusion)


def _write_figure(folder: Path, target: Path, plot: Plot, width: Width, force: bool) -> None:
    from hiresnet_graph.figure_style import WIDTHS_CM
    from hiresnet_graph.files import write_atomic
    from hiresnet_graph.report.figures import Look, figure_bytes, make_figure
    from hiresnet_graph.sweep.results import read_results

    target, format = check_figure_file(target, [folder], force=force)
    chart = make_figure(read_results(folder), plot.value, Look(WIDTHS_CM[width.value]))
    write_atomic(target, figure_bytes(chart, format))
    write_message(f"Wrote {target}.")


def _write_files(folder: Path, target: Path, baseline: str | None) -> None:
    from hiresnet_graph.report.files import write_report

    if not target.is_dir() and (instead := _for_one_file(target)):
        raise UsageError(f"'-o {target}': a folder is expected, for all tables and figures. {instead}")
    if target.resolve() == folder.resolve():
        raise UsageError(f"'{target}' is the folder of the study. Choose another name with '-o'.")
    written = write_report(folder, target, baseline)
    _warn(folder)
    write_message(f"Wrote {format_count(len(written), 'file')} into {target}.")


def _for_one_file(target: Path) -> str:
    """How to write what the suffix of a file stands for; empty for the name of a folder."""
    from hiresnet_graph.report.figures import FIGURE_FORMATS

    suffix = target.suffix.lower().removeprefix(".")
    if suffix in ("html", "htm"):
        return f"The page is written with '--html {target}'."
    if suffix in [*Format, "txt"]:
        form = "" if suffix == "txt" else f" --format {suffix}"
        return f"One table is redirected: '--what table{form} > {target}'."
    if suffix in FIGURE_FORMATS:
        return f"One figure is written with '--plot KIND -o {target}', where KIND is {', '.join(Plot)}."
    return ""


def _write_page(folder: Path, target: Path, baseline: str | None, watch: bool, force: bool) -> None:
    from hiresnet_graph.files import write_atomic
    from hiresnet_graph.report.files import make_page
    from hiresnet_graph.sweep.results import read_results

    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html: '{target}' must end in .html: a page is written in no other format.")
    target = check_output_file(target, [folder], force=force, marks=(b"<html",), option="--html")
    while True:
        results = read_results(folder)
        again = watch and any(row.state in ("waiting", "running") for row in results.rows)
        page = make_page(folder, results, baseline, refresh_s=_WATCH_S if again else None)
        write_atomic(target, page.encode())
        if not again:
            break
        write_message(f"Wrote {target}; the study is unfinished, so it is written again every {_WATCH_S} seconds.")
        time.sleep(_WATCH_S)
    _warn(folder)
    write_message(f"Wrote {target}.")


def _warn(folder: Path) -> None:
    """Name the analyses that lack runs of the study."""
    from hiresnet_graph.report.files import old_analyses

    for sentence in old_analyses(folder):
        write_message(f"Warning: {sentence}")


def write_report_table(table: ReportTable) -> None:
    """Print a table and its caption to stdout."""
    write_table(table.columns, table.rows)
    write()
    write_prose(table.caption)
