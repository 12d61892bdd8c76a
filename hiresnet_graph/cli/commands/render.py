"""`hrg render`: the diagram of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Output, Spec, Variant, architecture
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.output import Force, check_output_file
from hiresnet_graph.cli.study_summary import refuse_changes
from hiresnet_graph.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture
    from hiresnet_graph.plan import Plan
    from hiresnet_graph.render import Direction, Level, ThemeName
    from hiresnet_graph.sweep import Study


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
    diff: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Draw what this network (SPEC or SPEC@VARIANT) adds, removes and changes."),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Draw these variants on one sheet: names with commas, or all."),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Networks side by side on a sheet.", show_default="as on a page"),
    ] = None,
    force: Force = False,
) -> None:
    """Draw the diagram as SVG, PDF, PNG, TikZ, a web page, DOT or Mermaid.

    The suffix of the file selects the format: .svg, .pdf, .png, .tex, .html, .dot or .mmd. With --diff, the picture
    shows two networks in one; with --variants, several side by side. Of a study, it shows all networks side by side.
    """
    from hiresnet_graph.render import RenderOptions, render, render_difference, render_sheet
    from hiresnet_graph.spec.reader import is_study

    if diff is not None and variants is not None:
        raise UsageError("'--diff' and '--variants' are two kinds of pictures. Give one of them.")
    options = RenderOptions(
        cast("Level", level),
        cast("Direction", direction),
        unrolled,
        width,
        font,
        counts,
        footer,
        cast("ThemeName", theme),
    )
    if columns is not None and variants is None and not is_study(spec):
        raise UsageError("'--columns' is for a sheet of several networks. Add '--variants', or give a study.")
    if is_study(spec):
        from hiresnet_graph.sweep.study import read_study

        given = {"changes": changes, "--variant": variant, "--edges": edges, "--diff": diff, "--variants": variants}
        refuse_changes(spec, given)
        study = read_study(spec)
        target = check_output_file(output, study.base().files, force=force)
        render_sheet(_study_networks(study), target, options, title=study.name or study.base().name, columns=columns)
        write_message(f"Wrote {output}.")
        return
    network = architecture(spec, changes, variant, edges)
    target = check_output_file(output, network.files, force=force)
    if diff is not None:
        other = architecture(diff)
        titles = (network.title, other.title) if network.title != other.title else (spec, diff)
        render_difference((titles[0], network.plan), (titles[1], other.plan), target, options)
    elif variants is not None:
        shown = [(name, _variant(network, name).plan) for name in _names(network, variants)]
        render_sheet(shown, target, options, title=network.title, columns=columns)
    else:
        render(network.plan, target, options, title=network.title)
    write_message(f"Wrote {output}.")


def _study_networks(study: Study) -> list[tuple[str, Plan]]:
    """Label and plan of each different network of a study."""
    from hiresnet_graph.sweep.networks import full_label, networks_of

    found: dict[str, tuple[str, Plan]] = {}
    for member in networks_of(study).members:
        label = full_label(member.info.label, member.info.setting)
        found.setdefault(member.info.plan, (label, member.architecture.plan))
    return list(found.values())


def _names(network: Architecture, variants: str) -> list[str]:
    """The variants that an option names."""
    if variants == "all":
        if not network.variants:
            raise UsageError(f"'{network.name}' has no variants, so there is no sheet of them. Omit '--variants'.")
        return list(network.variants)
    return [name.strip() for name in variants.split(",")]


def _variant(network: Architecture, name: str) -> Architecture:
    if name not in network.variants:
        hint = did_you_mean(name, network.variants) or "It has no variants."
        raise UsageError(f"'{network.name}' has no variant '{name}'. {hint}")
    return network.variant(name)
