"""The Pareto front of a search: no other network is smaller and as accurate, or more accurate and as small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hiresnet_graph.report.scores import Setting, Spread, finished, percent, spread, unique_networks
from hiresnet_graph.sweep.results import Results

_ROUNDING = 1e-9  # percent


class ParetoPoint(NamedTuple):
    """A network on a front.

    Attributes:
        fronts: The costs for which it is on the front: `parameters`, `macs` or both.
        n: Number of finished runs.
        validation: Accuracy in percent, by which networks are compared.
        test: Accuracy in percent at the epoch of best validation, which had no influence on the search.
    """

    variant: str
    setting: Setting
    parameters: int
    macs: int
    fronts: tuple[str, ...]
    n: int
    validation: Spread
    test: Spread | None


def pareto_front(results: Results) -> tuple[ParetoPoint, ...]:
    """The networks with the best mean validation accuracy for their parameters or MACs, in the order of their size.

    Networks without a finished run are excluded.
    """
    runs = finished(results)
    points = []
    for network in unique_networks(results):
        records = runs[network.position].values()
        validation = spread(percent(record.validation_accuracy) for record in records)
        if validation is not None:
            info = results.networks[network.position]
            test = spread(percent(record.test_accuracy) for record in records)
            points.append(
                ParetoPoint(info.label, info.setting, info.parameters, info.macs, (), len(records), validation, test)
            )
    fronts = {
        "parameters": on_front([(point.parameters, point.validation.mean) for point in points]),
        "macs": on_front([(point.macs, point.validation.mean) for point in points]),
    }
    found = [
        point._replace(fronts=tuple(name for name, front in fronts.items() if i in front))
        for i, point in enumerate(points)
    ]
    return tuple(sorted((p for p in found if p.fronts), key=lambda p: (p.parameters, p.macs, p.validation.mean)))


def on_front(points: Sequence[tuple[int, float]]) -> set[int]:
    """Indices of the points (cost, accuracy) on the front; equal points are all on it."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        (cost, accuracy), (last_cost, last) = points[i], points[front[-1]] if front else (0, 0.0)
        gain = accuracy - last if front else 1.0
        if gain > _ROUNDING or (gain > -_ROUNDING and cost == last_cost):
            front.append(i)
    return set(front)
