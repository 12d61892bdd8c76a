"""How alike a network and the import of its module are.

    python -m tests.importing.round_trips [NAME ...]

For each shipped spec: whether the plan of the import has the same digest, which is that of calls, names, order and
weights; or else the same operations of the same values and weights under other names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import reduce
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.importing import from_module
from hiresnet_graph.importing.recognition import operation_key
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shipped import spec_names

SMALL: dict[str, dict[str, Any]] = {
    "convnext_tiny": {"stage3.depth": 2},
    "cornet_s": {"V4.hidden": 64, "IT.hidden": 64},
    "densenet121": {"dense2.depth": 2, "dense3.depth": 2, "dense4.depth": 2},
    "densenet40": {"dense1.depth": 2, "dense2.depth": 2, "dense3.depth": 2},
    "frnn3": {"params.steps": 4},
    "frnn4": {"params.steps": 4},
    "hiresnet101": {"params.depths": [2, 2, 2, 2]},
    "hiresnet110": {"params.n": 2},
    "hiresnet50": {"params.depths": [2, 2, 2, 2]},
    "hiresnet56": {"params.n": 2},
    "hiresvit_tiny": {"params.depth": 3},
    "mixer_s16": {"mixer.depth": 2},
    "resnet101": {"params.depths": [2, 2, 2, 2]},
    "resnet110": {"params.n": 2},
    "resnet56": {"params.n": 2},
    "ror3_56": {"params.n": 2},
    "vgg16": {"params.hidden": 16, "grid.size": 2},
    "vit_base": {"encoder.depth": 2},
    "vit_small": {"encoder.depth": 2},
    "vit_tiny": {"encoder.depth": 2},
}
"""Shipped spec -> changes that make it quick to build and to export."""
_LARGE = ("swin_tiny", "vit_tiny", "vit_small", "vit_base")
"""Networks that other sizes change: positions are interpolated, grids are padded."""


def small(name: str) -> hrg.Architecture:
    """A shipped network with fewer blocks, on images of 64x64 pixels if it accepts them."""
    network = hrg.load(name).override(SMALL.get(name, {}))
    (shape,) = network.plan.inputs.values()
    if name in _LARGE or tuple(shape)[-1] <= 64:
        return network
    smaller = network.override({"input.height": 64, "input.width": 64})
    try:
        return smaller if smaller.plan.inputs else network
    except hrg.errors.SpecError:  # a state of a size of its own
        return network


def wired(plan: Plan, names: Mapping[str, str]) -> list[int]:
    """A number for each output: equal for equal operations of equal operands with the same weights.

    The sum of several values is that of the first two, plus the third, ...: a block may add them in one call or in two.

    Args:
        names: Address -> name of the tensor in the original.
    """
    found = {name: hash(("input", place)) for place, name in enumerate(plan.inputs)}
    for call in plan.calls:
        operands = [found[name] for name in call.inputs]
        if call.op.kind in ("add", "multiply") and call.op.arity is None:
            found[call.name] = reduce(lambda one, other: hash((call.op.kind, *sorted((one, other)))), operands)
            continue
        tensors = [names.get(f"{call.weights}.{tensor.name}", "") for tensor in call.tensors]
        found[call.name] = hash((repr(_operation(call)), *operands, *tensors))
    return [found[value] for value in plan.outputs.values()]


def _operation(call: Call) -> Any:
    """What a call computes: fields that change nothing for this input are left out, numbers have nine digits."""
    kind, *fields = operation_key(call.op, call.input_shapes[0])
    found = {name: round(value, 9) if isinstance(value, float) else value for name, value in fields}
    if kind == "zeros":  # of a connection in time that has no value yet
        kind, found = "constant", {"learned": False, "sizes": tuple(call.shape), "value": 0.0}
    return kind, sorted(found.items()), tuple(call.shape)


def round_trip(name: str, *, unrolled: bool = False) -> str:
    """How alike a shipped network and the import of its module are, as `likeness` says it."""
    return likeness(small(name), unrolled=unrolled)


def likeness(network: hrg.Architecture, *, unrolled: bool = False) -> str:
    """How alike a network and the import of its module are: `digest`, `wiring` or `outputs` are the same.

    Args:
        unrolled: A network with time is imported from its code alone.
    """
    shapes = {key: tuple(shape.frame) for key, shape in network.plan.inputs.items()}
    module = network.build().eval()
    if unrolled:
        del module.meta["spec"]
    imported = from_module(module, input=shapes, name=network.name)
    again = imported.network.plan
    if network.plan.digest() == again.digest():
        return "digest"
    own = {name: name for name in network.plan.tensors()}
    return "wiring" if wired(network.plan, own) == wired(again, imported.names) else "outputs"


def main() -> None:
    """Print a line for each spec."""
    for name in sys.argv[1:] or spec_names():
        print(f"{name:28} the same {round_trip(name)}", flush=True)


if __name__ == "__main__":
    main()
