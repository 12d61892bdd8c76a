"""`hrg init`: a spec to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiresnet_graph.cli.commands.schema import SCHEMA_FILE, schema_line, write_schema
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import check_spec_file
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.files import write_atomic
from hiresnet_graph.formats import format_command
from hiresnet_graph.shipped import spec_names, spec_path

_STARTER = Path(__file__).resolve().parents[2] / "starter.yaml"
# Short names for the shipped spec to begin with in a family.
_FAMILIES = {"hiresnet": "hiresnet18", "resnet": "resnet20", "densenet": "densenet40", "vgg": "vgg16", "ror": "ror3_56"}


def init(
    template: Annotated[
        str,
        typer.Option(
            "--template", "-t", metavar="T", help="'starter', 'hiresnet', 'resnet', 'unet', or any shipped spec."
        ),
    ] = "starter",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Output file; '-' for stdout.")] = Path(
        "network.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write a spec to start from.

    The JSON Schema that editors use to check and complete it is written beside it, unless it exists already.
    """
    source = _template(template)
    text = source.read_text(encoding="utf-8").replace(" FILE", f" {'FILE' if str(output) == '-' else output}")
    if str(output) == "-":
        write((schema_line() + text).rstrip("\n"))
        return
    output = check_spec_file(output, [source], force=force, marks=())  # what it wrote before may have been edited
    write_atomic(output, (schema_line() + text).encode(), UsageError)
    schema_path = output.with_name(SCHEMA_FILE)
    beside = ""
    if force or not schema_path.exists():
        write_schema(schema_path)
        beside = f", and {schema_path} for your editor"
    write_message(f"Wrote {output}{beside}. Next:")
    render = format_command("render", output, "-o", output.with_suffix(".svg"))
    write_message(f"  {format_command('show', output)}\n  {render}")


def _template(name: str) -> Path:
    """The file of a template."""
    path = _STARTER if name == "starter" else spec_path(_FAMILIES.get(name, name))
    if path is None:
        hint = did_you_mean(name, ["starter", *_FAMILIES, *spec_names()])
        rest = hint or f"Templates: {', '.join(['starter', *_FAMILIES])}, and the specs of 'hrg list specs'."
        raise UsageError(f"there is no template '{name}'. {rest}")
    return path
