"""A finished run as it lies in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.errors import RunError
from hiresnet_graph.train.record import BEST, LAST, METRICS, SETTINGS, SPEC, RunRecord, read_record

if TYPE_CHECKING:
    from torch import nn


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
        from hiresnet_graph.train.pretrained import load_weights

        if self.record.outcome != "complete":
            raise RunError(f"{self.folder}: the run has {self.record.outcome}, so there are no weights.")
        module = self.architecture.build()
        load_weights(module, self.folder / (BEST if which == "best" else LAST))
        return module.eval()


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
