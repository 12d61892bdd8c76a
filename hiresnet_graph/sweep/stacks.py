"""Which runs of a study are computed as one program, and how many at a time.

A bucket holds all runs that one network can stand for: runs with other seeds or another learning rate, and networks
that lack some of its edges. Of a bucket, stacks are cut; each is a task for a worker. Which runs have a bucket depends
on the study alone, so that a study goes on as it began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.stack.stackable import FEWEST, predicted_bytes, stackable
from hiresnet_graph.stack.supergraph import mask_of
from hiresnet_graph.sweep.plan import Network, Networks, StudyPlan
from hiresnet_graph.sweep.variants import Variant
from hiresnet_graph.sweep.ways import Backend
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import START, Cursor
from hiresnet_graph.train.request import RunRequest, StackBackend, StackMember, StackRequest

LEAST = {"stacked": FEWEST, "branches": 1}
"""Runs that are computed at least: stacks of fewer are filled up."""
# So many networks in a row that stand for no other.
_PATIENCE = 20


@dataclass(frozen=True)
class Bucket:
    """Runs that one program can compute.

    Attributes:
        keys: In the order of the study.
        whole: A network of which that of each run is a part.
        recipe: Of one of them; what the memory depends on is the same for all.
    """

    keys: tuple[str, ...]
    whole: Architecture
    recipe: Recipe

    def fitting(self, most: int, backend: StackBackend, room: int | None, *, has_begun: bool = False) -> int:
        """How many of its runs memory is there for; 0 if not even for the fewest.

        Args:
            most: The answer is not more.
            room: Bytes; None if that is not known.
            has_begun: Runs were computed together before: not memory decides, then, whether they are.
        """
        if room is None:
            return most
        low = self.recipe.precision == "bf16"
        each = predicted_bytes(self.whole.plan, FEWEST, self.recipe.batch_size, low) / FEWEST
        fitting, least = int(room / each), LEAST[backend]
        return min(most, max(fitting, least)) if has_begun or fitting >= least else 0


@dataclass(frozen=True)
class Stack:
    """Runs that one program computes.

    Attributes:
        keys: In the order of the study.
        whole: A network of which that of each run is a part, as a spec in YAML.
    """

    keys: tuple[str, ...]
    whole: str
    backend: StackBackend

    def of(self, keys: Iterable[str]) -> Stack:
        """Some of its runs."""
        return Stack(tuple(keys), self.whole, self.backend)

    def request(self, requests: Mapping[str, RunRequest], folders: Mapping[str, Path]) -> StackRequest:
        """What a worker is asked to do."""
        members = (StackMember(key, requests[key], folders[key]) for key in self.keys)
        return StackRequest(tuple(members), self.whole, self.backend)


def cut(keys: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """Parts of at most so many, as even as can be, the larger ones first; the order stays."""
    parts = -(-len(keys) // most)
    small, larger = divmod(len(keys), max(1, parts))
    start = 0
    for part in range(parts):
        end = start + small + (part < larger)
        yield tuple(keys[start:end])
        start = end


# ---------------------------------------------------------------------------------------------------------- the buckets


def buckets_of(networks: Networks, plan: StudyPlan, group: str | None = None) -> tuple[Bucket, ...]:
    """The buckets of a study. A run that is in none cannot be computed with others.

    Args:
        group: That of the study: the edges that its variants differ in.
    """
    members = {row.key: networks.members[row.network] for row in reversed(plan.rows)}
    alike: dict[object, list[str]] = {}
    for key, request in plan.requests.items():
        what = stackable(request.recipe)
        if what is not None:
            alike.setdefault(what, []).append(key)
    found = []
    for keys in alike.values():
        parts = {members[key].info.plan: members[key] for key in reversed(keys)}
        for whole, covered in _wholes(list(reversed(parts.values())), group):
            own = tuple(key for key in keys if members[key].info.plan in covered)
            if own:
                found.append(Bucket(own, whole, members[own[0]].recipe))
    return tuple(found)


def _wholes(parts: list[Network], group: str | None) -> Iterator[tuple[Architecture, set[str]]]:
    """Networks that stand for all parts: each with the digests of those that it stands for."""
    alone = 0
    while parts:
        if alone == _PATIENCE:  # no more is to be found, then
            yield from ((part.architecture, {part.info.plan}) for part in parts)
            return
        largest = max(parts, key=lambda part: part.info.macs)
        whole, covered = max(
            ((whole, _covered(whole, parts)) for whole in (largest.architecture, *_united(parts, group))),
            key=lambda one: (len(one[1]), -one[0].cost().macs),
        )
        yield whole, covered
        alone = alone + 1 if len(covered) < 2 else 0
        # One that not even stands for itself is trained alone.
        parts = [part for part in parts if part.info.plan not in covered and (covered or part is not largest)]


def _covered(whole: Architecture, parts: list[Network]) -> set[str]:
    return {part.info.plan for part in parts if mask_of(whole.plan, part.architecture.plan) is not None}


def _united(parts: list[Network], group: str | None) -> Iterator[Architecture]:
    """The first network with the edges of all, if that is one."""
    edges = tuple(dict.fromkeys(edge for part in parts for edge in part.info.edges))
    if not edges:
        return
    try:
        whole = Variant("whole", edges, group).of(parts[0].architecture)
        _ = whole.plan
    except (SpecError, UsageError):
        return
    yield whole


# ----------------------------------------------------------------------------------------------------------- the stacks


def stacks_of(
    buckets: Iterable[Bucket],
    missing: Collection[str],
    backend: Backend,
    most: int,
    *,
    room: int | None = None,
    has_begun: bool = False,
    places: Callable[[str], set[Cursor]] = lambda key: {START},
) -> tuple[Stack, ...]:
    """The stacks of the runs that are missing. Those that are in none are trained alone.

    Args:
        most: Runs of a stack.
        room: Bytes that the memory has for one; None if that is not known.
        has_begun: As of `Bucket.fitting`.
        places: Where a run can go on from. What began together goes on together.
    """
    kind: StackBackend = "stacked" if backend == "stacked" else "branches"
    stacks = []
    for bucket in buckets if backend != "eager" else ():
        if backend == "stacked" and len(bucket.keys) == 1:
            continue  # filled up it would take the time of three
        fitting = bucket.fitting(most, kind, room, has_begun=has_begun) if backend != "graph" else 1
        for group in _together([key for key in bucket.keys if key in missing], places) if fitting else ():
            whole = bucket.whole.to_yaml()
            stacks += [Stack(part, whole, kind) for part in cut(group, fitting)]
    return tuple(stacks)


def _together(keys: Sequence[str], places: Callable[[str], set[Cursor]]) -> list[list[str]]:
    """The runs in groups that have a place in common, and those at their start apart from others."""
    groups: list[tuple[set[Cursor], list[str]]] = []
    for key in keys:
        own = places(key)
        own = own - {START} or {START}
        for common, group in groups:
            if common & own:
                common &= own
                group.append(key)
                break
        else:
            groups.append((set(own), [key]))
    return [group for _, group in groups]
