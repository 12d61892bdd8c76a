"""The commands `analyze ...`: what trained networks do when something of them is changed.

torch is imported inside them, once their arguments are known to be right.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.help import Command, Group
from hiresnet_graph.cli.recipe import Device
from hiresnet_graph.cli.report import write_sheet
from hiresnet_graph.cli.screen import note, write
from hiresnet_graph.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from hiresnet_graph.report.chart import Kind
    from hiresnet_graph.report.readout import Readouts

_MOST_STEPS = 10_000
_PICTURES: tuple[Kind, ...] = ("svg", "png", "pdf", "html")


class Part(StrEnum):
    """Of the data."""

    TEST = "test"
    VALIDATION = "validation"


class Past(StrEnum):
    """As `time: {past: ...}`."""

    ERROR = "error"
    LAST = "last"


def readout(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a study.")],
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="A-B,C", help="Counted from 0; they may lie past those of training.", show_default="as in training"
        ),
    ] = None,
    part: Annotated[Part, typer.Option(help="Images of which part of the data.")] = Part.TEST,
    past: Annotated[
        Past | None,
        typer.Option(
            help="last: a norm past its copies takes the last one, as with 'time: {past: last}'.",
            show_default="as in the spec",
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="A table for programs, alone on stdout.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Data for programs, alone on stdout.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the curve (.svg, .png, .pdf, .html), or .csv or .json.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Read a trained network in time out at other steps than in training.

    Accuracy against the readout step; of a study for each network, mean (standard deviation) over its seeds. A step
    whose tensors are missing (a norm for each step, and training never read out there) says so. Exit code 1 if no step
    can be read out.
    """
    if csv and json:
        raise UsageError("'--csv' and '--json' both say how to print. Give one.")
    wanted = None if steps is None else _steps(steps)
    kind = "" if output is None else _kind(output)

    from hiresnet_graph.report.readout import (
        make_readouts,
        readout_sheet,
        readouts_csv,
        readouts_json,
        readouts_picture,
    )

    found = make_readouts(
        folder,
        wanted,
        part=part.value,
        past=None if past is None else past.value,
        device=device or "auto",
    )
    texts: dict[str, Callable[[Readouts], str]] = {"csv": readouts_csv, "json": readouts_json}
    if csv or json:
        write(texts["csv" if csv else "json"](found).rstrip("\n"))
    else:
        write_sheet(readout_sheet(found))
    picture = next((name for name in _PICTURES if name == kind), None)
    works = any(row.accuracy is not None for row in found.rows)
    if output is not None and (works or picture is None):
        data = texts[kind](found).encode() if picture is None else readouts_picture(found, picture)
        try:
            output.write_bytes(data)
        except OSError as error:
            raise RunError(f"{output}: cannot be written: {error.strerror}.") from error
        note(f"Written: {output}")
    if not works:
        note(
            f"No step can be read out: {found.rows[0].reason} Train with 'time.readout=all', so that each step has "
            "what it needs; past the steps of training, '--past last' takes the last norms."
        )
        raise typer.Exit(failure.FINDINGS)


def _steps(text: str) -> list[int]:
    """The steps of a text like `2-5,8`.

    Raises:
        UsageError: It is none.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isdecimal() for end in ends) or not int(ends[0]) <= int(ends[1]) <= _MOST_STEPS:
            raise UsageError(f"--steps {text}: steps are wanted, counted from 0, like '2-5' or '3,5,9', not '{part}'.")
        found |= set(range(int(ends[0]), int(ends[1]) + 1))
    return sorted(found)


def _kind(output: Path) -> str:
    kind = output.suffix.lower().removeprefix(".")
    known = (*_PICTURES, "csv", "json")
    if kind not in known:
        hint = did_you_mean(kind, known) if kind else ""
        listed = ", ".join(f".{name}" for name in known)
        raise UsageError(f"--output {output}: the suffix must be one of {listed}. {hint}".strip())
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder '{output.parent}'. Make it first.")
    return kind


_COMMANDS: tuple[Callable[..., None], ...] = (readout,)


class Analyses(Group):
    """The commands of `analyze`."""

    headings: ClassVar = {"Analyses": [command.__name__ for command in _COMMANDS]}

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for; an error that ends it names it whole."""
        try:
            return super().invoke(ctx)
        finally:
            ctx.parent.invoked_subcommand = f"{ctx.info_name} {ctx.invoked_subcommand}"


app = typer.Typer(
    name="analyze",
    cls=Analyses,
    help="Ask trained networks what matters in them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _command in _COMMANDS:
    app.command(_command.__name__, cls=Command)(_command)
