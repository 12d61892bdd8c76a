"""Curves for TensorBoard, in addition to metrics.jsonl."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hiresnet_graph.errors import MissingToolError
from hiresnet_graph.train.record import Epoch, RunRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FOLDER, _FILES = "tensorboard", "events.out.tfevents.*"


def delete_curves(folder: Path) -> None:
    """Delete the curves from the folder of a run, and the folder that they leave empty.

    Raises:
        OSError: A file cannot be deleted.
    """
    path = folder / _FOLDER
    for file in path.glob(_FILES):
        file.unlink()
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()


class Board:
    """Writes the epochs of a run into `tensorboard/` of its folder; a resumed run writes its curves again.

    Raises:
        MissingToolError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingToolError(
                "TensorBoard is not installed. 'pip install tensorboard', or omit '--tensorboard': the curves are also "
                "in metrics.jsonl."
            ) from None
        self._folder, self._make = folder, SummaryWriter
        self._epochs = 0

    @cached_property
    def _writer(self) -> SummaryWriter:
        delete_curves(self._folder)
        return self._make(str(self._folder / _FOLDER))

    def add(self, epoch: Epoch) -> None:
        """Write an epoch."""
        values = {
            "loss/train": epoch.train_loss,
            "loss/validation": epoch.validation_loss,
            "accuracy/train": epoch.train_accuracy,
            "accuracy/validation": epoch.validation_accuracy,
            "lr": epoch.lr,
        }
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()
        self._epochs += 1

    def end(self, record: RunRecord) -> None:
        """Write what is missing of a finished run."""
        for epoch in record.epochs[self._epochs :]:
            self.add(epoch)
        if record.test_accuracy is not None and record.best_epoch is not None:
            self._writer.add_scalar("accuracy/test", record.test_accuracy, record.best_epoch)
        self._writer.close()
