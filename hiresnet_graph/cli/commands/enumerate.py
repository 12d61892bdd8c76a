"""`hrg enumerate`: the edge subsets of a rule, with their size."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Group, Json, Prune, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_json, write_message, write_table
from hiresnet_graph.formats import Column, format_count, format_si, number_column


def enumerate_subsets(
    spec: Spec,
    changes: Changes = None,
    subsets: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Rule for subsets of the edges of a group: all, size:K, size:A-B, leave-one-out, one-at-a-time, "
            "random:K; or family: none, full, in, ...",
        ),
    ] = "all",
    group: Group = None,
    prune: Prune = None,
    variant: Variant = None,
    edges: Edges = None,
    json: Json = False,
) -> None:
    """List edge subsets with their parameters, without training.

    These are the variants that 'hrg ablate SPEC --subsets RULE' trains.
    """
    from hiresnet_graph.sweep import enumerate_variants
    from hiresnet_graph.sweep.networks import left_out_sentences
    from hiresnet_graph.sweep.variants import valid_variants

    network = architecture(spec, changes, variant, edges)
    network = network.override({"prune": prune}) if prune is not None else network
    found, left_out = valid_variants(network, enumerate_variants(network, subsets, group))
    first: dict[str, str] = {}
    for entry, member in found:
        first.setdefault(member.plan.digest(), entry.label)
    rows: list[dict[str, Any]] = [
        {
            "label": entry.label,
            "edges": entry.edges,
            "parameters": member.cost().parameters,
            "macs": member.cost().macs,
            "same_as": None if first[member.plan.digest()] == entry.label else first[member.plan.digest()],
        }
        for entry, member in found
    ]
    if json:
        data = {"name": network.name, "variant": network.chosen, "rule": subsets, "variants": rows}
        write_json({**data, **({"left_out": left_out} if left_out else {})})
        return
    cells = []
    for i, row in enumerate(rows, 1):
        label = f"{row['label']} (= {row['same_as']})" if row["same_as"] else row["label"]
        cells.append([str(i), label, f"{row['parameters']:,}", format_si(row["macs"])])
    columns = [number_column("", 1, name="number"), Column("variant"), number_column("parameters", 8)]
    write_table([*columns, number_column("MACs", 5)], cells)
    counts = [format_count(len(rows), "variant"), format_count(len(first), "different network")]
    write_message(f"{', '.join([*counts, *([f'{len(left_out)} left out'] if left_out else [])])}.")
    for sentence in left_out_sentences(left_out):
        write_message(sentence)
