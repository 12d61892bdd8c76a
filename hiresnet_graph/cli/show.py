"""Commands that count networks: `show` for one, `diff` for two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Json, Spec, Variant, architecture, sides
from hiresnet_graph.cli.screen import (
    Column,
    counted,
    exact,
    memory,
    number_column,
    painted,
    share,
    short,
    write,
    write_json,
    write_table,
)
from hiresnet_graph.cli.summary import added, any_cost, compare, shape_text, summarize
from hiresnet_graph.errors import UsageError

# With more rows than this, the blocks of a stage share one.
_UNFOLDED_ROWS = 20


def show(
    spec: Spec,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="A row for each block, also in deep networks.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="List the primitive calls instead of the nodes.")] = False,
    json: Json = False,
) -> None:
    """Show nodes and edges with shapes, parameters, MACs and memory.

    MACs are multiply-adds of convolutions and linear maps ("FLOPs" in most tables), memory is that of all values as
    float32, both for one sample.
    """
    network = architecture(spec, changes, variant, edges)
    data = summarize(network, calls=ops)
    if json:
        write_json(data)
        return
    write(f"{painted(network.title, 'bold', sys.stdout)}  {data['description']}".rstrip())
    for chain in _chains(data):
        write(f"flow  {chain}")
    write()
    if ops:
        _write_calls(data)
    else:
        _write_nodes(data, folded=not blocks and len(data["nodes"]) > _UNFOLDED_ROWS)
    _write_edges(data)
    write()
    _write_shares(data)


_COSTS = (number_column("parameters", 8), number_column("MACs", 6), number_column("memory", 3))


def _cost_cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['parameters']:,}", short(row["macs"]), memory(row["memory_bytes"])]


def _chains(data: dict[str, Any]) -> list[str]:
    """The flow as chains of nodes, stages taken as one."""
    following: dict[str, list[str]] = {}
    stages = {node["name"]: node["stage"] or node["name"] for node in data["nodes"]}
    for edge in data["edges"]:
        start, stop = stages[edge["source"]], stages[edge["target"]]
        if edge["family"] == "flow" and start != stop:
            following.setdefault(start, []).append(stop)
    chains = []
    while following:
        chain = [next(iter(following))]
        while chain[-1] in following:
            after = following[chain[-1]]
            name = after.pop(0)
            if not after:
                del following[chain[-1]]
            chain.append(name)
        chains.append(" -> ".join(chain))
    return chains


def _write_nodes(data: dict[str, Any], folded: bool) -> None:
    rows = []
    for row in _folded(data["nodes"]) if folded else data["nodes"]:
        rows.append([row["name"], row["block"], shape_text(row["shape"]), *_cost_cells(row)])
    write_table([Column("node"), Column("block", keep=5), Column("output", keep=7), *_COSTS], rows)


def _folded(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes, with one row for all blocks of a stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        found.setdefault(node["stage"] or node["name"], []).append(node)
    rows = []
    for name, members in found.items():
        kinds = ", ".join(dict.fromkeys(node["block"] for node in members))
        block = f"{len(members)} x {kinds}" if members[0]["stage"] else kinds
        rows.append({"name": name, "block": block, "shape": members[-1]["shape"], **added(members)})
    return rows


def _write_calls(data: dict[str, Any]) -> None:
    rows = []
    for call in data["calls"]:
        fields = ", ".join(f"{key}={value}" for key, value in call["fields"].items())
        inputs = ", ".join(call["inputs"])
        rows.append([call["name"], call["op"], fields, inputs, shape_text(call["shape"]), *_cost_cells(call)])
    columns = [Column("call"), Column("op", keep=7), Column("fields", keep=2), Column("inputs", keep=4)]
    write_table([*columns, Column("output", keep=6), *_COSTS], rows)


def _write_edges(data: dict[str, Any]) -> None:
    """The edges that are no plain flow, and no shortcut that changes nothing."""
    rows, hidden = [], 0
    for edge in data["edges"]:
        if edge["family"] == "shortcut" and not any_cost([edge]):
            hidden += 1
        elif edge["family"] not in ("flow", "gate") or any_cost([edge]):
            within = edge["family"] == "shortcut"
            name = edge["name"] if within else f"{edge['from']} -> {edge['to']}"
            kind = (
                edge["family"]
                if edge["slot"] in ("output", "input") or within
                else f"{edge['family']} ({edge['slot']})"
            )
            rows.append([name, kind, edge["merge"] or "", edge["projection"], *_cost_cells(edge)])
    if rows:
        write()
        columns = [Column("edge"), Column("kind", keep=4), Column("merge", keep=1), Column("projection", keep=5)]
        write_table([*columns, *_COSTS], rows)
    if hidden:
        write(f"{'and ' if rows else ''}{counted(hidden, 'shortcut')} without a projection")


_FAMILIES = {
    "nodes": "nodes",
    "shortcut": "shortcuts",
    "skip": "skips",
    "edge": "edges",
    "flow": "flow",
    "gate": "gates",
}


def _write_shares(data: dict[str, Any]) -> None:
    rows = []
    for family, label in _FAMILIES.items():
        part = data["share"].get(family)
        if part is not None:
            parameters, macs, size = _cost_cells(part)
            rows.append(
                [
                    label,
                    parameters,
                    share(part["parameters"], data["parameters"]),
                    macs,
                    share(part["macs"], data["macs"]),
                    size,
                    share(part["memory_bytes"], data["memory_bytes"]),
                ]
            )
    parameters, macs, size = _cost_cells(data)
    columns = [
        Column("share of"),
        number_column("parameters", 8),
        number_column("", 7),
        number_column("MACs", 6),
        number_column("", 5),
        number_column("memory", 4),
        number_column("", 3),
    ]
    write_table(columns, rows, ["all", parameters, "", macs, "", size, ""])
    write("Memory is that of all values as float32; MACs and memory are for one sample.")


def diff(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="A [K=V]... [B] [K=V]...",
            help="Two networks, each a spec (or SPEC@VARIANT) with its changes behind it; or one spec and its changes.",
        ),
    ],
    json: Json = False,
) -> None:
    """Show what differs between two networks: nodes, edges, parameters, MACs.

    For example 'hrg diff hiresnet18@original hiresnet18@full', or 'hrg diff hiresnet18 width=32'.
    """
    found = sides(specs)
    if len(found) == 1 and found[0][1]:
        found = [(found[0][0], []), found[0]]
    if len(found) != 2:
        raise UsageError(
            f"two networks are compared, and this names {len(found)}. Write 'hrg diff hiresnet18@in hiresnet18@out', "
            "or one spec with changes, 'hrg diff hiresnet18 width=32'."
        )
    labels = [" ".join([spec, *changes]) for spec, changes in found]
    a, b = (summarize(architecture(spec, changes), calls=True) for spec, changes in found)
    differences = compare(a, b)
    if json:
        totals = ("name", "variant", "parameters", "macs", "memory_bytes", "digest")
        sides_ = {
            side: {"spec": label, **{key: data[key] for key in totals}}
            for side, label, data in (("a", labels[0], a), ("b", labels[1], b))
        }
        write_json({**sides_, **differences})
        return
    write(f"a: {labels[0]}\nb: {labels[1]}")
    if differences["same"]:
        write("\nBoth are the same network.")
        return
    _write_differences("node", differences["nodes"])
    _write_differences("edge", differences["edges"])
    if not differences["nodes"] and not differences["edges"]:
        write("\nNodes and edges agree; what differs is the order in which values are merged, or the outputs.")
    write()
    rows = []
    for label, key, text in (
        ("parameters", "parameters", exact),
        ("MACs", "macs", short),
        ("memory", "memory_bytes", memory),
    ):
        change = differences[key]
        sign = "+" if change > 0 else "-" if change < 0 else ""
        part = f"{sign}{share(abs(change), a[key])}" if change else ""
        rows.append([label, text(a[key]), text(b[key]), f"{sign}{text(abs(change))}", part])
    write_table(
        [
            Column("total"),
            number_column("a", 8),
            number_column("b", 8),
            number_column("change"),
            number_column("", 3),
        ],
        rows,
    )


_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def _write_differences(noun: str, differences: list[dict[str, Any]]) -> None:
    if not differences:
        return
    rows = []
    for entry in differences:
        a, b = entry["a"], entry["b"]
        some = b or a
        name = entry["name"] if noun == "node" or some["family"] == "shortcut" else f"{some['from']} -> {some['to']}"
        what = [_described(row, noun) for row in (a, b) if row]
        rows.append(
            [
                _MARKS[entry["change"]],
                name,
                " => ".join(dict.fromkeys(what)),
                _change([row["parameters"] if row else 0 for row in (a, b)], exact),
                _change([row["macs"] if row else 0 for row in (a, b)], short),
            ]
        )
    write()
    columns = [Column(""), Column(noun), Column("is", keep=3), number_column("parameters", 8), number_column("MACs", 5)]
    write_table(columns, rows)


def _described(row: dict[str, Any], noun: str) -> str:
    if noun == "node":
        return f"{row['block']} {shape_text(row['shape'])}"
    return ", ".join(part for part in (row["family"], row["merge"], row["projection"]) if part)


def _change(pair: list[int], text: Callable[[int], str]) -> str:
    change = pair[1] - pair[0]
    return f"{'+' if change > 0 else '-'}{text(abs(change))}" if change else "0"
