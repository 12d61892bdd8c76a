"""Differences of networks from a baseline, with confidence intervals and tests.

Accuracy is modelled as network + seed: effects of a seed on all networks are removed, and the error is pooled over the
networks, which makes the most of few seeds. Two further intervals assume less: the paired interval (with a separate
error for each pair of networks) and Welch's (seeds taken as independent). All of them are conditional on one split and
one test set: seeds carry no information about others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.report.scores import Setting, UniqueNetwork, finished, setting_key, test_scores, unique_networks
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds

ALPHA, POWER = 0.05, 0.8
# Points of accuracy. With a million test images, accuracies differ by at least 0.0001; less is rounding.
_NO_SPREAD = 1e-9


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A difference in points of accuracy; the interval is None if the spread is unknown or zero."""

    difference: float
    interval: Interval | None


class Difference(NamedTuple):
    """A network minus the baseline, in points of accuracy.

    Attributes:
        variants: Labels of the network.
        setting: Setting of the grid; empty without a grid.
        n: Number of finished runs of the network.
        baseline_setting: Setting of the baseline: the same, unless each network is at its best one.
        baseline_n: Number of finished runs of the baseline.
        pooled: Estimate of the model network + seed; None if the runs do not connect the two networks.
        df: Degrees of freedom of the pooled error.
        p: p value of the pooled difference, two-sided.
        p_holm: The same, corrected for all tests of the comparison.
        detectable: The smallest true difference that the pooled test finds with 80 % power at alpha 0.05 (two-sided,
            uncorrected), given the estimated error.
        pairs: Number of seeds with runs of both networks.
        paired: Mean difference over these seeds.
        welch: Difference of the means, with seeds taken as independent.
        correlation: Correlation of the two networks' accuracies over these seeds; None for fewer than three seeds, or
            without spread.
    """

    variants: tuple[str, ...]
    setting: Setting
    n: int
    baseline_setting: Setting
    baseline_n: int
    pooled: Estimate | None
    df: int
    p: float | None
    p_holm: float | None
    detectable: float | None
    pairs: int
    paired: Estimate | None
    welch: Estimate | None
    correlation: float | None


class Comparison(NamedTuple):
    """All networks of a study compared with one.

    Attributes:
        baseline: The variant that the others are compared with.
        at_best: Whether each network is at its own setting with the best mean validation accuracy, rather than all at
            equal settings.
        equal: Other labels of the baseline's network, which are not compared.
        tests: Number of p values in Holm's correction.
    """

    baseline: str
    at_best: bool
    equal: tuple[str, ...]
    differences: tuple[Difference, ...]
    tests: int


def compare(results: Results, baseline: str | None = None) -> tuple[Comparison, ...]:
    """Differences from a baseline at equal settings; with a grid also at each network's best setting.

    Variants of the same network are compared once, and not with each other.

    Args:
        baseline: Label of a variant (default: the baseline of the study, or its first variant).

    Raises:
        UsageError: The variant is unknown.
    """
    labels = [network.label for network in results.networks]
    baseline = baseline or results.baseline or next(iter(labels), "")
    if baseline not in labels:
        raise UsageError(f"there is no variant '{baseline}' to compare with. {did_you_mean(baseline, labels)}".strip())
    networks, scores = unique_networks(results), test_scores(results)
    found = []
    equal: dict[str, None] = {}
    by_setting: dict[str, list[UniqueNetwork]] = {}
    for network in networks:
        by_setting.setdefault(setting_key(network.setting), []).append(network)
    for members in by_setting.values():
        base = next((network for network in members if baseline in network.labels), None)
        if base is not None:
            equal.update(dict.fromkeys(label for label in base.labels if label != baseline))
            found += _differences(base, [network for network in members if network != base], scores)
    comparisons = [_comparison(baseline, False, tuple(equal), found)]
    if len(by_setting) > 1:
        best = _best(results, networks)
        base = next(network for network in best if baseline in network.labels)
        others = [network for network in best if network != base]
        same = tuple(label for label in base.labels if label != baseline)
        comparisons.append(_comparison(baseline, True, same, _differences(base, others, scores)))
    return tuple(comparisons)


