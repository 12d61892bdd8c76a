"""Options that the commands `train`, `ablate` and `search` share: data, recipe, device, workers.

An option that is not given is None, so that it differs from one that repeats the default.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from hiresnet_graph.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from hiresnet_graph.data import DatasetKind
    from hiresnet_graph.sweep import Study

Data = Annotated[
    str | None,
    typer.Option(
        metavar="D",
        help="Data set, as listed by 'hrg list datasets', like cifar10 or npz:FILE (default: digits).",
        show_default=False,
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of epochs (default: 80).", show_default=False),
]


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"expected a number greater than 0, got '{value:g}'.")
    return value


LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="X",
        help="Learning rate, halved every 20 epochs (default: 0.01).",
        callback=_above_zero,
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Images per step (default: 100).", show_default=False)
]
RecipeFields = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="K=V",
        help="Another field of the recipe, like optimizer=sgd or precision=bf16 (repeatable).",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="D", help="cpu, cuda, cuda:N; or auto: a GPU if available (default: auto).", show_default=False
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPU threads per worker (default: 1); another number changes the last bits of results.",
        show_default=False,
    ),
]

Jobs = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of workers.", show_default="one per GPU, or per CPU core")
]
Executor = Annotated[str, typer.Option(metavar="E", help="local: processes on this machine; or ray, or slurm.")]
Address = Annotated[
    str | None, typer.Option(metavar="A", help="Address of a Ray cluster, like 'auto'.", show_default=False)
]
Slurm = Annotated[
    str | None,
    typer.Option(metavar="K=V,..", help="Options of sbatch, like 'partition=gpu,time=60'.", show_default=False),
]


def recipe_fields(
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    fields: Sequence[str] | None = None,
) -> dict[str, object]:
    """The fields of a recipe that the command line sets.

    Raises:
        UsageError: A field is set twice, is unknown or has an invalid value, or a word is not of the form K=V. All
            errors are reported.
    """
    from hiresnet_graph.spec.reader import parse_value

    given: dict[str, object] = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    found = {name: value for name, value in given.items() if value is not None}
    errors = []
    for word in fields or ():
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--recipe {word}: expected a field and its value, like 'optimizer=sgd'.")
        if name in found:
            raise UsageError(f"--recipe {word}: '{name}' is set twice. Give it once.")
        found[name] = parse_value(text, f"--recipe {word}")
        if error := _field_error(name, found[name]):
            errors.append(f"--recipe {word}: {error}")
    if errors:
        raise UsageError("\n".join(errors))
    return found


def _field_error(name: str, value: object) -> str:
    """The error in a single field of a recipe; empty if there is none."""
    from hiresnet_graph.spec.problems import explain
    from hiresnet_graph.train.recipe import Recipe

    if name not in Recipe.model_fields:
        return f"there is no field '{name}'. {did_you_mean(name, Recipe.model_fields)}".strip()
    try:
        Recipe.model_validate({name: value})
    except ValidationError as error:
        # An error without a path concerns several fields, and the others may come from elsewhere.
        return next((problem.message for problem in explain(error, {name: value}) if problem.path), "")
    return ""


def make_dataset(data: str | None, download: bool = False) -> DatasetKind:
    """The data set that the command line names.

    Raises:
        UsageError: The name is unknown, or a field is wrong.
    """
    from hiresnet_graph.data import data_source

    return data_source(data or "digits", download=download)


def with_download(study: Study) -> Study:
    """The study with a data set that is downloaded if it is missing.

    Raises:
        UsageError: The data set is unknown, or it cannot be downloaded.
        SpecError: The same, for a study read from a file.
    """
    from hiresnet_graph.data import data_source

    kind = study.data_source()
    if not kind.can_download():
        raise UsageError(f"--download: data '{kind.kind}' cannot be downloaded. Omit the option.")
    return study.model_copy(update={"data": data_source(kind, download=True)})


@contextmanager
def resume_hint() -> Iterator[None]:
    """Add to an interruption within this context that the same command resumes."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{str(error) or 'Interrupted.'} Resume with: {command_line()}") from None


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["hrg", *sys.argv[1:]])
