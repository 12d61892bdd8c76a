"""The numbers of a report page, as JSON: those of the report, with fewer digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hiresnet_graph.report.conclusion import conclude
from hiresnet_graph.report.effects import Effects
from hiresnet_graph.report.figure_data import label_of, labels_of, validation_curves
from hiresnet_graph.report.report import Report, available_parts, make_report
from hiresnet_graph.report.scores import format_setting, setting_key, test_scores, unique_networks
from hiresnet_graph.report.statistics import Comparison, Difference, compare
from hiresnet_graph.report.tables import report_tables
from hiresnet_graph.sweep.controls import controlled_variant
from hiresnet_graph.sweep.results import Results

Json = dict[str, object]

MAX_BASELINES = 100
"""For a study of more networks, the page has the differences from its baseline only."""
_LEVELS = 3  # accuracies that learning curves are asked to reach


def page_data(results: Results, baseline: str | None = None) -> Json:
    """All numbers of the page.

    Args:
        baseline: Label of the variant that is compared with first (default: that of the study, or its first).

    Raises:
        UsageError: The variant is unknown.
    """
    report = make_report(results, baseline, available_parts(results))
    curves = validation_curves(results)
    return {
        "name": results.name,
        "architecture": results.architecture,
        "conclusion": conclude(results, baseline),
        "baseline": _baseline(results, baseline),
        "networks": _networks(results),
        "differences": {} if results.is_search else _differences(results, baseline),
        "curves": {label: [[round(value, 2) for value in curve] for curve in found] for label, found in curves.items()},
        "levels": reached_levels(curves),
        "effects": _effects(report.effects),
        "captions": {table.part: table.caption for table in report_tables(report)},
        "provenance": _provenance(results, report),
    }


def reached_levels(curves: Mapping[str, Sequence[Sequence[float]]]) -> list[float]:
    """Accuracies that at least half of the runs reach, evenly spaced below the last: whole numbers where possible."""
    best = sorted(max(curve) for found in curves.values() for curve in found if curve)
    first = sorted(curve[0] for found in curves.values() for curve in found if curve)
    if not best:
        return []
    low, high = first[len(first) // 2], best[len(best) // 2]
    levels = [low + (high - low) * share for share in (0.5, 0.75, 0.95)[:_LEVELS]]
    digits = 0 if high - low > 2 * _LEVELS else 1
    return list(dict.fromkeys(round(level, digits) for level in levels))


def _baseline(results: Results, baseline: str | None) -> str:
    """The name of the baseline's network at the first setting that has it."""
    wanted = baseline or results.baseline
    for one in unique_networks(results):
        if wanted is None or wanted in one.labels:
            return label_of(results.networks[one.position])
    return ""


def _networks(results: Results) -> list[Json]:
    scores = test_scores(results)
    rows: list[Json] = []
    for one in unique_networks(results):
        network = results.networks[one.position]
        runs = [row for row in results.rows if row.network == one.position]
        rows.append(
            {
                "label": label_of(network),
                "also": list(one.labels[1:]),
                "setting": format_setting(network.setting),
                "parameters": network.parameters,
                "macs": network.macs,
                "runs": len(runs),
                "unfinished": sum(row.state in ("waiting", "running") for row in runs),
                "failed": sum(row.state in ("failed", "diverged") for row in runs),
                "seeds": {str(seeds): round(value, 4) for seeds, value in scores[one.position].items()},
                "random": _random_control(results, one.position),
                "published": _published(results, one.position),
            }
        )
    return rows


def _published(results: Results, position: int) -> Json | None:
    network = results.networks[position]
    value = results.published and results.published.value_for(network.label, network.setting)
    return value.model_dump(mode="json") if value else None


def _random_control(results: Results, position: int) -> list[str]:
    """Names of the networks with as many random edges as this one."""
    network = results.networks[position]
    return [
        label_of(other)
        for other in results.networks
        if controlled_variant(other.label) == network.label
        if setting_key(other.setting) == setting_key(network.setting)
    ]


def _differences(results: Results, baseline: str | None) -> Json:
    """For each baseline the differences of all networks at equal settings, in their order; null for its own."""
    labels = list(dict.fromkeys(network.label for network in results.networks))
    chosen = labels if len(unique_networks(results)) <= MAX_BASELINES else [baseline or results.baseline or labels[0]]
    found: Json = {}
    for label in chosen:
        for name, row in _by_network(results, compare(results, label)[0]).items():
            found[name] = [row.get(other) for other in labels_of(results)]
    return found


def _by_network(results: Results, comparison: Comparison) -> dict[str, Json]:
    names = {
        (label, setting_key(results.networks[one.position].setting)): label_of(results.networks[one.position])
        for one in unique_networks(results)
        for label in one.labels
    }
    found: dict[str, Json] = {}
    for one in comparison.differences:
        base = names[comparison.baseline, setting_key(one.baseline_setting)]
        found.setdefault(base, {})[names[one.variants[0], setting_key(one.setting)]] = _numbers(one)
    return found


def _numbers(one: Difference) -> list[float | None]:
    """Difference, interval, p after Holm's correction, and what could have been detected."""
    if one.estimate is None:
        return []
    low, high = one.estimate.interval or (None, None)
    numbers = (one.estimate.value, low, high, one.p_holm, one.estimate.detectable)
    return [None if number is None else round(number, 4) for number in numbers]


def _effects(found: Sequence[Effects]) -> list[Json]:
    """The main effects of the edges, for the diagram: of the first setting of a grid."""
    return [
        {"edge": one.edge, "value": round(one.main.value, 4), "p": one.p_holm}
        for effects in found[:1]
        for one in effects.edges
        if one.main is not None
    ]


def _provenance(results: Results, report: Report) -> Json:
    failed = {row.key: row for row in results.rows if row.state == "failed"}.values()
    machines = report.table.machines.items()
    return {
        "data": results.data,
        "recipe": report.table.recipe.model_dump(mode="json"),
        "seeds": [str(seeds) for seeds in report.table.seeds],
        "machines": [{**machine.model_dump(mode="json"), "runs": runs} for machine, runs in machines],
        "failed": [f"{results.networks[row.network].label}, seed {row.seeds}: {row.message}" for row in failed],
    }
