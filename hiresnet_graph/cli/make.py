"""Commands that write a file: `init`, `schema`, `compile`, `render`, `adjust`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Output, Seed, Spec, Variant, architecture, split_variant
from hiresnet_graph.cli.screen import note, write
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.shipped import spec_names, spec_path
from hiresnet_graph.spec.source import to_yaml

if TYPE_CHECKING:
    from hiresnet_graph.render import Direction, Level

_STARTER = Path(__file__).resolve().parent.parent / "starter.yaml"
_SCHEMA = "hrg.schema.json"
_SCHEMA_LINE = f"# yaml-language-server: $schema={_SCHEMA}\n"
# Short names for the shipped spec that a beginner of its family wants.
_FAMILIES = {"hiresnet": "hiresnet18", "resnet": "resnet20", "densenet": "densenet40", "vgg": "vgg16", "ror": "ror3_56"}


def init(
    template: Annotated[
        str,
        typer.Option(
            "--template", "-t", metavar="T", help="'starter', 'hiresnet', 'resnet', 'unet', or any shipped spec."
        ),
    ] = "starter",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write; '-' for stdout.")
    ] = Path("network.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a spec to start from.

    Beside it comes the schema with which editors check and complete it, unless it is there already.
    """
    text = _SCHEMA_LINE + _template(template).replace(" FILE", f" {'FILE' if str(output) == '-' else output}")
    if str(output) == "-":
        write(text.rstrip("\n"))
        return
    if output.exists() and not force:
        raise UsageError(f"'{output}' is there already. Choose another name with '-o', or overwrite it with '--force'.")
    output.write_text(text, encoding="utf-8")
    schema_path = output.with_name(_SCHEMA)
    beside = ""
    if force or not schema_path.exists():
        _write_schema(schema_path)
        beside = f", and {schema_path} for your editor"
    note(f"Wrote {output}{beside}. Next:")
    note(f"  hrg show {output}\n  hrg render {output} -o {output.with_suffix('.svg')}")


def _template(name: str) -> str:
    if name == "starter":
        return _STARTER.read_text(encoding="utf-8")
    path = spec_path(_FAMILIES.get(name, name))
    if path is None:
        raise UsageError(f"there is no template '{name}'. {did_you_mean(name, ['starter', *_FAMILIES, *spec_names()])}")
    return path.read_text(encoding="utf-8")


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write.", show_default="stdout")
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors."""
    if output is None:
        from hiresnet_graph.spec.schema import schema as make_schema

        write(json.dumps(make_schema(), indent=2))
        return
    _write_schema(output)
    note(f"Wrote {output}. The first line of a spec beside it: {_SCHEMA_LINE.replace(_SCHEMA, output.name).rstrip()}")


def _write_schema(path: Path) -> None:
    from hiresnet_graph.spec.schema import schema as make_schema

    path.write_text(json.dumps(make_schema(), indent=1) + "\n", encoding="utf-8")


def compile_(
    spec: Spec,
    output: Output,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    seed: Seed = 0,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights to take instead, for .pt2 and .onnx: the model.safetensors of a run.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile to Python source, an exported program, ONNX or JSON.

    The suffix of the file decides: .py (needs torch alone), .pt2, .onnx, or .json (the plan).
    """
    network = architecture(spec, changes, variant, edges)
    network.export(output, seed=seed, weights=weights)
    note(f"Wrote {output}: {network.name}, {network.cost().parameters:,} parameters.")


def render(
    spec: Spec,
    output: Output,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="A box for each of the stages, blocks or ops.")
    ] = "blocks",
    direction: Annotated[str, typer.Option(metavar="DIR", help="LR from left to right, TB from top to bottom.")] = "LR",
    unrolled: Annotated[
        bool, typer.Option("--unrolled", help="Draw a recurrent network step by step, not with its loops.")
    ] = False,
) -> None:
    """Draw the diagram as SVG, PDF, PNG or DOT.

    The suffix of the file decides: .svg, .pdf, .png or .dot.
    """
    from hiresnet_graph.render import render as draw

    network = architecture(spec, changes, variant, edges)
    draw(
        network.plan,
        output,
        level=cast("Level", level),
        direction=cast("Direction", direction),
        title=network.title,
        unrolled=unrolled,
    )
    note(f"Wrote {output}.")


def adjust(
    spec: Spec,
    parameters: Annotated[int, typer.Option("--parameters", "-p", min=1, metavar="N", help="The number to reach.")],
    changes: Changes = None,
    edges: Edges = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Spec to write.", show_default="stdout")
    ] = None,
) -> None:
    """Widen a baseline to a number of parameters.

    The hidden channels of residual blocks are widened until the network is as large as another one. What comes out is
    a short spec that extends the given one.
    """
    from hiresnet_graph.matching import adjust as widen

    name, variant = split_variant(spec)
    if variant is not None:
        raise UsageError(f"a spec cannot extend a variant. Say what '{variant}' changes, like '--edges none'.")
    found = widen(architecture(spec, changes, edges=edges), parameters)
    base = os.path.relpath(name, output.parent if output else ".") if Path(name).exists() else name
    extension = found.architecture.as_extension(output.stem if output else f"{found.architecture.name}_adjusted", base)
    if found.architecture.variants:
        extension["variants"] = None  # they would put edges on top of the widths
    text = f"# {found.parameters:,} parameters.\n" + to_yaml(extension)
    if output is None:
        write(text.rstrip("\n"))
    else:
        output.write_text(_SCHEMA_LINE + text, encoding="utf-8")
    note(f"{f'Wrote {output}: ' if output else ''}{found.parameters:,} parameters, {abs(found.off):,} off the target.")
