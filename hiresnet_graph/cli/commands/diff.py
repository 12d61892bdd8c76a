"""`hrg diff`: the differences between two networks."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps as json_text
from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Json, architecture, shipped_specs, split_changes
from hiresnet_graph.cli.console import write, write_json, write_table
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import Column, format_bytes, format_percent, format_si, number_column

_TOTALS = ("name", "variant", "parameters", "macs", "memory_bytes", "digest")
_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def diff(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="A [K=V]... [B] [K=V]...",
            help="Two networks, each a spec (or SPEC@VARIANT) followed by its changes; or one spec and its changes.",
            autocompletion=shipped_specs,
        ),
    ],
    json: Json = False,
) -> None:
    """Show the differences between two networks: nodes, edges, parameters, MACs.

    For example 'hrg diff hiresnet18@original hiresnet18@full', or 'hrg diff hiresnet18 width=32'.
    """
    from hiresnet_graph.cli.differences import compare
    from hiresnet_graph.cli.summary import summarize

    networks = split_changes(specs)
    if len(networks) == 1 and networks[0][1]:
        networks = [(networks[0][0], []), networks[0]]
    if len(networks) != 2:
        raise UsageError(
            f"expected two networks, got {len(networks)}. Write 'hrg diff hiresnet18@in hiresnet18@out', or one spec "
            "with changes, 'hrg diff hiresnet18 width=32'."
        )
    labels = [" ".join([spec, *changes]) for spec, changes in networks]
    first, second = (architecture(spec, changes) for spec, changes in networks)
    a, b = summarize(first, calls=True), summarize(second, calls=True)
    differences = compare((first, second), (a, b))
    if json:
        totals = {
            side: {"spec": label, **{key: data[key] for key in _TOTALS}}
            for side, label, data in (("a", labels[0], a), ("b", labels[1], b))
        }
        write_json({**totals, **differences})
        return
    write(f"a: {labels[0]}\nb: {labels[1]}")
    if differences["same"]:
        write("\nBoth are the same network.")
        return
    settings = {f"{key}.{field}": pair for key in ("params", "time") for field, pair in differences[key].items()}
    for i, (key, pair) in enumerate(settings.items()):
        write(f"{'' if i else chr(10)}{key}: {_shown(pair['a'])} => {_shown(pair['b'])}")
    _write_differences("node", differences["nodes"])
    _write_differences("edge", differences["edges"])
    if not differences["nodes"] and not differences["edges"]:
        write("\nNodes and edges are equal; the merge order or the outputs differ.")
    changed = [*differences["nodes"], *differences["edges"]]
    _write_fields([(_name(entry), field, pair) for entry in changed for field, pair in entry["fields"].items()])
    _write_totals(a, b, differences)


def _write_fields(rows: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Write the fields that differ: what they belong to, their names and their values."""
    if rows:
        write()
        columns = [Column("changed"), Column("field", 5), Column("a", 1), Column("b", 1)]
        write_table(columns, [[of, field, _shown(pair["a"]), _shown(pair["b"])] for of, field, pair in rows])


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json_text(value, ensure_ascii=False)


def _name(entry: dict[str, Any]) -> str:
    """A node, or an edge by its ends; a shortcut by its own name."""
    row = entry["b"] or entry["a"]
    is_edge = "family" in row and row["family"] != "shortcut"
    return f"{row['from']} -> {row['to']}" if is_edge else str(entry["name"])


def _write_differences(noun: str, differences: list[dict[str, Any]]) -> None:
    if not differences:
        return
    rows = []
    for entry in differences:
        a, b = entry["a"], entry["b"]
        descriptions = [_describe(side, noun) for side in (a, b) if side]
        rows.append(
            [
                _MARKS[entry["change"]],
                _name(entry),
                " => ".join(dict.fromkeys(descriptions)),
                _change(a, b, "parameters", _integer),
                _change(a, b, "macs", format_si),
            ]
        )
    write()
    columns = [
        Column(""),
        Column(noun),
        Column("description", 3),
        number_column("parameters", 8),
        number_column("MACs", 5),
    ]
    write_table(columns, rows)


def _describe(row: dict[str, Any], noun: str) -> str:
    from hiresnet_graph.cli.summary import format_shape, format_steps

    if noun == "node":
        return f"{row['block']} {format_shape(row['shape'])}"
    when = (f"delay {row['delay']}" if row["delay"] else "", f"at {format_steps(row)}" if row["at"] is not None else "")
    factor = f"scale {row['scale']}" if row["scale"] else "", f"gate {row['gate']}" if row["gate"] else ""
    return ", ".join(part for part in (row["family"], row["merge"], row["projection"], *factor, *when) if part)


def _write_totals(a: dict[str, Any], b: dict[str, Any], differences: dict[str, Any]) -> None:
    rows = []
    for label, key, text in (
        ("parameters", "parameters", _integer),
        ("MACs", "macs", format_si),
        ("memory", "memory_bytes", format_bytes),
    ):
        change = differences[key]
        part = f"{_sign(change)}{format_percent(abs(change), a[key])}" if change else ""
        rows.append([label, text(a[key]), text(b[key]), f"{_sign(change)}{text(abs(change))}", part])
    write()
    numbers = [number_column("a", 8), number_column("b", 8), number_column("change"), number_column("", 3)]
    write_table([Column("total"), *numbers], rows)


def _change(a: dict[str, Any] | None, b: dict[str, Any] | None, key: str, text: Callable[[int], str]) -> str:
    change = (b[key] if b else 0) - (a[key] if a else 0)
    return f"{_sign(change)}{text(abs(change))}" if change else "0"


def _sign(change: int) -> str:
    return "+" if change > 0 else "-" if change < 0 else ""


def _integer(number: int) -> str:
    return f"{number:,}"
