"""Checkpoints of a run: everything that its next step depends on, so that it goes on as if nothing had happened.

A checkpoint is two files in `checkpoints/`: `<epoch>-<step>.safetensors`, and then, written last, a small `.json` with
its digest and the counters. The two newest are kept; one that is damaged in any way is passed over.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.train.events import Files
from hiresnet_graph.train.record import START, Cursor, Epoch

FOLDER = "checkpoints"
KEPT = 2


class Counters(BaseModel):
    """Where a run stands.

    Attributes:
        key: Of the run.
        epoch: Epochs that are done.
        step: Steps that are done of the next one.
        epochs: What was seen in those that are done.
        time_s: Computing time so far.
        epoch_time_s: Of the epoch that is under way.
        strides: Of the tensors that do not lie in the order of their axes: another layout may round differently.
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
    """Counters and tensors, the latter in memory of their own with the layout that they had."""

    counters: Counters
    tensors: dict[str, torch.Tensor]


class Pace:
    """When checkpoints are made: where a run stops, and besides after some time.

    Args:
        every_s: Least time between two; 0 makes one after each epoch.
        place: Where the run begins or goes on; there, none is needed.
    """

    def __init__(self, every_s: float, place: Cursor) -> None:
        self._every_s, self._time, self._place = every_s, time.monotonic(), place

    def is_due(self) -> bool:
        """Whether the last checkpoint is long ago."""
        return 0 < self._every_s <= time.monotonic() - self._time

    def wants(self, turn: str) -> bool:
        """Whether a checkpoint belongs where a trainer has come to, by its own word."""
        return turn in ("stopped", "due") or (turn == "epoch" and (self.is_due() or not self._every_s))

    def is_new(self, place: Cursor) -> bool:
        """Whether the last checkpoint is of another place."""
        return place != self._place

    def made(self, place: Cursor) -> None:
        """Note that a checkpoint was made."""
        self._time, self._place = time.monotonic(), place


def save_checkpoint(folder: Path, counters: Counters, tensors: Mapping[str, torch.Tensor]) -> Files:
    """Write a checkpoint into the folder of a run and drop those that are older than the last two; gives its files.

    Raises:
        RunError: It cannot be written; the older ones are all there.
    """
    strides = {name: value.stride() for name, value in tensors.items() if not value.is_contiguous()}
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    state = counters.model_copy(update={"strides": strides}).model_dump(mode="json")
    name = f"{FOLDER}/{counters.epoch}-{counters.step}"
    files = (
        (f"{name}.safetensors", content),
        (
            f"{name}.json",
            json.dumps({"digest": _digest(content), "own": _digest(_text(state)), "state": state}).encode(),
        ),
    )
    store(folder, files)
    return files


def store(folder: Path, files: Files) -> None:
    """Write the files of a checkpoint into the folder of its run, in their order, and drop old checkpoints.

    Raises:
        RunError: They cannot be written.
    """
    make_folder(folder / FOLDER)
    for name, content in files:
        write_atomic(folder / name, content)
    for old in _places(folder)[KEPT:]:
        _drop(folder, old)


def load_checkpoint(folder: Path, place: Cursor | None = None) -> Checkpoint | None:
    """The newest checkpoint in the folder of a run that is undamaged, or that of a place; None if there is none."""
    for there in _places(folder) if place is None else [place]:
        found = _read(folder / FOLDER / "-".join(map(str, there)))
        if found is not None and (found.counters.epoch, found.counters.step) == there:
            return found
    return None


def resume_points(folder: Path) -> set[Cursor]:
    """Where a run can go on from: its undamaged checkpoints; and its start, if no more than one was ever written."""
    places = _places(folder)
    found = {place for place in places if load_checkpoint(folder, place) is not None}
    return found if len(places) >= KEPT and found else {*found, START}


def checkpoint_files(folder: Path) -> Files:
    """The files of the newest undamaged checkpoint, to hand them to another machine; empty if there is none."""
    found = load_checkpoint(folder)
    if found is None:
        return ()
    name = f"{FOLDER}/{found.counters.epoch}-{found.counters.step}"
    return tuple((f"{name}.{suffix}", (folder / f"{name}.{suffix}").read_bytes()) for suffix in ("safetensors", "json"))


def drop_checkpoints(folder: Path, *, after: Cursor | None = None) -> None:
    """Delete all checkpoints of a run, or those of later places than one."""
    for place in _places(folder):
        if after is None or place > after:
            _drop(folder, place)
    path = folder / FOLDER
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def _places(folder: Path) -> list[Cursor]:
    """Epoch and step of all checkpoints, newest first, whatever is left of them."""
    found = set()
    path = folder / FOLDER
    for file in path.iterdir() if path.is_dir() else ():
        epoch, _, step = file.stem.partition("-")
        if epoch.isdecimal() and step.isdecimal():
            found.add((int(epoch), int(step)))
    return sorted(found, reverse=True)


def _drop(folder: Path, place: Cursor) -> None:
    path = folder / FOLDER / "-".join(map(str, place))
    for suffix in (".json", ".safetensors"):  # the one that makes it a checkpoint first
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint of two files, or None if they are not as they were written."""
    try:
        told = json.loads(path.with_name(path.name + ".json").read_bytes())
        content = path.with_name(path.name + ".safetensors").read_bytes()
        if told["own"] != _digest(_text(told["state"])) or told["digest"] != _digest(content):
            return None
        counters = Counters.model_validate(told["state"])
        read = load(content)
    except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError, ValidationError):
        return None
    except OSError as error:
        raise RunError(f"{path}: this checkpoint cannot be read: {error.strerror}.") from error
    tensors = {}
    for name, value in read.items():
        # Memory of its own, which torch aligns: the bits of some products depend on where their operands lie.
        stride = counters.strides.get(name)
        own = torch.empty_strided(value.shape, stride, dtype=value.dtype) if stride else torch.empty_like(value)
        tensors[name] = own.copy_(value)
    return Checkpoint(counters, tensors)


def _text(state: Any) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()
