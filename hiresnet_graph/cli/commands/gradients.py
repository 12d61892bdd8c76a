"""`hrg analyze gradients`: the norms of gradients along training."""

from __future__ import annotations

from hiresnet_graph.cli.analysis import FolderPath, FormatOption, Json, Output, PlotFile
from hiresnet_graph.cli.commands.report import Format
from hiresnet_graph.cli.output import Force
from hiresnet_graph.errors import UsageError


def gradients(
    source: FolderPath,
    format: FormatOption = Format.TABLE,
    json: Json = False,
    plot: PlotFile = None,
    force: Force = False,
) -> None:
    """Print the norms of gradients by block and edge along training.

    They are recorded in training with '--recipe record_gradients=true': for each epoch the mean over its steps, before
    clipping. The table has the first, the middle and the last epoch, the other formats and the figure have all. For a
    study, prints the mean (standard deviation) over seeds of each network.
    """
    if source.is_file():
        raise UsageError(f"'{source}' is a file, without a record of training. Name the folder of a run or a study.")

    from hiresnet_graph.report.questions import make_gradients

    Output(source, format, json, plot, force).run(make_gradients)
