"""`hrg analyze readout`: accuracy of a trained network in time at other readout steps.

torch is imported inside the command, once its arguments are known to be valid.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.analysis import DataPart
from hiresnet_graph.cli.commands.report import write_report_table
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_output_file
from hiresnet_graph.cli.training import Device
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.files import write_atomic

if TYPE_CHECKING:
    from hiresnet_graph.report.chart import Kind
    from hiresnet_graph.report.readout import Readouts

_MOST_STEPS = 10_000
PICTURES: tuple[Kind, ...] = ("svg", "png", "pdf", "html")
# In the beginning of files that were written here, besides pictures.
_MARKS = {"csv": (b"step,trained,n,accuracy",), "json": (b'"top_k": ', b'"part": ')}


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
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the curve (.svg, .png, .pdf, .html), or the data (.csv, .json).",
        show_default=False,
    ),
]


def readout(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run or a study.")],
    steps: StepRanges = None,
    part: Annotated[DataPart, typer.Option(help="Part of the data set.")] = DataPart.TEST,
    past: PastOption = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV to stdout, and nothing else.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout, and nothing else.")] = False,
    output: OutputFile = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Evaluate a trained network in time at other readout steps.

    Prints the accuracy at each readout step; for a study, the mean (standard deviation) over seeds of each network. A
    step that lacks tensors (with one norm per step, steps at which training read out nothing) is marked. The exit code
    is 1 if no step can be read out.
    """
    if csv and json:
        raise UsageError("'--csv' and '--json' both select the output format. Give one of them.")
    requested = None if steps is None else _parse_steps(steps)
    suffix = "" if output is None else _suffix(output)
    if output is not None:
        output = check_output_file(output, [folder], force=force, marks=_MARKS.get(suffix))

    from hiresnet_graph.report.readout import make_readouts, readout_table, readouts_csv, readouts_json

    found = make_readouts(
        folder,
        requested,
        part=part.value,
        past=None if past is None else past.value,
        device=device or "auto",
    )
    if csv or json:
        write((readouts_csv if csv else readouts_json)(found).rstrip("\n"))
    else:
        write_report_table(readout_table(found))
    has_accuracy = any(row.accuracy is not None for row in found.rows)
    if output is not None and (has_accuracy or suffix not in PICTURES):
        _write_file(found, output, suffix)
    if not has_accuracy:
        write_message(
            f"No step can be read out: {found.rows[0].reason} Train with 'time.readout=all', so that every step has "
            "its norms; beyond the steps of training, '--past last' uses the last norms."
        )
        raise typer.Exit(failure.FINDINGS)


def _write_file(readouts: Readouts, output: Path, suffix: str) -> None:
    from hiresnet_graph.report.readout import readouts_csv, readouts_json, readouts_picture

    texts: dict[str, Callable[[Readouts], str]] = {"csv": readouts_csv, "json": readouts_json}
    picture = next((name for name in PICTURES if name == suffix), None)
    data = texts[suffix](readouts).encode() if picture is None else readouts_picture(readouts, picture)
    write_atomic(output, data, UsageError)
    write_message(f"Wrote {output}.")


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


def _suffix(output: Path) -> str:
    """The suffix of the output file, without its dot."""
    suffix = output.suffix.lower().removeprefix(".")
    known = (*PICTURES, "csv", "json")
    if suffix not in known:
        hint = did_you_mean(suffix, known) if suffix else ""
        listed = ", ".join(f".{name}" for name in known)
        raise UsageError(f"--output {output}: the suffix must be one of {listed}. {hint}".strip())
    return suffix