def _best(results: Results, networks: Sequence[UniqueNetwork]) -> list[UniqueNetwork]:
    """Each variant's network at its best setting.

    Among the settings with the most finished runs (so that none gains by diverged runs) it is the one with the highest
    mean validation accuracy, or the first of equal ones.
    """
    runs = finished(results)

    def rank(network: UniqueNetwork) -> tuple[int, float]:
        found = [run.validation_accuracy or 0.0 for run in runs[network.position].values()]
        return len(found), sum(found) / len(found) if found else 0.0

    labels: dict[int, list[str]] = {}
    for label in dict.fromkeys(network.label for network in results.networks):
        best = max((network for network in networks if label in network.labels), key=rank)
        labels.setdefault(best.position, []).append(label)
    return [UniqueNetwork(i, results.networks[i].setting, tuple(found)) for i, found in labels.items()]


def _comparison(baseline: str, at_best: bool, equal: tuple[str, ...], found: Sequence[Difference]) -> Comparison:
    from statsmodels.stats.multitest import multipletests

    p_values = [difference.p for difference in found if difference.p is not None]
    corrected = iter(multipletests(p_values, method="holm")[1] if p_values else ())
    differences = tuple(
        difference if difference.p is None else difference._replace(p_holm=float(next(corrected)))
        for difference in found
    )
    return Comparison(baseline, at_best, equal, differences, len(p_values))


def _differences(
    base: UniqueNetwork, others: Sequence[UniqueNetwork], scores: Sequence[Mapping[Seeds, float]]
) -> list[Difference]:
    base_scores = scores[base.position]
    model = fit([base_scores, *(scores[network.position] for network in others)])
    return [
        _difference(network, base, scores[network.position], base_scores, contrast)
        for network, contrast in zip(others, model, strict=True)
    ]


def _difference(
    network: UniqueNetwork,
    base: UniqueNetwork,
    scores: Mapping[Seeds, float],
    base_scores: Mapping[Seeds, float],
    contrast: Contrast | None,
) -> Difference:
    pairs = [(scores[seeds], base_scores[seeds]) for seeds in scores if seeds in base_scores]
    return Difference(
        variants=network.labels,
        setting=network.setting,
        n=len(scores),
        baseline_setting=base.setting,
        baseline_n=len(base_scores),
        pooled=contrast and contrast.estimate,
        df=contrast.df if contrast else 0,
        p=contrast and contrast.p,
        p_holm=None,
        detectable=contrast and contrast.detectable,
        pairs=len(pairs),
        paired=mean_with_interval([one - other for one, other in pairs]),
        welch=_welch(list(scores.values()), list(base_scores.values())),
        correlation=_correlation(pairs),
    )


class Contrast(NamedTuple):
    """A network compared with the baseline in the model network + seed."""

    estimate: Estimate
    df: int
    p: float | None
    detectable: float | None


