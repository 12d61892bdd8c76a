"""What differs between a run in a folder and the one that is requested there, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hiresnet_graph.train.initial_weights import InitialWeights
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import RunRecord, Seeds, Settings

SAME = "it was made by another version of the training program"
"""The only difference of two runs that equal each other in all that was requested."""


class RequestedRun(NamedTuple):
    """What the requested run of a study is compared by; the attributes are those of `Settings`."""

    architecture: str
    variant: str
    plan: str
    seeds: Seeds
    data: str
    data_fingerprint: str
    recipe: Recipe
    weights: InitialWeights | None


def differences(old: RunRecord | Settings, new: Settings | RequestedRun) -> Iterator[str]:
    """Descriptions of what differs between two runs with different keys."""
    before, now = old.recipe.mathematics(), new.recipe.mathematics()
    digests = [weights and weights.digest for weights in (old.weights, new.weights)]
    sources = [weights.source if weights else "random" for weights in (old.weights, new.weights)]
    pairs: dict[str, tuple[object, object]] = {
        "architecture": (old.architecture, new.architecture),
        "seed": (old.seeds, new.seeds),
        "data": (old.data, new.data),
        "weights": (sources[0], sources[1]) if digests[0] != digests[1] else ("", ""),
        **{f"recipe.{name}": (before.get(name), now.get(name)) for name in {**before, **now}},
    }
    different = [f"{name} was {was}, now {is_}" for name, (was, is_) in pairs.items() if was != is_]
    if digests[0] != digests[1] and sources[0] == sources[1]:
        different.append(f"the weights in {sources[1]} were different")
    if old.plan != new.plan:
        different.append(f"the network was another ('{old.variant or old.architecture}')")
    if old.data == new.data and old.data_fingerprint != new.data_fingerprint:
        different.append("the images, their split or their size were different")
    yield from different or [SAME]
