"""The command `search`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.commands.status import told as shown
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.progress import progress
from hiresnet_graph.cli.training import (
    Address,
    Data,
    Device,
    Download,
    Epochs,
    Executor,
    Jobs,
    RecipeFields,
    Threads,
    command_line,
    make_dataset,
    recipe_fields,
    resume_hint,
    with_download,
)
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_count

if TYPE_CHECKING:
    from hiresnet_graph.sweep.search import Space, Trial


def search(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file with 'search'.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the search.", show_default=False)
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Budget, instead of the file's.", show_default=False)
    ] = None,
    data: Data = None,
    download: Download = False,
    epochs: Epochs = None,
    fields: RecipeFields = None,
    jobs: Jobs = None,
    device: Device = None,
    threads: Threads = None,
    executor: Executor = "local",
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to choose from, and train nothing. Writes nothing.")
    ] = False,
) -> None:
    """Search edge sets and params for accurate, small networks.

    A sampler proposes networks, a batch at a time, and learns from what they reach in validation. The same command goes
    on after an interruption, and with more --runs.
    """
    if output is None and not dry_run:
        raise UsageError("the folder is missing: '--output DIR'. '--dry-run' needs none.")
    from hiresnet_graph.sweep.study import read_study

    what = read_study(study)
    said: dict[str, object] = {}
    if runs is not None:
        said["search"] = {"runs": runs}
    if data is not None:
        said["data"] = make_dataset(data).as_data()
    if recipe := recipe_fields(epochs, fields=fields):
        said["recipe"] = recipe
    what = what.patched(said, command_line()) if said else what
    what = with_download(what) if download else what

    from hiresnet_graph.sweep.search import Space, read_trials
    from hiresnet_graph.sweep.search import search as search_all

    if dry_run:
        _list(Space(what))
        return
    assert output is not None
    budget = what.search.runs if what.search is not None else 0  # a study without one is refused

    def begun(space: Space) -> None:
        write_message(f"{what.name or study.stem}: {space.search.sampler}, up to {format_count(budget, 'run')}.")

    with resume_hint(), progress("run", budget) as meter:

        def told(trial: Trial, done: int) -> None:
            network = ", ".join([trial.label, *(f"{key}={shown(value)}" for key, value in trial.setting.items())])
            reached = f"validation {100 * trial.values[0]:.2f} %" if trial.values else trial.outcome
            meter(done, budget, f"{network}: {reached}, {trial.parameters:,} parameters")

        search_all(
            what,
            out=output,
            executor=executor,
            jobs=jobs,
            device=device or "auto",
            threads=threads or 1,
            address=address,
            begun=begun,
            progress=told,
        )
    counts = Counter(trial.outcome for trial in read_trials(output))
    left_out = [f"{counts['too-large']} too large"] * bool(counts["too-large"])
    left_out += [f"{counts['known']} known already"] * bool(counts["known"])
    left_out += [f"{counts['no-network']} without a way to the output"] * bool(counts["no-network"])
    write_message(
        f"{format_count(counts.total(), 'proposal')}"
        + (f", of which {' and '.join(left_out)}, so not trained." if left_out else ", all of them trained.")
    )
    write_message(f"The search has ended, in {output}. The best networks: hrg report {output}")


def _list(space: Space) -> None:
    """Say what a search would choose from."""
    budget, seeds = space.search, len(space.study.seed_pairs)
    edges = [f"{format_count(2 ** len(space.edges), 'edge set')}"] * bool(space.edges)
    others = [f"{key} {_range(values)}" for key, values in budget.space.items() if key != "edges"]
    size = "endless" if math.isinf(space.size) else format_count(int(space.size), "choice")
    write(f"Space: {size}: {' x '.join([*edges, *others])}.")
    each = f", {seeds} for each network" if seeds > 1 else ""
    write(f"Budget: {format_count(budget.runs, 'run')}{each}; {budget.sampler} proposes {budget.batch} at a time.")
    limit = "".join(f"; larger than {most:,} {name} is not trained" for name, most in budget.limit if most)
    smallest, largest = space.extreme(min).parameters, space.extreme(max).parameters
    write(f"Parameters: {smallest:,} (smallest) to {largest:,} (largest){limit}.")


def _range(values: object) -> str:
    from hiresnet_graph.sweep.space import Interval

    if isinstance(values, Interval):
        return f"from {shown(values.low)} to {shown(values.high)}"
    assert isinstance(values, tuple)
    return f"({', '.join(map(shown, values))})"
