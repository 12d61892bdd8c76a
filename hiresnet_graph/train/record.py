"""Files of a run's folder that are plain data: `run.json` from the start, `result.json` at the end.

`result.json` is written last and atomically: a folder that has it holds a finished run. The other files are
`spec.yaml`, `metrics.jsonl`, `model.safetensors` (best validation epoch), `last.safetensors`, `optimizer.safetensors`
(what more epochs would start from), `checkpoints/` while the run is trained, and `lock` if it belongs to no study.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import check_folder
from hiresnet_graph.train.initial_weights import InitialWeights
from hiresnet_graph.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch

RESULT, SETTINGS, SPEC, METRICS = "result.json", "run.json", "spec.yaml", "metrics.jsonl"
BEST, LAST, OPTIMIZER = "model.safetensors", "last.safetensors", "optimizer.safetensors"
RUN_FILES = (RESULT, SPEC, METRICS, BEST, LAST, OPTIMIZER, SETTINGS)
"""All of these files, in the order in which they are deleted: a folder with the last one holds a run."""
Cursor = tuple[int, int]
"""Progress of a run: the number of finished epochs, and of finished steps of the next one."""
START: Cursor = (0, 0)
LEDGER = "ledger.sqlite"
"""The file that marks the folder of a study."""
CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints in that of a run."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Epoch(_Record):
    """One pass over the training set. Losses are means over images, accuracies fractions from 0 to 1.

    With `readout: all`, the loss is weighted by the recipe's `loss_steps`, and the accuracy is that of the last step.
    With several outputs, the training loss is weighted by the recipe's `losses`; all else is of the main output.

    Attributes:
        lr: Learning rate of the first step.
        train_accuracy: On augmented images, with the weights at the time of each step.
        validation_top_k: Fraction of images whose class is among the recipe's `top_k` highest scores.
        time_s: Of this epoch, including validation. Not part of the result.
        gradient_norms: With the recipe's `record_gradients`, the L2 norm of the gradients of each block and edge: mean
            over steps, before clipping. None if one was not finite, or if recording began after the epoch had begun.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_top_k: float
    time_s: float
    gradient_norms: dict[str, float | None] | None = None


Backend = Literal["eager", "graph", "branches", "stacked"]
"""How steps are computed: each run by itself, as one launch of a GPU, or with other runs. See `Environment.backend`."""


class Environment(_Record):
    """Where and how a run was computed; not part of what was requested.

    Attributes:
        device: `cpu`, or the name of the GPU.
        backend: How steps were computed. For a single run: `eager` or `compile`. In a stack: `stacked` (one kernel for
            all runs), `branches` (the kernels of a single run), or `graph` (those of one run, as a CUDA graph).
        replicas: Number of runs that were computed together.
        looped: In a stack, the kinds of operations that were computed run by run.
        commit: Of the git checkout that the package was imported from, if any.
    """

    device: str
    threads: int
    channels_last: bool
    backend: str
    replicas: int = 1
    looped: tuple[str, ...] = ()
    platform: str
    python: str
    torch: str
    hiresnet_graph: str
    commit: str | None = None


class Seeds(NamedTuple):
    """The two random seeds of a run; usually equal.

    Attributes:
        init: Of the initial weights.
        data: Of the order of the images, their augmentation, and dropout.
    """

    init: int
    data: int

    def __str__(self) -> str:
        return str(self.init) if self.init == self.data else f"{self.init}/{self.data}"


