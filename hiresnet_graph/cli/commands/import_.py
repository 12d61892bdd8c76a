"""`hrg import`: a network of another library as a spec with weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Output
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file, check_spec_file, seal
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.files import write_atomic
from hiresnet_graph.spec.reader import parse_value

# In the first lines of a spec that was imported, and of its weights.
_IMPORTED, _WEIGHTS = b"# Imported from ", b"__metadata__"


def import_network(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="torchvision:NAME, timm:NAME, python:MODULE:FUNCTION, or a file .onnx, .pt2 or .graphml. With "
            "torchvision, NAME@WEIGHTS downloads weights, with timm NAME@pretrained.",
        ),
    ],
    output: Output,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the weights to this file, as safetensors.", show_default=False),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE",
            help="Shape of one sample, like 3x224x224, or NAME=SHAPE for one of several inputs (repeatable).",
            show_default="that of the source",
        ),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="BLOCK", help="GraphML: block of nodes without one, like 'conv width=16'."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="BLOCK", help="GraphML: a last node for all ends, like 'classifier classes=10'."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="GraphML: time steps; edges that close a cycle take one."),
    ] = None,
    force: Force = False,
) -> None:
    """Import a network of another library as a spec.

    Modules that repeat become stages and entries of `blocks`. The outputs are compared with those of the original, in
    evaluation and in training mode. What a spec cannot express is listed, and then nothing is written.
    """
    target = check_spec_file(output, (), force=force, marks=(_IMPORTED,))
    if weights is not None:
        if weights.suffix.lower() != ".safetensors":
            raise UsageError(
                f"'--weights {weights}': the weights of the network are written to this file, as .safetensors. To use "
                f"other weights, give them to a command that takes the spec: 'hrg train {output} --weights {weights}'."
            )
        weights = check_output_file(weights, (), force=force, marks=(_WEIGHTS,), option="--weights")
    given = _shapes(input or [])
    if Path(source).suffix.lower() == ".graphml":
        _import_graph(Path(source).expanduser(), target, weights, given, block, head, steps)
        return
    for option, value in (("--block", block), ("--head", head), ("--steps", steps)):
        if value is not None:
            raise UsageError(f"'{option}' is for GraphML files. '{source}' has blocks of its own.")
    from hiresnet_graph.importing import from_module
    from hiresnet_graph.importing.sources import read_source

    found = read_source(source)
    shapes = given or found.shapes
    if not shapes:
        raise UsageError(f"'{source}' does not give the shape of its input. Set '--input', like '--input 3x224x224'.")
    imported = from_module(found.module, input=shapes, name=found.name, source=source)
    imported.save(target, weights)
    seal(target)
    lines, parameters = len(imported.text.splitlines()), imported.network.cost().parameters
    for note in imported.notes:
        write_message(f"Note: {note}.")
    if weights is not None and found.trained:
        write_message(f"The weights are random. '{found.trained}' downloads trained ones.")
    write_message(f"Compared with the original: {imported.comparison}.")
    written = f"Wrote {output}: {imported.network.name}, {lines} lines, {parameters:,} parameters."
    write_message(written if weights is None else f"{written}\nWrote {weights}.")


def _import_graph(
    source: Path,
    target: Path,
    weights: Path | None,
    shapes: dict[str, tuple[int, ...]],
    block: str | None,
    head: str | None,
    steps: int | None,
) -> None:
    """Write the spec of a GraphML file."""
    if weights is not None:
        raise UsageError(f"'{source}' is a graph without weights. Omit '--weights'.")
    (shape,) = shapes.values() if len(shapes) == 1 else ((),)
    if len(shape) != 3:
        raise UsageError(f"'{source}' does not give the shape of its input. Set '--input', like '--input 3x32x32'.")
    from hiresnet_graph.architecture import from_dict
    from hiresnet_graph.interop.graphml import spec_from_graphml

    sizes = dict(zip(("channels", "height", "width"), shape, strict=True))
    own, last = (None if text is None else _block(text) for text in (block, head))
    graph = spec_from_graphml(source, input=sizes, block=own, head=last, steps=steps)
    try:
        network = from_dict(graph.spec)
        cost = network.cost()
    except SpecError as error:
        raise graph.located(error) from None
    write_atomic(target, f"# Imported from {source}.\n{network.to_yaml()}".encode(), UsageError)
    seal(target)
    nodes, edges = len(network.plan.nodes) - 1, len(network.plan.edges)
    write_message(f"Wrote {target}: {network.name}, {nodes} nodes, {edges} edges, {cost.parameters:,} parameters.")


def _block(text: str) -> dict[str, Any]:
    """A block and its fields, like `conv width=16`."""
    kind, *fields = text.split() or [""]
    pairs = [field.partition("=") for field in fields]
    if not re.fullmatch(r"\w+", kind) or not all(name and value for name, _, value in pairs):
        raise UsageError(f"'{text}' is no block with fields. Write it like 'conv width=16'.")
    return {"block": kind, **{name: parse_value(value, name) for name, _, value in pairs}}


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
