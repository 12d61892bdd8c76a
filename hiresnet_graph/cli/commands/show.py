"""`hrg show`: nodes and edges of a network with their costs."""

from __future__ import annotations

from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Json, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_json
from hiresnet_graph.cli.study_summary import refuse_changes, summarize_study, write_study
from hiresnet_graph.cli.training import BatchSize, RecipeFields, recipe_fields


def show(
    spec: Spec,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="One row per block, also in deep networks.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="List the primitive operations instead of the nodes.")] = False,
    batch_size: BatchSize = None,
    recipe: RecipeFields = None,
    json: Json = False,
) -> None:
    """Show nodes and edges with shapes, parameters, MACs and memory; or the networks, runs and data of a study.

    MACs are the multiply-adds of convolutions and linear maps ("FLOPs" in most tables); memory is what the forward pass
    stores for the backward pass, as float32. Both are for one sample. The last lines estimate the memory of training
    with a recipe: '--batch-size 32 --recipe precision=bf16'.
    """
    from hiresnet_graph.spec.reader import is_study

    if is_study(spec):
        from hiresnet_graph.sweep.study import read_study

        given: dict[str, object] = {
            "changes": changes,
            "--variant": variant,
            "--edges": edges,
            "--blocks": blocks,
            "--ops": ops,
        }
        given |= {"--batch-size": batch_size, "--recipe": recipe}
        refuse_changes(spec, given)
        study = read_study(spec)
        described = summarize_study(study)
        write_json(described) if json else write_study(study, described)
        return
    from hiresnet_graph.cli.network_tables import write_network
    from hiresnet_graph.train import make_recipe

    fields = make_recipe(recipe_fields(batch_size=batch_size, fields=recipe))
    network = architecture(spec, changes, variant, edges)
    write_network(network, fields, is_unfolded=blocks, lists_calls=ops, json=json)
