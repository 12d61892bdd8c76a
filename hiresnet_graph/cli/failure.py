"""How a command ends badly: each error as text for a person, and its exit code.

0 ok; 1 findings, or a run that failed; 2 wrong usage; 3 an optional tool is missing; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO

from hiresnet_graph.cli.screen import clean, counted, painted, printable, width
from hiresnet_graph.errors import HrgError, MissingToolError, Position, Problem, SpecError, UsageError

FINDINGS, USAGE, MISSING_TOOL, INTERRUPTED = 1, 2, 3, 130


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, UsageError):
        return USAGE
    return MISSING_TOOL if isinstance(error, MissingToolError) or _missing_package(error) else FINDINGS


def _missing_package(error: BaseException) -> str:
    """The package that is not installed, if that is the error."""
    name = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return "" if name == "hiresnet_graph" else name


def tell(error: Exception, command: str) -> None:
    """Say on stderr what went wrong.

    Args:
        command: What was called, like `hrg show`.
    """
    stream = sys.stderr
    if isinstance(error, SpecError):
        draw(error.problems, stream)
        if len(error.problems) > 1:
            print(f"{counted(len(error.problems), 'problem')}.", file=stream)
        return
    if isinstance(error, HrgError):
        text = clean(str(error), stream)
    elif isinstance(error, OSError):
        text = _told_os_error(error)
    elif package := _missing_package(error):
        text = f"the package '{package}' is not installed. 'hrg doctor' says what is missing."
    else:
        first_line = printable(next(iter(str(error).splitlines()), ""))
        text = (
            f"internal error, {type(error).__name__}: {first_line}\n"
            f"This is a bug in hrg, not in what you asked. '{command} --debug ...' shows where it happened; please "
            "report that."
        )
    print(f"{painted(f'{command}:', 'red', stream)} {text}", file=stream)


def _told_os_error(error: OSError) -> str:
    """An error of the operating system as one sentence with the path in front."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, FileNotFoundError) and names:
        parent = os.path.dirname(names[-1])
        if parent and not os.path.isdir(parent):
            return f"{printable(names[-1])}: there is no folder '{printable(parent)}'. Make it first."
    hint = " Give the name of a file." if isinstance(error, IsADirectoryError) else ""
    return printable("".join(f"{name}: " for name in names[-1:]) + f"{reason[:1].lower()}{reason[1:]}.") + hint


def draw(problems: Iterable[Problem], stream: IO[str]) -> None:
    """Problems in their order: place and message, the line with a caret, what to do."""
    for problem in problems:
        where = f"{problem.position}: " if problem.position else ""
        path = f"{problem.path}: " if problem.path and problem.path not in problem.message[:80] else ""
        print(f"{painted(printable(where), 'bold', stream)}{printable(path + problem.message)}", file=stream)
        if problem.position is not None:
            _draw_line(problem.position, stream)
        if problem.advice:
            print(f"  {painted('hint:', 'cyan', stream)} {printable(problem.advice)}", file=stream)


def _draw_line(position: Position, stream: IO[str]) -> None:
    """The line of the file with a caret below the place, cut to the width of the terminal."""
    line = printable(position.source.line(position.line))
    place = min(position.column - 1, len(line))
    if not line.strip():
        return
    room = min(max(width() - 4, 20), 160)
    start = 0 if place < room - 10 else place - room // 2
    shown = line[start : start + room]
    # Wide characters take two columns, combining ones none.
    before = sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1
        for char in line[start:place]
    )
    print(f"    {shown.rstrip()}\n    {' ' * before}{painted('^', 'red', stream)}", file=stream)
