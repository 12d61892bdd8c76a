"""What a run says while it is trained: the same on this machine, from a worker process, or from another machine.

A run is an iterator of these. Its last event is `Finished` or `Paused`; an exception is a failure.

A stack, which is many runs that are computed as one program, is an iterator of what its runs say (`RunEvent`). Its last
event is `StackEnded`; an exception is a failure of all its runs that have not ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.train.record import Environment, Epoch, RunRecord

Files = tuple[tuple[str, bytes], ...]
"""Name, relative to the run's folder, and content."""


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        epoch: Epochs that are done already; those of a checkpoint.
    """

    epoch: int
    machine: Environment


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


@dataclass(frozen=True)
class Refused:
    """A run of a stack cannot be trained, while the others go on.

    Attributes:
        message: Why not; fit to be shown to a person.
        is_final: Trying again cannot help.
    """

    message: str
    is_final: bool = True


@dataclass(frozen=True)
class RunEvent:
    """What one run of a stack says. The last of a run is `Finished`, `Paused` or `Refused`.

    Attributes:
        key: Of the run.
    """

    key: str
    event: Event | Refused


@dataclass(frozen=True)
class StackEnded:
    """All runs of a stack have said their last."""
