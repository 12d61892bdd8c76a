"""What a run leaves in its folder: `run.json` from the start, `result.json` at the end.

`result.json` is written last, in one piece: a folder that has it holds a finished run. Beside them lie `spec.yaml`,
`metrics.jsonl`, `model.safetensors` (best validation), `last.safetensors`, and `checkpoints/` while it is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import check_folder
from hiresnet_graph.spec.problems import explain
from hiresnet_graph.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch

RESULT, SETTINGS, SPEC, METRICS = "result.json", "run.json", "spec.yaml", "metrics.jsonl"
BEST, LAST = "model.safetensors", "last.safetensors"
Cursor = tuple[int, int]
"""Epochs that are done, and steps of the next one: where a checkpoint stands."""
START: Cursor = (0, 0)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Epoch(_Record):
    """One pass over the training images. Losses are means over images, accuracies shares from 0 to 1.

    Of a network with `readout: all`, a loss is that of the recipe's `loss_steps`, an accuracy that of the last step.

    Attributes:
        lr: Learning rate of its first step.
        train_accuracy: Of the images as they were seen: augmented, with the weights of that moment.
        validation_top_k: How often the right class was among the recipe's `top_k` first.
        time_s: Of this epoch, validation included. Not part of the result.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_top_k: float
    time_s: float


class Environment(_Record):
    """Where and how a run was computed: nothing here is part of what was asked for.

    Attributes:
        device: `cpu`, or the name of the GPU.
        backend: What computed the steps: `eager` or `compile` for a run alone; in a stack `stacked` (one kernel for all
            runs), `branches` (the kernels of a run alone), or `graph` (those of one run, launched at once).
        replicas: How many runs were computed together.
        looped: In a stack, the kinds of operations that were computed run by run.
        commit: Of the git checkout that the package was run from, if it was from one.
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
    """The two seeds of a run; mostly one number.

    Attributes:
        init: Of the initial weights.
        data: Of the order of the images, their augmentation, and dropout.
    """

    init: int
    data: int

    def __str__(self) -> str:
        return str(self.init) if self.init == self.data else f"{self.init}/{self.data}"


class Preprocessing(_Record):
    """How 8-bit images become what a trained network takes: brought to its shape, less the mean, over the deviation.

    Called with images, it does that, as in training: see `Run.preprocess`.

    Attributes:
        shape: Channels, height and width of the network's input.
        mean: Of each channel over the training images in that shape, in grey levels from 0 to 255.
        std: Standard deviation, likewise.
        class_names: In the order of the network's scores; empty, if nobody has named them.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    def __call__(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """The images as the network takes them.

        Raises:
            UsageError: They are no 8-bit images, or have other channels than the network.
        """
        from hiresnet_graph.train.images import preprocessed

        return preprocessed(images, self)


class RunRecord(_Record):
    """One network trained with one pair of seeds. Accuracies are those of the last step that is read out.

    Attributes:
        key: Equal for runs that compute the same.
        variant: What tables call the network.
        plan: Hash of the compiled network.
        data_fingerprint: Hash of the images as the network sees them, their classes and the split.
        recipe: With `augment` as it was resolved for the data set.
        outcome: `diverged` if a loss was not finite; such a run has no accuracy. `pruned` if a search gave it up: what
            was seen in validation until then stands.
        diverged_at: The training step, counted from 1, at or after which that was seen.
        best_epoch: The epoch of highest validation accuracy; of equal ones, that of lowest validation loss.
        validation_accuracy: At that epoch.
        test_accuracy: At that epoch: the number to report.
        test_top_k: Of the recipe's `top_k`, at that epoch.
        last_test_accuracy: At the last epoch.
        epochs: What was seen on the way.
        time_s: Computing time of all attempts that led here. Not part of the result.
        preprocessing: What images must go through before the network; None in records of older versions.
    """

    key: str
    architecture: str
    variant: str
    seeds: Seeds
    data: str
    data_fingerprint: str
    recipe: Recipe
    plan: str
    parameters: int
    macs: int
    outcome: Literal["complete", "diverged", "pruned"]
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


def read_record(folder: Path) -> RunRecord | None:
    """The record of a finished run, or None if the folder has none.

    Raises:
        RunError: The file is there and is no record, or the folder is a file.
    """
    check_folder(folder)
    path = folder / RESULT
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RunError(
            f"{path}: {explain(error)[0]} This is no result of this version: delete the folder or choose another one."
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error


class Settings(_Record):
    """What a run's folder says about the run from its first moment on: enough to go on with it.

    Attributes:
        source: The data set as a mapping that names it, or None if it was handed over in memory.
        variant: What tables call the network.
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


def read_settings(folder: Path) -> Settings | None:
    """What was asked for of the run in a folder, or None if there is none.

    Raises:
        RunError: The file is there and says something else, or the folder is a file.
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
