"""Errors of commands: each as a message on stderr, with its exit code.

0 success; 1 errors found, or a failed run; 2 wrong usage; 3 a missing optional tool; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO, Any

from hiresnet_graph.cli.console import clean, printable, styled, terminal_width, write_json
from hiresnet_graph.errors import (
    HrgError,
    MissingToolError,
    Position,
    Problem,
    SpecError,
    UsageError,
    first_line,
    is_out_of_memory,
)
from hiresnet_graph.formats import format_count

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


def report_error(error: Exception, command: str, *, as_json: bool = False) -> None:
    """Print an error to stderr.

    Args:
        command: The command that failed, like `hrg show`.
        as_json: Also print it to stdout, for programs.
    """
    stream = sys.stderr
    if as_json:
        problems = error.problems if isinstance(error, SpecError) else ()
        report_json_error(str(error) if isinstance(error, SpecError) else _describe(error, command), problems)
    if isinstance(error, SpecError):
        print_problems(error.problems, stream)
        if len(error.problems) + error.omitted > 1:
            print(f"{count_problems(len(error.problems), error.omitted)}.", file=stream)
        return
    print(f"{styled(f'{command}:', 'red', stream)} {_describe(error, command)}", file=stream)


def report_json_error(message: str, problems: Iterable[Problem] = ()) -> None:
    """Print an error to stdout as JSON: `{"error": MESSAGE, "problems": [...]}`, with the problems of a spec."""
    write_json({"error": message, "problems": [problem_data(problem) for problem in problems]})


def _describe(error: Exception, command: str) -> str:
    """An error, except for those of specs, as text."""
    if isinstance(error, HrgError):
        return clean(str(error), sys.stderr)
    if isinstance(error, OSError):
        return _describe_os_error(error)
    if is_out_of_memory(error):
        return "the memory of this machine or device is insufficient. Reduce the width, the depth or the input."
    if package := _missing_package(error):
        return f"the package '{package}' is not installed. 'hrg doctor' lists missing packages."
    shown = printable(first_line(error))
    return (
        f"internal error, {type(error).__name__}: {shown}\n"
        f"This is a bug in hrg. Please report the output of '{command} --debug ...'."
    )


def _describe_os_error(error: OSError) -> str:
    """An error of the operating system as one sentence, preceded by the path."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, FileNotFoundError) and names:
        parent = os.path.dirname(names[-1])
        if parent and not os.path.isdir(parent):
            return f"{printable(names[-1])}: the folder '{printable(parent)}' does not exist. Create it first."
    hint = " Give the name of a file." if isinstance(error, IsADirectoryError) else ""
    return printable("".join(f"{name}: " for name in names[-1:]) + f"{reason[:1].lower()}{reason[1:]}.") + hint


def count_problems(shown: int, omitted: int) -> str:
    """The number of problems, and how many of them are shown: `3 problems`."""
    total = format_count(shown + omitted, "problem")
    return f"{total}, the first {shown} are shown" if omitted else total


def print_problems(problems: Iterable[Problem], stream: IO[str]) -> None:
    """Print problems in their order: position and message, the line with a caret, the hint."""
    for problem in problems:
        where = f"{problem.position}: " if problem.position else ""
        path = f"{problem.path}: " if problem.path and problem.path not in problem.message[:80] else ""
        print(f"{styled(printable(where), 'bold', stream)}{printable(path + problem.message)}", file=stream)
        if problem.position is not None:
            _print_excerpt(problem.position, stream)
        if problem.advice:
            print(f"  {styled('hint:', 'cyan', stream)} {printable(problem.advice)}", file=stream)


def _print_excerpt(position: Position, stream: IO[str]) -> None:
    """Print the line of the file with a caret below the position, cut to the width of the terminal."""
    line = position.source.line(position.line)
    column = min(position.column - 1, len(line))
    if not line.strip():
        return
    available = min(max(terminal_width() - 4, 20), 160)
    start = 0 if column < available - 10 else column - available // 2
    shown = printable(line[start : start + available])
    # Wide characters take two columns, combining ones none.
    before = sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1
        for char in shown[: column - start]
    )
    print(f"    {shown.rstrip()}\n    {' ' * before}{styled('^', 'red', stream)}", file=stream)


def problem_data(problem: Problem) -> dict[str, Any]:
    """An error or a warning as plain data."""
    position = problem.position
    return {
        "file": position.source.name if position else None,
        "line": position.line if position else None,
        "column": position.column if position else None,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.advice or None,
    }
