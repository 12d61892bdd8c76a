"""Commands that train, and that report what was trained: `train`, `ablate`, `report`.

torch is imported inside the commands, once their arguments are known to be right.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Changes, Edges, Group, Spec, Variant, architecture
from hiresnet_graph.cli.screen import Column, counted, has_colors, note, number_column, write, write_table
from hiresnet_graph.errors import UsageError

if TYPE_CHECKING:
    from hiresnet_graph.sweep import Progress
    from hiresnet_graph.train import Epoch, Recipe, RunRecord

Data = Annotated[str, typer.Option(metavar="D", help="Data set; 'hrg list datasets' has them.")]
Epochs = Annotated[int, typer.Option(min=1, metavar="N", help="How often each training image is seen.")]


def _above_zero(value: float) -> float:
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"a number above 0 is wanted, not {value:g}.")
    return value


LearningRate = Annotated[
    float, typer.Option("--lr", metavar="X", help="Learning rate; halved every 20 epochs.", callback=_above_zero)
]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Images in a step.")]


def _recipe(epochs: int, lr: float, batch_size: int) -> Recipe:
    from hiresnet_graph.train import Recipe

    return Recipe(epochs=epochs, lr=lr, batch_size=batch_size)


@contextmanager
def _progress(noun: str, total: int) -> Iterator[Callable[[int, int, str], None]]:
    """A function that shows how many are done and says a word about the last: a bar on a terminal, else lines."""
    if not has_colors(sys.stderr):
        yield lambda done, total, text: note(f"{noun} {done}/{total}  {text}")
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(noun), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(noun, total=total, last="")
        yield lambda done, total, text: bar.update(task, completed=done, total=total, last=text)


def train(
    spec: Spec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.", show_default=False)
    ],
    changes: Changes = None,
    variant: Variant = None,
    edges: Edges = None,
    data: Data = "digits",
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the weights, the order of the images, and dropout.")
    ] = 0,
    epochs: Epochs = 80,
    lr: LearningRate = 0.01,
    batch_size: BatchSize = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace the finished run in the folder.")] = False,
) -> None:
    """Train one network.

    Its record, its spec and its best weights come into the folder.
    """
    network = architecture(spec, changes, variant, edges)
    note(f"{network.plan.name}: {network.cost().parameters:,} parameters, data {data}, seed {seed}.")
    from hiresnet_graph.train import read_record
    from hiresnet_graph.train import train as train_once

    if not force and read_record(output) is not None:
        raise UsageError(f"'{output}' holds a finished run. Choose another folder, or replace it with '--force'.")
    try:
        with _progress("epoch", epochs) as step:

            def told(epoch: Epoch) -> None:
                step(
                    epoch.epoch,
                    epochs,
                    f"loss {epoch.train_loss:.3f}, validation {100 * epoch.validation_accuracy:.2f} %",
                )

            record = train_once(
                network, out=output, data=data, recipe=_recipe(epochs, lr, batch_size), seed=seed, progress=told
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted: a run is kept when it is finished, so nothing of it is in {output}. Again: {_this_command()}"
        ) from None
    write(f"{output}: {_outcome(record)}")
    if record.outcome != "complete":
        raise typer.Exit(failure.FINDINGS)


def _outcome(record: RunRecord) -> str:
    if record.test_accuracy is None or record.last_test_accuracy is None:
        return f"diverged at step {record.diverged_at}"
    return (
        f"test accuracy {100 * record.test_accuracy:.2f} % at the epoch of best validation ({record.best_epoch}), "
        f"{100 * record.last_test_accuracy:.2f} % at the last"
    )


def _this_command() -> str:
    return shlex.join(["hrg", *sys.argv[1:]])


def ablate(
    spec: Spec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the study.", show_default=False)
    ],
    changes: Changes = None,
    variants: Annotated[
        str | None, typer.Option(metavar="A,B", help="Variants of the spec, or edge sets, with commas between.")
    ] = None,
    subsets: Annotated[
        str | None, typer.Option(metavar="RULE", help="Edge subsets by a rule, as 'hrg enumerate' lists them.")
    ] = None,
    group: Group = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="How many seeds for each: 0, 1, 2, ...")] = 5,
    data: Data = "digits",
    epochs: Epochs = 80,
    lr: LearningRate = 0.01,
    batch_size: BatchSize = 100,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs at one time, a core each.", show_default="all cores")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be trained.")] = False,
) -> None:
    """Train variants or edge subsets, several seeds each.

    A run that is finished in the folder is not trained again: the same command goes on after an interruption, and a
    larger one adds to it.
    """
    if (variants is None) == (subsets is None):
        raise UsageError("say what to compare: either '--variants none,full' or '--subsets leave-one-out'.")
    network = architecture(spec, changes)
    _ = network.plan
    from hiresnet_graph.sweep import choose_variants, enumerate_variants

    chosen = (
        choose_variants(network, variants.split(","), group)
        if variants is not None
        else enumerate_variants(network, subsets or "", group)
    )
    runs = f"{counted(len(chosen), 'variant')} x {counted(seeds, 'seed')}, {counted(epochs, 'epoch')} each"
    if dry_run:
        rows = [[entry.label, f"{entry.of(network).cost().parameters:,}"] for entry in chosen]
        write_table([Column("variant"), number_column("parameters")], rows)
        note(f"{runs}: nothing was trained.")
        return
    note(f"{network.name} on {data}: {runs}.")
    from hiresnet_graph.sweep import ablate as train_all

    reused = 0
    try:
        with _progress("run", len(chosen) * seeds) as step:

            def told(progress: Progress) -> None:
                nonlocal reused
                reused += progress.reused
                record = progress.record
                if not progress.reused:
                    accuracy = "diverged" if record.test_accuracy is None else f"{100 * record.test_accuracy:.2f} %"
                    step(progress.done, progress.total, f"{record.variant}, seed {record.seed}: {accuracy}")

            train_all(
                network,
                chosen,
                out=output,
                seeds=range(seeds),
                data=data,
                recipe=_recipe(epochs, lr, batch_size),
                jobs=jobs,
                progress=told,
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{str(error) or 'Interrupted.'} Go on with: {_this_command()}") from None
    kept = f" {counted(reused, 'run')} of them {'was' if reused == 1 else 'were'} there already." if reused else ""
    note(f"All runs are finished, in {output}.{kept} The table: hrg report {output}")


class Format(StrEnum):
    """How `hrg report` prints its table."""

    TABLE = "table"
    MD = "md"
    CSV = "csv"
    JSON = "json"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study or of a run.")],
    format: Annotated[Format, typer.Option("--format", "-f", help="For people, a paper, or programs.")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the table of a study.

    Parameters, and mean (standard deviation) of the test accuracy over the seeds.
    """
    from hiresnet_graph.report import FORMATS, cells, summarize
    from hiresnet_graph.report.formats import HEADER

    table = summarize(folder)
    format = Format.JSON if json else format
    if format is not Format.TABLE:
        write(FORMATS[format.value](table).rstrip("\n"))
        return
    columns = [
        Column(HEADER[0]),
        *(number_column(header, keep) for header, keep in zip(HEADER[1:], (3, 2, 8, 1), strict=True)),
    ]
    write_table(columns, cells(table))
    write(f"\n{table.caption}")
