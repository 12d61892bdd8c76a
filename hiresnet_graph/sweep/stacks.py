"""Runs that one program computes: all that the other files know of them.

The package `stack` has the programs. Only `find_groups` names it: without that package, and with no groups found, each
run is computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from hiresnet_graph.data import DatasetKind
from hiresnet_graph.sweep.networks import Network
from hiresnet_graph.train.events import RunEvent, StackEnded
from hiresnet_graph.train.record import START, Backend, Cursor
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    import torch

    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train.prepare import PreparedRun
    from hiresnet_graph.train.trainer import Condition, Trainer


class StackWork(Protocol):
    """The work of training a stack, as a value that any process can receive."""

    @property
    def data(self) -> DatasetKind:
        """The data of all runs."""
        ...

    def train(self, stop: Condition, dataset: Dataset) -> Iterator[RunEvent | StackEnded]:
        """Train the runs, each in its own folder, event by event.

        An exception means that all runs that have not ended have failed.
        """
        ...


class RunStack(Protocol):
    """Runs that one program computes, as one task of a worker."""

    @property
    def keys(self) -> tuple[str, ...]:
        """In the order of the study."""
        ...

    @property
    def least(self) -> int:
        """Runs of the smallest stack; a smaller one takes no less memory."""
        ...

    def of(self, keys: Iterable[str]) -> Self:
        """A stack of some of its runs."""
        ...

    def split(self, limit: int) -> Iterator[Self]:
        """Stacks of at most `limit` of its runs in their order, as even as possible, the larger ones first."""
        ...

    def work(self, requests: Mapping[str, RunRequest], folders: Mapping[str, Path]) -> StackWork:
        """The work for a worker."""
        ...

    def trainer(self, runs: Sequence[PreparedRun], device: torch.device) -> Trainer:
        """A trainer of its runs in lockstep."""
        ...


class RunGroup(Protocol):
    """Runs that may be computed together, because their networks are subgraphs of one network."""

    @property
    def keys(self) -> tuple[str, ...]:
        """In the order of the study."""
        ...

    def sizes(self, backend: Backend, limit: int, budget: int | None) -> range:
        """The possible numbers of runs of a stack that fit into memory; empty if the smallest does not fit.

        Args:
            limit: Upper limit of the numbers.
            budget: Memory in bytes; None if unknown.
        """
        ...

    def stack(self, keys: Iterable[str], backend: Backend) -> RunStack:
        """Some of its runs as a stack."""
        ...

    def stacks(
        self,
        missing: Collection[str],
        backend: Backend,
        limit: int,
        *,
        budget: int | None,
        is_resumed: bool,
        cursors: Callable[[str], set[Cursor]],
    ) -> Iterable[RunStack]:
        """The stacks of its missing runs; see `stack_runs`."""
        ...


def find_groups(networks: Mapping[str, Network], edge_group: str | None = None) -> Sequence[RunGroup]:
    """The groups of runs that one program can compute. A run in no group is trained alone.

    Args:
        networks: The network of each run by the run's key, in the order of the study.
        edge_group: The group of skips that the networks differ in, or `transitions`.
    """
    from hiresnet_graph.stack.grouping import Candidate, group_runs

    candidates = (
        Candidate(key, one.architecture, one.recipe, one.info.plan, one.info.macs, one.info.edges)
        for key, one in networks.items()
    )
    return group_runs(candidates, edge_group)


def stack_runs(
    groups: Iterable[RunGroup],
    missing: Collection[str],
    backend: Backend,
    limit: int,
    *,
    budget: int | None = None,
    is_resumed: bool = False,
    cursors: Callable[[str], set[Cursor]] = lambda key: {START},
) -> tuple[RunStack, ...]:
    """The stacks of the missing runs. Those in no stack are trained alone.

    Args:
        limit: Maximum number of runs of a stack.
        budget: Memory for a stack in bytes; None if unknown.
        is_resumed: Whether runs were computed together before: then memory decides their number only.
        cursors: The epochs and steps from which a run can be resumed. Runs that started together resume together.
    """
    if backend == "eager":
        return ()
    return tuple(
        stack
        for group in groups
        for stack in group.stacks(missing, backend, limit, budget=budget, is_resumed=is_resumed, cursors=cursors)
    )
