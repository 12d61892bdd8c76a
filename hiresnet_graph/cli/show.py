"""Commands that count networks: `show` for one, `diff` for two."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Json, Spec, Variant, architecture, sides
from hiresnet_graph.cli.screen import (
    Column,
    counted,
    exact,
    memory,
    note,
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
from hiresnet_graph.passes.timing import format_step_ranges

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
    for i, line in enumerate(_timing(data["time"])):
        write(f"{'time' if i == 0 else '    '}  {line}")
    write()
    if ops:
        _write_calls(data)
    else:
        _write_nodes(data, folded=not blocks and len(data["nodes"]) > _UNFOLDED_ROWS)
    _write_edges(data)
    write()
    _write_shares(data)
    for warning in data["time"]["warnings"] if data["time"] else ():
        place = f"{warning['file']}:{warning['line']}:{warning['column']}: " if warning["file"] else ""
        note(f"Warning: {place}{warning['message']} {warning['hint'] or ''}".rstrip())


_COSTS = (number_column("parameters", 8), number_column("MACs", 6), number_column("memory", 3))


def _cost_cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['parameters']:,}", short(row["macs"]), memory(row["memory_bytes"])]


_UNROLLING = {
    "biological": "every edge between nodes on cycles takes time",
    "engineering": "edges that take no time lead from input to output",
    "mixed": "some edges between nodes on cycles take no time, and no path of such leads from input to output",
}


def _timing(time: dict[str, Any] | None) -> list[str]:
    """How the network runs in time, in words; nothing for one that does not."""
    if time is None:
        return []
    kinds = time["unrolling"]
    readout = f"step{'' if len(time['readouts']) == 1 else 's'} {format_step_ranges(time['readouts'])}"
    if isinstance(time["readout"], str):
        readout = f"{time['readout']} ({readout})"
    lines = [
        f"{counted(time['steps'], 'step')}, {' and '.join(kinds)} unrolling: "
        f"{', and '.join(_UNROLLING[kind] for kind in kinds)}",
        f"input {time['input']}, empty {time['empty']}, readout {readout}",
    ]
    if time["smallest_steps"] is not None:
        complete = time["complete_steps"]
        every = (
            f"from {complete} on every edge reaches the readout" if complete else "some edges never reach the readout"
        )
        lines.append(f"from {counted(time['smallest_steps'], 'step')} on the output depends on the input, {every}")
    return lines


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
        holds = [format_step_ranges(row["holds"])] if data["time"] else []
        rows.append([row["name"], row["block"], shape_text(row["shape"]), *holds, *_cost_cells(row)])
    in_time = [Column("holds at", keep=8)] if data["time"] else []
    write_table([Column("node"), Column("block", keep=5), Column("output", keep=7), *in_time, *_COSTS], rows)


def _folded(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes, with one row for all blocks of a stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        found.setdefault(node["stage"] or node["name"], []).append(node)
    rows = []
    for name, members in found.items():
        kinds = ", ".join(dict.fromkeys(node["block"] for node in members))
        block = f"{len(members)} x {kinds}" if members[0]["stage"] else kinds
        holds = sorted({step for node in members for step in node["holds"] or ()})
        rows.append({"name": name, "block": block, "shape": members[-1]["shape"], "holds": holds, **added(members)})
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
    pairs = Counter((edge["from"], edge["to"]) for edge in data["edges"] if edge["family"] not in ("flow", "shortcut"))
    for edge in data["edges"]:
        in_time = edge["delay"] or edge["at"] is not None
        if edge["family"] == "shortcut" and not any_cost([edge]):
            hidden += 1
        elif edge["family"] not in ("flow", "gate") or in_time or any_cost([edge]):
            within = edge["family"] == "shortcut"
            name = edge["name"] if within else f"{edge['from']} -> {edge['to']}"
            if not within and edge["family"] != "flow" and pairs[edge["from"], edge["to"]] > 1:
                name = f"{name} ({edge['name']})"
            kind = (
                edge["family"]
                if edge["slot"] in ("output", "input") or within
                else f"{edge['family']} ({edge['slot']})"
            )
            when = ["" if within else str(edge["delay"]), _open(edge)] if data["time"] else []
            rows.append([name, kind, edge["merge"] or "", edge["projection"], *when, *_cost_cells(edge)])
    if rows:
        write()
        columns = [Column("edge"), Column("kind", keep=4), Column("merge", keep=1), Column("projection", keep=5)]
        if data["time"]:
            columns += [number_column("delay", 7), Column("at", keep=7)]
        write_table([*columns, *_COSTS], rows)
    if hidden:
        write(f"{'and ' if rows else ''}{counted(hidden, 'shortcut')} without a projection")


def _open(edge: dict[str, Any]) -> str:
    """The steps at which a value may arrive on an edge; nothing for all."""
    return "" if edge["at"] is None else format_step_ranges(edge["at"])


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
    if data["parameters_folded"] != data["parameters"]:
        write(f"{data['parameters_folded']:,} parameters with one copy of every weight for all steps.")
    if data["time"]:
        write(f"MACs by step  {_by_step(data['time']['macs_per_step'])}")
    write("Memory is that of all values as float32; MACs and memory are for one sample.")


def _by_step(macs: Sequence[int]) -> str:
    """Numbers for each step, equal ones that follow each other told once."""
    steps = [list(group) for _, group in groupby(range(len(macs)), key=lambda step: macs[step])]
    return "; ".join(
        f"{format_step_ranges(run)}: {short(macs[run[0]])}{' each' if len(run) > 1 else ''}" for run in steps
    )


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
    for i, (key, sides_) in enumerate(differences["time"].items()):
        told = ["none" if side is None else str(side) for side in (sides_["a"], sides_["b"])]
        write(f"{'' if i else chr(10)}time.{key}: {' => '.join(told)}")
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
    when = (f"delay {row['delay']}" if row["delay"] else "", f"at {_open(row)}" if row["at"] is not None else "")
    return ", ".join(part for part in (row["family"], row["merge"], row["projection"], *when) if part)


def _change(pair: list[int], text: Callable[[int], str]) -> str:
    change = pair[1] - pair[0]
    return f"{'+' if change > 0 else '-'}{text(abs(change))}" if change else "0"
