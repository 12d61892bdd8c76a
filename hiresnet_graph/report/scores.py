"""Finished runs, accuracies and settings of each network in the results of a study, and which networks are the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hiresnet_graph.formats import format_value
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import RunRecord, Seeds

Setting = Mapping[str, object]


class Spread(NamedTuple):
    """Mean and standard deviation (ddof 1; None for one value)."""

    mean: float
    std: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and standard deviation of the values that are not None; None if there are none."""
    import statistics

    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


def spread_record(name: str, spread: Spread | None) -> dict[str, object]:
    """A spread as data; missing numbers are None."""
    return {f"{name}_mean": spread and spread.mean, f"{name}_std": spread and spread.std}


def percent(fraction: float | None) -> float | None:
    """A fraction in percent."""
    return None if fraction is None else 100 * fraction


def finished(results: Results) -> tuple[dict[Seeds, RunRecord], ...]:
    """For each network its complete runs, by their seeds."""
    found: tuple[dict[Seeds, RunRecord], ...] = tuple({} for _ in results.networks)
    for row in results.rows:
        if row.record is not None and row.record.outcome == "complete":
            found[row.network][row.seeds] = row.record
    return found


def test_scores(results: Results) -> tuple[dict[Seeds, float], ...]:
    """For each network the test accuracy in percent at the epoch of best validation, by seeds."""
    return tuple(
        {seeds: 100 * run.test_accuracy for seeds, run in runs.items() if run.test_accuracy is not None}
        for runs in finished(results)
    )


def setting_key(setting: Setting) -> str:
    """A string that is equal for equal settings."""
    return json.dumps(dict(setting), sort_keys=True, default=str)


def settings(results: Results) -> dict[str, Setting]:
    """Every setting of the grid by its key, in the order of the study; without a grid a single empty one."""
    return {setting_key(network.setting): network.setting for network in results.networks}


def setting_columns(results: Results) -> dict[str, str]:
    """The fields of the grid with their column headers: `recipe.lr` is `lr`, if that is unique."""
    names = list(dict.fromkeys(name for network in results.networks for name in network.setting))
    short = [name.removeprefix("recipe.") for name in names]
    return {name: brief if short.count(brief) == 1 else name for name, brief in zip(names, short, strict=True)}


def format_setting(setting: Setting) -> str:
    """A setting as text: `lr=0.01, width=16`."""
    return ", ".join(f"{name.removeprefix('recipe.')}={format_value(value)}" for name, value in setting.items())


class UniqueNetwork(NamedTuple):
    """A network that may be that of several variants.

    Attributes:
        position: Index in `Results.networks`.
        labels: Labels of all variants that are this network.
    """

    position: int
    setting: Setting
    labels: tuple[str, ...]


def unique_networks(results: Results) -> tuple[UniqueNetwork, ...]:
    """The different networks, in the order of the study."""
    indices = {(setting_key(network.setting), network.label): i for i, network in enumerate(results.networks)}
    labels: dict[int, list[str]] = {}
    for i, network in enumerate(results.networks):
        first = indices.get((setting_key(network.setting), network.same_as), i) if network.same_as else i
        labels.setdefault(first, []).append(network.label)
    return tuple(UniqueNetwork(i, results.networks[i].setting, tuple(found)) for i, found in labels.items())
