"""Output of commands: results on stdout, messages on stderr, tables that fit the terminal, JSON, and colours.

rich is imported when the first table is printed, so that commands without a table start without it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, Any, Self

from hiresnet_graph.formats import Column

_GAP = 2  # terminal columns between two table columns
_WRAPPED_WIDTH = 24  # a column that wraps is at least this wide, where the terminal allows it
# Wider than any table: output to a file or a pipe is never cut or wrapped.
_UNLIMITED = 10_000
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_ANSI = {"bold": "1", "red": "1;31", "dim": "2", "cyan": "36", "green": "32"}


class PipedStream(io.TextIOWrapper):
    """A stream that is silent once its reader has closed the pipe, as in `hrg show resnet110 | head`.

    The command continues, and ends with its own exit code: output that nobody reads neither stops a training nor hides
    an error. A character that the terminal cannot encode becomes `?`.

    Attributes:
        is_abandoned: Whether the reader has closed the pipe.
    """

    is_abandoned = False
    _original: io.TextIOWrapper

    @classmethod
    def of(cls, stream: io.TextIOWrapper) -> Self:
        """A stream of this process, in place of the one that Python has opened."""
        found = cls(
            stream.buffer,
            stream.encoding,
            "replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        found._original = stream  # it closes the buffer when it is deleted
        return found

    def write(self, text: str) -> int:
        """Write a text, if somebody still reads."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._abandon()
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, if somebody still reads."""
        try:
            super().flush()
        except BrokenPipeError:
            self._abandon()

    def _abandon(self) -> None:
        """Discard what is buffered and all later output, so that closing the stream does not fail again."""
        self.is_abandoned = True
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            pass


def terminal_width() -> int:
    """Columns of the terminal (or of `COLUMNS`); without a terminal, more than any output needs."""
    return shutil.get_terminal_size((_UNLIMITED, 24)).columns


def has_colors(stream: IO[str]) -> bool:
    """Whether a stream is a terminal with colours, and they are not disabled."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


def styled(text: str, style: str, stream: IO[str]) -> str:
    """The text in a style, if the stream has colours."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if has_colors(stream) else text


def printable(text: str) -> str:
    """The text as one line with control characters as `?`: the content of a file never controls the terminal."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "?" for char in text)


def clean(text: str, stream: IO[str]) -> str:
    """The text without control sequences, except for colours where the stream has them."""
    parts = _COLOR.split(text) if has_colors(stream) else [text]
    # `split` puts the matches of the pattern at odd indices.
    return "".join(part if i % 2 else "\n".join(map(printable, part.split("\n"))) for i, part in enumerate(parts))


def is_unicode() -> bool:
    """Whether stdout can encode every character."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def write(text: str = "") -> None:
    """Print a result to stdout."""
    print(clean(text, sys.stdout))


def write_prose(text: str, stream: IO[str] | None = None, *, indent: int = 0) -> None:
    """Print sentences, wrapped at the width of the terminal: to stdout, or to another stream.

    Args:
        indent: Spaces before each line but the first.
    """
    stream = stream or sys.stdout
    lines = textwrap.wrap(
        clean(text, stream),
        terminal_width(),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines), file=stream)


def write_message(text: str) -> None:
    """Print a message for people to stderr."""
    print(clean(text, sys.stderr), file=sys.stderr)


def write_json(data: Any, *, in_line: bool = False) -> None:
    """Print data as JSON to stdout: indented, or in one line."""
    print(json.dumps(data, indent=None if in_line else 2, ensure_ascii=not is_unicode(), allow_nan=False))


def write_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] | None = None,
    *,
    most: int = _UNLIMITED,
) -> None:
    """Print a table to stdout.

    Columns that do not fit the terminal are omitted, those of the lowest priority first, and a message names them.

    Args:
        total: A last row, set apart.
        most: Width of the table in a pipe, where a column of it wraps.
    """
    from rich.box import SIMPLE_HEAD, Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    available = min(terminal_width(), most)
    wrapped_width = min(available // 2, _WRAPPED_WIDTH)
    cells = [[column.header for column in columns], *rows, *([] if total is None else [total])]
    widths = [wrapped_width if column.wraps else max(len(row[i]) for row in cells) for i, column in enumerate(columns)]

    def needed(shown: Sequence[int]) -> int:
        return sum(widths[i] for i in shown) + _GAP * (len(shown) - 1)

    shown = list(range(len(columns)))
    while len(shown) > 1 and needed(shown) > available:
        shown.remove(min(shown, key=lambda i: (columns[i].priority, -i)))

    lines = SIMPLE_HEAD if is_unicode() else Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)
    table = Table(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for i in shown:
        table.add_column(
            Text(columns[i].header),
            justify="right" if columns[i].is_number else "left",
            no_wrap=needed(shown) <= available and not columns[i].wraps,
            overflow="fold",
            min_width=wrapped_width if columns[i].wraps else None,
        )
    for row in rows:
        table.add_row(*(Text(printable(row[i])) for i in shown))
    if total is not None:
        table.add_section()
        table.add_row(*(Text(total[i]) for i in shown), style="bold")
    console = Console(width=available, color_system="auto" if has_colors(sys.stdout) else None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    # rich pads each line with spaces; without them the output can be copied and compared.
    write("\n".join(line.rstrip() for line in capture.get().splitlines()))
    omitted = [column.header or column.name for i, column in enumerate(columns) if i not in shown]
    if any(omitted):
        note = f"Omitted at {available} columns: {', '.join(filter(None, omitted))}. Use a wider window, or --json."
        write_prose(note, sys.stderr)
