"""`hrg import`: a network of another library as a spec with weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import Output
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file
from hiresnet_graph.errors import UsageError

# In the first lines of a spec that was imported, and of its weights.
_IMPORTED, _WEIGHTS = b"# Imported from ", b"__metadata__"


def import_network(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="torchvision:NAME, timm:NAME, python:MODULE:FUNCTION, or a file .onnx or .pt2. With torchvision, "
            "NAME@WEIGHTS downloads weights, with timm NAME@pretrained.",
        ),
    ],
    output: Output,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the weights, as safetensors.", show_default=False),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE",
            help="Shape of one sample, like 3x224x224, or NAME=SHAPE for one of several inputs (repeatable).",
            show_default="that of the source",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Import a network of another library as a spec.

    Modules that repeat become stages and entries of `blocks`. The outputs are compared with those of the original, in
    evaluation and in training mode. What a spec cannot express is listed, and then nothing is written.
    """
    target = check_output_file(output, (), force=force, marks=(_IMPORTED,))
    if weights is not None:
        if weights.suffix.lower() != ".safetensors":
            raise UsageError(f"'{weights}': weights are written as .safetensors.")
        weights = check_output_file(weights, (), force=force, marks=(_WEIGHTS,))
    given = _shapes(input or [])
    from hiresnet_graph.importing import from_module
    from hiresnet_graph.importing.sources import read_source

    found = read_source(source)
    shapes = given or ({"input": found.shape} if found.shape else {})
    if not shapes:
        raise UsageError(f"'{source}' does not give the shape of its input. Set '--input', like '--input 3x224x224'.")
    imported = from_module(found.module, input=shapes, name=found.name, source=source)
    imported.save(target, weights)
    lines, parameters = len(imported.text.splitlines()), imported.network.cost().parameters
    for note in imported.notes:
        write_message(f"Note: {note}.")
    write_message(f"Compared with the original: {imported.comparison}.")
    written = f"Wrote {output}: {imported.network.name}, {lines} lines, {parameters:,} parameters."
    write_message(written if weights is None else f"{written}\nWrote {weights}.")


def _shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs by name; one without a name is called `input`."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, shape = text.rpartition("=")
        name = name or ("input" if len(texts) == 1 else "")
        if not re.fullmatch(r"[1-9][0-9]{0,6}(x[1-9][0-9]{0,6})*", shape):
            raise UsageError(f"'--input {text}' is no shape. Write it like 3x224x224, or like 12 for a vector.")
        if not name or name in found:
            raise UsageError("several inputs require different names, like '--input image=3x32x32 --input context=12'.")
        found[name] = tuple(map(int, shape.split("x")))
    return found
