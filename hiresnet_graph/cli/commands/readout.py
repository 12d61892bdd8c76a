"""`hrg analyze readout`: accuracy of a trained network in time at other readout steps.

torch is imported inside the command, once its arguments are known to be valid.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.analysis import DataPart, FolderPath, FormatOption, Json, PartOption, PlotFile
from hiresnet_graph.cli.commands.report import Format, write_report_table
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_figure_file
from hiresnet_graph.cli.training import Device
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import write_atomic

_MOST_STEPS = 10_000


class Past(StrEnum):
    """Values of `time: {past: ...}`."""

    ERROR = "error"
    LAST = "last"


StepRanges = Annotated[
    str | None,
    typer.Option(
        metavar="A-B,C", help="Steps, counted from 0; also beyond those of training.", show_default="as in training"
    ),
]
PastOption = Annotated[
    Past | None,
    typer.Option(
        help="last: beyond its copies, a norm uses the last one, as with 'time: {past: last}'.",
        show_default="as in the spec",
    ),
]


def readout(
    folder: FolderPath,
    steps: StepRanges = None,
    part: PartOption = DataPart.TEST,
    past: PastOption = None,
    format: FormatOption = Format.TABLE,
    json: Json = False,
    plot: PlotFile = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Evaluate a trained network in time at other readout steps.

    Prints the accuracy at each readout step; for a study, the mean (standard deviation) over seeds of each network. A
    step that lacks tensors (with one norm per step, steps at which training read out nothing) is marked. The exit code
    is 1 if no step can be read out.
    """
    requested = None if steps is None else _parse_steps(steps)
    figure = None if plot is None else check_figure_file(plot, [folder], force=force, option="--plot")

    from hiresnet_graph.report.figures import figure_bytes
    from hiresnet_graph.report.readout import READOUT_FORMATS, make_readouts, readout_figure, readout_table

    found = make_readouts(
        folder,
        requested,
        part=part.value,
        past=None if past is None else past.value,
        device=device or "auto",
    )
    format = Format.JSON if json else format
    if format is Format.TABLE:
        write_report_table(readout_table(found))
    else:
        write(READOUT_FORMATS[format.value](found).rstrip("\n"))
    if all(row.accuracy is None for row in found.rows):
        write_message(
            f"No step can be read out: {found.rows[0].reason} Train with 'time.readout=all', so that every step has "
            "its norms; beyond the steps of training, '--past last' uses the last norms."
        )
        raise typer.Exit(failure.FINDINGS)
    if figure is not None:
        target, suffix = figure
        write_atomic(target, figure_bytes(readout_figure(found), suffix), UsageError)
        write_message(f"Wrote {target}.")


def _parse_steps(text: str) -> list[int]:
    """The steps of a text like `2-5,8`.

    Raises:
        UsageError: The text is not of this form.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isdecimal() for end in ends) or not int(ends[0]) <= int(ends[1]) <= _MOST_STEPS:
            raise UsageError(f"--steps {text}: expected steps counted from 0, like '2-5' or '3,5,9', got '{part}'.")
        found |= set(range(int(ends[0]), int(ends[1]) + 1))
    return sorted(found)
