"""The tables of `hrg show`: nodes, edges, operations and costs of a network."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.cli.console import styled, write, write_json, write_message, write_prose, write_table
from hiresnet_graph.cli.summary import (
    format_factor,
    format_shape,
    format_steps,
    has_cost,
    sum_costs,
    summarize,
    summarize_training,
)
from hiresnet_graph.formats import Column, format_bytes, format_count, format_percent, format_si, number_column
from hiresnet_graph.passes.timing import format_step_ranges

if TYPE_CHECKING:
    from hiresnet_graph.train.recipe import Recipe

# In a network with more nodes than this, a stage is one row.
_UNFOLDED_ROWS = 20


def write_network(network: Architecture, recipe: Recipe, *, is_unfolded: bool, lists_calls: bool, json: bool) -> None:
    """Write a network to stdout, and its warnings to stderr.

    Args:
        recipe: What its memory in training is estimated for.
        is_unfolded: Whether each block has a row, also in deep networks.
        lists_calls: Whether primitive operations are listed instead of nodes.
        json: Whether it is written as JSON.
    """
    data = summarize(network, calls=lists_calls)
    data["training"] = summarize_training(network, recipe)
    if json:
        write_json(data)
        return
    write(f"{styled(network.title, 'bold', sys.stdout)}  {data['description']}".rstrip())
    for chain in _chains(data):
        write(f"flow  {chain}")
    for i, line in enumerate(_timing(data["time"])):
        write(f"{'time' if i == 0 else '    '}  {line}")
    write()
    if lists_calls:
        _write_calls(data)
    else:
        _write_nodes(data, folded=not is_unfolded and len(data["nodes"]) > _UNFOLDED_ROWS)
    _write_edges(data)
    write()
    _write_shares(data)
    for warning in data["warnings"]:
        where = f"{warning['file']}:{warning['line']}:{warning['column']}: " if warning["file"] else ""
        write_message(f"Warning: {where}{warning['message']} {warning['hint'] or ''}".rstrip())


_COSTS = (number_column("parameters", 8), number_column("MACs", 6), number_column("memory", 3))


def _cost_cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['parameters']:,}", format_si(row["macs"]), format_bytes(row["memory_bytes"])]


_UNROLLING = {
    "biological": "every edge between nodes on cycles has a delay",
    "engineering": "a path without delay leads from the input to the output",
    "mixed": "some edges between nodes on cycles have no delay, but no path without delay leads to the output",
}


_INPUT = {"first": "input at step 0", "every": "the same input at every step", "sequence": "another input at each step"}
_EMPTY = {"skip": "skipped", "zeros": "zeros"}


def _timing(time: dict[str, Any] | None) -> list[str]:
    """A description of how the network runs in time; empty if it does not."""
    if time is None:
        return []
    kinds = time["unrolling"]
    readout = f"step{'' if len(time['readouts']) == 1 else 's'} {format_step_ranges(time['readouts'])}"
    lines = [
        f"{format_count(time['steps'], 'step')}, {' and '.join(kinds)} unrolling: "
        f"{', and '.join(_UNROLLING[kind] for kind in kinds)}",
        f"{_INPUT[time['input']]}; values that do not exist yet are {_EMPTY[time['empty']]}; readout at {readout}",
    ]
    if time["smallest_steps"] is not None:
        complete = time["complete_steps"]
        every = (
            f"from {complete} on every edge reaches the readout" if complete else "some edges never reach the readout"
        )
        lines.append(f"from {format_count(time['smallest_steps'], 'step')} on the output depends on the input, {every}")
    return lines


def _chains(data: dict[str, Any]) -> list[str]:
    """The flow as chains of stages and of nodes outside stages."""
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
        rows.append([row["name"], row["block"], format_shape(row["shape"]), *holds, *_cost_cells(row)])
    in_time = [Column("holds at", 8)] if data["time"] else []
    write_table([Column("node"), Column("block", 5), Column("output", 7), *in_time, *_COSTS], rows)


def _folded(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes, with one row per stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        found.setdefault(node["stage"] or node["name"], []).append(node)
    rows = []
    for name, members in found.items():
        kinds = ", ".join(dict.fromkeys(node["block"] for node in members))
        block = f"{len(members)} x {kinds}" if members[0]["stage"] else kinds
        holds = sorted({step for node in members for step in node["holds"] or ()})
        rows.append({"name": name, "block": block, "shape": members[-1]["shape"], "holds": holds, **sum_costs(members)})
    return rows


def _write_calls(data: dict[str, Any]) -> None:
    rows = []
    for call in data["calls"]:
        fields = ", ".join(f"{key}={value}" for key, value in call["fields"].items())
        inputs = ", ".join(call["inputs"])
        rows.append([call["name"], call["op"], fields, inputs, format_shape(call["shape"]), *_cost_cells(call)])
    columns = [Column("call"), Column("op", 7), Column("fields", 2), Column("inputs", 4)]
    write_table([*columns, Column("output", 6), *_COSTS], rows)


def _write_edges(data: dict[str, Any]) -> None:
    """Write all edges except plain flow, and except shortcuts without cost, which are counted."""
    rows, hidden = [], 0
    pairs = Counter((edge["from"], edge["to"]) for edge in data["edges"] if edge["family"] not in ("flow", "shortcut"))
    scaled = any(format_factor(edge) for edge in data["edges"])
    for edge in data["edges"]:
        in_time = edge["delay"] or edge["at"] is not None
        if edge["family"] == "shortcut" and not has_cost([edge]):
            hidden += 1
        elif edge["family"] not in ("flow", "gate") or in_time or has_cost([edge]):
            within = edge["family"] == "shortcut"
            name = edge["name"] if within else f"{edge['from']} -> {edge['to']}"
            if not within and edge["family"] != "flow" and pairs[edge["from"], edge["to"]] > 1:
                name = f"{name} ({edge['name']})"
            kind = (
                edge["family"]
                if edge["slot"] in ("output", "input") or within
                else f"{edge['family']} ({edge['slot']})"
            )
            when = ["" if within else str(edge["delay"]), format_steps(edge)] if data["time"] else []
            factor = [format_factor(edge)] if scaled else []
            rows.append([name, kind, edge["merge"] or "", edge["projection"], *factor, *when, *_cost_cells(edge)])
    if rows:
        write()
        columns = [Column("edge"), Column("kind", 4), Column("merge", 1), Column("projection", 5)]
        if scaled:
            columns.append(Column("scale", 6))
        if data["time"]:
            columns += [number_column("delay", 7), Column("at", 7)]
        write_table([*columns, *_COSTS], rows)
    if hidden:
        write(f"{'and ' if rows else ''}{format_count(hidden, 'shortcut')} without a projection")


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
            percents = [format_percent(part[key], data[key]) for key in ("parameters", "macs", "memory_bytes")]
            pairs = zip(_cost_cells(part), percents, strict=True)
            rows.append([label, *(cell for pair in pairs for cell in pair)])
    parameters, macs, size = _cost_cells(data)
    columns = [
        Column("share of"),
        number_column("parameters", 8),
        number_column("", 7, name="% of parameters"),
        number_column("MACs", 6),
        number_column("", 5, name="% of MACs"),
        number_column("memory", 4),
        number_column("", 3, name="% of memory"),
    ]
    write_table(columns, rows, ["all", parameters, "", macs, "", size, ""])
    if data["parameters_folded"] != data["parameters"]:
        write_prose(f"{data['parameters_folded']:,} parameters with one copy of every weight for all steps.")
    if data["time"]:
        write_prose(f"MACs by step  {_by_step(data['time']['macs_per_step'])}")
    write_prose("Memory is what is stored for the backward pass, as float32; MACs and memory are for one sample.")
    _write_training(data["training"])


def _write_training(training: dict[str, Any]) -> None:
    """Write the memory of a training step, and the part of the skips."""
    checkpoint = training["checkpoint"] or training["checkpoint_steps"]
    how = f"{training['precision']}, {training['optimizer']}{', with checkpoints' if checkpoint else ''}"
    plain = training["without_skips"]

    def size(key: str) -> str:
        skips = "" if plain is None else f" (skips {format_bytes(training[key] - plain[key])})"
        return format_bytes(training[key]) + skips

    write_prose(f"Training on batches of {training['batch_size']:,} ({how}) takes about {size('peak_bytes')},")
    write_prose(f"of which {size('stored_bytes')} are stored for the backward pass.")


def _by_step(macs: Sequence[int]) -> str:
    """MACs of each step; steps in a row with equal numbers are joined."""
    steps = [list(group) for _, group in groupby(range(len(macs)), key=lambda step: macs[step])]
    return "; ".join(
        f"{format_step_ranges(run)}: {format_si(macs[run[0]])}{' each' if len(run) > 1 else ''}" for run in steps
    )
