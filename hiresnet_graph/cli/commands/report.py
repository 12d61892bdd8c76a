"""`hrg report`: the results of a study and their statistics."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.console import write, write_message, write_prose, write_table

if TYPE_CHECKING:
    from hiresnet_graph.report import ReportTable


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
) -> None:
    """Print the results of a study with their statistics.

    Prints the mean (standard deviation) of the test accuracy over seeds; for several networks and seeds, also the
    differences from the baseline; for subsets of edges instead the contribution of each edge; for a search, the Pareto
    front. JSON has all of them. CSV is one table: the first, unless --what selects another. --what curves prints the
    learning curves.
    """
    from hiresnet_graph.report import FORMATS, available_parts, make_report, report_tables
    from hiresnet_graph.sweep.results import read_results

    format = Format.JSON if json else format
    results = read_results(folder)
    parts = None if what is None else [what.value]
    if format is Format.JSON and what is None:
        parts = available_parts(results)
    found = make_report(results, baseline, parts)
    if format is not Format.TABLE:
        write(FORMATS[format.value](found).rstrip("\n"))
        if format is Format.CSV and found.table.mixed:
            write_message(f"Mixed: {'; '.join(found.table.mixed)}.")
        return
    for i, table in enumerate(report_tables(found)):
        if i:
            write(f"\n{table.title}\n")
        write_report_table(table)


def write_report_table(table: ReportTable) -> None:
    """Print a table and its caption to stdout."""
    write_table(table.columns, table.rows)
    write()
    write_prose(table.caption)
