"""`hrg report`: the table of a study and its statistics."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.screen import Column, note, write, write_table

if TYPE_CHECKING:
    from hiresnet_graph.report import Sheet


class Format(StrEnum):
    """How `hrg report` prints."""

    TABLE = "table"
    MD = "md"
    CSV = "csv"
    TEX = "tex"
    JSON = "json"


class Part(StrEnum):
    """What `hrg report` prints."""

    TABLE = "table"
    DIFFERENCES = "differences"
    EFFECTS = "effects"
    PARETO = "pareto"
    CURVES = "curves"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study, a search or a run.")],
    what: Annotated[Part | None, typer.Option("--what", "-w", help="One part alone.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", "-b", metavar="LABEL", help="The variant that the others are compared with."),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="For people, a paper, or programs.")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the table of a study, and how sure its differences are.

    Mean (standard deviation) of the test accuracy over the seeds; with several networks and seeds the differences from
    the baseline, with subsets of edges what each edge contributes, for a search the Pareto front. CSV is one table: the
    first, unless --what says otherwise. --what curves are the learning curves.
    """
    from hiresnet_graph.report import FORMATS, make_report, sheets
    from hiresnet_graph.sweep.results import read_results

    found = make_report(read_results(folder), baseline, None if what is None else [what.value])
    format = Format.JSON if json else format
    if format is not Format.TABLE:
        write(FORMATS[format.value](found).rstrip("\n"))
        if format is Format.CSV and found.table.mixed:
            note(f"Mixed: {'; '.join(found.table.mixed)}.")
        return
    for i, sheet in enumerate(sheets(found)):
        if i:
            write(f"\n{sheet.title}\n")
        write_sheet(sheet)


def write_sheet(sheet: Sheet) -> None:
    """A table and its caption on stdout."""
    columns = [
        Column(heading.text, "right" if heading.is_number else "left", heading.keep, heading.wraps)
        for heading in sheet.headings
    ]
    write_table(columns, sheet.rows)
    write(f"\n{sheet.caption}")
