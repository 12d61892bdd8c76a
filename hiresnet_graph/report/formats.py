"""A table as text: rounded for people (Markdown), in full for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping

from hiresnet_graph.report.table import Row, Spread, Table

HEADER = ("variant", "parameters", "n", "test accuracy", "at last epoch")


def cells(table: Table) -> list[tuple[str, ...]]:
    """The rows as people read them, in the order of `HEADER`."""
    return [
        (
            f"{row.variant} (= {row.same_as})" if row.same_as else row.variant,
            f"{row.parameters:,}",
            _count(row),
            _percent(row.test),
            _percent(row.last),
        )
        for row in table.rows
    ]


def to_markdown(table: Table) -> str:
    """A Markdown table with its caption below."""
    lines = [
        f"| {' | '.join(HEADER)} |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells(table)),
    ]
    return "\n".join(lines) + f"\n\n{table.caption}\n"


def to_csv(table: Table) -> str:
    """One line a variant, with all digits; empty where there is no number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    rows = [_plain(row) for row in table.rows]
    writer.writerow(rows[0].keys())
    writer.writerows(row.values() for row in rows)
    return file.getvalue()


def to_json(table: Table) -> str:
    """All of the table, with all digits."""
    data = {
        "architecture": table.architecture,
        "data": table.data,
        "recipe": table.recipe.model_dump(mode="json"),
        "seeds": list(table.seeds),
        "machines": list(table.machines),
        "rows": [_plain(row) for row in table.rows],
    }
    return json.dumps(data, indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}


def _plain(row: Row) -> dict[str, str | int | float | None]:
    return {
        "variant": row.variant,
        "same_as": row.same_as or None,
        "parameters": row.parameters,
        "runs": row.runs,
        "n": row.n,
        "diverged": row.diverged,
        "test_mean": row.test.mean if row.test else None,
        "test_std": row.test.std if row.test else None,
        "last_mean": row.last.mean if row.last else None,
        "last_std": row.last.std if row.last else None,
    }


def _count(row: Row) -> str:
    text = str(row.n) if row.n == row.runs else f"{row.n} of {row.runs}"
    return f"{text}, {row.diverged} diverged" if row.diverged else text


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.2f} ({'-' if spread.std is None else f'{spread.std:.2f}'})"
