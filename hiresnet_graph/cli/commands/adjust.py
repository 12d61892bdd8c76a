"""`hrg adjust`: a baseline with a given number of parameters."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, OutputOrStdout, Spec, architecture
from hiresnet_graph.cli.commands.schema import schema_line
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_spec_file, seal
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import is_file, write_atomic

# In the first lines of a spec that was written here.
_ADJUSTED = b" parameters.\n"


def adjust(
    spec: Spec,
    parameters: Annotated[
        int, typer.Option("--parameters", "-p", min=1, metavar="N", help="Target number of parameters.")
    ],
    changes: Changes = None,
    edges: Edges = None,
    output: OutputOrStdout = None,
    force: Force = False,
) -> None:
    """Widen a baseline to a given number of parameters.

    The hidden channels of residual blocks, and of the linear maps of transformers, are widened until the network is as
    large as another one. The result is a short spec that extends the given one, with the changes of its variant.
    """
    from hiresnet_graph.architecture import split_variant
    from hiresnet_graph.matching import adjust as widen
    from hiresnet_graph.spec.writer import to_yaml

    name, _ = split_variant(spec)
    network = architecture(spec, changes, edges=edges)
    if output is not None:
        output = check_spec_file(output, network.files, force=force, marks=(_ADJUSTED, b"extends: "))
    found = widen(network, parameters)
    base = os.path.relpath(name, output.parent if output else ".") if is_file(name) else name
    extension = found.architecture.as_extension(output.stem if output else f"{found.architecture.name}_adjusted", base)
    if found.architecture.variants:
        extension["variants"] = None  # their edges would be added to the widened network
    text = f"# {found.parameters:,}{_ADJUSTED.decode()}" + to_yaml(extension)
    if output is None:
        write(text.rstrip("\n"))
    else:
        write_atomic(output, (schema_line() + text).encode(), UsageError)
        seal(output)
    wrote = f"Wrote {output}: " if output else ""
    write_message(f"{wrote}{found.parameters:,} parameters, {abs(found.off):,} off the target.")
