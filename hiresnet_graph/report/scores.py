"""What reports take from results: the finished runs, network by network, and which networks are one."""

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
    """Mean and standard deviation of the values that are there; None without any."""
    import statistics

    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


def spread_record(name: str, spread: Spread | None) -> dict[str, object]:
    """A spread as data; None where there is no number."""
    return {f"{name}_mean": spread and spread.mean, f"{name}_std": spread and spread.std}


def percent(share: float | None) -> float | None:
    """A share from 0 to 1 in percent."""
    return None if share is None else 100 * share


def finished(results: Results) -> tuple[dict[Seeds, RunRecord], ...]:
    """The runs that ended with an accuracy, by their seeds; for each network."""
    found: tuple[dict[Seeds, RunRecord], ...] = tuple({} for _ in results.networks)
    for row in results.rows:
        if row.record is not None and row.record.outcome == "complete":
            found[row.network][row.seeds] = row.record
    return found


def test_scores(results: Results) -> tuple[dict[Seeds, float], ...]:
    """Test accuracy in percent at the epoch of best validation, by seeds; for each network."""
    return tuple(
        {seeds: 100 * run.test_accuracy for seeds, run in runs.items() if run.test_accuracy is not None}
        for runs in finished(results)
    )


def key(setting: Setting) -> str:
    """Equal for equal settings."""
    return json.dumps(dict(setting), sort_keys=True, default=str)


def settings(results: Results) -> dict[str, Setting]:
    """Every setting of the grid by its key, in the order of the study; without a grid one that is empty."""
    return {key(network.setting): network.setting for network in results.networks}


def setting_columns(results: Results) -> dict[str, str]:
    """The fields of the grid, and what tables call them: `recipe.lr` is `lr`, if nothing else is."""
    names = list(dict.fromkeys(name for network in results.networks for name in network.setting))
    short = [name.removeprefix("recipe.") for name in names]
    return {name: brief if short.count(brief) == 1 else name for name, brief in zip(names, short, strict=True)}


def setting_text(setting: Setting) -> str:
    """A setting in one line: `lr=0.01, width=16`."""
    return ", ".join(f"{name.removeprefix('recipe.')}={format_value(value)}" for name, value in setting.items())


class Unique(NamedTuple):
    """A network of its own.

    Attributes:
        place: In `Results.networks`.
        labels: Of all variants that are this network.
    """

    place: int
    setting: Setting
    labels: tuple[str, ...]


def unique_networks(results: Results) -> tuple[Unique, ...]:
    """The networks that differ, in the order of the study."""
    places = {(key(network.setting), network.label): i for i, network in enumerate(results.networks)}
    labels: dict[int, list[str]] = {}
    for i, network in enumerate(results.networks):
        first = places.get((key(network.setting), network.same_as), i) if network.same_as else i
        labels.setdefault(first, []).append(network.label)
    return tuple(Unique(i, results.networks[i].setting, tuple(found)) for i, found in labels.items())
