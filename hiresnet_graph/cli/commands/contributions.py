"""`hrg analyze contributions`: what each edge contributes where it arrives."""

from __future__ import annotations

from hiresnet_graph.cli.analysis import (
    DataPart,
    FormatOption,
    Json,
    NetworkSpec,
    Output,
    PartOption,
    PlotFile,
    SourcePath,
    WeightsData,
)
from hiresnet_graph.cli.commands.report import Format
from hiresnet_graph.cli.output import Force
from hiresnet_graph.cli.training import Device


def contributions(
    source: SourcePath,
    spec: NetworkSpec = None,
    data: WeightsData = None,
    part: PartOption = DataPart.TEST,
    format: FormatOption = Format.TABLE,
    json: Json = False,
    plot: PlotFile = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Measure what each edge contributes where it arrives.

    Prints the mean absolute activation of each value that is merged at a node, over all images: that of the block
    itself, of its shortcut, and of each edge after its projection; and its share, which sums to 1 at each merge. For a
    study, the mean (standard deviation) over seeds of each network; a network in time has a merge at each step.
    """

    from hiresnet_graph.report.questions import make_contributions

    output = Output(source, format, json, plot, force)
    output.run(lambda found: make_contributions(found, part=part.value), spec=spec, data=data, device=device)
