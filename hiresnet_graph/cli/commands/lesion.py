"""`hrg analyze lesion`: the accuracy of a trained network without some of its edges."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hiresnet_graph.cli.analysis import (
    DataPart,
    FormatOption,
    Json,
    Output,
    PartOption,
    PlotFile,
    SourcePath,
    WeightsData,
)
from hiresnet_graph.cli.arguments import Changes, Reinit, Weights
from hiresnet_graph.cli.commands.report import Format
from hiresnet_graph.cli.output import Force
from hiresnet_graph.cli.training import Device


class With(StrEnum):
    """Values of `--with`."""

    ZERO = "zero"
    MEAN = "mean"
    RESAMPLE = "resample"


def lesion(
    source: SourcePath,
    changes: Changes = None,
    edges: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Edges to replace together, like 'stem>stage3' or 'in'.", show_default="each"
        ),
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Replace two edges at a time.")] = False,
    shortcuts: Annotated[
        bool, typer.Option("--shortcuts", help="Also replace the shortcuts of blocks, also of those in 'blocks'.")
    ] = False,
    replacement: Annotated[
        With,
        typer.Option("--with", help="What replaces an edge: zeros, its mean over images, or that of another image."),
    ] = With.ZERO,
    random: Annotated[
        int, typer.Option(min=0, metavar="N", help="Compare with N random sets of as many edges.", show_default="none")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of these sets and of other images.")] = 0,
    weights: Weights = None,
    reinit: Reinit = False,
    data: WeightsData = None,
    part: PartOption = DataPart.TEST,
    format: FormatOption = Format.TABLE,
    json: Json = False,
    plot: PlotFile = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Measure the accuracy of a trained network without edges.

    The network is not trained again. By default, each edge beside the flow is replaced by zeros, one at a time. In a
    network in time, an edge is replaced at all steps. For a study, prints the mean (standard deviation) over seeds of
    each network that has such edges.
    """
    from hiresnet_graph.report.questions import make_lesions

    Output(source, format, json, plot, force).run(
        lambda found: make_lesions(
            found,
            edges=edges,
            pairs=pairs,
            shortcuts=shortcuts,
            replacement=replacement.value,
            draws=random,
            seed=seed,
            part=part.value,
        ),
        changes=changes,
        weights=weights,
        reinit=reinit,
        data=data,
        device=device,
    )
