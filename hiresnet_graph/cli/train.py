"""The command `train`.

torch is imported inside it, once its arguments are known to be right.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Changes, Edges, Variant, architecture
from hiresnet_graph.cli.progress import Meter, duration, progress
from hiresnet_graph.cli.recipe import (
    BatchSize,
    Data,
    Device,
    Download,
    Epochs,
    Fields,
    LearningRate,
    Threads,
    make_recipe,
    source,
)
from hiresnet_graph.cli.screen import note, write
from hiresnet_graph.errors import UsageError

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture
    from hiresnet_graph.train import Epoch, Recipe, RunRecord


def train(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="SPEC",
            help="A spec file or the name of a shipped spec; SPEC@VARIANT chooses a variant.",
            show_default=False,
        ),
    ] = None,
    changes: Changes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run in a folder, from that alone.", show_default=False),
    ] = None,
    variant: Variant = None,
    edges: Edges = None,
    data: Data = None,
    download: Download = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Of the weights, the order of the images, their augmentation, and dropout (default: 0).",
            show_default=False,
        ),
    ] = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    fields: Fields = None,
    device: Device = None,
    threads: Threads = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, in place of the run in the folder.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard, too.")] = False,
) -> None:
    """Train one network.

    Its record, its spec, its curves and its weights come into the folder. The same command goes on with a run that was
    stopped. Under torchrun, several processes train the network together.
    """
    if resume is not None:
        given = [spec, changes, output, variant, edges, data, download, seed, epochs, lr, batch_size, fields, fresh]
        if any(value is not None and value is not False for value in given):
            raise UsageError(
                f"--resume {resume}: the folder says all about its run. Leave everything else out but --device, "
                "--threads and --tensorboard."
            )
        _go_on(resume, device, threads, tensorboard)
        return
    if spec is None or output is None:
        missing = "a SPEC" if spec is None else "a folder, --output DIR,"
        raise UsageError(f"{missing} is wanted: 'hrg train SPEC --output DIR', or 'hrg train --resume DIR'.")
    network = architecture(spec, changes, variant, edges)
    recipe, images = make_recipe(epochs, lr, batch_size, fields), source(data, download)
    talk = _Talk(recipe)
    talk.note(
        f"{network.plan.name}: {network.cost().parameters:,} parameters, data {data or 'digits'}, seed {seed or 0}."
    )
    for line in _remarks(network, recipe):
        talk.note(line)
    from hiresnet_graph.train import train as train_once

    with talk.until_saved(output):
        record = train_once(
            network,
            out=output,
            data=images,
            recipe=recipe,
            seed=seed or 0,
            progress=talk.epoch,
            watch=talk.step,
            device=device or "auto",
            threads=threads or 1,
            resume=not fresh,
            tensorboard=tensorboard,
        )
    talk.end(output, record)


def _remarks(network: Architecture, recipe: Recipe) -> Iterator[str]:
    """What is allowed and may not be meant."""
    from hiresnet_graph.train.steps import readouts

    for problem in network.warnings:
        yield f"Warning: {problem}"
    if recipe.loss_steps != "mean" and readouts(network.plan) == 1:
        yield "Warning: 'loss_steps' makes no difference: one step is read out. 'time.readout=all' reads out more."
    if recipe.checkpoint_steps is not None and network.plan.folded is None:
        yield f"Warning: 'checkpoint_steps' makes no difference: '{network.name}' does not run in time."


def _go_on(folder: Path, device: str | None, threads: int | None, tensorboard: bool) -> None:
    from hiresnet_graph.train.single import go_on, read_request

    network, request = read_request(folder)
    talk = _Talk(request.recipe)
    talk.note(f"{network.plan.name}: going on in {folder}.")
    with talk.until_saved(folder):
        record = go_on(
            folder, progress=talk.epoch, watch=talk.step, device=device, threads=threads, tensorboard=tensorboard
        )
    talk.end(folder, record)


class _Talk:
    """What is said while a network is trained. Of several processes, the first one talks."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._silent = os.environ.get("RANK", "0") != "0"
        self._meter: Meter | None = None
        self._first, self._first_at = (0, 0), 0.0
        self._times: list[float] = []
        self._rate, self._last, self._brief = "", "", ""

    def note(self, text: str) -> None:
        """Say something on stderr."""
        if not self._silent:
            note(text)

    @contextmanager
    def until_saved(self, folder: Path) -> Iterator[None]:
        """Show progress; an interruption says how to go on."""
        try:
            with contextlib.nullcontext() if self._silent else progress("epoch", self._recipe.epochs) as self._meter:
                yield
        except KeyboardInterrupt:
            if self._silent:
                raise typer.Exit(failure.INTERRUPTED) from None
            command = shlex.join(["hrg", "train", "--resume", str(folder)])
            kept = f"a checkpoint is in {folder}. Go on with: {command}"
            there = (folder / "checkpoints").is_dir()
            raise KeyboardInterrupt(f"Interrupted: {kept if there else 'nothing was trained yet.'}") from None

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Called after each step."""
        now = time.monotonic()
        if self._first[0] != epoch:  # its time says little: it waits for data and compilers
            self._first, self._first_at = (epoch, step), now
        elif now > self._first_at:
            rate = (step - self._first[1]) * self._recipe.batch_size / (now - self._first_at)
            self._rate = f", {rate:,.0f} img/s"
        if self._meter is not None:
            self._meter.between(epoch - 1 + step / steps, self._last + self._rate, self._brief + self._rate)

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch."""
        if self._meter is None:
            return
        self._last = (
            f"loss {epoch.train_loss:.3f}, train {100 * epoch.train_accuracy:.2f} %, "
            f"validation {100 * epoch.validation_accuracy:.2f} %"
        )
        self._brief = f"val {100 * epoch.validation_accuracy:.2f} %"
        left = self._recipe.epochs - epoch.epoch
        self._times.append(epoch.time_s)
        eta = f", ETA {duration(left * sum(self._times) / len(self._times))}" if left else ""
        self._meter(epoch.epoch, self._recipe.epochs, self._last + self._rate + eta, self._brief + eta)

    def end(self, folder: Path, record: RunRecord) -> None:
        """Say what came out."""
        if not self._silent:
            write(f"{folder}: {outcome(record)}")
            if self._first == (0, 0) and not self._times:
                note("It was finished already. To train it anew: --fresh.")
        if record.outcome != "complete":
            raise typer.Exit(failure.FINDINGS)


def outcome(record: RunRecord) -> str:
    """What came out of a run, as a sentence without its full stop."""
    if record.test_accuracy is None or record.last_test_accuracy is None:
        return f"diverged at step {record.diverged_at}"
    return (
        f"test accuracy {100 * record.test_accuracy:.2f} % at the epoch of best validation ({record.best_epoch}), "
        f"{100 * record.last_test_accuracy:.2f} % at the last"
    )
