"""`hrg compile`: a network as source, exported program, ONNX or JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import (
    Changes,
    Edges,
    Output,
    Reinit,
    Seed,
    Spec,
    Variant,
    Weights,
    architecture,
    check_reinit,
)
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file, seal


class Dynamic(StrEnum):
    """What may vary in an exported program."""

    BATCH = "batch"
    HW = "hw"


def compile_network(
    spec: Spec,
    output: Output,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    seed: Seed = 0,
    weights: Weights = None,
    reinit: Reinit = False,
    dynamic: Annotated[
        Dynamic,
        typer.Option(help="What may vary in .pt2 and .onnx files: the batch size, or also height and width (hw)."),
    ] = Dynamic.BATCH,
    inference: Annotated[
        bool,
        typer.Option("--inference", help="Fold norms into convolutions and join projections (.pt2 and .onnx)."),
    ] = False,
    force: Force = False,
) -> None:
    """Compile to Python source, an exported program, ONNX or JSON.

    The suffix of the file selects the format: .py (requires torch alone), .pt2, .onnx, or .json (the plan).
    .pt2 and .onnx hold the weights, .py and .json do not.
    """
    check_reinit(weights, reinit)
    network = architecture(spec, changes, variant, edges)
    marks = (b'"name": ', b'"input_kinds": ') if output.suffix.lower() == ".json" else None
    reads = [*network.files, *([weights] if weights is not None else [])]
    target = check_output_file(output, reads, force=force, marks=marks)
    network.export(
        target,
        seed=seed,
        weights=weights,
        reinit=reinit,
        dynamic=dynamic.value,
        inference=inference,
        message=write_message,
    )
    seal(target)
    write_message(f"Wrote {output}: {network.name}, {network.cost().parameters:,} parameters.")
    if weights is None and output.suffix.lower() in (".pt2", ".onnx"):
        write_message(f"Its weights are initial ones, of seed {seed}. '--weights RUN' takes trained ones.")
