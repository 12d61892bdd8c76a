"""The command `ablate`.

torch is imported inside it, once its arguments are checked.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli.arguments import Changes, Edges, Group, Prune, Reinit, Weights, shipped_specs_and_studies
from hiresnet_graph.cli.console import write_message
from hiresnet_graph.cli.dry_run import announce_measuring, show_plan, write_remarks
from hiresnet_graph.cli.output import check_study_folder
from hiresnet_graph.cli.progress import RemainingTime, progress
from hiresnet_graph.cli.study_arguments import compared, parsed_seeds, starting_weights, study_of_arguments
from hiresnet_graph.cli.training import (
    Address,
    BatchSize,
    Data,
    Device,
    Download,
    Epochs,
    Executor,
    Jobs,
    LearningRate,
    RecipeFields,
    Slurm,
    Threads,
    make_dataset,
    recipe_fields,
    resume_hint,
)
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_command, format_count, format_duration

if TYPE_CHECKING:
    from hiresnet_graph.cli.progress import Meter
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.sweep.options import ExecutionOptions
    from hiresnet_graph.sweep.plan import StudyPlan
    from hiresnet_graph.sweep.prepare import PreparedStudy
    from hiresnet_graph.sweep.training import Progress

StudyOrSpec = Annotated[
    str,
    typer.Argument(
        metavar="STUDY|SPEC",
        help="A study file or the name of a shipped study; or a spec, with what to compare.",
        autocompletion=shipped_specs_and_studies,
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the study.", show_default=False)
]
Variants = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Variants of the spec, or edge sets, separated by commas.", show_default=False),
]
Subsets = Annotated[
    str | None,
    typer.Option(metavar="RULE", help="Edge subsets by a rule, as 'hrg enumerate' lists them.", show_default=False),
]
Controls = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="adjusted: the baseline with as many parameters as the largest variant; random-edges: as many edges, "
        "drawn at random; with :LABEL for one variant; '' for none.",
        show_default=False,
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V,W",
        help="Cross all variants with values of a field of the recipe, or of a param (repeatable); '' for no grid.",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N", help="Number of random seeds: 0, 1, 2, ...; or a list: 3,7.", show_default="5"),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="The variant that the others are compared with.", show_default="the first"),
]
Stack = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Maximum number of runs that one program computes together, if they differ in edges, seeds or learning "
        "rates only; or auto: the fastest measured on this machine; or off.",
        show_default="off",
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Accept that a label refers to another network, or to other settings, than in the folder.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="List the runs, and estimate the time from a few training steps. Writes nothing."),
]
NoCalibrate = Annotated[
    bool, typer.Option("--no-calibrate", help="With --dry-run: skip the time, and the training steps that measure it.")
]
DryRunJson = Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON to stdout, and nothing else.")]


def ablate(
    study: StudyOrSpec,
    changes: Changes = None,
    output: Output = None,
    variants: Variants = None,
    subsets: Subsets = None,
    group: Group = None,
    prune: Prune = None,
    edges: Edges = None,
    controls: Controls = None,
    grid: Grid = None,
    seeds: Seeds = None,
    baseline: Baseline = None,
    weights: Weights = None,
    reinit: Reinit = False,
    data: Data = None,
    download: Download = False,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    fields: RecipeFields = None,
    jobs: Jobs = None,
    device: Device = None,
    threads: Threads = None,
    stack: Stack = None,
    executor: Executor = "local",
    address: Address = None,
    slurm: Slurm = None,
    accept_changes: AcceptChanges = False,
    dry_run: DryRun = False,
    no_calibrate: NoCalibrate = False,
    json: DryRunJson = False,
) -> None:
    """Train variants or edge subsets, several seeds each.

    Options override the study file. Runs that are finished in the folder are not trained again: the same command
    resumes an interrupted study, and a larger one extends it.
    """
    if (json or no_calibrate) and not dry_run:
        option = "--json" if json else "--no-calibrate"
        raise UsageError(f"'{option}' requires '--dry-run'. Add that, or leave it out.")
    if output is None and not dry_run:
        raise UsageError("the folder is missing: '--output DIR'. '--dry-run' needs none.")
    given = compared(variants, subsets, controls, grid)
    given |= {key: value for key, value in (("group", group), ("prune", prune), ("baseline", baseline)) if value}
    if seeds is not None:
        given["seeds"] = parsed_seeds(seeds)
    given |= starting_weights(weights, reinit)
    if data is not None:
        given["data"] = make_dataset(data).as_data()
    if recipe := recipe_fields(epochs, lr, batch_size, fields):
        given["recipe"] = recipe
    requested = study_of_arguments(study, changes or (), edges or (), given, download)

    from hiresnet_graph.sweep.options import ExecutionOptions

    if output is not None:
        check_study_folder(output, requested)
    options = ExecutionOptions(executor, jobs, device or "auto", threads, stack, address, slurm)
    if dry_run:
        show_plan(requested, output, options, accept_changes=accept_changes, calibrates=not no_calibrate, as_json=json)
    elif output is not None:
        _train(requested, output, options, accept_changes)


def _train(study: Study, output: Path, options: ExecutionOptions, accept_changes: bool) -> None:
    """Train the missing runs, and report the progress."""
    from hiresnet_graph.sweep.ablation import ablate as train_all

    with resume_hint(), progress("run", 0) as meter:
        shown = _Shown(meter)
        results = train_all(
            study,
            out=output,
            **vars(options),
            accept_changes=accept_changes,
            measuring=announce_measuring,
            started=shown.start,
            progress=shown,
        )
    diverged = len({row.key for row in results.rows if row.state == "diverged"})
    kept = f" {shown.kept} of them {'was' if shown.kept == 1 else 'were'} finished before."
    lost = f" {diverged} of them diverged."
    write_message(
        f"All runs are finished, in {output}.{kept if shown.kept else ''}{lost if diverged else ''} "
        f"The table: {format_command('report', output)}"
    )


class _Shown:
    """Shows the start and the progress of a study."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._names: dict[str, str] = {}
        self._clock = RemainingTime({})
        self.kept = 0

    def start(self, prepared: PreparedStudy) -> None:
        """Show what will be trained."""
        plan = prepared.plan
        self._names, self.kept = _run_names(plan), prepared.done
        states = {"finished": prepared.done, "resumed": len(prepared.resumed)}
        parts = [f"{count} {'is' if count == 1 else 'are'} {state}" for state, count in states.items() if count]
        networks = len({network.plan for network in plan.networks})
        write_message(
            f"{plan.name}: {format_count(networks, 'network')} on {plan.data}, {format_count(prepared.total, 'run')}"
            + (f", of which {' and '.join(parts)}." if parts else ".")
        )
        self._meter.start(prepared.done, prepared.total)
        for message in prepared.messages:
            write_message(message)
        write_remarks(prepared.remarks)
        self._clock = RemainingTime(dict(prepared.remaining))

    def __call__(self, step: Progress) -> None:
        """Show what happened to a run."""
        left = self._clock.left_s(step, time.monotonic())
        rest = f", about {format_duration(left)} left" if left > 1 and step.done < step.total else ""
        name = self._names[step.key]
        if step.epoch is not None:
            self._meter.between(step.done, f"{name}: epoch {step.epoch.epoch}/{step.request.recipe.epochs}{rest}")
        elif step.state == "waiting":
            self._meter.between(step.done, f"{name}: paused")
        else:
            self._meter(step.done, step.total, f"{name}: {_outcome(step)}{rest}")


def _run_names(plan: StudyPlan) -> dict[str, str]:
    """The displayed name of each run: label, setting and seeds of its first row."""
    names: dict[str, str] = {}
    for row in plan.rows:
        info = plan.networks[row.network]
        setting = [f"{key.removeprefix('recipe.')}={value}" for key, value in info.setting.items()]
        names.setdefault(row.key, ", ".join([info.label, *setting, f"seed {row.seeds}"]))
    return names


def _outcome(step: Progress) -> str:
    if step.record is None:
        return f"failed: {step.message}"
    if step.record.test_accuracy is None:
        return "diverged"
    return f"{100 * step.record.test_accuracy:.2f} %"
