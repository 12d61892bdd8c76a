"""What each edge contributes, if a study trained subsets of a set of edges.

The main effect of an edge is what adding it does, averaged over all pairs of subsets that differ by it alone. Its
Shapley value weighs these pairs by size, so that the values of all edges sum to what all edges together do; that needs
every subset. Both are computed seed by seed; the spread is over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hiresnet_graph.report.scores import Setting, Spread, key, settings, spread, test_scores
from hiresnet_graph.report.statistics import Interval, mean_with_interval
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds

if TYPE_CHECKING:
    import numpy as np

Subset = frozenset[str]


class Effect(NamedTuple):
    """Something that each seed gives a value of, in points of accuracy.

    Attributes:
        values: By seed.
        spread: Over the seeds.
        interval: Of the mean; None for one seed, or without spread.
    """

    values: Mapping[Seeds, float]
    spread: Spread
    interval: Interval | None


class EdgeEffect(NamedTuple):
    """What one edge contributes.

    Attributes:
        pairs: Of subsets of the study that differ by this edge alone.
        main: Over these pairs, for the seeds with all runs of them; None if there are none.
        shapley: None without a seed that has a run of every subset.
    """

    edge: str
    pairs: int
    main: Effect | None
    shapley: Effect | None


class Effects(NamedTuple):
    """What the edges contribute, at one setting of the grid.

    Attributes:
        total: All edges minus none, what the Shapley values sum to; None without them.
        missing: Why there are no Shapley values, or which seeds they leave out; or empty.
    """

    setting: Setting
    edges: tuple[EdgeEffect, ...]
    total: Effect | None
    missing: str


def edge_effects(results: Results) -> tuple[Effects, ...]:
    """Main effects and Shapley values of the edges of which the study trained subsets, for each setting of the grid.

    Nothing if the study's variants were not made by a subset rule.
    """
    if not results.subsets_of:
        return ()
    runs = test_scores(results)
    return tuple(_effects(results, runs, at, setting) for at, setting in settings(results).items())


def _effects(results: Results, runs: Sequence[Mapping[Seeds, float]], at: str, setting: Setting) -> Effects:
    edges = results.subsets_of
    scores = _by_subset(results, runs, at)
    full = 2 ** len(edges)
    complete = _common(scores.values()) if len(scores) == full else []
    shapley: list[Effect | None] = [None] * len(edges)
    total, missing = None, ""
    if complete:
        values = _values(edges, scores, complete)
        shapley = [_effect(complete, column) for column in shapley_values(values).T]
        total = _effect(complete, values[:, -1] - values[:, 0])
    left_out = [seeds for seeds in _seeds(scores.values()) if seeds not in complete]
    if len(scores) < full:
        missing = f"Shapley values need all {full:,} subsets of the {len(edges)} edges; the study has {len(scores):,}."
    elif left_out:
        lacks = "; ".join(
            f"seed {seeds} lacks {sum(seeds not in runs for runs in scores.values()):,}" for seeds in left_out
        )
        missing = f"Shapley values need a finished run of all {full:,} subsets: {lacks}."
    elif not complete:
        missing = f"Shapley values need a finished run of all {full:,} subsets; there is none yet."
    found = []
    for edge, value in zip(edges, shapley, strict=True):
        pairs = [(scores[one], scores[one | {edge}]) for one in scores if edge not in one and one | {edge} in scores]
        found.append(EdgeEffect(edge, len(pairs), _main_effect(pairs), value))
    return Effects(setting, tuple(found), total, missing)


def shapley_values(values: np.ndarray) -> np.ndarray:
    """The share of each player in what all together gain over none.

    A player's value is what it adds to those who came before it, averaged over all orders in which they can come.

    Args:
        values: One game a row. Column i is the value of the players that are the 1 bits of i, so there are 2**players.

    Returns:
        One game a row, one player a column. Each row sums to the last value minus the first.

    Source: Shapley (1953), A value for n-person games.
    """
    import numpy as np

    subsets = np.arange(values.shape[1])
    players = values.shape[1].bit_length() - 1
    sizes = np.array([int(subset).bit_count() for subset in subsets])
    shares = np.empty((values.shape[0], players))
    for player in range(players):
        without = subsets[(subsets >> player) & 1 == 0]
        # Of all orders, those in which just these players come before.
        orders = np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])[sizes[without]]
        shares[:, player] = (values[:, without | 1 << player] - values[:, without]) @ orders
    return shares


def _by_subset(
    results: Results, scores: Sequence[Mapping[Seeds, float]], at: str
) -> dict[Subset, Mapping[Seeds, float]]:
    """The accuracies of each subset of the edges that the study has at a setting.

    Other networks of the study, like controls, may have the same skips as a subset, but be wider. If so, the subset is
    the one that is labelled as such, else the first.
    """
    edges = results.subsets_of
    found: dict[Subset, Mapping[Seeds, float]] = {}
    is_labelled: dict[Subset, bool] = {}
    for network, runs in zip(results.networks, scores, strict=True):
        subset = frozenset(network.edges)
        if key(network.setting) != at or not subset <= set(edges):
            continue
        named = network.label in _labels(edges, subset)
        if subset not in found or (named and not is_labelled[subset]):
            found[subset], is_labelled[subset] = runs, named
    return found


def _labels(edges: Sequence[str], subset: Subset) -> set[str]:
    """What the rules for subsets call this one."""
    labels = {" + ".join(edge for edge in edges if edge in subset) or "none"}
    left = [edge for edge in edges if edge not in subset]
    if len(left) < 2:
        labels.add(f"without {left[0]}" if left else "all")
    return labels


def _seeds(runs: Iterable[Mapping[Seeds, float]]) -> list[Seeds]:
    return sorted({seeds for scores in runs for seeds in scores})


def _common(runs: Iterable[Mapping[Seeds, float]]) -> list[Seeds]:
    """The seeds that all have."""
    found = list(runs)
    return [seeds for seeds in _seeds(found) if all(seeds in scores for scores in found)]


def _values(edges: Sequence[str], scores: Mapping[Subset, Mapping[Seeds, float]], seeds: list[Seeds]) -> np.ndarray:
    """One seed a row; column i is the subset of the edges that are the 1 bits of i."""
    import numpy as np

    subsets = [frozenset(edge for place, edge in enumerate(edges) if i >> place & 1) for i in range(2 ** len(edges))]
    return np.array([[scores[subset][one] for subset in subsets] for one in seeds])


def _main_effect(pairs: Sequence[tuple[Mapping[Seeds, float], Mapping[Seeds, float]]]) -> Effect | None:
    if not pairs:
        return None
    seeds = _common(runs for pair in pairs for runs in pair)
    if not seeds:
        return None
    return _effect(seeds, [math.fsum(added[one] - base[one] for base, added in pairs) / len(pairs) for one in seeds])


def _effect(seeds: Sequence[Seeds], values: Iterable[float]) -> Effect:
    numbers = [float(value) for value in values]
    over, mean = spread(numbers), mean_with_interval(numbers)
    assert over is not None and mean is not None  # there is at least one seed
    return Effect(dict(zip(seeds, numbers, strict=True)), over, mean.interval)
