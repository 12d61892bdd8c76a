"""Events of a run: the same whether it is trained in this process, in a worker, or on another machine.

A run is an iterator of events. The last one is `Finished` or `Paused`; an exception means that the run has failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.train.record import Environment, Epoch, RunRecord

Files = tuple[tuple[str, bytes], ...]
"""Name, relative to the run's folder, and content."""


@dataclass(frozen=True)
class Started:
    """The run starts or resumes.

    Attributes:
        epoch: Number of epochs that are already done, from a checkpoint.
    """

    epoch: int
    environment: Environment


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done. A later attempt may repeat this event, with the same numbers."""

    epoch: Epoch


@dataclass(frozen=True)
class Saved:
    """A checkpoint is written: nothing before it can be lost.

    Attributes:
        files: The files of the checkpoint, if the run's folder is not the driver's; else empty.
    """

    epoch: int
    files: Files = ()


@dataclass(frozen=True)
class Finished:
    """The run is complete or has diverged.

    Attributes:
        files: The files of the run's folder, if it is not the driver's; else empty.
    """

    record: RunRecord
    files: Files = ()


@dataclass(frozen=True)
class Paused:
    """The run was asked to stop, and has written a checkpoint to resume from.

    Attributes:
        epoch: Number of epochs that are done.
    """

    epoch: int


Event = Started | EpochDone | Saved | Finished | Paused


# ---- of runs that are trained together


@dataclass(frozen=True)
class Refused:
    """One of the runs that are trained together cannot be trained; the others can.

    Attributes:
        message: The reason, for users.
        is_final: Whether another attempt cannot succeed.
    """

    message: str
    is_final: bool = True


@dataclass(frozen=True)
class RunEvent:
    """An event of one of the runs that are trained together; the last one is `Finished`, `Paused` or `Refused`.

    Attributes:
        key: Of the run.
    """

    key: str
    event: Event | Refused


@dataclass(frozen=True)
class StackEnded:
    """The last event of each run that was trained together has been yielded."""
