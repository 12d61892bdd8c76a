"""A report as text: rounded for people (Markdown, LaTeX), in full for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hiresnet_graph.report.report import Report
from hiresnet_graph.report.sheets import Record, Sheet, sheets
from hiresnet_graph.report.table import Table

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


def to_markdown(report: Report | Table) -> str:
    """Markdown tables, each with its caption below."""
    found = sheets(_whole(report))
    return "\n".join(_markdown(sheet, has_title=len(found) > 1) for sheet in found)


def to_latex(report: Report | Table) -> str:
    """LaTeX tables with the columns of a paper, which want the package `booktabs`; what computed them is a comment."""
    whole = _whole(report)
    head = ["In the preamble: \\usepackage{booktabs}", "All columns: --format md.", _plain(whole.table.origin)]
    texts, labels = [], Counter[str]()
    for sheet in sheets(whole):
        label = _slug(whole.table.name if sheet.part == "table" else f"{whole.table.name}-{sheet.part}")
        labels[label] += 1
        texts.append(_latex(sheet, label if labels[label] == 1 else f"{label}-{labels[label]}"))
    return "".join(f"% {line}\n" for text in head for line in textwrap.wrap(text, 100)) + "\n".join(texts)


def to_csv(report: Report | Table) -> str:
    """The first part of a report with all digits, a line a row; empty where there is no number."""
    whole = _whole(report)
    return records_csv(record for sheet in sheets(whole) if sheet.part == whole.parts[0] for record in sheet.records)


def records_csv(records: Iterable[Record]) -> str:
    """Records with all digits, a line each; empty where there is no number."""
    flat = [_flat(record) for record in records]
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(name for record in flat for name in record), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def records_json(data: Record) -> str:
    """JSON data with all digits; what is no number is null."""
    return json.dumps(_finite(data), indent=2, allow_nan=False, default=str) + "\n"


def to_json(report: Report | Table) -> str:
    """All of a report, with all digits; what is no number is null.

    Fields that a grid or a search varies are named in `varied`. They are in the `setting` of each row, not in `recipe`.
    """
    whole = _whole(report)
    table = whole.table
    recipe = table.recipe.model_dump(mode="json")
    data: Record = {
        "name": table.name,
        "architecture": table.architecture,
        "data": table.data,
        "recipe": {name: value for name, value in recipe.items() if f"recipe.{name}" not in table.settings},
        "varied": list(table.settings),
        "baseline": table.baseline,
        "seeds": [seeds._asdict() for seeds in table.seeds],
        "machines": [{**machine.model_dump(mode="json"), "runs": runs} for machine, runs in table.machines.items()],
        "mixed": list(table.mixed),
    }
    for sheet in sheets(whole):
        records = data.setdefault("rows" if sheet.part == "table" else sheet.part, [])
        assert isinstance(records, list)
        records.extend(sheet.records)
    if whole.effects:
        data["effects_missing"] = [effects.missing for effects in whole.effects if effects.missing]
    return records_json(data)


FORMATS: Mapping[str, Callable[[Report], str]] = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "json": to_json}


def _whole(report: Report | Table) -> Report:
    return Report(report) if isinstance(report, Table) else report


def _markdown(sheet: Sheet, has_title: bool) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(_escaped(cell) for cell in cells)} |"

    title = f"## {_plain(sheet.title)}\n\n" if has_title else ""
    rules = tuple("---:" if heading.is_number else "---" for heading in sheet.headings)
    head = [line(tuple(heading.text for heading in sheet.headings)), f"| {' | '.join(rules)} |"]
    return title + "\n".join([*head, *map(line, sheet.rows)]) + f"\n\n{sheet.caption}\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\|*`<])", r"\\\1", _plain(text))


def _latex(sheet: Sheet, label: str) -> str:
    kept = [i for i, heading in enumerate(sheet.headings) if heading.in_paper]
    caption = sheet.caption_for_paper or sheet.caption
    if not caption.startswith(f"{sheet.title} "):  # a study may be named after its network
        caption = f"{sheet.title}. {caption}"

    def line(cells: tuple[str, ...]) -> str:
        # Braces keep `\\` from taking an opening bracket as its own.
        return f"  {{}}{' & '.join(_tex(cells[i]) for i in kept)} \\\\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{''.join('r' if sheet.headings[i].is_number else 'l' for i in kept)}}}",
            r"\toprule",
            line(tuple(heading.text for heading in sheet.headings)),
            r"\midrule",
            *map(line, sheet.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    """Text as LaTeX, with a minus before numbers that are negative."""
    escaped = "".join(_TEX.get(character, character) for character in _plain(text))
    return re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escaped)


def _slug(text: str) -> str:
    """Text as a label of LaTeX: `hiresnet18-differences`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "results"


def _plain(text: str) -> str:
    """In one line, without what is no letter."""
    return "".join(character if character.isprintable() else " " for character in text)


def _flat(record: Record, prefix: str = "") -> Record:
    """A record without records in it; None for what is no number."""
    found: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = "; ".join(map(str, value)) if isinstance(value, list) else _finite(value)
    return found


def _finite(value: object) -> object:
    """JSON data without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
