"""The statistical model of a report: every difference, interval and p value in it comes from this one model.

Accuracy is modelled as network + seed + error. Effects of a seed on all networks are removed, and the error is pooled
over the networks, which makes the most of few seeds. Where the spreads of the networks differ clearly, the error is not
pooled: each network has its own, and seeds are taken as independent. Everything is conditional on one split and one
test set: seeds carry no information about others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hiresnet_graph.train.record import Seeds

if TYPE_CHECKING:
    import numpy as np

ALPHA, POWER = 0.05, 0.8
UNEQUAL_P = 0.01
"""Below this p value of Levene's test, the errors of networks are not pooled."""
# Points of accuracy. With a million test images, accuracies differ by at least 0.0001; less is rounding.
_NO_SPREAD = 1e-9

Scores = Mapping[Seeds, float]
"""Accuracy by seeds."""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


class Contrast(NamedTuple):
    """A weighted sum of the mean accuracies of networks, in points; the weights sum to zero.

    Attributes:
        interval: None if the spread is unknown or zero.
        df: Degrees of freedom of the error; of unequal errors by Welch and Satterthwaite, so not always whole.
        p: p value of a two-sided t test; None without interval.
        detectable: The smallest true value that this test finds with 80 % power at alpha 0.05 given the estimated
            error, or at a smaller alpha as one of several tests; None without interval, or if it is beyond all
            measure, as among thousands of tests with one degree of freedom.
        tests: Number of these tests.
    """

    value: float
    interval: Interval | None
    df: float
    p: float | None
    detectable: float | None
    tests: int = 1

    def among(self, tests: int) -> Contrast:
        """The same contrast as one of several tests, each at alpha 0.05 divided by their number.

        This is the first and strictest step of Holm's correction, so what is detectable here is detectable there.
        """
        if self.detectable is None:
            return self
        factor = _noncentrality(self.df, tests) / _noncentrality(self.df, self.tests)
        return self._replace(detectable=_known(self.detectable * factor), tests=tests)


@dataclass(frozen=True, eq=False)
class AccuracyModel:
    """Accuracies of networks, fitted.

    Attributes:
        is_pooled: Whether one error is estimated for all networks.
        spread_p: p value of Levene's test for equal errors; None if there are too few runs for it.
    """

    is_pooled: bool
    spread_p: float | None
    _fit: _PooledFit
    _scores: Sequence[Scores]

    def contrast(self, weights: Mapping[int, float]) -> Contrast | None:
        """A weighted sum of means.

        Args:
            weights: By index of the network, other than 0; they sum to zero.

        Returns:
            None if a network has no run, or if shared seeds do not connect the networks, directly or through others.
        """
        if not all(self._scores[i] for i in weights) or not self._fit.connects(weights):
            return None
        value = self._fit.value(weights)
        error, df = self._fit.error(weights) if self.is_pooled else _welch(weights, self._scores)
        if not self.is_pooled:
            value = sum(weight * _mean(self._scores[i]) for i, weight in weights.items())
        return _contrast(value, error, df)


def fit(scores: Sequence[Scores]) -> AccuracyModel:
    """Fit the model to the accuracies of networks, which may lack runs: seeds that they do not share are accounted for.

    Spreads are compared by Levene's test with medians, if each network has at least three runs.

    Source: Brown & Forsythe (1974), Robust tests for the equality of variances.
    """
    pooled = _PooledFit.of(scores)
    spread_p = pooled.levene_p()
    return AccuracyModel(spread_p is None or spread_p >= UNEQUAL_P, spread_p, pooled, scores)


