"""Curves for TensorBoard, beside those of metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from hiresnet_graph.errors import MissingToolError
from hiresnet_graph.train.record import Epoch, RunRecord

FOLDER = "tensorboard"


class Board:
    """Writes what a run says into `tensorboard/` of its folder; a run that goes on writes its curves anew.

    Raises:
        MissingToolError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingToolError(
                "TensorBoard is not installed. 'pip install tensorboard', or leave '--tensorboard' out: metrics.jsonl "
                "has the curves."
            ) from None
        path = folder / FOLDER
        for old in path.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(path))

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

    def close(self, record: RunRecord | None = None) -> None:
        """Write the test accuracy, if the run is finished, and end."""
        if record is not None and record.test_accuracy is not None and record.best_epoch is not None:
            self._writer.add_scalar("accuracy/test", record.test_accuracy, record.best_epoch)
        self._writer.close()
