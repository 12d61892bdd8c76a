"""The command `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.progress import progress
from hiresnet_graph.cli.recipe import Data, Device, Download, Epochs, Threads, recipe_fields, source, this_command
from hiresnet_graph.cli.screen import counted, exact, note

if TYPE_CHECKING:
    from hiresnet_graph.sweep.search import Trial


def search(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file with 'search'.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the search.", show_default=False)
    ],
    runs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Budget, instead of the file's.", show_default=False)
    ] = None,
    data: Data = None,
    download: Download = False,
    epochs: Epochs = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs at one time.", show_default="all GPUs, or all cores")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    executor: Annotated[str, typer.Option(metavar="E", help="local: processes of this machine; or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="A", help="Of a Ray cluster, like 'auto'.", show_default=False)
    ] = None,
) -> None:
    """Search edge sets and params for accurate, small networks.

    A sampler proposes networks, a batch at a time, and learns from what they reach in validation. The same command goes
    on after an interruption, and with more --runs.
    """
    from hiresnet_graph.sweep.study import read_study

    what = read_study(study)
    said: dict[str, object] = {}
    if runs is not None:
        said["search"] = {"runs": runs}
    if data is not None or download:
        said["data"] = source(data, download).as_data()
    if fields := recipe_fields(epochs):
        said["recipe"] = fields
    what = what.patched(said, this_command()) if said else what

    from hiresnet_graph.sweep.search import Space
    from hiresnet_graph.sweep.search import search as search_all

    budget = Space(what).search
    note(f"{what.name or study.stem}: {budget.sampler}, up to {counted(budget.runs, 'run')}.")
    try:
        with progress("run", budget.runs) as meter:

            def told(trial: Trial, done: int) -> None:
                network = ", ".join([trial.label, *(f"{key}={_told(value)}" for key, value in trial.setting.items())])
                reached = f"validation {100 * trial.values[0]:.2f} %" if trial.values else trial.outcome
                meter(done, budget.runs, f"{network}: {reached}, {exact(trial.parameters)} parameters")

            search_all(
                what,
                out=output,
                executor=executor,
                jobs=jobs,
                device=device or "auto",
                threads=threads or 1,
                address=address,
                progress=told,
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{str(error) or 'Interrupted.'} Go on with: {this_command()}") from None
    note(f"The search has ended, in {output}. The best networks: hrg report {output}")


def _told(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
