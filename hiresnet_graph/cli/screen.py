"""What a person or a program sees: tables that fit the terminal, JSON, numbers, and colour where that is wanted.

rich is imported when the first table is drawn, so that commands without one start without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

_GAP = 2  # columns of the terminal between two of a table
# Wider than any table: what is written to a file or a pipe is never cut or wrapped.
_UNLIMITED = 10_000
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_ANSI = {"bold": "1", "red": "1;31", "dim": "2", "cyan": "36", "green": "32"}


def width() -> int:
    """Columns of the terminal (or of `COLUMNS`); without a terminal, more than anything needs."""
    return shutil.get_terminal_size((_UNLIMITED, 24)).columns


def has_colors(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody has asked for none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


def painted(text: str, style: str, stream: IO[str]) -> str:
    """The text in a style, if the stream shows colours."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if has_colors(stream) else text


def printable(text: str) -> str:
    """The text as one line with control characters as `?`: nothing that a file says may steer the terminal."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "?" for char in text)


def clean(text: str, stream: IO[str]) -> str:
    """The lines of a text, with nothing in them that steers the terminal but our own colours, where they are wanted."""
    parts = _COLOR.split(text) if has_colors(stream) else [text]
    # What stands between the parts of the pattern is at odd places.
    return "".join(part if i % 2 else "\n".join(map(printable, part.split("\n"))) for i, part in enumerate(parts))


def is_unicode() -> bool:
    """Whether stdout can show every letter."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def write(text: str = "") -> None:
    """A result, on stdout."""
    print(clean(text, sys.stdout))


def note(text: str) -> None:
    """Something for people about what happened, on stderr."""
    print(clean(text, sys.stderr), file=sys.stderr)


def write_json(data: Any) -> None:
    """Data on stdout, and nothing else with it."""
    print(json.dumps(data, indent=2, ensure_ascii=not is_unicode(), allow_nan=False))


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 problem`, `3 problems`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def exact(number: int) -> str:
    """A number with all its digits: `265,050`."""
    return f"{number:,}"


def short(number: int) -> str:
    """A large number with four digits: `35.78 M`."""
    value, prefix = float(number), ""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.95 or prefix == "T":
            break
        value /= 1000
    return f"{value:#.4g}".rstrip(".") + f" {prefix}" if prefix else str(number)


def memory(size_bytes: int) -> str:
    """A size in bytes with its unit: `1.25 MiB`."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:#.3g}".rstrip(".") + f" {unit}" if unit != "B" else f"{size_bytes} B"


def share(part: int, whole: int) -> str:
    """A part in percent: `2.1 %`."""
    return f"{100 * part / whole:.1f} %" if whole else ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        keep: On a narrow terminal the columns with the lowest number are left out first.
        wraps: Long texts go on in the next line; otherwise a cell is one line.
    """

    header: str
    justify: Literal["left", "right"] = "left"
    keep: int = 9
    wraps: bool = False


def number_column(header: str, keep: int = 9) -> Column:
    """A column of numbers."""
    return Column(header, "right", keep)


def write_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """A table on stdout.

    On a narrow terminal columns are left out, the least important first, and a line below says which.

    Args:
        total: A last row, set apart.
    """
    from rich.box import SIMPLE_HEAD, Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    room = width()
    console = Console(width=room, color_system="auto" if has_colors(sys.stdout) else None, highlight=False)

    lines = SIMPLE_HEAD if is_unicode() else Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True)

    def drawn(kept: Sequence[int], whole: bool) -> Table:
        table = Table(box=lines, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        for i in kept:
            column = columns[i]
            table.add_column(
                Text(column.header),
                justify=column.justify,
                no_wrap=whole and not column.wraps,
                overflow="fold",
                min_width=min(room // 2, 24) if column.wraps else None,
            )
        for row in rows:
            table.add_row(*(Text(printable(row[i])) for i in kept))
        if total is not None:
            table.add_section()
            table.add_row(*(Text(total[i]) for i in kept), style="bold")
        return table

    def needs(kept: Sequence[int]) -> int:
        """Columns of the terminal that a table needs without breaking a cell that should stay whole."""
        cells = [*rows, *([] if total is None else [total])]
        widths = (
            min(room // 2, 24)
            if columns[i].wraps
            else max(len(text[i]) for text in [[c.header for c in columns], *cells])
            for i in kept
        )
        return sum(widths) + _GAP * (len(kept) - 1)

    kept = list(range(len(columns)))
    while len(kept) > 1 and needs(kept) > room:
        kept.remove(min(kept, key=lambda i: (columns[i].keep, -i)))
    with console.capture() as capture:
        console.print(drawn(kept, needs(kept) <= room))
    # rich fills each line up with spaces; a line that ends earlier can be copied and compared.
    write("\n".join(line.rstrip() for line in capture.get().splitlines()))
    left_out = [column.header for i, column in enumerate(columns) if i not in kept and column.header]
    if left_out:
        note(f"Left out on {room} columns: {', '.join(left_out)}. A wider window or --json has them.")
