"""How far each network is from a baseline, and how sure that is.

The runs of a study are a table of networks and seeds, so that accuracy is modelled as network + seed: what a seed does
to all networks alike is taken out, and the error is pooled over the networks, which makes the most of few seeds. Beside
it stand two intervals that assume less: the paired one (its own error for each pair of networks) and Welch's (seeds
taken as unrelated). All of it is for one split and one set of test images: seeds say nothing about others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.report.scores import Setting, Unique, finished, key, test_scores, unique_networks
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds

ALPHA, POWER = 0.05, 0.8
# Points of accuracy. A million test images are steps of 0.0001; what is below this is rounding.
_NO_SPREAD = 1e-9


class Interval(NamedTuple):
    """A confidence interval of 95 %."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A difference in points of accuracy; the interval is None if the values say nothing of their spread."""

    difference: float
    interval: Interval | None


class Difference(NamedTuple):
    """A network minus the baseline, in points of accuracy.

    Attributes:
        variants: The labels of the network.
        setting: Of the grid; empty without one.
        n: Finished runs of the network.
        baseline_setting: That of the baseline's runs: the same, unless each network is at its best one.
        baseline_n: Finished runs of the baseline.
        pooled: By the model network + seed; None if the runs do not connect the two networks.
        df: Degrees of freedom of the pooled error.
        p: That the pooled difference is as far from 0 by chance, two-sided.
        p_holm: The same, corrected for all tests of the comparison.
        detectable: The smallest true difference that the pooled test finds with 80 % power at alpha 0.05, two-sided and
            uncorrected, if the error is as large as it seems here.
        pairs: Seeds with a run of both networks.
        paired: Mean over these seeds of the difference.
        welch: Difference of the means, with seeds taken as unrelated.
        correlation: Of the two networks' accuracies over these seeds; None below three, or without spread.
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
    """All networks of a study against one.

    Attributes:
        baseline: The variant that the others are compared with.
        at_best: Whether each network is at the setting where its mean validation accuracy is best, rather than all at
            equal settings.
        equal: Other labels of the baseline's network, which are not compared.
        tests: Number of p values that Holm's correction is for.
    """

    baseline: str
    at_best: bool
    equal: tuple[str, ...]
    differences: tuple[Difference, ...]
    tests: int


def compare(results: Results, baseline: str | None = None) -> tuple[Comparison, ...]:
    """Differences from a baseline at equal settings; with a grid also at each network's best setting.

    Networks that are the same are compared once, and not with themselves.

    Args:
        baseline: Label of a variant; the study's own if left out, or else its first.

    Raises:
        UsageError: There is no such variant.
    """
    labels = [network.label for network in results.networks]
    baseline = baseline or results.baseline or next(iter(labels), "")
    if baseline not in labels:
        raise UsageError(f"there is no variant '{baseline}' to compare with. {did_you_mean(baseline, labels)}".strip())
    networks, scores = unique_networks(results), test_scores(results)
    found = []
    equal: dict[str, None] = {}
    by_setting: dict[str, list[Unique]] = {}
    for network in networks:
        by_setting.setdefault(key(network.setting), []).append(network)
    for here in by_setting.values():
        base = next((network for network in here if baseline in network.labels), None)
        if base is not None:
            equal.update(dict.fromkeys(label for label in base.labels if label != baseline))
            found += _differences(base, [network for network in here if network != base], scores)
    comparisons = [_comparison(baseline, False, tuple(equal), found)]
    if len(by_setting) > 1:
        best = _best(results, networks)
        base = next(network for network in best if baseline in network.labels)
        others = [network for network in best if network != base]
        same = tuple(label for label in base.labels if label != baseline)
        comparisons.append(_comparison(baseline, True, same, _differences(base, others, scores)))
    return tuple(comparisons)


def _best(results: Results, networks: Sequence[Unique]) -> list[Unique]:
    """Each variant's network at the setting that is best for it.

    Of the settings with the most finished runs, so that none gains by runs that diverged, it is the one with the
    highest mean validation accuracy; of equal ones the first.
    """
    runs = finished(results)

    def merit(network: Unique) -> tuple[int, float]:
        found = [run.validation_accuracy or 0.0 for run in runs[network.place].values()]
        return len(found), sum(found) / len(found) if found else 0.0

    labels: dict[int, list[str]] = {}
    for label in dict.fromkeys(network.label for network in results.networks):
        best = max((network for network in networks if label in network.labels), key=merit)
        labels.setdefault(best.place, []).append(label)
    return [Unique(i, results.networks[i].setting, tuple(found)) for i, found in labels.items()]


def _comparison(baseline: str, at_best: bool, equal: tuple[str, ...], found: Sequence[Difference]) -> Comparison:
    from statsmodels.stats.multitest import multipletests

    p_values = [difference.p for difference in found if difference.p is not None]
    corrected = iter(multipletests(p_values, method="holm")[1] if p_values else ())
    differences = tuple(
        difference if difference.p is None else difference._replace(p_holm=float(next(corrected)))
        for difference in found
    )
    return Comparison(baseline, at_best, equal, differences, len(p_values))


def _differences(base: Unique, others: Sequence[Unique], scores: Sequence[Mapping[Seeds, float]]) -> list[Difference]:
    theirs = scores[base.place]
    model = fit([theirs, *(scores[network.place] for network in others)])
    return [
        _difference(network, base, scores[network.place], theirs, contrast)
        for network, contrast in zip(others, model, strict=True)
    ]


def _difference(
    network: Unique,
    base: Unique,
    ours: Mapping[Seeds, float],
    theirs: Mapping[Seeds, float],
    contrast: Contrast | None,
) -> Difference:
    pairs = [(ours[seeds], theirs[seeds]) for seeds in ours if seeds in theirs]
    return Difference(
        variants=network.labels,
        setting=network.setting,
        n=len(ours),
        baseline_setting=base.setting,
        baseline_n=len(theirs),
        pooled=contrast and contrast.estimate,
        df=contrast.df if contrast else 0,
        p=contrast and contrast.p,
        p_holm=None,
        detectable=contrast and contrast.detectable,
        pairs=len(pairs),
        paired=mean_with_interval([one - other for one, other in pairs]),
        welch=_welch(list(ours.values()), list(theirs.values())),
        correlation=_correlation(pairs),
    )


class Contrast(NamedTuple):
    """A network against the baseline in the model network + seed."""

    estimate: Estimate
    df: int
    p: float | None
    detectable: float | None


def fit(scores: Sequence[Mapping[Seeds, float]]) -> list[Contrast | None]:
    """Each network against the first by least squares on network + seed, the error pooled over all of them.

    The numbers are those of a linear model with a column for each network and each seed. Here the mean of each network
    is taken out first, which leaves a regression on the seeds alone, so that thousands of networks are no matter.

    None for a network whose runs are not connected to the first by shared seeds, directly or through other networks.
    Networks may lack runs: seeds that they do not share are accounted for.

    Source: Frisch & Waugh (1933), Lovell (1963), for taking out a part of the columns first.
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

    is_seed = np.eye(len(seeds))[seed][:, 1:]  # the first seed is what the others differ from
    mean_accuracy, mean_is_seed = means(accuracy), means(is_seed)
    y, x = accuracy - mean_accuracy[network], is_seed - mean_is_seed[network]
    inverse = np.linalg.inv(x.T @ x)
    of_seed = inverse @ x.T @ y
    of_network = mean_accuracy - mean_is_seed @ of_seed
    apart = mean_is_seed - mean_is_seed[0]  # how differently the seeds are spread over the networks
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

    places = {one: i for i, one in enumerate(connected)}
    return [contrast(places[one]) if one in places else None for one in range(1, len(scores))]


