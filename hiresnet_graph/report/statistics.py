"""Differences of networks from a baseline, by the model of the report (`model.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.report.model import Contrast, as_family, fit
from hiresnet_graph.report.scores import Setting, UniqueNetwork, finished, setting_key, test_scores, unique_networks
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds


class Difference(NamedTuple):
    """A network minus the baseline, in points of accuracy.

    Attributes:
        variants: Labels of the network.
        setting: Setting of the grid; empty without a grid.
        n: Number of finished runs of the network.
        baseline_setting: Setting of the baseline: the same, unless each network is at its best one.
        baseline_n: Number of finished runs of the baseline.
        estimate: The difference in the report's model, as one of the tests of the comparison; None if the runs do not
            connect the two networks.
        is_pooled: Whether its error is pooled over the networks; else each of the two has its own.
        p_holm: Its p value, corrected for all tests of the comparison.
    """

    variants: tuple[str, ...]
    setting: Setting
    n: int
    baseline_setting: Setting
    baseline_n: int
    estimate: Contrast | None
    is_pooled: bool
    p_holm: float | None = None


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
        hint = did_you_mean(baseline, labels) or "The table of the report lists the variants."
        raise UsageError(f"there is no variant '{baseline}' to compare with. {hint}")
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
    family = as_family([one.estimate for one in found])
    differences = (one._replace(estimate=each, p_holm=p) for one, (each, p) in zip(found, family, strict=True))
    return Comparison(baseline, at_best, equal, tuple(differences), sum(p is not None for _, p in family))


def _differences(
    base: UniqueNetwork, others: Sequence[UniqueNetwork], scores: Sequence[Mapping[Seeds, float]]
) -> list[Difference]:
    base_scores = scores[base.position]
    model = fit([base_scores, *(scores[network.position] for network in others)])
    return [
        Difference(
            variants=network.labels,
            setting=network.setting,
            n=len(scores[network.position]),
            baseline_setting=base.setting,
            baseline_n=len(base_scores),
            estimate=model.contrast({i: 1.0, 0: -1.0}),
            is_pooled=model.is_pooled,
        )
        for i, network in enumerate(others, 1)
    ]
