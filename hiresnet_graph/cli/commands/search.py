"""The command `search`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Prune, Reinit, Weights
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.dry_run import write_remarks
from hiresnet_graph.cli.output import check_study_folder
from hiresnet_graph.cli.progress import progress
from hiresnet_graph.cli.study_arguments import starting_weights
from hiresnet_graph.cli.training import (
    Address,
    Data,
    Device,
    Download,
    Epochs,
    Executor,
    Jobs,
    RecipeFields,
    Slurm,
    Threads,
    command_line,
    make_dataset,
    recipe_fields,
    resume_hint,
    with_download,
)
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import is_file
from hiresnet_graph.formats import format_command, format_count, format_value
from hiresnet_graph.shipped import spec_path

if TYPE_CHECKING:
    from hiresnet_graph.sweep.search_prepare import PreparedSearch
    from hiresnet_graph.sweep.search_trials import Trial


_SHOWN = 6
"""Impossible edge sets that are named."""


def search(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file with 'search'.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the search.", show_default=False)
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Budget: overrides that of the file.", show_default=False)
    ] = None,
    prune: Prune = None,
    weights: Weights = None,
    reinit: Reinit = False,
    data: Data = None,
    download: Download = False,
    epochs: Epochs = None,
    fields: RecipeFields = None,
    jobs: Jobs = None,
    device: Device = None,
    threads: Threads = None,
    executor: Executor = "local",
    address: Address = None,
    slurm: Slurm = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Describe and check the search. Trains and writes nothing.")
    ] = False,
) -> None:
    """Search edge sets and params for accurate, small networks.

    A sampler proposes networks in batches and learns from their validation accuracy. The same command resumes an
    interrupted search, or extends it with more --runs.
    """
    if output is None and not dry_run:
        raise UsageError("the folder is missing: '--output DIR'. '--dry-run' needs none.")
    from hiresnet_graph.spec.reader import is_study
    from hiresnet_graph.sweep.study import read_study

    if (is_file(study) or spec_path(str(study)) is not None) and not is_study(str(study)):
        raise UsageError(
            f"'{study}' is a spec, and a search requires a study: a file with 'network: {study}' and 'search: {{space: "
            "{edges: full}, runs: 20}'."
        )
    requested = read_study(study)
    given: dict[str, object] = starting_weights(weights, reinit)
    if runs is not None:
        given["search"] = {"runs": runs}
    if prune is not None:
        given["prune"] = prune
    if data is not None:
        given["data"] = make_dataset(data).as_data()
    if recipe := recipe_fields(epochs, fields=fields):
        given["recipe"] = recipe
    requested = requested.patched(given, command_line()) if given else requested
    requested = with_download(requested) if download else requested

    from hiresnet_graph.sweep.options import ExecutionOptions
    from hiresnet_graph.sweep.search import search as search_all
    from hiresnet_graph.sweep.search_prepare import prepare_search
    from hiresnet_graph.sweep.search_trials import read_trials
    from hiresnet_graph.train.environment import speed_remarks

    if output is not None:
        check_study_folder(output, requested)
    options = ExecutionOptions(executor, jobs, device or "auto", threads, address=address, slurm=slurm)
    if dry_run:
        _describe(prepare_search(requested, output, options))
        return
    assert output is not None
    budget = requested.search.runs if requested.search is not None else 0  # a study without one is refused

    def started(prepared: PreparedSearch) -> None:
        space = prepared.space
        write_message(f"{requested.name or study.stem}: {space.search.sampler}, up to {format_count(budget, 'run')}.")
        if prepared.message:
            write_message(prepared.message)
        slow = speed_remarks(device or "auto", [requested.recipe.precision]) if executor == "local" else ()
        write_remarks((*space.remarks, *slow))

    with resume_hint(), progress("run", budget) as meter:

        def show(trial: Trial, done: int) -> None:
            setting = (f"{key}={format_value(value, 3)}" for key, value in trial.setting.items())
            result = f"validation {100 * trial.values[0]:.2f} %" if trial.values else trial.outcome
            network = ", ".join([trial.label, *setting])
            meter(done, budget, f"{network}: {result}, {trial.parameters:,} parameters")

        search_all(
            requested,
            out=output,
            executor=options.executor,
            jobs=options.jobs,
            device=options.device,
            threads=options.threads,
            address=options.address,
            slurm=options.slurm,
            started=started,
            progress=show,
        )
    _write_counts(read_trials(output))
    write_message(f"The search has ended, in {output}. The best networks: {format_command('report', output)}")


def _write_counts(trials: Sequence[Trial]) -> None:
    """Print the number of proposals, and of those that were not trained; and the edge sets that are no networks."""
    counts: Counter[str] = Counter(trial.outcome for trial in trials)
    reasons = {"too-large": "too large", "known": "known already", "no-network": "impossible"}
    left_out = [f"{counts[outcome]} {reason}" for outcome, reason in reasons.items() if counts[outcome]]
    rest = f", of which {' and '.join(left_out)}, so not trained." if left_out else ", all of them trained."
    write_message(f"{format_count(counts.total(), 'proposal')}{rest}")
    impossible = list(dict.fromkeys(trial.label for trial in trials if trial.outcome == "no-network"))
    if impossible:
        more = f" and {len(impossible) - _SHOWN} more" if len(impossible) > _SHOWN else ""
        write_message(f"Impossible edge sets: {'; '.join(impossible[:_SHOWN])}{more}.")


def _describe(prepared: PreparedSearch) -> None:
    """Print the size of a search space, the budget, the range of parameters, and what is done already.

    Exits with the code of wrong usage if the search does not fit its folder.
    """
    space = prepared.space
    budget, seeds = space.search, len(space.study.seed_pairs)
    edges = [f"{format_count(2 ** len(space.edges), 'edge set')}"] * bool(space.edges)
    others = [f"{key} {_range(values)}" for key, values in budget.space.items() if not isinstance(values, str)]
    size = "endless" if math.isinf(space.size) else format_count(int(space.size), "choice")
    write(f"Space: {size}: {' x '.join([*edges, *others])}.")
    each = f", {seeds} for each network" if seeds > 1 else ""
    write(f"Budget: {format_count(budget.runs, 'run')}{each}; {budget.sampler} proposes {budget.batch} at a time.")
    write_remarks(space.remarks)
    limit = "".join(f"; larger than {most:,} {name} is not trained" for name, most in budget.limit if most)
    smallest, largest = space.extreme(min).parameters, space.extreme(max).parameters
    write(f"Parameters: {smallest:,} (smallest) to {largest:,} (largest){limit}.")
    if prepared.refusal:
        write_message(f"Without '--dry-run' this is refused: {prepared.refusal}")
        raise typer.Exit(failure.USAGE)
    if prepared.message:
        write_message(prepared.message)
    workers = prepared.options.describe_workers(prepared.execution.workers)
    write_message(f"{format_count(prepared.trained, 'run')} done. {workers}. Nothing was trained.")


def _range(values: object) -> str:
    from hiresnet_graph.sweep.search_settings import ValueRange

    if isinstance(values, ValueRange):
        return f"from {format_value(values.low, 3)} to {format_value(values.high, 3)}"
    assert isinstance(values, tuple)
    return f"({', '.join(format_value(value, 3) for value in values)})"
