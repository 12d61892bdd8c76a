"""A finished run in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import RunError
from hiresnet_graph.files import parse_json
from hiresnet_graph.formats import Column, format_command, format_duration, html_table
from hiresnet_graph.spec.reader import read
from hiresnet_graph.train.lock import is_locked
from hiresnet_graph.train.record import (
    BEST,
    LAST,
    METRICS,
    SETTINGS,
    SPEC,
    Preprocessing,
    RunRecord,
    read_record,
    study_folder,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train.evaluation import Part
    from hiresnet_graph.train.readout import Past, ReadoutPoint
    from hiresnet_graph.train.trained import TrainedNetwork


@dataclass(frozen=True)
class Run:
    """A finished run: its record and the trained network."""

    folder: Path
    record: RunRecord

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.record.architecture} {self.record.variant}, {self.record.outcome}>"

    def _repr_html_(self) -> str:
        """The record in a notebook."""
        record = self.record
        facts = {
            "network": f"{record.architecture} {record.variant}",
            "data": record.data,
            "seed": str(record.seeds),
            "outcome": record.outcome,
            "parameters": f"{record.parameters:,}",
            "epochs": str(len(record.epochs)),
            "test accuracy": "-" if record.test_accuracy is None else f"{100 * record.test_accuracy:.2f} %",
            "time": format_duration(record.time_s),
        }
        return html_table((Column(""), Column("")), tuple(facts.items()), str(self.folder))

    @cached_property
    def architecture(self) -> Architecture:
        """The network that was trained.

        Raises:
            SpecError: The folder has no spec, or a wrong one.
        """
        path = self.folder / SPEC
        tree = read(path)
        if "extends" in tree:  # this folder may be from others: no other file of this machine is read
            raise RunError(f"{path}: the spec of a run extends no other file. Merge them into this one.")
        return Architecture(tree, files=(path,))

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics, a row for each epoch and part of the data: `epoch`, `split`, `loss`, `accuracy`, ...

        Raises:
            RunError: They cannot be read.
        """
        path = self.folder / METRICS
        try:
            return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
        except ValueError:
            raise RunError(f"{path}: a line is damaged.") from None

    def model(self, which: Literal["best", "last"] = "best") -> nn.Module:
        """The trained network in evaluation mode, on the CPU.

        Args:
            which: The weights of the best validation epoch, or of the last epoch.

        Raises:
            RunError: The weights are missing, or are not those of the network.
        """
        from hiresnet_graph.lower.weights import load_weights

        if self.record.outcome != "complete":
            raise RunError(f"{self.folder}: the run has {self.record.outcome}, so it has no weights.")
        module = self.architecture.build()
        load_weights(module, self.folder / (BEST if which == "best" else LAST))
        return module.eval()

    def readout(
        self,
        steps: Iterable[int] | None = None,
        *,
        part: Part = "test",
        which: Literal["best", "last"] = "best",
        past: Past | None = None,
        data: Dataset | None = None,
        device: str = "auto",
    ) -> tuple[ReadoutPoint, ...]:
        """The scores of a network in time at other readout steps than in training.

        A step whose tensors are missing has a reason instead of scores: with a norm for each step, a step that was not
        read out in training may lack its own (train with `readout: all`), as do steps past the last (`past="last"`).

        Args:
            steps: Counted from 0; may exceed those of training. By default all steps of training, from the first one
                at which the output depends on the input.
            part: Of the data.
            which: The weights of the best validation epoch, or of the last epoch.
            past: With `last`, a norm past its last copy uses the last copy; by default as in the spec.
            data: Those that the run was trained on, if they were passed in memory.
            device: As for `train`; accuracies equal those of training to the last bit only on the same device.

        Raises:
            UsageError: The network does not run in time, or no steps are given.
            RunError: The weights are missing, or the data have changed.
        """
        from hiresnet_graph.train.readout import evaluate_steps

        with self.open(which, data=data, device=device) as network:
            return evaluate_steps(network, steps, part=part, past=past)

    def open(
        self, which: Literal["best", "last"] = "best", *, data: Dataset | None = None, device: str = "auto"
    ) -> AbstractContextManager[TrainedNetwork]:
        """The trained network with its data: within the context it is on the device, and computes no gradients.

        Args:
            which: The weights of the best validation epoch, or of the last epoch.
            data: Those that the run was trained on, if they were passed in memory.
            device: As for `train`.

        Raises:
            RunError: The weights are missing, or the data have changed.
            UsageError: The data cannot be found.
        """
        from hiresnet_graph.train.trained import dataset_of_run, open_trained

        arch = self.architecture
        return open_trained(
            str(self.folder),
            arch,
            lambda _: self.model(which),
            dataset_of_run(self.folder, self.record, arch, data),
            self.record.recipe,
            device=device,
            threads=self.record.machine.threads,
        )

    def preprocess(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Images as input of the network: resized and normalised, as in training.

        Args:
            images: 8-bit images (uint8, 0 to 255), as an array (N, H, W, C) or a tensor (N, C, H, W); C may be omitted
                for grey ones. Other sizes are resized bilinearly.

        Raises:
            UsageError: They are not 8-bit images, or have other channels than the network.
            RunError: The run is of an older version, which did not record the preprocessing.
        """
        return self._preprocessing(images)

    def predict(self, images: np.ndarray | torch.Tensor, which: Literal["best", "last"] = "best") -> torch.Tensor:
        """The probability of each class for each image (N, K), on the CPU.

        The names of the classes, if known, are `record.preprocessing.class_names`.

        Args:
            images: As for `preprocess`.
            which: The weights of the best validation epoch, or of the last epoch.

        Raises:
            UsageError: They are not 8-bit images, or have other channels than the network.
            RunError: The weights are missing, or the run is of an older version.
        """
        from hiresnet_graph.train.evaluation import trained_outputs
        from hiresnet_graph.train.images import class_probabilities

        module = self.model(which)
        return class_probabilities(
            lambda x: trained_outputs(module(x), self.record.recipe)[0], images, self._preprocessing
        )

    @property
    def _preprocessing(self) -> Preprocessing:
        found = self.record.preprocessing
        if found is None:
            raise RunError(
                f"{self.folder}: this run is of an older version, which did not record the preprocessing of images. "
                "Train it again, in another folder."
            )
        return found


def resume_hint(folder: Path) -> str:
    """How to resume the unfinished run of a folder; a run of a study is resumed with its study."""
    if (study := study_folder(folder)) is not None:
        return f"It belongs to a study: {format_command('status', study)}"
    if is_locked(folder):
        return "It is being trained now."
    return f"It is not being trained. Resume it with: {format_command('train', '--resume', folder)}"


def load_run(folder: Path | str) -> Run:
    """The finished run in a folder.

    Raises:
        RunError: There is none.
    """
    path = Path(folder)
    record = read_record(path)
    if record is None:
        if (path / SETTINGS).exists():
            raise RunError(f"{path}: this run is not finished. {resume_hint(path)}")
        raise RunError(
            f"{path}: there is no run in this folder: it has no result.json. The runs of a study are below 'runs'."
        )
    return Run(path, record)
