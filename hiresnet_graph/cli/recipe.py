"""The options of commands that train: data, recipe, device, workers. `train`, `ablate` and `search` share them.

An option that is not given is None, so that it can be told from one that repeats the default.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from hiresnet_graph.data import DatasetKind
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.train import Recipe

Data = Annotated[
    str | None,
    typer.Option(
        metavar="D",
        help="Data set: a name of 'hrg list datasets', or one with fields, like npz:FILE (default: digits).",
        show_default=False,
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="How often each training image is seen (default: 80).", show_default=False),
]


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"expected a number greater than 0, got {value:g}.")
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
    int | None, typer.Option(min=1, metavar="N", help="Images in a step (default: 100).", show_default=False)
]
Fields = Annotated[
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
        metavar="D", help="cpu, cuda, cuda:N; or auto, the default: a GPU if there is one.", show_default=False
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Of the CPU (default: 1); another number rounds differently.", show_default=False
    ),
]

Jobs = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs at one time.", show_default="all GPUs, or all cores")
]
Executor = Annotated[str, typer.Option(metavar="E", help="local: processes of this machine; or ray.")]
Address = Annotated[str | None, typer.Option(metavar="A", help="Of a Ray cluster, like 'auto'.", show_default=False)]


def recipe_fields(
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    fields: Sequence[str] | None = None,
) -> dict[str, object]:
    """The fields of a recipe that the command line sets.

    Raises:
        UsageError: One is set twice, is unknown or has a value that it cannot have, or a word is not of the form K=V;
            with all mistakes.
    """
    given: dict[str, object] = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    found = {name: value for name, value in given.items() if value is not None}
    mistakes = []
    for word in fields or ():
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--recipe {word}: a field and its value are wanted, like 'optimizer=sgd'.")
        if name in found:
            raise UsageError(f"--recipe {word}: '{name}' is set twice. Give it once.")
        found[name] = _value(text, f"--recipe {word}")
        if mistake := _mistake(name, found[name]):
            mistakes.append(f"--recipe {word}: {mistake}")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return found


def _mistake(name: str, value: object) -> str:
    """What is wrong with a field of a recipe by itself; empty if nothing is."""
    from pydantic import ValidationError

    from hiresnet_graph.spec.problems import explain
    from hiresnet_graph.train.recipe import Recipe

    if name not in Recipe.model_fields:
        return f"there is no field '{name}'. {did_you_mean(name, Recipe.model_fields)}".strip()
    try:
        Recipe.model_validate({name: value})
    except ValidationError as error:
        # Without a path it is about several fields, and the others may come from elsewhere.
        return next((problem.message for problem in explain(error, {name: value}) if problem.path), "")
    return ""


def make_recipe(
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    fields: Sequence[str] | None = None,
) -> Recipe:
    """The recipe of the paper with what the command line changes.

    Raises:
        UsageError: A field is unknown, or has a value that it cannot have.
    """
    from hiresnet_graph.train import make_recipe as make

    return make(recipe_fields(epochs, lr, batch_size, fields))


def source(data: str | None, download: bool = False) -> DatasetKind:
    """The data set that the command line names.

    Raises:
        UsageError: There is none of this name, or a field of it is wrong.
    """
    from hiresnet_graph.data import data_source

    return data_source(data or "digits", download=download)


def downloaded(study: Study) -> Study:
    """The study with data that are fetched if they are not there.

    Raises:
        UsageError: There are no such data, or they cannot be fetched.
        SpecError: The same for a study of a file.
    """
    from hiresnet_graph.data import data_source
    from hiresnet_graph.sweep.plan import data_of

    kind = data_of(study)
    if not kind.downloads():
        raise UsageError(f"--download: data '{kind.kind}' is not a data set that can be fetched. Leave it out.")
    return study.model_copy(update={"data": data_source(kind, download=True)})


@contextmanager
def goes_on() -> Iterator[None]:
    """An interruption in here says that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{str(error) or 'Interrupted.'} Go on with: {this_command()}") from None


def this_command() -> str:
    """What was typed, to be typed again."""
    return shlex.join(["hrg", *sys.argv[1:]])


def _value(text: str, where: str) -> Any:
    from hiresnet_graph.spec.source import parse_value

    return parse_value(text, where)
