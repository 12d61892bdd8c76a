"""What a run, or a stack of runs, is asked to do, as plain values that any process can be handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hiresnet_graph.data import DatasetKind
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds


@dataclass(frozen=True)
class RunRequest:
    """One network, one data set, one recipe, two seeds.

    Attributes:
        spec: The network as a spec in YAML, with its changes and its variant put in.
        label: What tables call it.
        device: `cpu`, `cuda`, `cuda:1`, ...
        threads: Of the CPU; other numbers round differently.
        checkpoint_s: Least time between two checkpoints; 0 makes one after each epoch. A run that is stopped saves one
            whatever it is.
        data_workers: Processes that read images of a data set that is streamed.
    """

    spec: str
    label: str
    seeds: Seeds
    data: DatasetKind
    recipe: Recipe
    device: str = "cpu"
    threads: int = 1
    checkpoint_s: float = 60.0
    data_workers: int = 0


StackBackend = Literal["stacked", "branches"]


class StackMember(NamedTuple):
    """One run of a stack.

    Attributes:
        folder: Its own.
    """

    key: str
    request: RunRequest
    folder: Path


@dataclass(frozen=True)
class StackRequest:
    """Runs that are computed as one program, in lockstep.

    Their recipes are equal but for the fields of each run alone (see `stackable`); data, device, threads and data
    workers are equal, too.

    Attributes:
        whole: A network, as a spec in YAML, of which each run's network is a part: edges may be missing.
        backend: `stacked` computes all of them with one kernel for each operation; `branches` computes each with the
            kernels of a run alone.
    """

    runs: tuple[StackMember, ...]
    whole: str
    backend: StackBackend = "stacked"
