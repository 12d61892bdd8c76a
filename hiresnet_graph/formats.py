"""Text forms of numbers, and the columns of tables: shared by the command line, reports and diagrams."""

from __future__ import annotations

import html
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple


def one_line(text: str) -> str:
    """A text as one line: spaces for line breaks, and for characters that are invisible or change its direction.

    The joiners of emoji and of Arabic and Indic scripts (U+200C, U+200D) are kept.
    """
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(c) in _INVISIBLE and c not in _JOINERS else c for c in text)


_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"


def format_count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 problem`, `3 problems`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def as_sentence(text: str) -> str:
    """A text with a full stop at its end."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def format_si(number: int, decimals: int | None = None) -> str:
    """A large number with its unit prefix: with four digits, `35.78 M`, or with this many decimals."""
    value, prefix = float(number), ""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.95 or prefix == "T":
            break
        value /= 1000
    if not prefix:
        return str(number)
    return (f"{value:#.4g}".rstrip(".") if decimals is None else f"{value:.{decimals}f}") + f" {prefix}"


def format_bytes(size_bytes: int) -> str:
    """A size with its unit: `1.25 MiB`."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1000 or unit == "PiB":
            break
        value /= 1024
    return f"{value:#.3g}".rstrip(".") + f" {unit}" if unit != "B" else f"{size_bytes} B"


def format_percent(part: int, total: int) -> str:
    """A part of a total in percent: `2.1 %`; empty if the total is 0."""
    return f"{100 * part / total:.1f} %" if total else ""


def format_duration(time_s: float) -> str:
    """A time: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes = round(time_s / 60)
    if time_s < 100:
        return f"{time_s:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_value(value: object, digits: int = 6) -> str:
    """The value of a setting; a float with at most this many significant digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        priority: Columns with the lowest priority are omitted first on a narrow terminal.
        is_number: Right-aligned.
        wraps: Long cells continue on the next line; otherwise a cell is one line.
        in_paper: Included in LaTeX tables.
        name: What a column without a header is called in messages.
    """

    header: str
    priority: int = 9
    is_number: bool = False
    wraps: bool = False
    in_paper: bool = True
    name: str = ""


def format_command(*words: object) -> str:
    """A command of hrg as it is typed in a shell."""
    return shlex.join(["hrg", *map(str, words)])


def number_column(header: str, priority: int = 9, *, in_paper: bool = True, name: str = "") -> Column:
    """A column of numbers."""
    return Column(header, priority, is_number=True, in_paper=in_paper, name=name)


def html_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str = "", caption: str = "") -> str:
    """A table as HTML, for notebooks."""

    def line(cells: Iterable[str], tag: str) -> str:
        styles = ("right" if column.is_number else "left" for column in columns)
        found = (
            f'<{tag} style="text-align: {style}">{html.escape(one_line(cell))}</{tag}>'
            for cell, style in zip(cells, styles, strict=True)
        )
        return f"<tr>{''.join(found)}</tr>"

    parts = [
        f"<h4>{html.escape(one_line(title))}</h4>" if title else "",
        f"<table><thead>{line((column.header for column in columns), 'th')}</thead>",
        f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>",
        f"<p>{html.escape(one_line(caption))}</p>" if caption else "",
    ]
    return "".join(parts)
