"""Output files and folders of commands: what a command may replace, and what it never does.

No command writes over a file that it reads, whatever it is called on the command line; nor, without `--force`, over a
file that none of its kind has written. Specs and source, which people edit, end with a seal: a comment with the digest
of what precedes it. Without it, or with another digest, they count as those of a person.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import check_output, make_folder, write_atomic

if TYPE_CHECKING:
    from hiresnet_graph.report.figures import FigureFormat
    from hiresnet_graph.sweep import Study

_FORCE = "Replace a file that this command has not written, or a spec or source that was edited since."
Force = Annotated[bool, typer.Option("--force", help=_FORCE)]

_HEAD_BYTES = 4096
_SEALED = (".py", ".yaml", ".yml")
_SEAL = b"# Written by hrg, digest %s.\n"
# Texts that the beginning of a file of each other format has, if a command of `hrg` has written it.
_MARKS = {
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
    """The path of an output file, checked before its content is computed. Its folder is created if it is missing.

    Args:
        reads: Files that the command reads, and folders of runs or studies.
        force: Whether a file of another kind may be replaced.
        marks: Texts that the beginning of a file of the same kind has (default: by the suffix; none for a suffix that
            is not known here). A spec or source must also be sealed.
        option: The option that names the file.

    Raises:
        UsageError: The file cannot be written, is read by this command, or is of another kind.
        RunError: Its folder cannot be created.
    """
    target = target.expanduser()
    make_folder(target.parent)
    check_output(target)
    if not target.is_file() or not target.stat().st_size:
        return target
    is_own = _is_own(target, _MARKS.get(target.suffix.lower(), ()) if marks is None else tuple(marks))
    for read in reads:
        if _is_same(target, read):
            also = "" if os.path.abspath(target) == os.path.abspath(read) else f" (as '{read}')"
            raise UsageError(f"'{target}' is read by this command{also}. Choose another name with '{option}'.")
        if read.is_dir() and not is_own and target.resolve().is_relative_to(read.resolve()):
            raise UsageError(
                f"'{target}' belongs to '{read}', which this command reads. Choose another name with '{option}'."
            )
    if not is_own and not force:
        state = "was edited since hrg wrote it" if _has_seal(target) else "exists already"
        raise UsageError(f"'{target}' {state}. Choose another name with '{option}', or replace it with '--force'.")
    return target


def check_spec_file(target: Path, reads: Iterable[Path], *, force: bool, marks: Iterable[bytes]) -> Path:
    """The path of a spec that is written as YAML, checked like all output files.

    Raises:
        UsageError: As of `check_output_file`; or its suffix is that of JSON.
        RunError: Its folder cannot be created.
    """
    if target.suffix.lower() == ".json":
        other = target.with_suffix(".yaml")
        raise UsageError(f"'{target}': this command writes YAML. Name the file '{other}' with '-o'.")
    return check_output_file(target, reads, force=force, marks=marks)


def _is_own(target: Path, marks: tuple[bytes, ...]) -> bool:
    """Whether a file of this kind was written by `hrg`, and, if people edit such files, is as it was written."""
    if target.suffix.lower() in _SEALED:
        content = target.read_bytes()
        *lines, last = content.splitlines(keepends=True)
        return last == _seal(b"".join(lines)) and all(mark in content[:_HEAD_BYTES] for mark in marks)
    with target.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return bool(marks) and all(mark in head for mark in marks)


def _has_seal(target: Path) -> bool:
    """Whether a file has the seal of a spec or source, right or wrong."""
    return target.suffix.lower() in _SEALED and _SEAL.split(b"%s")[0] in target.read_bytes()


def _seal(content: bytes) -> bytes:
    return _SEAL % hashlib.blake2b(content, digest_size=8).hexdigest().encode()


def seal(target: Path) -> None:
    """Add the seal to a spec or source that was just written; files of other formats stay as they are.

    Raises:
        UsageError: The file cannot be written.
    """
    if target.suffix.lower() in _SEALED and target.is_file():
        content = target.read_bytes()
        write_atomic(target, content + _seal(content), UsageError)


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
