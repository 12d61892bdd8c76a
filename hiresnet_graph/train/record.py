"""What a run leaves in its folder: `result.json`, and beside it `spec.yaml` and `model.safetensors`.

`result.json` is written last, in one piece: a folder that has it holds a finished run.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.train.recipe import Recipe

RESULT = "result.json"
# Raised when the training program changes what it computes, so that old runs are not taken for new ones.
SEMANTICS = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Epoch(_Record):
    """One pass over the training images. Losses are means over images, accuracies shares from 0 to 1."""

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


class Machine(_Record):
    """Where and how long a run was computed: nothing here is part of what was asked for."""

    time_s: float
    device: str
    threads: int
    platform: str
    python: str
    torch: str
    hiresnet_graph: str


class RunRecord(_Record):
    """One variant trained with one seed.

    Attributes:
        key: Equal for runs that compute the same.
        plan: Hash of the compiled network.
        data_fingerprint: Hash of the images as the network sees them, their classes and the split.
        outcome: `diverged` if a loss was not finite; such a run has no accuracy.
        diverged_at: The training step, counted from 1, at or after which that was seen.
        best_epoch: The epoch of highest validation accuracy; of equal ones, that of lowest validation loss.
        validation_accuracy: At that epoch.
        test_accuracy: At that epoch: the number to report.
        last_test_accuracy: At the last epoch.
        epochs: What was seen on the way.
    """

    key: str
    architecture: str
    variant: str
    seed: int
    data: str
    data_fingerprint: str
    recipe: Recipe
    plan: str
    parameters: int
    macs: int
    outcome: Literal["complete", "diverged"]
    diverged_at: int | None = None
    best_epoch: int | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    last_test_accuracy: float | None = None
    epochs: tuple[Epoch, ...]
    machine: Machine


def run_key(plan: str, recipe: Recipe, seed: int, data_fingerprint: str) -> str:
    """Hash of all that decides what a run computes; labels, machines and versions are left out."""
    parts = {
        "plan": plan,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "data": data_fingerprint,
        "semantics": SEMANTICS,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path) -> RunRecord | None:
    """The record of a finished run, or None if the folder has none.

    Raises:
        RunError: The file is there and is no record.
    """
    path = folder / RESULT
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}. "
            "This is no result of this version: delete the folder or choose another one."
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        RunError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: this folder cannot be made: {error.strerror}.") from error
    return path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there in full or not at all, even if the power fails.

    Raises:
        RunError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}.") from error
