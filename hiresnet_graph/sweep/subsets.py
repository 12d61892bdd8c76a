"""Rules that choose subsets of a set of edges."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations, count

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.seeding import draw_integer

MAX_SUBSETS = 100_000
_COUNTED = 10**30
RULES = {
    "all": "every subset",
    "size:K": "every subset of K edges; size:A-B for all sizes from A to B",
    "leave-one-out": "all edges, and all but each one",
    "one-at-a-time": "no edge, and each edge alone",
    "random:K": "K different random subsets; random:K,SEED draws others",
}
RULE_FORMS = [*RULES, "size:A-B"]
"""What rules look like."""
_SIZE = re.compile(r"size:(\d{1,9})(?:-(\d{1,9}))?")
_RANDOM = re.compile(r"random:(\d{1,9})(?:,\s*(\d{1,18}))?")


def subsets(edges: Sequence[str], rule: str) -> list[tuple[str, ...]]:
    """The subsets that a rule selects, each in the order of `edges`.

    `leave-one-out` starts with the full set and then leaves out the first edge, the second, ...; all other rules but
    `random` go from small to large. The first subset is therefore the baseline of `leave-one-out` and `one-at-a-time`.
    `random:5` is a prefix of `random:10`; every subset is equally likely.

    Args:
        edges: All different.
        rule: One of `RULES`.

    Raises:
        UsageError: The rule is unknown, its size or number is out of range, or it gives more than 100,000 subsets.
    """
    number = count_subsets(len(edges), rule)
    if number > MAX_SUBSETS:
        raise UsageError(
            f"rule '{rule}' over {len(edges)} edges gives {_shown(number)} subsets; {MAX_SUBSETS:,} is the limit. "
            "Choose sizes, like 'size:0-2', or fewer edges."
        )
    if match := _RANDOM.fullmatch(rule):
        return _random_subsets(edges, number, int(match[2] or 0))
    found = [subset for size in _sizes(len(edges), rule) for subset in combinations(edges, size)]
    return [found[0], *reversed(found[1:])] if rule == "leave-one-out" else found


def _shown(number: int) -> str:
    """A number, as far as it is counted exactly."""
    return f"{number:,}" if number <= _COUNTED else "more than 10^30"


def count_subsets(edges: int, rule: str) -> int:
    """The number of subsets that a rule gives of `edges` edges, without the limit of `subsets`; exact up to 10^30.

    Raises:
        UsageError: The rule is unknown, or its size or number is out of range.
    """
    if match := _RANDOM.fullmatch(rule):
        number = int(match[1])
        if not 1 <= number <= 2**edges:
            raise UsageError(f"rule '{rule}': {edges} edges have 1 to {_shown(2**edges)} different subsets.")
        return number
    total = 0
    for size in _sizes(edges, rule):
        total += math.comb(edges, size)
        if total > _COUNTED:
            break
    return total


def is_random(rule: str) -> bool:
    """Whether a rule draws at random, so that its first subset is not a baseline."""
    return rule.startswith("random")


def _sizes(edges: int, rule: str) -> list[int]:
    if rule == "all":
        return list(range(edges + 1))
    if rule == "leave-one-out":
        return [edges, edges - 1] if edges else [0]
    if rule == "one-at-a-time":
        return [0, 1] if edges else [0]
    match = _SIZE.fullmatch(rule)
    if match is None:
        hint = did_you_mean(rule, RULE_FORMS)
        if rule.startswith("size"):
            hint = "Write 'size:2' or 'size:1-3'."
        elif is_random(rule):
            hint = "Write 'random:10', or 'random:10,3' with a seed."
        raise UsageError(f"there is no subset rule '{rule}'. {hint}")
    smallest, largest = int(match[1]), int(match[2] or match[1])
    if not smallest <= largest <= edges:
        raise UsageError(f"rule '{rule}': sizes range from 0 to {edges} (the number of edges), the smaller one first.")
    return list(range(smallest, largest + 1))


def _random_subsets(edges: Sequence[str], number: int, seed: int) -> list[tuple[str, ...]]:
    """The first `number` different subsets of a random stream. Few edges are shuffled, so that this terminates."""
    if len(edges) <= 16:
        masks = sorted(range(2 ** len(edges)), key=lambda mask: draw_integer("subset", seed, mask))[:number]
    else:
        found: dict[int, None] = {}
        for attempt in count():
            if len(found) == number:
                break
            found[draw_integer("subset", seed, attempt, bits=len(edges))] = None
        masks = list(found)
    return [tuple(edge for i, edge in enumerate(edges) if mask >> i & 1) for mask in masks]
