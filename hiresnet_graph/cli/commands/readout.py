"""`hrg analyze readout`: accuracy of a trained network in time at other readout steps."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hiresnet_graph.cli.analysis import (
    DataPart,
    FormatOption,
    Json,
    Output,
    PartOption,
    PlotFile,
    SourcePath,
    WeightsData,
)
from hiresnet_graph.cli.arguments import Changes, Reinit, Weights
from hiresnet_graph.cli.commands.report import Format
from hiresnet_graph.cli.output import Force
from hiresnet_graph.cli.training import Device
from hiresnet_graph.errors import UsageError

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
    source: SourcePath,
    changes: Changes = None,
    steps: StepRanges = None,
    past: PastOption = None,
    weights: Weights = None,
    reinit: Reinit = False,
    data: WeightsData = None,
    part: PartOption = DataPart.TEST,
    format: FormatOption = Format.TABLE,
    json: Json = False,
    plot: PlotFile = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Evaluate a trained network in time at other readout steps.

    Prints the accuracy at each readout step; for a study, the mean (standard deviation) over seeds of each network. A
    step that lacks tensors (with one norm per step, steps at which training read out nothing) is marked.
    """
    requested = None if steps is None else _parse_steps(steps)

    from hiresnet_graph.report.questions import make_readouts

    Output(source, format, json, plot, force).run(
        lambda found: make_readouts(found, steps=requested, part=part.value, past=None if past is None else past.value),
        changes=changes,
        weights=weights,
        reinit=reinit,
        data=data,
        device=device,
    )


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
