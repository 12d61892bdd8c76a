"""The numbers of a report page, as JSON. Those that the report has, too, are there as its text, so that both agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hiresnet_graph.formats import format_value
from hiresnet_graph.report.conclusion import conclude
from hiresnet_graph.report.effects import Effects
from hiresnet_graph.report.figure_data import label_of, labels_of, validation_curves
from hiresnet_graph.report.report import Report, available_parts, make_report
from hiresnet_graph.report.scores import format_setting, setting_key, settings, test_scores, unique_networks
from hiresnet_graph.report.statistics import Comparison, compare
from hiresnet_graph.report.tables import ReportTable, report_tables
from hiresnet_graph.sweep.controls import controlled_variant
from hiresnet_graph.sweep.results import Results

Json = dict[str, object]

MAX_BASELINES = 100
"""For a study of more networks, the page has the differences from its baseline only."""
_LEVELS = 3  # accuracies that learning curves are asked to reach
_SHOWN = ("difference", "95 % CI", "p (Holm)", "detectable")  # columns of differences


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
        "conclusion": report.conclusion or conclude(results, baseline),
        "baseline": _baseline(results, baseline),
        "networks": _networks(results, report),
        "comparisons": {} if results.is_search else _comparisons(results, report, baseline),
        "curves": {label: [list(map(rounded_down, curve)) for curve in found] for label, found in curves.items()},
        "levels": reached_levels(curves),
        "effects": _effects(report.effects),
        "effects_at": format_setting(report.effects[0].setting) if report.effects else "",
        "captions": _captions(report),
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
    unit = 1 if high - low > 2 * _LEVELS else 10
    return list(dict.fromkeys(math.floor(unit * level + 1e-6) / unit for level in levels))


def _captions(report: Report) -> Json:
    """Of the columns that the page has; those of differences are with their comparisons."""
    table = report_tables(replace(report, parts=("table",)))[0]
    caption = f"{table.caption_for_paper} {report.table.origin}".strip()
    others: dict[str, list[ReportTable]] = {}
    for one in report_tables(report):
        if one.part not in ("table", "differences"):
            others.setdefault(one.part, []).append(one)
    return {"table": caption, **{part: _caption(tables) for part, tables in others.items()}}


def _caption(tables: Sequence[ReportTable]) -> str:
    """The caption of some tables, each with its title unless they have one caption."""
    captions = list(dict.fromkeys(one.caption for one in tables))
    return captions[0] if len(captions) == 1 else " ".join(f"{one.title}: {one.caption}" for one in tables)


def rounded_down(accuracy: float) -> float:
    """In hundredths; never up, as else a curve would reach an accuracy that it did not."""
    return math.floor(100 * accuracy + 1e-6) / 100


def _baseline(results: Results, baseline: str | None) -> str:
    """The name of the baseline's network at the first setting that has it."""
    wanted = baseline or results.baseline
    for one in unique_networks(results):
        if wanted is None or wanted in one.labels:
            return label_of(results.networks[one.position])
    return ""


def _networks(results: Results, report: Report) -> list[Json]:
    scores = test_scores(results)
    accuracies = _cells(report_tables(replace(report, parts=("table",)))[0], ["test accuracy"])
    rows: list[Json] = []
    for one in unique_networks(results):
        network = results.networks[one.position]
        runs = [row for row in results.rows if row.network == one.position]
        rows.append(
            {
                "label": label_of(network),
                "also": list(one.labels[1:]),
                "variant": network.label,
                "edges": list(network.edges),
                "setting": format_setting(network.setting),
                "parameters": network.parameters,
                "macs": network.macs,
                "runs": len(runs),
                "unfinished": sum(row.state in ("waiting", "running") for row in runs),
                "failed": sum(row.state in ("failed", "diverged") for row in runs),
                "seeds": {str(seeds): value for seeds, value in scores[one.position].items()},
                "accuracy": accuracies[one.position][0],
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


def _comparisons(results: Results, report: Report, baseline: str | None) -> Json:
    """For each baseline the differences of all networks at equal settings, in their order, and what follows from them.

    A difference is its value, its p value, and the cells of the report; null for the baseline and other settings.
    """
    labels = list(dict.fromkeys(network.label for network in results.networks))
    chosen = labels if len(unique_networks(results)) <= MAX_BASELINES else [baseline or results.baseline or labels[0]]
    found: Json = {}
    of_edges = report.conclusion if results.subsets_of else ""
    for label in chosen:
        comparison = compare(results, label)[0]
        # With the table, so that the caption does not repeat what that of the table says.
        table = report_tables(replace(report, parts=("table", "differences"), differences=(comparison,)))[1]
        about = {"caption": table.caption, "conclusion": of_edges or conclude(results, label, [comparison])}
        for name, row in _by_network(results, comparison, table).items():
            found[name] = {"differences": [row.get(other) for other in labels_of(results)], **about}
    return found


def _by_network(results: Results, comparison: Comparison, table: ReportTable) -> dict[str, Json]:
    names = {
        (label, setting_key(results.networks[one.position].setting)): label_of(results.networks[one.position])
        for one in unique_networks(results)
        for label in one.labels
    }
    found: dict[str, Json] = {}
    for one, cells in zip(comparison.differences, _cells(table, _SHOWN), strict=True):
        base = names[comparison.baseline, setting_key(one.baseline_setting)]
        row = found.setdefault(base, {})
        if one.estimate is not None:
            row[names[one.variants[0], setting_key(one.setting)]] = [one.estimate.value, one.p_holm, *cells]
    return found


def _cells(table: ReportTable, headers: Sequence[str]) -> list[list[str]]:
    """The cells of some columns, by row."""
    at = [[column.header for column in table.columns].index(header) for header in headers]
    return [[row[i] for i in at] for row in table.rows]


def _effects(found: Sequence[Effects]) -> list[Json]:
    """The main effects of the edges, for the diagram: of the first setting of a grid."""
    return [
        {"edge": one.edge, "value": round(one.main.value, 4), "p": one.p_holm}
        for effects in found[:1]
        for one in effects.edges
        if one.main is not None
    ]


def _varied(results: Results) -> Json:
    """The fields of the recipe that the grid varies, with all of their values."""
    values: dict[str, dict[str, None]] = {}
    for setting in settings(results).values():
        for name, value in setting.items():
            if name.startswith("recipe."):
                values.setdefault(name.removeprefix("recipe."), {})[format_value(value)] = None
    return {name: ", ".join(found) for name, found in values.items()}


def _provenance(results: Results, report: Report) -> Json:
    failed = {row.key: row for row in results.rows if row.state == "failed"}.values()
    machines = report.table.machines.items()
    return {
        "data": results.data,
        "recipe": report.table.recipe.model_dump(mode="json") | _varied(results),
        "seeds": [str(seeds) for seeds in report.table.seeds],
        "machines": [{**machine.model_dump(mode="json"), "runs": runs} for machine, runs in machines],
        "failed": [f"{results.networks[row.network].label}, seed {row.seeds}: {row.message}" for row in failed],
    }
