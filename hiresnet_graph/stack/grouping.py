"""Which runs of a study are computed as one program, and how many at a time. Needs no torch.

A group holds runs of subgraphs of one supergraph: runs with other seeds or another learning rate, and networks without
some of its edges. A group is split into stacks; each stack is one task of a worker. The groups depend on the study
alone, so that a resumed study has the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import DatasetKind
from hiresnet_graph.errors import SpecError
from hiresnet_graph.stack.request import StackBackend, StackMember, StackRequest
from hiresnet_graph.stack.stackable import MIN_REPLICAS, predicted_bytes, stack_group
from hiresnet_graph.stack.supergraph import mask_of
from hiresnet_graph.train.events import RunEvent, StackEnded
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import START, Backend, Cursor
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    import torch

    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.stack.trainer import StackTrainer
    from hiresnet_graph.train.prepare import PreparedRun
    from hiresnet_graph.train.trainer import Condition

# Runs of the smallest stack; smaller ones are padded.
_MIN_RUNS: dict[StackBackend, int] = {"stacked": MIN_REPLICAS, "branches": 1}
# After this many supergraphs in a row that hold no other network, the rest are not compared.
_PATIENCE = 20


class Candidate(NamedTuple):
    """A run that may be computed with others.

    Attributes:
        plan: Hash of its compiled network.
        edges: Names of the network's skip edges.
    """

    key: str
    architecture: Architecture
    recipe: Recipe
    plan: str
    macs: int
    edges: tuple[str, ...]


@dataclass(frozen=True)
class StackableGroup:
    """Runs that one program can compute.

    Attributes:
        keys: In the order of the study.
        supergraph: A network of which that of each run is a subgraph.
        recipe: The recipe of one run; the fields that memory depends on are the same for all.
    """

    keys: tuple[str, ...]
    supergraph: Architecture
    recipe: Recipe

    def sizes(self, backend: Backend, limit: int, budget: int | None) -> range:
        """The possible numbers of runs of a stack that fit into memory; empty if the smallest does not fit.

        Args:
            limit: Upper limit of the numbers.
            budget: Memory in bytes; None if unknown.
        """
        least, fitting = _MIN_RUNS[_of_stack(backend)], self._fitting(limit, budget)
        if budget is not None and fitting < least:
            return range(0)
        return range(min(least, limit), min(limit, fitting) + 1)

    def _fitting(self, limit: int, budget: int | None) -> int:
        """The number of runs that memory suffices for, or the limit if that is unknown."""
        if budget is None:
            return limit
        is_low = self.recipe.precision == "bf16"
        each = predicted_bytes(self.supergraph.plan, MIN_REPLICAS, self.recipe.batch_size, is_low) / MIN_REPLICAS
        return int(budget / each)

    def stack(self, keys: Iterable[str], backend: Backend) -> SupergraphStack:
        """Some of its runs as a stack."""
        return SupergraphStack(tuple(keys), self.supergraph.to_yaml(), _of_stack(backend))

    def stacks(
        self,
        missing: Collection[str],
        backend: Backend,
        limit: int,
        *,
        budget: int | None,
        is_resumed: bool,
        cursors: Callable[[str], set[Cursor]],
    ) -> Iterator[SupergraphStack]:
        """The stacks of its missing runs; see `stack_runs`."""
        if backend == "stacked" and len(self.keys) == 1:
            return  # padded, it would take the time of three
        sizes = self.sizes(backend, limit, budget)
        largest = 1 if backend == "graph" else max(sizes, default=0)
        if not largest and is_resumed:
            largest = min(limit, _MIN_RUNS[_of_stack(backend)])
        if largest:
            whole = self.stack((), backend)
            for together in _with_common_cursor([key for key in self.keys if key in missing], cursors):
                yield from whole.of(together).split(largest)


@dataclass(frozen=True)
class SupergraphStack:
    """Runs that one program computes.

    Attributes:
        keys: In the order of the study.
        supergraph: A network of which that of each run is a subgraph, as a spec in YAML.
    """

    keys: tuple[str, ...]
    supergraph: str
    backend: StackBackend

    @property
    def least(self) -> int:
        """Runs of the smallest stack; a smaller one takes no less memory."""
        return _MIN_RUNS[self.backend]

    def of(self, keys: Iterable[str]) -> SupergraphStack:
        """A stack of some of its runs."""
        return SupergraphStack(tuple(keys), self.supergraph, self.backend)

    def split(self, limit: int) -> Iterator[SupergraphStack]:
        """Stacks of at most `limit` of its runs in their order, as even as possible, the larger ones first."""
        parts = -(-len(self.keys) // limit)
        small, larger = divmod(len(self.keys), max(1, parts))
        start = 0
        for part in range(parts):
            end = start + small + (part < larger)
            yield self.of(self.keys[start:end])
            start = end

    def work(self, requests: Mapping[str, RunRequest], folders: Mapping[str, Path]) -> SupergraphWork:
        """The work for a worker."""
        members = (StackMember(key, requests[key], folders[key]) for key in self.keys)
        return SupergraphWork(StackRequest(tuple(members), self.supergraph, self.backend))

    def trainer(self, runs: Sequence[PreparedRun], device: torch.device) -> StackTrainer:
        """A trainer of its runs in lockstep."""
        from hiresnet_graph.stack.trainer import StackTrainer

        return StackTrainer(runs, loads(self.supergraph, "supergraph").plan, self.backend, device)


@dataclass(frozen=True)
class SupergraphWork:
    """The work of training a stack, as a value that any process can receive."""

    request: StackRequest

    @property
    def data(self) -> DatasetKind:
        """The data of all runs."""
        return self.request.runs[0].request.data

    def train(self, stop: Condition, dataset: Dataset) -> Iterator[RunEvent | StackEnded]:
        """Train the runs, each in its own folder, event by event."""
        from hiresnet_graph.stack.program import run_stack

        return run_stack(self.request, stop=stop, dataset=dataset)


def _of_stack(backend: Backend) -> StackBackend:
    """How a stack is computed: a single run as one launch of a GPU is a stack of one branch."""
    return "stacked" if backend == "stacked" else "branches"


# ---- groups


def group_runs(candidates: Iterable[Candidate], edge_group: str | None = None) -> tuple[StackableGroup, ...]:
    """The groups of runs that one program can compute. A run in no group is trained alone.

    Args:
        candidates: In the order of the study.
        edge_group: The group of skips that the networks differ in, or `transitions`.
    """
    alike: dict[object, list[Candidate]] = {}
    for candidate in candidates:
        shared = stack_group(candidate.recipe)
        if shared is not None:
            alike.setdefault(shared, []).append(candidate)
    groups = []
    for members in alike.values():
        networks: dict[str, Candidate] = {}
        for member in members:
            networks.setdefault(member.plan, member)
        for supergraph, covered in _supergraphs(networks, edge_group):
            own = [member for member in members if member.plan in covered]
            if own:
                groups.append(StackableGroup(tuple(member.key for member in own), supergraph, own[0].recipe))
    return tuple(groups)


def _supergraphs(networks: dict[str, Candidate], edge_group: str | None) -> Iterator[tuple[Architecture, set[str]]]:
    """Supergraphs of all networks (by their hashes), each with the hashes of those that it holds."""
    in_vain = 0
    while networks:
        if in_vain == _PATIENCE:
            yield from ((network.architecture, {plan}) for plan, network in networks.items())
            return
        largest = max(networks.values(), key=lambda network: network.macs)
        choices = (largest.architecture, *_union(list(networks.values()), edge_group))
        supergraph, covered = max(
            ((choice, _subgraphs(choice, networks)) for choice in choices),
            key=lambda found: (len(found[1]), -found[0].cost().macs),
        )
        yield supergraph, covered
        in_vain = in_vain + 1 if len(covered) < 2 else 0
        # A network that is not even a subgraph of itself is trained alone.
        for plan in covered or {largest.plan}:
            del networks[plan]


def _subgraphs(supergraph: Architecture, networks: Mapping[str, Candidate]) -> set[str]:
    plan = supergraph.plan
    return {key for key, network in networks.items() if mask_of(plan, network.architecture.plan) is not None}


def _union(networks: Sequence[Candidate], edge_group: str | None) -> Iterator[Architecture]:
    """The first network with the edges of all, if that is valid."""
    edges = list(dict.fromkeys(edge for network in networks for edge in network.edges))
    if not edges:
        return
    union = networks[0].architecture.with_edges(edges, edge_group)
    try:
        _ = union.plan
    except SpecError:
        return
    yield union


def _with_common_cursor(keys: Sequence[str], cursors: Callable[[str], set[Cursor]]) -> list[list[str]]:
    """The runs in groups that can be resumed from a common cursor, and those at their start apart from the others."""
    groups: list[tuple[set[Cursor], list[str]]] = []
    for key in keys:
        own = cursors(key)
        own = own - {START} or {START}
        for common, group in groups:
            if common & own:
                common &= own
                group.append(key)
                break
        else:
            groups.append((set(own), [key]))
    return [group for _, group in groups]
