"""Checkpoints of a run: everything that its next step depends on, so that a resumed run gives the same results.

A checkpoint is two files in `checkpoints/`: `<epoch>-<step>.safetensors`, and a small `.json` with the digest of the
first and the counters, written last. The two newest are kept; damaged ones are skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import make_folder, parse_json, write_atomic
from hiresnet_graph.train.events import Files
from hiresnet_graph.train.record import CHECKPOINTS, START, Cursor, Epoch, stored_cursors

_RETAINED = 2


class Counters(BaseModel):
    """The numbers of a checkpoint.

    Attributes:
        key: Of the run.
        epoch: Number of finished epochs.
        step: Number of finished steps of the next epoch.
        epochs: Results of the finished epochs.
        time_s: Computing time so far.
        epoch_time_s: Of the current epoch.
        strides: Of the tensors that are not contiguous: another memory layout may round differently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    epoch: int
    step: int
    epochs: tuple[Epoch, ...]
    time_s: float
    epoch_time_s: float
    strides: dict[str, tuple[int, ...]] = {}


class Checkpoint(NamedTuple):
    """Counters and tensors; when read, each tensor has its own memory, with its original layout."""

    counters: Counters
    tensors: dict[str, torch.Tensor]


def save_checkpoint(folder: Path, counters: Counters, tensors: Mapping[str, torch.Tensor]) -> Files:
    """Write a checkpoint into the folder of a run and delete all but the last two; returns its files.

    Raises:
        RunError: It cannot be written; the older ones are untouched.
    """
    strides = {name: value.stride() for name, value in tensors.items() if not value.is_contiguous()}
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    state = counters.model_copy(update={"strides": strides}).model_dump(mode="json")
    about = {"digest": _digest(content), "own": _digest(_canonical(state)), "state": state}
    name = f"{CHECKPOINTS}/{counters.epoch}-{counters.step}"
    files = ((f"{name}.safetensors", content), (f"{name}.json", json.dumps(about).encode()))
    write_checkpoint(folder, files)
    return files


def write_checkpoint(folder: Path, files: Files) -> None:
    """Write the files of a checkpoint into the folder of its run, in their order, and delete old checkpoints.

    What an interrupted or failed call left behind does not count as one, and is deleted.

    Raises:
        RunError: They cannot be written.
    """
    make_folder(folder / CHECKPOINTS)
    try:
        for name, content in files:
            write_atomic(folder / name, content)
    except RunError:
        _delete_incomplete(folder)  # a full disk needs its space
        raise
    _delete_incomplete(folder)
    for old in stored_cursors(folder)[_RETAINED:]:
        _delete(folder, old)


def load_checkpoint(folder: Path, cursor: Cursor | None = None) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, or the one at a cursor; None if there is none."""
    for at in stored_cursors(folder) if cursor is None else [cursor]:
        found = _read(_path(folder, at))
        if found is not None and (found.counters.epoch, found.counters.step) == at:
            return found
    return None


def resume_points(folder: Path) -> set[Cursor]:
    """Where a run can resume: its undamaged checkpoints; and its start, if at most one checkpoint was ever written."""
    cursors = stored_cursors(folder)
    found = {cursor for cursor in cursors if load_checkpoint(folder, cursor) is not None}
    return found if len(cursors) >= _RETAINED and found else {*found, START}


def checkpoint_files(folder: Path) -> Files:
    """The files of the newest undamaged checkpoint, to send them to another machine; empty if there is none."""
    found = load_checkpoint(folder)
    if found is None:
        return ()
    name = f"{CHECKPOINTS}/{found.counters.epoch}-{found.counters.step}"
    return tuple((f"{name}.{suffix}", (folder / f"{name}.{suffix}").read_bytes()) for suffix in ("safetensors", "json"))


def delete_checkpoints(folder: Path, *, after: Cursor | None = None) -> None:
    """Delete all checkpoints of a run, or those after a cursor."""
    for cursor in stored_cursors(folder):
        if after is None or cursor > after:
            _delete(folder, cursor)
    path = folder / CHECKPOINTS
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()


def _delete_incomplete(folder: Path) -> None:
    """Delete the tensors without counters, which are written after them."""
    for cursor in stored_cursors(folder):
        if not _path(folder, cursor, ".json").exists():
            _delete(folder, cursor)


def _path(folder: Path, cursor: Cursor, suffix: str = "") -> Path:
    return folder / CHECKPOINTS / ("-".join(map(str, cursor)) + suffix)


def _delete(folder: Path, cursor: Cursor) -> None:
    for suffix in (".json", ".safetensors"):  # without the first it is not a checkpoint
        _path(folder, cursor, suffix).unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint in two files, or None if they are damaged."""
    try:
        about = parse_json(path.with_name(path.name + ".json").read_bytes())
        content = path.with_name(path.name + ".safetensors").read_bytes()
        if about["own"] != _digest(_canonical(about["state"])) or about["digest"] != _digest(content):
            return None
        counters = Counters.model_validate(about["state"])
        read = load(content)
    except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError, ValidationError):
        return None
    except OSError as error:
        raise RunError(f"{path}: this checkpoint cannot be read: {error.strerror}.") from error
    tensors = {}
    for name, value in read.items():
        # Memory of its own, which torch aligns: the bits of some products depend on the alignment of their operands.
        stride = counters.strides.get(name)
        aligned = torch.empty_strided(value.shape, stride, dtype=value.dtype) if stride else torch.empty_like(value)
        tensors[name] = aligned.copy_(value)
    return Checkpoint(counters, tensors)


def _canonical(state: Any) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()
