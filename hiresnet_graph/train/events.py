"""What a run says while it is trained: the same on this machine, from a worker process, or from another machine.

A run is an iterator of these. Its last event is `Finished` or `Paused`; an exception is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.train.record import Epoch, Machine, RunRecord

Files = tuple[tuple[str, bytes], ...]
"""Name, relative to the run's folder, and content."""


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        epoch: Epochs that are done already; those of a checkpoint.
    """

    epoch: int
    machine: Machine


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done. A later attempt may send it again, with the same numbers."""

    epoch: Epoch


@dataclass(frozen=True)
class Saved:
    """A checkpoint is written, so that nothing before it can be lost.

    Attributes:
        files: Name and content of each file of the checkpoint, if the run's folder is not the driver's; else empty.
    """

    epoch: int
    files: Files = ()


@dataclass(frozen=True)
class Finished:
    """The run is complete or has diverged.

    Attributes:
        files: As of `Saved`: the files of the run's folder.
    """

    record: RunRecord
    files: Files = ()


@dataclass(frozen=True)
class Paused:
    """The run was asked to end after this epoch, and has saved a checkpoint to go on from."""

    epoch: int


Event = Started | EpochDone | Saved | Finished | Paused
