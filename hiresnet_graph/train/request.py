"""What a run is asked to do, as plain values that any process can be handed."""

from __future__ import annotations

from dataclasses import dataclass

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
