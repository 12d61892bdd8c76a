"""What makes two runs the same: their network, resolved recipe, seeds and data."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hiresnet_graph.architecture import loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.ops import Apply
from hiresnet_graph.plan import Plan
from hiresnet_graph.train.checks import count_readouts, match_input
from hiresnet_graph.train.initial_weights import InitialWeights
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

# Raised when the training program changes what it computes, so that old runs are not taken for new ones.
SEMANTICS = 2
# Changes of what these compute are covered by SEMANTICS, or by the version of torch that is recorded.
_KNOWN = ("torch", "hiresnet_graph", "operator")


class NetworkIdentity(NamedTuple):
    """What a run's identity contains of its network.

    Attributes:
        plan: Digest of the plan.
        custom_ops: `custom_ops_hash` of the plan.
        readouts: Number of steps that the network outputs.
    """

    plan: str
    custom_ops: str
    readouts: int


class RunIdentity(NamedTuple):
    """What a run computes.

    Attributes:
        key: A hash of everything that changes what a run computes: 24 hexadecimal digits.
        plan: Digest of the plan.
        recipe: As it is for this data set and network: `augment: standard` is resolved.
        data_fingerprint: Hash of the images as the network sees them, their classes and the split.
    """

    key: str
    plan: str
    recipe: Recipe
    data_fingerprint: str


def identify_network(plan: Plan) -> NetworkIdentity:
    """What the identities of all runs of a network have in common."""
    return NetworkIdentity(plan.digest(), custom_ops_hash(plan), count_readouts(plan))


def identify_run(
    network: NetworkIdentity,
    recipe: Recipe,
    seeds: Seeds,
    dataset: Dataset | None,
    weights: InitialWeights | None = None,
) -> RunIdentity:
    """The identity of a run.

    Args:
        recipe: As requested.
        dataset: With images in the input shape of the network. Without it, keys distinguish the runs of one study, but
            are not those under which the runs are stored.
        weights: What the run starts from, instead of random weights.
    """
    recipe = recipe.resolved(dataset.standard_augmentation if dataset else "none", network.readouts)
    fingerprint = dataset.fingerprint() if dataset else ""
    content = {
        "data": fingerprint,
        "kinds": network.custom_ops,
        "plan": network.plan,
        "recipe": recipe.mathematics(),
        "seeds": list(seeds),
        "semantics": SEMANTICS,
        **({} if weights is None else {"weights": weights.digest}),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
    return RunIdentity(key, network.plan, recipe, fingerprint)


def identify_request(request: RunRequest) -> RunIdentity:
    """The identity of a requested run.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network and data do not go together, or the data cannot be found.
    """
    plan = loads(request.spec, request.label).plan
    dataset = match_input(load_dataset(request.data), plan, request.recipe.outputs)
    return identify_run(identify_network(plan), request.recipe, request.seeds, dataset, request.weights)


def custom_ops_hash(plan: Plan) -> str:
    """A hash of the source of all operations and layers in a plan that are neither ours nor torch's; "" without any.

    Blocks of users are not included: the plan shows what they expand to.
    """
    sources: set[str] = set()
    for call in plan.calls:
        if _is_known(type(call.op).__module__):
            continue
        sources.add(_source(type(call.op)))
        layer, apply = call.op.layer(*call.input_shapes), call.op.apply(*call.input_shapes)
        for target in [*([layer.target] if layer is not None else []), *_targets(apply)]:
            if not _is_known(target):
                module, _, name = target.rpartition(".")
                sources.add(_source(getattr(importlib.import_module(module), name)))
    return hashlib.sha256("\n".join(sorted(sources)).encode()).hexdigest() if sources else ""


def _is_known(path: str) -> bool:
    return path.split(".")[0] in _KNOWN


def _targets(value: object) -> Iterator[str]:
    """The functions that an application calls, in its arguments too."""
    if isinstance(value, Apply):
        yield value.target
        for part in (*value.args, *value.kwargs.values()):
            yield from _targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from _targets(part)


def _source(thing: type | Callable[..., object]) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        return f"{thing.__module__}.{thing.__qualname__}"
