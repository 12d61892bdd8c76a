"""`hrg show`: nodes and edges of a network with their costs."""

from __future__ import annotations

from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Json, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_json
from hiresnet_graph.cli.study_summary import refuse_changes, summarize_study, write_study


def show(
    spec: Spec,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="One row per block, also in deep networks.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="List the primitive operations instead of the nodes.")] = False,
    json: Json = False,
) -> None:
    """Show nodes and edges with shapes, parameters, MACs and memory; or the networks, runs and data of a study.

    MACs are the multiply-adds of convolutions and linear maps ("FLOPs" in most tables); memory is the size of all
    values as float32. Both are for one sample.
    """
    from hiresnet_graph.spec.reader import is_study

    if is_study(spec):
        from hiresnet_graph.sweep.study import read_study

        given = {"changes": changes, "--variant": variant, "--edges": edges, "--blocks": blocks, "--ops": ops}
        refuse_changes(spec, given)
        study = read_study(spec)
        described = summarize_study(study)
        write_json(described) if json else write_study(study, described)
        return
    from hiresnet_graph.cli.network_tables import write_network

    write_network(architecture(spec, changes, variant, edges), is_unfolded=blocks, lists_calls=ops, json=json)
