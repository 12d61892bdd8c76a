"""Topological order and reachability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush


def topological_order(
    successors: Sequence[Sequence[int]], unblock: Callable[[], int | None] | None = None
) -> Iterator[int]:
    """Yield indices so that each comes after all its predecessors; among the free ones, the smallest comes first.

    Args:
        successors: For each index, the indices that must come later, one entry for each edge.
        unblock: Chooses the next index where every remaining one waits for another. The order ends where it returns
            None or is not given: those on cycles, and those behind them, are left out.
    """
    waiting = [0] * len(successors)
    for followers in successors:
        for index in followers:
            waiting[index] += 1
    free = [index for index, count in enumerate(waiting) if count == 0]
    remaining = len(successors)
    while remaining:
        if free:
            index = heappop(free)
        else:
            chosen = unblock() if unblock is not None else None
            if chosen is None:
                return
            index = chosen
            waiting[index] = 0
        remaining -= 1
        yield index
        for follower in successors[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heappush(free, follower)


def reachable(starts: Iterable[str], neighbours: Callable[[str], Iterable[str]]) -> set[str]:
    """The starts, and all that paths from them lead to."""
    found = set(starts)
    todo = list(found)
    while todo:
        new = set(neighbours(todo.pop())) - found
        found |= new
        todo += new
    return found
