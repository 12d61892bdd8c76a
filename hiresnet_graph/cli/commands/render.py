"""`hrg render`: the diagram of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Output, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file

if TYPE_CHECKING:
    from hiresnet_graph.render import Direction, Level, ThemeName


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
    width: Annotated[
        str,
        typer.Option(
            metavar="WIDTH", help="Width of the figure: single or double column of a page, or a number of centimetres."
        ),
    ] = "",
    font: Annotated[str, typer.Option(metavar="NAME", help="Font family. Default: Helvetica or Arial.")] = "",
    counts: Annotated[
        bool, typer.Option("--counts/--no-counts", help="Show parameters and multiply-adds.", show_default=False)
    ] = True,
    footer: Annotated[
        bool, typer.Option("--footer/--no-footer", help="Show the caption below the picture.", show_default=False)
    ] = True,
    theme: Annotated[str, typer.Option(metavar="THEME", help="light or dark.")] = "light",
    force: Force = False,
) -> None:
    """Draw the diagram as SVG, PDF, PNG, TikZ, a web page, DOT or Mermaid.

    The suffix of the file selects the format: .svg, .pdf, .png, .tex, .html, .dot or .mmd.
    """
    network = architecture(spec, changes, variant, edges)
    target = check_output_file(output, network.files, force=force)
    network.render(
        target,
        level=cast("Level", level),
        direction=cast("Direction", direction),
        unrolled=unrolled,
        width=width,
        font=font,
        counts=counts,
        footer=footer,
        theme=cast("ThemeName", theme),
    )
    write_message(f"Wrote {output}.")
