"""A longer run that continues a shorter one: the end of a run is the state in which its next epoch would start.

This is exact where the learning rates so far do not depend on the number of epochs (`Recipe.has_fixed_rates`): the
longer run gives the same bits as one that was never shorter.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from hiresnet_graph.errors import RunError
from hiresnet_graph.train.checkpoint import Checkpoint, Counters, load_checkpoint, save_checkpoint
from hiresnet_graph.train.record import BEST, LAST, OPTIMIZER, START, Cursor, read_record


def continue_run(source: Path, target: Path, key: str) -> None:
    """Write the checkpoint with which a run continues a shorter one; nothing if that has not trained yet.

    Args:
        source: Folder of the shorter run, finished or not; it is not changed unless it is the target, too.
        target: Folder of the longer run.
        key: Of the longer run.

    Raises:
        RunError: A file cannot be read or written.
    """
    checkpoint = load_checkpoint(source) or _final_checkpoint(source)
    if checkpoint is not None:
        counters, tensors = checkpoint
        save_checkpoint(target, counters.model_copy(update={"key": key, "strides": {}}), tensors)


def end_cursors(source: Path) -> set[Cursor]:
    """Where a run can start that continues the run in a folder: at its start, and where this has stopped or ended."""
    checkpoint = load_checkpoint(source)
    if checkpoint is not None:
        return {START, (checkpoint.counters.epoch, checkpoint.counters.step)}
    record = read_record(source)
    return {START} if record is None else {START, (len(record.epochs), 0)}


def has_state(folder: Path) -> bool:
    """Whether a finished run has the file that a longer one requires."""
    return (folder / OPTIMIZER).is_file()


def _final_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint that a finished run would have after its last epoch; None without such a run."""
    record = read_record(folder)
    if record is None or record.outcome != "complete" or not has_state(folder):
        return None
    tensors: dict[str, torch.Tensor] = {}
    for name, prefix in ((OPTIMIZER, ""), (LAST, "model."), (BEST, "best.")):
        path = folder / name
        try:
            tensors |= {f"{prefix}{key}": value for key, value in load(path.read_bytes()).items()}
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
        except SafetensorError as error:
            raise RunError(f"{path}: damaged: {error}. Train the run in another folder.") from None
    counters = Counters(
        key=record.key,
        epoch=len(record.epochs),
        step=0,
        epochs=record.epochs,
        time_s=record.time_s,
        epoch_time_s=0.0,
    )
    return Checkpoint(counters, tensors)
