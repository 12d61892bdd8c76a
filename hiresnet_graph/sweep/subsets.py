"""Rules that say which subsets of a set of edges are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations

from hiresnet_graph.errors import UsageError, did_you_mean

MAX_SUBSETS = 100_000
RULES = {
    "all": "every subset",
    "size:K": "every subset of K edges; size:A-B for all sizes from A to B",
    "leave-one-out": "all edges, and all but each one",
    "one-at-a-time": "no edge, and each edge alone",
}
_SIZE = re.compile(r"size:(\d+)(?:-(\d+))?")


def subsets(edges: Sequence[str], rule: str) -> list[tuple[str, ...]]:
    """The subsets that a rule means, each in the order of `edges`.

    `leave-one-out` starts with the whole set and then leaves out the first edge, the second, ...; all other rules go
    from small to large. So the first subset is the one that `leave-one-out` and `one-at-a-time` compare with.

    Args:
        edges: All different.
        rule: One of `RULES`.

    Raises:
        UsageError: There is no such rule, a size is larger than the set, or there are more than 100,000 subsets.
    """
    sizes = _sizes(len(edges), rule)
    number = sum(math.comb(len(edges), size) for size in sizes)
    if number > MAX_SUBSETS:
        raise UsageError(
            f"rule '{rule}' over {len(edges)} edges gives {number:,} subsets; {MAX_SUBSETS:,} is the limit. "
            "Choose sizes, like 'size:0-2', or fewer edges."
        )
    found = [subset for size in sizes for subset in combinations(edges, size)]
    return [found[0], *reversed(found[1:])] if rule == "leave-one-out" else found


def count_subsets(edges: int, rule: str) -> int:
    """How many subsets a rule gives of so many edges, whatever the limit.

    Raises:
        UsageError: There is no such rule, or a size is larger than the set.
    """
    return sum(math.comb(edges, size) for size in _sizes(edges, rule))


def _sizes(edges: int, rule: str) -> list[int]:
    if rule == "all":
        return list(range(edges + 1))
    if rule == "leave-one-out":
        return [edges, edges - 1] if edges else [0]
    if rule == "one-at-a-time":
        return [0, 1] if edges else [0]
    match = _SIZE.fullmatch(rule)
    if match is None:
        known = [name for name in RULES if name != "size:K"]
        hint = "Write 'size:2' or 'size:1-3'." if rule.startswith("size") else did_you_mean(rule, [*known, "size:K"])
        raise UsageError(f"there is no subset rule '{rule}'. {hint}")
    least, most = int(match[1]), int(match[2] or match[1])
    if not least <= most <= edges:
        raise UsageError(f"rule '{rule}': sizes go from 0 to {edges}, the number of edges, the smaller one first.")
    return list(range(least, most + 1))
