"""Output files and folders of commands: what a command may replace, and what it never does.

No command writes over a file that it reads, whatever it is called on the command line; nor, without `--force`, over a
file that none of its kind has written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import check_output

if TYPE_CHECKING:
    from hiresnet_graph.report.figures import FigureFormat
    from hiresnet_graph.sweep import Study

Force = Annotated[bool, typer.Option("--force", help="Replace a file that this command has not written.")]

_HEAD_BYTES = 4096
# Texts that the beginning of a file of each format has, if a command of `hrg` has written it.
_MARKS = {
    ".py": (b'"""', b" parameters, ", b" multiply-adds for "),
    ".pt2": (b"PK\x03\x04",),
    ".onnx": (b"pytorch",),
    ".svg": (b"<svg",),
    ".pdf": (b"%PDF",),
    ".png": (b"\x89PNG",),
    ".html": (b"<html",),
    ".dot": (b"digraph",),
}


def check_output_file(
    target: Path, reads: Iterable[Path], *, force: bool, marks: Iterable[bytes] | None = None, option: str = "-o"
) -> Path:
    """The path of an output file, checked before its content is computed.

    Args:
        reads: Files that the command reads, and folders of runs or studies.
        force: Whether a file of another kind may be replaced.
        marks: Texts that the beginning of a file of the same kind has (default: by the suffix; none for a suffix that
            is not known here).
        option: The option that names the file.

    Raises:
        UsageError: The file cannot be written, is read by this command, or is of another kind.
    """
    target = target.expanduser()
    check_output(target)
    if not target.is_file() or not target.stat().st_size:
        return target
    marks = _MARKS.get(target.suffix.lower(), ()) if marks is None else marks
    with target.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    is_own = bool(marks) and all(mark in head for mark in marks)
    for read in reads:
        if _is_same(target, read):
            also = "" if os.path.abspath(target) == os.path.abspath(read) else f" (as '{read}')"
            raise UsageError(f"'{target}' is read by this command{also}. Choose another name with '{option}'.")
        if read.is_dir() and not is_own and target.resolve().is_relative_to(read.resolve()):
            raise UsageError(
                f"'{target}' belongs to '{read}', which this command reads. Choose another name with '{option}'."
            )
    if not is_own and not force:
        raise UsageError(
            f"'{target}' exists already. Choose another name with '{option}', or replace it with '--force'."
        )
    return target


def check_figure_file(
    target: Path, reads: Iterable[Path], *, force: bool, option: str = "-o"
) -> tuple[Path, FigureFormat]:
    """The path of a figure and its format, checked before it is computed.

    Args:
        reads: As for `check_output_file`.
        force: As for `check_output_file`.
        option: The option that names the file.

    Raises:
        UsageError: The suffix is none of a figure, or the file cannot be written.
    """
    from hiresnet_graph.report.figures import FIGURE_FORMATS

    format = next((one for one in FIGURE_FORMATS if target.suffix.lower() == f".{one}"), None)
    if format is None:
        raise UsageError(f"'{target}': a figure is written as .svg, .pdf or .png.")
    return check_output_file(target, reads, force=force, option=option), format


def check_output_folder(folder: Path, files: Iterable[str], reads: Iterable[Path], below: str = "") -> None:
    """Check that a command that writes into a folder reads none of the files that it would replace there.

    Args:
        files: Names of the files that it writes.
        below: Name of a folder in it that belongs to the command.

    Raises:
        UsageError: A file that is read lies there.
    """
    own = [folder / name for name in files]
    inside = (folder / below).resolve() if below else None
    for read in reads:
        is_inside = inside is not None and read.resolve().is_relative_to(inside)
        if is_inside or any(_is_same(path, read) for path in own):
            raise UsageError(
                f"'{read}' is read by this command, and training would replace it in '{folder}'. Choose another folder "
                "with '-o'; 'hrg train --resume DIR' resumes a run."
            )


def check_study_folder(folder: Path, study: Study) -> None:
    """Check that the folder of a study would replace neither its file nor the specs of its network.

    Raises:
        UsageError: It would.
        SpecError: The spec of the network cannot be read.
    """
    from hiresnet_graph.sweep.database import RUNS
    from hiresnet_graph.train.lock import LOCK
    from hiresnet_graph.train.record import LEDGER

    position = study.tree.position
    own = [] if position is None else [Path(position.source.name)]
    check_output_folder(folder, (LEDGER, LOCK), [*own, *study.base().files], RUNS)


def _is_same(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file, through links or not."""
    try:
        return a.samefile(b)
    except OSError:  # one of them does not exist
        return False
