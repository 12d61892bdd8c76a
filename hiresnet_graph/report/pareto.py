"""The networks that no other beats: none is as accurate and smaller, or as small and more accurate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hiresnet_graph.report.scores import Setting, Spread, finished, percent, spread, unique_networks
from hiresnet_graph.sweep.results import Results

_ROUNDING = 1e-9  # percent


class Point(NamedTuple):
    """A network on a front.

    Attributes:
        fronts: What nothing beats it at: `parameters`, `macs` or both.
        n: Finished runs.
        validation: Accuracy in percent that it was compared by.
        test: Accuracy in percent at the epoch of best validation, which chose nothing.
    """

    variant: str
    setting: Setting
    parameters: int
    macs: int
    fronts: tuple[str, ...]
    n: int
    validation: Spread
    test: Spread | None


def pareto_front(results: Results) -> tuple[Point, ...]:
    """The networks that are best by mean validation accuracy for their parameters, or for their MACs; small ones first.

    Networks without a finished run are left out.
    """
    runs = finished(results)
    points = []
    for network in unique_networks(results):
        records = runs[network.place].values()
        validation = spread(percent(record.validation_accuracy) for record in records)
        if validation is not None:
            info = results.networks[network.place]
            test = spread(percent(record.test_accuracy) for record in records)
            points.append(
                Point(info.label, info.setting, info.parameters, info.macs, (), len(records), validation, test)
            )
    fronts = {
        "parameters": _front(points, lambda point: point.parameters),
        "macs": _front(points, lambda point: point.macs),
    }
    found = [
        point._replace(fronts=tuple(name for name, front in fronts.items() if i in front))
        for i, point in enumerate(points)
    ]
    return tuple(sorted((p for p in found if p.fronts), key=lambda p: (p.parameters, p.macs, p.validation.mean)))


def _front(points: Sequence[Point], cost: Callable[[Point], int]) -> set[int]:
    """Places of the points that no other beats; equal ones stand together."""
    order = sorted(range(len(points)), key=lambda i: (cost(points[i]), -points[i].validation.mean))
    front: list[int] = []
    for i in order:
        more = points[i].validation.mean - points[front[-1]].validation.mean if front else 1.0
        if more > _ROUNDING or (more > -_ROUNDING and cost(points[i]) == cost(points[front[-1]])):
            front.append(i)
    return set(front)
