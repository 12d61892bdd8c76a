"""Output formats of a report: rounded for people (Markdown, LaTeX), with all digits for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hiresnet_graph.formats import one_line
from hiresnet_graph.report.report import Report
from hiresnet_graph.report.table import Table
from hiresnet_graph.report.tables import Record, ReportTable, report_tables

_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}

_MARKDOWN = r"[\\|*`<~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)"
"""Characters that Markdown may read as markup; brackets and underscores where they are no plain text."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""


def to_markdown(report: Report | Table) -> str:
    """Markdown tables, each followed by its caption, and the conclusion."""
    report = _as_report(report)
    found = report_tables(report)
    texts = [table_markdown(table, has_title=len(found) > 1) for table in found]
    return "\n".join([*texts, *([f"{_escaped(report.conclusion)}\n"] if report.conclusion else [])])


def to_latex(report: Report | Table) -> str:
    """LaTeX tables with the columns of a paper, for the package `booktabs`; a comment describes the computation."""
    report = _as_report(report)
    head = ["In the preamble: \\usepackage{booktabs}", "All columns: --format md.", one_line(report.table.origin)]
    texts, labels = [], Counter[str]()
    for table in report_tables(report):
        label = _slug(report.table.name if table.part == "table" else f"{report.table.name}-{table.part}")
        labels[label] += 1
        texts.append(table_latex(table, label if labels[label] == 1 else f"{label}-{labels[label]}"))
    return "".join(f"% {line}\n" for text in head for line in textwrap.wrap(text, 100)) + "\n".join(texts)


def to_csv(report: Report | Table) -> str:
    """The first part of a report with all digits, one line per row; missing numbers are empty."""
    report = _as_report(report)
    tables = (table for table in report_tables(report) if table.part == report.parts[0])
    return records_csv(record for table in tables for record in table.records)


def records_csv(records: Iterable[Record]) -> str:
    """Records with all digits, one per line; missing numbers are empty."""
    flat = [_flat(record) for record in records]
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(name for record in flat for name in record), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def records_json(data: Record) -> str:
    """JSON data with all digits; NaN and infinity are null."""
    return json.dumps(_finite(data), indent=2, allow_nan=False, default=str) + "\n"


def to_json(report: Report | Table) -> str:
    """A full report with all digits; NaN and infinity are null.

    Fields that a grid or a search varies are listed in `varied`; their values are in the `setting` of each row and not
    in `recipe`.
    """
    report = _as_report(report)
    table = report.table
    recipe = table.recipe.model_dump(mode="json")
    data: Record = {
        "name": table.name,
        "architecture": table.architecture,
        "data": table.data,
        "recipe": {name: value for name, value in recipe.items() if f"recipe.{name}" not in table.settings},
        "varied": list(table.settings),
        "baseline": table.baseline,
        "conclusion": report.conclusion or None,
        "seeds": [seeds._asdict() for seeds in table.seeds],
        "machines": [{**machine.model_dump(mode="json"), "runs": runs} for machine, runs in table.machines.items()],
        "mixed": list(table.mixed),
        "published": table.published and table.published.model_dump(mode="json"),
    }
    for part in report_tables(report):
        records = data.setdefault("rows" if part.part == "table" else part.part, [])
        assert isinstance(records, list)
        records.extend(part.records)
    if report.effects:
        data["effects_missing"] = [effects.missing for effects in report.effects if effects.missing]
    return records_json(data)


FORMATS: Mapping[str, Callable[[Report], str]] = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "json": to_json}


def _as_report(report: Report | Table) -> Report:
    return Report(report) if isinstance(report, Table) else report


def table_markdown(table: ReportTable, has_title: bool = False) -> str:
    """A Markdown table and its caption."""

    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(_escaped(cell) for cell in cells)} |"

    title = f"## {_escaped(table.title)}\n\n" if has_title else ""
    rules = tuple("---:" if column.is_number else "---" for column in table.columns)
    head = [line(tuple(column.header for column in table.columns)), f"| {' | '.join(rules)} |"]
    return title + "\n".join([*head, *map(line, table.rows)]) + f"\n\n{_escaped(table.caption)}\n"


def _escaped(text: str) -> str:
    """Text without meaning in Markdown, like `*`, `[name](link)`, `_name_`, `$x$` and `&lt;`."""
    return re.sub(_MARKDOWN, r"\\\g<0>", one_line(text))


def table_latex(table: ReportTable, label: str) -> str:
    """A LaTeX table with the columns of a paper, for the package `booktabs`.

    Args:
        label: Its label, after `tab:`.
    """
    shown = [i for i, column in enumerate(table.columns) if column.in_paper]
    caption = table.caption_for_paper or table.caption
    if not caption.startswith(f"{table.title} "):  # a study may be named after its network
        caption = f"{table.title}. {caption}"

    def line(cells: tuple[str, ...]) -> str:
        # Without the braces `\\` would read an opening bracket as its argument.
        return f"  {{}}{' & '.join(_tex(cells[i]) for i in shown)} \\\\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(caption)}}}",
            rf"\label{{tab:{_slug(label)}}}",
            rf"\begin{{tabular}}{{{''.join('r' if table.columns[i].is_number else 'l' for i in shown)}}}",
            r"\toprule",
            line(tuple(column.header for column in table.columns)),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    """Text as LaTeX, with a minus sign before negative numbers."""
    escaped = "".join(_TEX.get(character, character) for character in one_line(text))
    return re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escaped)


def _slug(text: str) -> str:
    """Text as a LaTeX label: `hiresnet18-differences`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "results"


def _flat(record: Record, prefix: str = "") -> Record:
    """A record with nested records flattened; NaN and infinity become None.

    A text that a spreadsheet would compute begins with `'`; numbers stay numbers.
    """
    found: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            text = "; ".join(map(str, value)) if isinstance(value, list) else value
            is_formula = isinstance(text, str) and text.startswith(_FORMULA) and not _is_numbers(value)
            found[prefix + name] = f"'{text}" if is_formula else _finite(text)
    return found


def _is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)


def _finite(value: object) -> object:
    """Data with None for NaN and infinity, which JSON cannot represent."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
