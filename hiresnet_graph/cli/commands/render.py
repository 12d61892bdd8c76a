"""`hrg render`: the diagram of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Output, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file

if TYPE_CHECKING:
    from hiresnet_graph.render import Direction, Level


def render(
    spec: Spec,
    output: Output,
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="Level of detail: one box per stage (stages), block or op.")
    ] = "blocks",
    direction: Annotated[str, typer.Option(metavar="DIR", help="LR for left to right, TB for top to bottom.")] = "LR",
    unrolled: Annotated[
        bool, typer.Option("--unrolled", help="Draw each time step of a recurrent network instead of its loops.")
    ] = False,
    force: Force = False,
) -> None:
    """Draw the diagram as SVG, PDF, PNG or DOT.

    The suffix of the file selects the format: .svg, .pdf, .png or .dot.
    """
    network = architecture(spec, changes, variant, edges)
    target = check_output_file(output, network.files, force=force)
    network.render(target, level=cast("Level", level), direction=cast("Direction", direction), unrolled=unrolled)
    write_message(f"Wrote {output}.")
