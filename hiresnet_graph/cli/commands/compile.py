"""`hrg compile`: a network as source, exported program, ONNX or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Output, Seed, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file


def compile_network(
    spec: Spec,
    output: Output,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    seed: Seed = 0,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|FILE",
            help="Weights that replace the initial ones (.pt2 and .onnx): the folder of a run, or a safetensors file.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Compile to Python source, an exported program, ONNX or JSON.

    The suffix of the file selects the format: .py (requires torch alone), .pt2, .onnx, or .json (the plan).
    """
    network = architecture(spec, changes, variant, edges)
    marks = (b'"name": ', b'"input_kinds": ') if output.suffix.lower() == ".json" else None
    reads = [*network.files, *([weights] if weights is not None else [])]
    target = check_output_file(output, reads, force=force, marks=marks)
    network.export(target, seed=seed, weights=weights, message=write_message)
    write_message(f"Wrote {output}: {network.name}, {network.cost().parameters:,} parameters.")
