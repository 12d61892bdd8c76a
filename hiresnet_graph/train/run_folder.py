"""A finished run as it lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.errors import RunError
from hiresnet_graph.train.record import BEST, LAST, METRICS, SETTINGS, SPEC, Preprocessing, RunRecord, read_record

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train.readout import Part, Past, ReadoutPoint


@dataclass(frozen=True)
class Run:
    """A finished run: what came out, and the trained network."""

    folder: Path
    record: RunRecord

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.record.architecture} {self.record.variant}, {self.record.outcome}>"

    @cached_property
    def architecture(self) -> Architecture:
        """The network that was trained.

        Raises:
            SpecError: The folder has no spec, or it is wrong.
        """
        return load(self.folder / SPEC)

    def metrics(self) -> list[dict[str, Any]]:
        """The curves, a row for each epoch and part of the data: `epoch`, `split`, `loss`, `accuracy`, ...

        Raises:
            RunError: They cannot be read.
        """
        path = self.folder / METRICS
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
        except ValueError:
            raise RunError(f"{path}: a line of it is damaged.") from None

    def model(self, which: Literal["best", "last"] = "best") -> nn.Module:
        """The trained network in evaluation mode, on the CPU.

        Args:
            which: The weights of the epoch of best validation, or of the last.

        Raises:
            RunError: The weights are not there, or are not those of the network.
        """
        return self.loaded(self.architecture, which)

    def loaded(self, arch: Architecture, which: Literal["best", "last"] = "best") -> nn.Module:
        """As `model`, for a network that differs from that of the run in nothing that its tensors depend on."""
        from hiresnet_graph.train.pretrained import load_weights

        if self.record.outcome != "complete":
            raise RunError(f"{self.folder}: the run has {self.record.outcome}, so there are no weights.")
        module = arch.build()
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
        """How good a network in time is when it is read out at other steps than in training.

        A step whose tensors are missing has a reason instead of scores: with a norm for each step, one that training
        did not read out may lack its own (train with `readout: all`), as do those past the last (`past="last"`).

        Args:
            steps: Counted from 0; they may lie past those of training. If left out: all of training, from the first
                one on at which the output depends on the input.
            part: Of the data.
            which: The weights of the epoch of best validation, or of the last.
            past: `last` lets a norm past its copies take the last one; what the spec says, if left out.
            data: Those that the run was trained on, if they were handed over in memory.
            device: As of `train`; accuracies are those of training to the last bit on the device of training alone.

        Raises:
            UsageError: The network does not run in time, or no steps are given.
            RunError: The weights are not there, or the data are others now.
        """
        from hiresnet_graph.train.readout import read_out

        return read_out(self, steps, part=part, which=which, past=past, data=data, device=device)

    def preprocess(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Images as the network takes them: brought to its shape and normalised, as in training.

        Args:
            images: 8-bit ones (uint8, 0 to 255), as an array (N, H, W, C) or a tensor (N, C, H, W); grey ones may
                leave out C. Another size is changed bilinearly.

        Raises:
            UsageError: They are no 8-bit images, or have other channels than the network.
            RunError: The run is of an older version, which has not kept the numbers.
        """
        return self._preprocessing(images)

    def predict(self, images: np.ndarray | torch.Tensor, which: Literal["best", "last"] = "best") -> torch.Tensor:
        """The probability of each class for each image, (N, K), on the CPU.

        The names of the classes, if known, are `record.preprocessing.class_names`.

        Args:
            images: As for `preprocess`.
            which: The weights of the epoch of best validation, or of the last.

        Raises:
            UsageError: They are no 8-bit images, or have other channels than the network.
            RunError: The weights are not there, or the run is of an older version.
        """
        from hiresnet_graph.train.images import probabilities

        return probabilities(self.model(which), images, self._preprocessing)

    @property
    def _preprocessing(self) -> Preprocessing:
        found = self.record.preprocessing
        if found is None:
            raise RunError(
                f"{self.folder}: an older version has made this run, and has not kept what images must go through. "
                "Train it once more, in another folder."
            )
        return found


def load_run(folder: Path | str) -> Run:
    """The finished run in a folder.

    Raises:
        RunError: There is none.
    """
    path = Path(folder)
    record = read_record(path)
    if record is None:
        begun = (path / SETTINGS).exists()
        raise RunError(
            f"{path}: "
            + (
                f"this run is not finished. Go on with it: hrg train --resume {path}"
                if begun
                else "there is no run in this folder: it has no result.json. A study has its runs below 'runs'."
            )
        )
    return Run(path, record)