def fit(scores: Sequence[Mapping[Seeds, float]]) -> list[Contrast | None]:
    """Each network compared with the first by least squares on network + seed, with the error pooled over networks.

    The result is that of a linear model with a column for each network and each seed. The mean of each network is
    removed first, which leaves a regression on the seeds alone, and so allows thousands of networks.

    None for a network whose runs are not connected to the first by shared seeds, directly or through other networks.
    Networks may lack runs: seeds that they do not share are accounted for.

    Source: Frisch & Waugh (1933), Lovell (1963), for removing some of the columns first.
    """
    import numpy as np
    from scipy.stats import t

    connected, seeds = _connected(scores)
    if len(connected) < 2:
        return [None] * (len(scores) - 1)
    runs = [(i, seeds.index(seed), value) for i, one in enumerate(connected) for seed, value in scores[one].items()]
    network, seed, accuracy = (np.array(column) for column in zip(*runs, strict=True))
    n = np.bincount(network)

    def means(columns: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(connected), *columns.shape[1:]))
        np.add.at(sums, network, columns)
        return (sums.T / n).T

    is_seed = np.eye(len(seeds))[seed][:, 1:]  # relative to the first seed
    mean_accuracy, mean_is_seed = means(accuracy), means(is_seed)
    y, x = accuracy - mean_accuracy[network], is_seed - mean_is_seed[network]
    inverse = np.linalg.inv(x.T @ x)
    of_seed = inverse @ x.T @ y
    of_network = mean_accuracy - mean_is_seed @ of_seed
    apart = mean_is_seed - mean_is_seed[0]  # differences of the networks in the shares of their seeds
    factor = np.sqrt(1 / n + 1 / n[0] + np.einsum("ij,jk,ik->i", apart, inverse, apart))
    df = len(runs) - len(connected) - len(seeds) + 1
    sd = float(np.sqrt(np.sum((y - x @ of_seed) ** 2) / df)) if df else 0.0

    def contrast(i: int) -> Contrast:
        difference = float(of_network[i] - of_network[0])
        if sd < _NO_SPREAD:
            return Contrast(Estimate(difference, None), df, None, None)
        error = sd * float(factor[i])
        half = error * float(t.ppf(1 - ALPHA / 2, df))
        p = 2 * float(t.sf(abs(difference) / error, df))
        interval = Interval(difference - half, difference + half)
        return Contrast(Estimate(difference, interval), df, p, error * _noncentrality(df))

    indices = {one: i for i, one in enumerate(connected)}
    return [contrast(indices[one]) if one in indices else None for one in range(1, len(scores))]


def _connected(scores: Sequence[Mapping[Seeds, float]]) -> tuple[list[int], list[Seeds]]:
    """The networks and seeds that are connected to the first network by shared seeds."""
    networks, seeds = {0}, set(scores[0])
    while more := {i for i, runs in enumerate(scores) if i not in networks and seeds & set(runs)}:
        networks |= more
        seeds |= {seed for i in more for seed in scores[i]}
    return sorted(networks) if seeds else [], sorted(seeds)


def mean_with_interval(values: Sequence[float]) -> Estimate | None:
    """The mean with its t interval; None without values."""
    import numpy as np
    from statsmodels.stats.weightstats import DescrStatsW

    if not values:
        return None
    if len(values) < 2 or np.std(values) < _NO_SPREAD:
        return Estimate(float(np.mean(values)), None)
    statistic = DescrStatsW(np.array(values))
    return Estimate(float(statistic.mean), Interval(*map(float, statistic.tconfint_mean(ALPHA))))


def _welch(a: Sequence[float], b: Sequence[float]) -> Estimate | None:
    import numpy as np
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    if not a or not b:
        return None
    difference = float(np.mean(a) - np.mean(b))
    if min(len(a), len(b)) < 2 or np.std(a) + np.std(b) < _NO_SPREAD:
        return Estimate(difference, None)
    both = CompareMeans(DescrStatsW(np.array(a)), DescrStatsW(np.array(b)))
    return Estimate(difference, Interval(*map(float, both.tconfint_diff(ALPHA, usevar="unequal"))))


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    import numpy as np

    if len(pairs) < 3 or min(np.std(pairs, axis=0)) < _NO_SPREAD:
        return None
    return float(np.corrcoef(np.transpose(pairs))[0, 1])


@lru_cache(maxsize=256)
def _noncentrality(df: int) -> float:
    """The true difference, in standard errors, that is found with the power `POWER`.

    The t statistic of such a difference follows the noncentral t distribution. Its far tail, with the wrong sign, has a
    probability below 0.00001 and is neglected.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr
    from scipy.stats import t

    critical = float(t.ppf(1 - ALPHA / 2, df))
    return float(brentq(lambda distance: 1 - nctdtr(df, distance, critical) - POWER, critical, 1.5 * critical + 1))
