"""`hrg analyze attribution`: the logit of the right class as a sum over edges."""

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


def attribution(
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
    """Write the logit of the right class as a sum over edges.

    Prints what each value that meets at the last merge adds to the logit of the right class, and what remains without
    them; means over images. The sum is exact where the network is linear after that merge, as before global average
    pooling and a linear layer. Otherwise the parts are integrated gradients, and the error of their sum is printed.
    """
    from hiresnet_graph.report.questions import make_attributions

    output = Output(source, format, json, plot, force)
    output.run(lambda found: make_attributions(found, part=part.value), spec=spec, data=data, device=device)