class Preprocessing(_Record):
    """How 8-bit images become the input of a trained network: resized, minus the mean, divided by the deviation.

    An instance is a function of images that does this, as in training: see `Run.preprocess`.

    Attributes:
        shape: Channels, height and width of the network's input.
        mean: Of each channel over the training images in that shape, in grey levels from 0 to 255.
        std: Standard deviation, likewise.
        class_names: In the order of the network's scores; empty if the classes have no names.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if min(self.shape) < 1:
            raise ValueError("the sizes in 'shape' must be at least 1")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"'mean' and 'std' must have one number for each of {self.shape[0]} channels")
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ValueError("'mean' must be finite, and 'std' greater than 0")
        return self

    def __call__(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """The images as input of the network.

        Raises:
            UsageError: They are not 8-bit images, or have other channels than the network.
        """
        from hiresnet_graph.train.images import preprocess

        return preprocess(images, self.shape, self.mean, self.std)


class RunRecord(_Record):
    """The result of training one network with one pair of seeds. Accuracies are those of the last readout step.

    Attributes:
        key: Equal for runs that compute the same.
        variant: Name of the network in tables.
        plan: Hash of the compiled network.
        data_fingerprint: Hash of the images as the network sees them, their classes and the split.
        duplicates: Numbers of held-out images whose pixels are also in another part: `validation_in_train`,
            `test_in_train` and `test_in_validation`; None if images were streamed, and so not compared.
        recipe: With `augment` resolved for the data set.
        outcome: `diverged` if a loss was not finite; such a run has no accuracy.
        diverged_at: The training step, counted from 1, at or after which a loss was not finite.
        best_epoch: The epoch of highest validation accuracy; of equal ones, that of lowest validation loss.
        validation_accuracy: At that epoch.
        test_accuracy: At that epoch: the number to report.
        test_top_k: Of the recipe's `top_k`, at that epoch.
        last_test_accuracy: At the last epoch.
        epochs: All epochs, in order.
        time_s: Computing time of all attempts that contributed. Not part of the result.
        preprocessing: From images to the network's input; None in records of older versions.
        weights: What the run started from; None for random weights.
    """

    key: str
    architecture: str
    variant: str
    seeds: Seeds
    data: str
    data_fingerprint: str
    duplicates: dict[str, int] | None = None
    recipe: Recipe
    plan: str
    parameters: int
    macs: int
    outcome: Literal["complete", "diverged"]
    diverged_at: int | None = None
    best_epoch: int | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    test_top_k: float | None = None
    last_test_accuracy: float | None = None
    last_test_top_k: float | None = None
    epochs: tuple[Epoch, ...]
    machine: Environment
    time_s: float
    preprocessing: Preprocessing | None = None
    weights: InitialWeights | None = None

    def __repr__(self) -> str:
        accuracy = "" if self.test_accuracy is None else f", test accuracy {100 * self.test_accuracy:.2f} %"
        return f"<RunRecord {self.variant} on {self.data}, seed {self.seeds}: {self.outcome}{accuracy}>"


def read_record(folder: Path) -> RunRecord | None:
    """The record of a finished run; None if the folder has none.

    Raises:
        RunError: The file exists but is not a record, or the folder is a file.
    """
    check_folder(folder)
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
            "This is not a result of this version: delete the folder or choose another one."
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error


def has_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    # Unlike `Path.exists`, False in a folder that cannot be read.
    return any(os.path.exists(folder / name) for name in (RESULT, SETTINGS))


def weights_file(source: Path) -> Path:
    """The file with the weights that a path leads to: itself, or that of the best epoch in the folder of a run.

    It need not exist.
    """
    return source / BEST if source.is_dir() else source


def study_folder(folder: Path) -> Path | None:
    """The folder of the study that the run in a folder belongs to; None for a single run."""
    study = folder.resolve().parent.parent
    return study if (study / LEDGER).exists() else None


def stored_cursors(folder: Path) -> list[Cursor]:
    """The cursors of all checkpoints of a run, newest first, damaged or not."""
    found = set()
    path = folder / CHECKPOINTS
    for file in path.iterdir() if path.is_dir() else ():
        epoch, _, step = file.stem.partition("-")
        if epoch.isdecimal() and step.isdecimal():
            found.add((int(epoch), int(step)))
    return sorted(found, reverse=True)


class Settings(_Record):
    """What is written of a run when it starts: enough to resume it.

    Attributes:
        source: The data set as a mapping that names it; None if it was passed in memory.
        variant: Name of the network in tables.
        weights: What the run starts from; None for random weights.
    """

    key: str
    architecture: str
    variant: str
    plan: str
    seeds: Seeds
    data: str
    source: dict[str, Any] | None
    data_fingerprint: str
    recipe: Recipe
    device: str
    threads: int
    checkpoint_s: float
    data_workers: int
    weights: InitialWeights | None = None


def read_settings(folder: Path) -> Settings | None:
    """The settings of the run in a folder; None if there is none.

    Raises:
        RunError: The file exists but holds no settings, or the folder is a file.
    """
    check_folder(folder)
    path = folder / SETTINGS
    try:
        return Settings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise RunError(
            f"{path}: this was not written by this version. Delete the folder or choose another one."
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
