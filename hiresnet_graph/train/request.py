"""The task of a run, as plain values that any process can receive."""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.data import DatasetKind
from hiresnet_graph.errors import UsageError
from hiresnet_graph.seeding import MAX_SEED
from hiresnet_graph.train.initial_weights import InitialWeights
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds

MAX_THREADS = 1_024


@dataclass(frozen=True)
class RunRequest:
    """One network, one data set, one recipe, two seeds.

    Attributes:
        spec: The network as a spec in YAML, with its overrides and its variant applied.
        label: Name of the network in tables.
        device: `cpu`, `cuda`, `cuda:1`, ...
        threads: CPU threads; another number rounds differently.
        checkpoint_s: Minimum seconds between two checkpoints; 0 writes one after each epoch. A run that is stopped
            always writes one.
        data_workers: Processes that read the images of a streamed data set.
        weights: What the run starts from, instead of random weights.
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
    weights: InitialWeights | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads: must be a number from 1 to {MAX_THREADS:,}, not {self.threads}.")
        if not all(0 <= seed <= MAX_SEED for seed in self.seeds):
            raise UsageError(f"seed: must be a number from 0 to {MAX_SEED:,}, not {self.seeds}.")
