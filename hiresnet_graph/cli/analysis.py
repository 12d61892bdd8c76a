"""Options that the commands of `hrg analyze` share, and the output of an analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Reinit, Weights, architecture, check_reinit
from hiresnet_graph.cli.commands.report import Format, write_report_table
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_figure_file
from hiresnet_graph.cli.training import Device
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import write_atomic

if TYPE_CHECKING:
    from hiresnet_graph.analysis.sources import AnalysisSource
    from hiresnet_graph.report.analyses import Analysis


class DataPart(StrEnum):
    """Parts of a data set."""

    TEST = "test"
    VALIDATION = "validation"


SourcePath = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="Folder of a run or a study; with --weights, a spec: SPEC or SPEC@VARIANT."),
]
FolderPath = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run or a study.")]
WeightsData = Annotated[
    str | None,
    typer.Option("--data", metavar="D", help="Data set for --weights (default: digits).", show_default=False),
]
PartOption = Annotated[DataPart, typer.Option("--part", help="Part of the data set.")]
FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="Output format: for people, a paper, or programs.")
]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Also draw a figure (.svg, .pdf, .png).", show_default=False),
]


@dataclass(frozen=True)
class Output:
    """How an analysis is printed, from the options of a command."""

    source: Path
    format: Format
    json: bool
    plot: Path | None
    force: bool

    def run(
        self,
        make: Callable[[AnalysisSource], Analysis],
        *,
        changes: list[str] | None = None,
        weights: Path | None = None,
        reinit: bool = False,
        data: str | None = None,
        device: str | None = None,
    ) -> None:
        """Analyse the networks of the source, print the result, save it with a study, and draw its figure."""
        reads = [self.source, *([weights] if weights is not None else [])]
        figure = None if self.plot is None else check_figure_file(self.plot, reads, force=self.force, option="--plot")
        check_reinit(weights, reinit)
        for option, given in (("--data", data), (" ".join(changes or ()), changes)):
            if given and weights is None and self.source.is_dir():
                raise UsageError(f"{option}: '{self.source}' has its own network and data. Use it with '--weights'.")

        from hiresnet_graph.analysis.sources import find_networks, network_with_weights
        from hiresnet_graph.report.analyses import FORMATS, analysis_table, save_analysis
        from hiresnet_graph.report.analysis_figures import analysis_figure
        from hiresnet_graph.report.figures import figure_bytes

        target_device = device or "auto"
        if weights is None:
            source = find_networks(self.source, device=target_device)
        else:
            source = network_with_weights(
                architecture(str(self.source), changes),
                weights,
                reinit=reinit,
                data=data or "digits",
                device=target_device,
                message=write_message,
            )
        if source.absent:
            write_message(f"Left out, since their weights are not in the folder: {', '.join(source.absent)}.")
        found = make(source)
        format = Format.JSON if self.json else self.format
        if format is Format.TABLE:
            write_report_table(analysis_table(found))
        else:
            write(FORMATS[format.value](found).rstrip("\n"))
        if source.study is not None:
            write_message(f"Saved {save_analysis(found, source.study)} for 'hrg report --html'.")
        if figure is not None:
            target, suffix = figure
            write_atomic(target, figure_bytes(analysis_figure(found), suffix), UsageError)
            write_message(f"Wrote {target}.")


def plain_command(question: str, help: str) -> Callable[..., None]:
    """A command without options of its own.

    Args:
        question: Name of the function of `hiresnet_graph.report.questions` that it calls.
        help: Help text: a line, an empty line, and a paragraph.
    """

    def command(
        source: SourcePath,
        changes: Changes = None,
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
        from hiresnet_graph.report import questions

        make = getattr(questions, question)
        output = Output(source, format, json, plot, force)
        output.run(
            lambda found: make(found, part=part.value),
            changes=changes,
            weights=weights,
            reinit=reinit,
            data=data,
            device=device,
        )

    command.__doc__ = help
    return command
