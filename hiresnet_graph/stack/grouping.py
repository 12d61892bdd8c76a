"""Which runs of a study are computed as one program, and how many at a time. Needs no torch.

A group holds runs of subgraphs of one supergraph: runs with other seeds or another learning rate, and networks without
some of its edges. A group is split into stacks; each stack is one task of a worker. The groups depend on the study
alone, so that a resumed study has the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import SpecError
from hiresnet_graph.stack.request import StackBackend, StackMember, StackRequest
from hiresnet_graph.stack.stackable import MIN_REPLICAS, predicted_bytes, stack_group
from hiresnet_graph.stack.supergraph import mask_of
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import START, Cursor
from hiresnet_graph.train.request import RunRequest

Backend = Literal["eager", "graph", "branches", "stacked"]
"""How steps are computed: each run by itself, as one launch of a GPU, or with other runs. See `Environment.backend`."""

MIN_RUNS = {"stacked": MIN_REPLICAS, "branches": 1}
"""Runs of the smallest stack; smaller ones are padded."""
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

    def fitting(self, limit: int, backend: StackBackend, budget: int | None, *, is_resumed: bool = False) -> int:
        """The number of runs that fit into memory; 0 if the smallest stack does not fit.

        Args:
            limit: Upper limit of the result.
            budget: Memory in bytes; None if unknown.
            is_resumed: Whether runs were computed together before: then memory decides their number only.
        """
        if budget is None:
            return limit
        is_low = self.recipe.precision == "bf16"
        each = predicted_bytes(self.supergraph.plan, MIN_REPLICAS, self.recipe.batch_size, is_low) / MIN_REPLICAS
        fitting, least = int(budget / each), MIN_RUNS[backend]
        return min(limit, max(fitting, least)) if is_resumed or fitting >= least else 0


@dataclass(frozen=True)
class RunStack:
    """Runs that one program computes.

    Attributes:
        keys: In the order of the study.
        supergraph: A network of which that of each run is a subgraph, as a spec in YAML.
    """

    keys: tuple[str, ...]
    supergraph: str
    backend: StackBackend

    def of(self, keys: Iterable[str]) -> RunStack:
        """A stack of some of its runs."""
        return RunStack(tuple(keys), self.supergraph, self.backend)

    def request(self, requests: Mapping[str, RunRequest], folders: Mapping[str, Path]) -> StackRequest:
        """The request to a worker."""
        members = (StackMember(key, requests[key], folders[key]) for key in self.keys)
        return StackRequest(tuple(members), self.supergraph, self.backend)


def split_evenly(keys: Sequence[str], limit: int) -> Iterator[tuple[str, ...]]:
    """Parts of at most `limit` keys in their order, as even as possible, the larger ones first."""
    parts = -(-len(keys) // limit)
    small, larger = divmod(len(keys), max(1, parts))
    start = 0
    for part in range(parts):
        end = start + small + (part < larger)
        yield tuple(keys[start:end])
        start = end


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


# ---- stacks


def stack_runs(
    groups: Iterable[StackableGroup],
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
        is_resumed: As for `StackableGroup.fitting`.
        cursors: The epochs and steps from which a run can be resumed. Runs that started together resume together.
    """
    kind: StackBackend = "stacked" if backend == "stacked" else "branches"
    stacks = []
    for group in groups if backend != "eager" else ():
        if backend == "stacked" and len(group.keys) == 1:
            continue  # padded, it would take the time of three
        fitting = group.fitting(limit, kind, budget, is_resumed=is_resumed) if backend != "graph" else 1
        if not fitting:
            continue
        supergraph = group.supergraph.to_yaml()
        for together in _with_common_cursor([key for key in group.keys if key in missing], cursors):
            stacks += [RunStack(part, supergraph, kind) for part in split_evenly(together, fitting)]
    return tuple(stacks)


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
