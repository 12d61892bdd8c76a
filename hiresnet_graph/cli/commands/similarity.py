"""`hrg analyze similarity`: linear CKA between the levels of a trained network, and between its runs."""

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


def similarity(
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
    """Measure how similar the levels of a trained network are.

    Prints linear centred kernel alignment (CKA) for each pair of levels (nodes, and the last blocks of stages): 1 for
    the same representation up to rotation and scale. For a study, the mean (standard deviation) over seeds of each
    network, and the similarity between its runs with different seeds. A network in time is compared by its last values.
    """
    from hiresnet_graph.report.questions import make_similarities

    output = Output(source, format, json, plot, force)
    output.run(lambda found: make_similarities(found, part=part.value), spec=spec, data=data, device=device)