@dataclass(frozen=True, eq=False)
class _PooledFit:
    """Least squares on network + seed.

    The mean of each network is removed first, which leaves a regression on the seeds alone, and so allows thousands of
    networks. Networks and seeds may fall into several connected parts.

    Source: Frisch & Waugh (1933), Lovell (1963), for removing some of the columns first.

    Attributes:
        part: By network with runs, the number of its connected part.
        row: By network with runs, its row in the arrays.
        seed_shares: One row per network: the shares of the seeds in its runs.
        seed_effects: One number per seed.
        inverse: Covariance of the seed effects for an error of 1.
        deviations: One number per run, in the order of `of_row`: from the mean of its network.
        residuals: The same, without the seed effects.
    """

    part: Mapping[int, int]
    row: Mapping[int, int]
    runs: np.ndarray
    means: np.ndarray
    seed_shares: np.ndarray
    seed_effects: np.ndarray
    inverse: np.ndarray
    deviations: np.ndarray
    residuals: np.ndarray
    of_row: np.ndarray
    df: int

    @classmethod
    def of(cls, scores: Sequence[Scores]) -> _PooledFit:
        """The fit of accuracies."""
        import numpy as np

        row = {network: i for i, network in enumerate(i for i, runs in enumerate(scores) if runs)}
        seeds = {seed: i for i, seed in enumerate(sorted({seed for runs in scores for seed in runs}))}
        cells = [(row[i], seeds[seed], value) for i in row for seed, value in scores[i].items()]
        network = np.array([cell[0] for cell in cells], dtype=int)
        accuracy = np.array([cell[2] for cell in cells])
        runs = np.bincount(network, minlength=len(row))

        def means(columns: np.ndarray) -> np.ndarray:
            sums = np.zeros((len(row), *columns.shape[1:]))
            np.add.at(sums, network, columns)
            return (sums.T / runs).T

        is_seed = np.eye(len(seeds))[[cell[1] for cell in cells]].reshape(len(cells), len(seeds))
        mean_accuracy, seed_shares = means(accuracy), means(is_seed)
        y, x = accuracy - mean_accuracy[network], is_seed - seed_shares[network]
        inverse = np.linalg.pinv(x.T @ x, hermitian=True) if cells else np.zeros((0, 0))
        seed_effects = inverse @ x.T @ y
        part = _parts(scores)
        rank = len(seeds) - len(set(part.values()))
        return cls(
            part,
            row,
            runs,
            mean_accuracy,
            seed_shares,
            seed_effects,
            inverse,
            y,
            y - x @ seed_effects,
            network,
            len(cells) - len(row) - rank,
        )

    def connects(self, weights: Mapping[int, float]) -> bool:
        """Whether the weights sum to zero within each connected part."""
        sums: dict[int, float] = {}
        for network, weight in weights.items():
            sums[self.part[network]] = sums.get(self.part[network], 0.0) + weight
        return all(abs(total) < _NO_SPREAD for total in sums.values())

    def value(self, weights: Mapping[int, float]) -> float:
        """The weighted sum of the network effects."""
        rows, weight = self._rows(weights)
        return float(weight @ (self.means[rows] - self.seed_shares[rows] @ self.seed_effects))

    def error(self, weights: Mapping[int, float]) -> tuple[float, float]:
        """Standard error of the weighted sum, and its degrees of freedom."""
        rows, weight = self._rows(weights)
        if not self.df:
            return 0.0, 0
        shares = weight @ self.seed_shares[rows]
        factor = float(weight**2 @ (1 / self.runs[rows]) + shares @ self.inverse @ shares)
        variance = float(self.residuals @ self.residuals) / self.df
        return (variance * factor) ** 0.5 if variance**0.5 > _NO_SPREAD else 0.0, self.df

    def levene_p(self) -> float | None:
        """p value of Levene's test of the deviations; None if a network has fewer than three runs."""
        from scipy.stats import levene

        groups = [self.deviations[self.of_row == i] for i in range(len(self.row))]
        groups = [group for group in groups if len(group) > 2]
        if len(groups) < 2 or len(groups) < len(self.row) or max(map(_range, groups)) < _NO_SPREAD:
            return None
        return float(levene(*groups, center="median").pvalue)

    def _rows(self, weights: Mapping[int, float]) -> tuple[list[int], np.ndarray]:
        import numpy as np

        return [self.row[network] for network in weights], np.array(list(weights.values()))


def _parts(scores: Sequence[Scores]) -> dict[int, int]:
    """The connected part of each network with runs: networks that share a seed are in one."""
    import networkx as nx

    graph: nx.Graph[int | Seeds] = nx.Graph()
    for network, runs in enumerate(scores):
        graph.add_edges_from((network, seeds) for seeds in runs)
    parts = nx.connected_components(graph)
    return {node: part for part, nodes in enumerate(parts) for node in nodes if isinstance(node, int)}


def _welch(weights: Mapping[int, float], scores: Sequence[Scores]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a weighted sum of means with unequal errors.

    Source: Satterthwaite (1946); for two networks it is Welch's test (1947).
    """
    import numpy as np

    shares = {i: weight**2 * np.var(list(scores[i].values()), ddof=1) / len(scores[i]) for i, weight in weights.items()}
    variance = float(sum(shares.values()))
    if variance**0.5 < _NO_SPREAD:
        return 0.0, 0
    df = variance**2 / sum(share**2 / (len(scores[i]) - 1) for i, share in shares.items())
    return variance**0.5, float(df)


def _contrast(value: float, error: float, df: float) -> Contrast:
    from scipy.stats import t

    if not error or not df:
        return Contrast(value, None, df, None, None)
    half = error * float(t.ppf(1 - ALPHA / 2, df))
    p = 2 * float(t.sf(abs(value) / error, df))
    return Contrast(value, Interval(value - half, value + half), df, p, _known(error * _noncentrality(df, 1)))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


@lru_cache(maxsize=4096)
def _noncentrality(df: float, tests: int) -> float:
    """The true value, in standard errors, that is found with the power `POWER` at `ALPHA` divided by the tests.

    The t statistic of such a value follows the noncentral t distribution. Its far tail, with the wrong sign, has a
    probability below 0.00001 and is neglected. It is nan where that distribution cannot be computed.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr
    from scipy.stats import t

    critical = float(t.ppf(1 - ALPHA / (2 * tests), df))
    high = 1.5 * critical + 1
    if not math.isfinite(nctdtr(df, critical, critical)) or not math.isfinite(nctdtr(df, high, critical)):
        return math.nan
    return float(brentq(lambda distance: 1 - nctdtr(df, distance, critical) - POWER, critical, high))


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for all of them; None stays None, and is no test.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(ranked):
        largest = max(largest, min(1.0, p * (len(ranked) - rank)))
        found[i] = largest
    return found


def as_family(contrasts: Sequence[Contrast | None]) -> list[tuple[Contrast | None, float | None]]:
    """Each contrast as one of the tests of all, with its p value corrected for them; None stays None."""
    p_values = [one and one.p for one in contrasts]
    tests = sum(p is not None for p in p_values)
    return [(one and one.among(tests), p) for one, p in zip(contrasts, corrected(p_values), strict=True)]


def _mean(scores: Scores) -> float:
    return sum(scores.values()) / len(scores)


def _range(values: np.ndarray) -> float:
    return float(values.max() - values.min())
