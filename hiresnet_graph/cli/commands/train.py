"""`hrg train`: train one network.

torch is imported inside the command, once its arguments are known to be valid.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import (
    Changes,
    Edges,
    Reinit,
    Variant,
    Weights,
    architecture,
    check_reinit,
    shipped_specs,
)
from hiresnet_graph.cli.console import write, write_message, write_table
from hiresnet_graph.cli.output import check_output_folder
from hiresnet_graph.cli.progress import Meter, progress
from hiresnet_graph.cli.training import (
    BatchSize,
    Data,
    Device,
    Download,
    Epochs,
    LearningRate,
    RecipeFields,
    Threads,
    make_dataset,
    recipe_fields,
)
from hiresnet_graph.errors import MissingDataError, UsageError
from hiresnet_graph.formats import Column, format_command, format_count, format_duration, format_value, number_column
from hiresnet_graph.seeding import MAX_SEED

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train import Epoch, Recipe, RunRecord
    from hiresnet_graph.train.record import Cursor

OptionalSpec = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        help="A spec file or the name of a shipped spec; SPEC@VARIANT selects a variant.",
        show_default=False,
        autocompletion=shipped_specs,
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.", show_default=False)
]
Resume = Annotated[Path | None, typer.Option(metavar="DIR", help="Resume the run in this folder.", show_default=False)]
TrainingSeed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_SEED,
        metavar="N",
        help="Random seed of weights, image order, augmentation and dropout (default: 0).",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything, and list the parameters with their learning rate and weight decay; train nothing.",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over, replacing the run in the folder.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard.")]


def train(
    spec: OptionalSpec = None,
    changes: Changes = None,
    output: Folder = None,
    resume: Resume = None,
    variant: Variant = None,
    edges: Edges = None,
    data: Data = None,
    download: Download = False,
    seed: TrainingSeed = None,
    weights: Weights = None,
    reinit: Reinit = False,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    fields: RecipeFields = None,
    device: Device = None,
    threads: Threads = None,
    fresh: Fresh = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
) -> None:
    """Train one network.

    The record, the spec, the learning curves and the weights are written to the folder. The same command resumes an
    interrupted run. Under torchrun, several processes train the network together.
    """
    if resume is not None:
        given = [spec, changes, output, variant, edges, data, download, seed, weights, reinit, epochs, lr, batch_size]
        _check_resume(resume, [*given, fields, fresh, dry_run])
        _resume(resume, device, threads, tensorboard)
        return
    if spec is None or (output is None and not dry_run):
        missing = "a SPEC" if spec is None else "a folder, --output DIR,"
        raise UsageError(f"{missing} is required: 'hrg train SPEC --output DIR', or 'hrg train --resume DIR'.")
    from hiresnet_graph.train import make_recipe

    check_reinit(weights, reinit)
    network = architecture(spec, changes, variant, edges)
    recipe = make_recipe(recipe_fields(epochs, lr, batch_size, fields))
    if output is not None:
        _check_reads(output, network, weights)
    if dry_run or output is None:
        _dry_run(
            network,
            recipe,
            out=output,
            data=make_dataset(data),
            seed=seed or 0,
            weights=weights,
            reinit=reinit,
            device=device or "auto",
            resume=not fresh,
        )
        return
    reporter = _TrainReporter(recipe, device or "auto")
    dataset = make_dataset(data, download)
    parameters = network.cost().parameters
    reporter.message(f"{network.plan.name}: {parameters:,} parameters, data {data or 'digits'}, seed {seed or 0}.")
    for warning in _warnings(network, recipe):
        reporter.message(warning)
    from hiresnet_graph.train import train as train_run

    with reporter.running(output):
        record = train_run(
            network,
            out=output,
            data=dataset,
            recipe=recipe,
            seed=seed or 0,
            weights=weights,
            reinit=reinit,
            on_weights=reporter.message,
            on_data=reporter.data,
            on_resume=reporter.resume,
            on_epoch=reporter.epoch,
            on_step=reporter.step,
            device=device or "auto",
            threads=threads or 1,
            resume=not fresh,
            tensorboard=tensorboard,
        )
    reporter.end(output, record)


def _check_resume(folder: Path, given: Sequence[object]) -> None:
    if any(value is not None and value is not False for value in given):
        raise UsageError(
            f"--resume {folder}: the folder determines its run. Omit everything else but --device, --threads and "
            "--tensorboard."
        )


def _check_reads(output: Path, network: Architecture, weights: Path | None) -> None:
    """Check that the run would replace neither the specs nor the weights that it reads."""
    from hiresnet_graph.train.lock import LOCK
    from hiresnet_graph.train.record import RUN_FILES, weights_file

    reads = [*network.files, *([] if weights is None else [weights_file(weights)])]
    check_output_folder(output, (*RUN_FILES, LOCK), reads)


def _dry_run(network: Architecture, recipe: Recipe, **requested: Any) -> None:
    """Check what training would check, with the arguments of `check_run`, and print how each parameter is trained."""
    from hiresnet_graph.train.single import check_run

    for warning in _warnings(network, recipe):
        write_message(warning)
    try:
        if check_run(network, recipe=recipe, on_weights=write_message, **requested) is not None:
            write_message("This run is finished already.")
    except MissingDataError as error:
        write_message(f"The data are missing, so what depends on them was not checked: {error}")
    _show_parameters(network, recipe)


def _warnings(network: Architecture, recipe: Recipe) -> Iterator[str]:
    """What is allowed but probably unintended."""
    from hiresnet_graph.train.checks import count_readouts

    for problem in network.warnings:
        yield f"Warning: {problem}"
    if recipe.loss_steps != "mean" and count_readouts(network.plan) == 1:
        yield "Warning: 'loss_steps' has no effect: one step is read out. 'time.readout=all' reads out all steps."
    if recipe.checkpoint_steps is not None and network.plan.folded is None:
        yield f"Warning: 'checkpoint_steps' has no effect: '{network.name}' does not run in time."


def _show_parameters(network: Architecture, recipe: Recipe) -> None:
    """Print how each parameter is trained."""
    from hiresnet_graph.train.parameter_rules import lr_factors, undecayed_parameters

    plan = network.plan
    factors, undecayed = lr_factors(recipe, plan), undecayed_parameters(recipe, plan)
    columns = [Column("parameter"), *(number_column(header) for header in ("shape", "learning rate", "weight decay"))]
    rows = []
    for name, tensor in plan.tensors().items():
        if tensor.trainable:
            rate = format_value(recipe.lr * factors[name]) if name in factors else "frozen"
            is_decayed = name in factors and name not in undecayed
            decay = format_value(recipe.weight_decay) if is_decayed and recipe.weight_decay else "-"
            rows.append((name, "x".join(map(str, tensor.shape)), rate, decay))
    write_table(columns, rows)


def _resume(folder: Path, device: str | None, threads: int | None, tensorboard: bool) -> None:
    from hiresnet_graph.train.single import read_request, resume_run

    network, request = read_request(folder)
    reporter = _TrainReporter(request.recipe, device or request.device)
    reporter.message(f"{network.plan.name}: the run in {folder}.")
    with reporter.running(folder):
        record = resume_run(
            folder,
            on_data=reporter.data,
            on_resume=reporter.resume,
            on_epoch=reporter.epoch,
            on_step=reporter.step,
            device=device,
            threads=threads,
            tensorboard=tensorboard,
        )
    reporter.end(folder, record)


class _TrainReporter:
    """Prints the progress and the result of training. Of several processes, the first one prints."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self._recipe, self._device = recipe, device
        self._is_silent = os.environ.get("RANK", "0") != "0"
        self._meter: Meter | None = None
        self._first, self._first_at = (0, 0), 0.0
        self._times: list[float] = []
        self._rate, self._scores, self._short_scores = "", "", ""

    def message(self, text: str) -> None:
        """Print a message to stderr."""
        if not self._is_silent:
            write_message(text)

    def data(self, dataset: Dataset) -> None:
        """Called before training: print what may be unintended in the data and the precision."""
        from hiresnet_graph.train.environment import speed_remarks

        for remark in (*dataset.remarks(), *speed_remarks(self._device, [self._recipe.precision])):
            self.message(remark)

    def resume(self, cursor: Cursor) -> None:
        """Called where a run is resumed: print its progress."""
        self.message(f"The run is resumed: {cursor[0]} of {format_count(self._recipe.epochs, 'epoch')} finished.")

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """Show progress; an interruption says how to resume."""
        try:
            with contextlib.nullcontext() if self._is_silent else progress("epoch", self._recipe.epochs) as self._meter:
                yield
        except KeyboardInterrupt:
            from hiresnet_graph.train.record import stored_cursors

            if self._is_silent:
                raise typer.Exit(failure.INTERRUPTED) from None
            command = format_command("train", "--resume", folder)
            saved = f"a checkpoint is in {folder}. Resume with: {command}"
            raise KeyboardInterrupt(
                f"Interrupted: {saved if stored_cursors(folder) else 'nothing was trained yet.'}"
            ) from None

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Called after each step."""
        now = time.monotonic()
        if self._first[0] != epoch:  # the first step is not timed: it waits for data and compilation
            self._first, self._first_at = (epoch, step), now
        elif now > self._first_at:
            rate = (step - self._first[1]) * self._recipe.batch_size / (now - self._first_at)
            self._rate = f", {rate:,.0f} img/s"
        if self._meter is not None:
            self._meter.between(epoch - 1 + step / steps, self._scores + self._rate, self._short_scores + self._rate)

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""
        if self._meter is None:
            return
        self._scores = (
            f"loss {epoch.train_loss:.3f}, train {100 * epoch.train_accuracy:.2f} %, "
            f"validation {100 * epoch.validation_accuracy:.2f} %"
        )
        self._short_scores = f"val {100 * epoch.validation_accuracy:.2f} %"
        left = self._recipe.epochs - epoch.epoch
        self._times.append(epoch.time_s)
        eta = f", ETA {format_duration(left * sum(self._times) / len(self._times))}" if left else ""
        self._meter(epoch.epoch, self._recipe.epochs, self._scores + self._rate + eta, self._short_scores + eta)

    def end(self, folder: Path, record: RunRecord) -> None:
        """Print the result; a run that diverged ends the command with exit code 1."""
        if not self._is_silent:
            write(f"{folder}: {_describe_result(record)}")
            if self._first == (0, 0) and not self._times:
                write_message("This run was finished already. Use --fresh to train it again.")
        if record.outcome != "complete":
            raise typer.Exit(failure.FINDINGS)


def _describe_result(record: RunRecord) -> str:
    if record.test_accuracy is None or record.last_test_accuracy is None:
        return f"diverged at step {record.diverged_at}"
    return (
        f"test accuracy {100 * record.test_accuracy:.2f} % at the epoch of best validation ({record.best_epoch}), "
        f"{100 * record.last_test_accuracy:.2f} % at the last"
    )