def _connected(scores: Sequence[Mapping[Seeds, float]]) -> tuple[list[int], list[Seeds]]:
    """The networks, and the seeds, that can be reached from the first network over shared seeds."""
    networks, seeds = {0}, set(scores[0])
    while more := {i for i, runs in enumerate(scores) if i not in networks and seeds & set(runs)}:
        networks |= more
        seeds |= {seed for i in more for seed in scores[i]}
    return sorted(networks) if seeds else [], sorted(seeds)


def mean_with_interval(values: Sequence[float]) -> Estimate | None:
    """The mean, with the interval of Student's t; None without values."""
    import numpy as np
    from statsmodels.stats.weightstats import DescrStatsW

    if not values:
        return None
    if len(values) < 2 or np.std(values) < _NO_SPREAD:
        return Estimate(float(np.mean(values)), None)
    statistic = DescrStatsW(np.array(values))
    return Estimate(float(statistic.mean), Interval(*map(float, statistic.tconfint_mean(ALPHA))))


def _welch(ours: Sequence[float], theirs: Sequence[float]) -> Estimate | None:
    import numpy as np
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    if not ours or not theirs:
        return None
    difference = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2 or np.std(ours) + np.std(theirs) < _NO_SPREAD:
        return Estimate(difference, None)
    both = CompareMeans(DescrStatsW(np.array(ours)), DescrStatsW(np.array(theirs)))
    return Estimate(difference, Interval(*map(float, both.tconfint_diff(ALPHA, usevar="unequal"))))


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    import numpy as np

    if len(pairs) < 3 or min(np.std(pairs, axis=0)) < _NO_SPREAD:
        return None
    return float(np.corrcoef(np.transpose(pairs))[0, 1])


@lru_cache(maxsize=256)
def _noncentrality(df: int) -> float:
    """How many standard errors a true difference must be for the power that is wanted.

    The t statistic of such a difference follows the noncentral t distribution. The far tail, in which the sign would be
    wrong, holds less than 0.00001 and is left out.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr
    from scipy.stats import t

    critical = float(t.ppf(1 - ALPHA / 2, df))
    return float(brentq(lambda distance: 1 - nctdtr(df, distance, critical) - POWER, critical, 1.5 * critical + 1))
