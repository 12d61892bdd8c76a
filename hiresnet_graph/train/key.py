"""What makes two runs the same: the parts of a run's key that are not plain data."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.ops import Apply
from hiresnet_graph.plan import Plan
from hiresnet_graph.train.record import run_key
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.steps import readouts

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

# What their modules compute is told by a run's `semantics` number, or by the version of torch that is recorded.
_KNOWN = ("torch", "hiresnet_graph", "operator")


def key_of(request: RunRequest, *, arch: Architecture | None = None, dataset: Dataset | None = None) -> str:
    """The key of the run that is asked for.

    Args:
        arch: The network of `request.spec`, if it is there already.
        dataset: The data of `request.data`, likewise.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network and data do not go together, or the data cannot be found.
    """
    from hiresnet_graph.data import load_dataset
    from hiresnet_graph.train.assignment import fit

    plan = (arch or loads(request.spec, request.label)).plan
    fitted = fit(dataset or load_dataset(request.data), plan)
    recipe = request.recipe.resolved(fitted.standard_augmentation, readouts(plan))
    return run_key(plan.digest(), recipe, request.seeds, fitted.fingerprint(), kinds_of(plan))


def kinds_of(plan: Plan) -> str:
    """A hash of the source of all operations and layers in a plan that are not ours or torch's; "" if there are none.

    Blocks of users are not among them: the plan says what they are made of.
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
    """What an application calls, and what its arguments call."""
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
    except (OSError, TypeError):  # typed in at a prompt, or compiled
        return f"{thing.__module__}.{thing.__qualname__}"
