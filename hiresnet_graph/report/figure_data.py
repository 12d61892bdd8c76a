"""The numbers that the figures of a report show, as rows. Accuracies are in percent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hiresnet_graph.report.effects import Effects
from hiresnet_graph.report.model import Contrast
from hiresnet_graph.report.pareto import pareto_front
from hiresnet_graph.report.scores import Setting, finished, format_setting, spread, test_scores, unique_networks
from hiresnet_graph.spec.edge_set import PLUS
from hiresnet_graph.sweep.results import NetworkInfo, Results

FigureRow = dict[str, object]


def label_of(network: NetworkInfo) -> str:
    """Name of a network in figures: the variant, and its setting of the grid."""
    return _at_setting(network.label, network.setting)


def _at_setting(name: str, setting: Setting) -> str:
    return f"{name}, {format_setting(setting)}" if setting else name


def labels_of(results: Results) -> list[str]:
    """The names of the different networks, in the order of the study."""
    return [label_of(results.networks[one.position]) for one in unique_networks(results)]


def accuracy_rows(results: Results) -> list[FigureRow]:
    """The test accuracy of each finished run at the epoch of best validation, with the skip edges of its network."""
    scores = test_scores(results)
    return [
        {**_network_row(results.networks[one.position]), "seed": str(seeds), "accuracy": value}
        for one in unique_networks(results)
        for seeds, value in scores[one.position].items()
    ]


def _network_row(network: NetworkInfo) -> FigureRow:
    return {"label": label_of(network), "edges": PLUS.join(network.edges), "skips": len(network.edges)}


def distinguishing_edges(results: Results) -> tuple[str, ...]:
    """The edges whose subsets the networks of a study are, if no two of these have the same subset; else empty."""
    sets = [frozenset(results.networks[one.position].edges) for one in unique_networks(results)]
    are_told_apart = len(set(sets)) == len(sets) and frozenset().union(*sets) <= frozenset(results.subsets_of)
    return results.subsets_of if are_told_apart else ()


def size_rows(results: Results) -> list[FigureRow]:
    """Size and mean test accuracy of each network, and whether it is on the Pareto front of its parameters.

    The front is that of the table, by validation accuracy: by test accuracy, it would be a selection on the test set.
    """
    scores = test_scores(results)
    points = [point for point in pareto_front(results) if "parameters" in point.fronts]
    front = {(point.variant, format_setting(point.setting)) for point in points}
    rows: list[FigureRow] = []
    for one in unique_networks(results):
        network, found = results.networks[one.position], spread(scores[one.position].values())
        if found is None:
            continue
        std = found.std or 0.0
        rows.append(
            {
                **_network_row(network),
                "parameters": network.parameters,
                "macs": network.macs,
                "mean": found.mean,
                "std": found.std,
                "low": found.mean - std,
                "high": found.mean + std,
                "n": len(scores[one.position]),
                "on_front": (network.label, format_setting(network.setting)) in front,
            }
        )
    return rows


def validation_curves(results: Results) -> dict[str, list[list[float]]]:
    """The validation accuracy of each finished run by epoch, by the name of its network."""
    runs = finished(results)
    return {
        label_of(results.networks[one.position]): [
            [100 * epoch.validation_accuracy for epoch in record.epochs] for record in runs[one.position].values()
        ]
        for one in unique_networks(results)
    }


def band_rows(results: Results) -> list[FigureRow]:
    """Mean and standard deviation over seeds of the validation accuracy, by network and epoch."""
    rows: list[FigureRow] = []
    networks = {label_of(network): network for network in results.networks}
    for label, curves in validation_curves(results).items():
        for epoch in range(max(map(len, curves), default=0)):
            values = [curve[epoch] for curve in curves if len(curve) > epoch]
            mean = statistics.fmean(values)
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            rows.append(
                {
                    **_network_row(networks[label]),
                    "epoch": epoch + 1,
                    "mean": mean,
                    "low": mean - std,
                    "high": mean + std,
                    "n": len(values),
                }
            )
    return rows


def effect_rows(found: Sequence[Effects]) -> list[FigureRow]:
    """Main effect and Shapley value of each edge at each setting of the grid, in the order of the tables."""
    rows: list[FigureRow] = []
    for effects in found:
        for edge in effects.edges:
            name = _at_setting(edge.edge, effects.setting)
            for kind, contrast in (("main effect", edge.main), ("Shapley value", edge.shapley)):
                if contrast is not None:
                    rows.append({"edge": name, "kind": kind, **_interval(contrast)})
    return rows


def _interval(contrast: Contrast) -> FigureRow:
    low, high = contrast.interval or (math.nan, math.nan)
    return {"value": contrast.value, "low": _number(low), "high": _number(high)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
