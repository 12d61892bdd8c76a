"""The values from which training without the weights of the original starts: written where a spec has a field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from hiresnet_graph import ops
from hiresnet_graph.importing.primitives import Flat, Primitive
from hiresnet_graph.ops import OPS, Tensor
from hiresnet_graph.plan import Plan

_SHORT = 4
"""Digits of a single number that somebody chose; a trained one has more."""
_DIGITS = 17
"""Digits that distinguish all numbers of float64."""
_SHOWN = 3
"""How many values are listed of one note."""
_FACTORS = (ops.ChannelScale, ops.LearnedScale, OPS.get("prelu"))
"""Operations with the field `init`."""
_LAYERS = (ops.Conv2d, ops.ConvTranspose2d, ops.Linear)
_CONSTANTS = {"zeros": 0.0, "ones": 1.0}


def with_starting_values(flat: Flat, tensors: Mapping[str, torch.Tensor]) -> Flat:
    """A network whose learned factors start at their value in the original, where all elements of one are equal.

    A single number with many digits is one that training found, and stays out.
    """
    return replace(flat, primitives=[_started(primitive, tensors) for primitive in flat.primitives])


def _started(primitive: Primitive, tensors: Mapping[str, torch.Tensor]) -> Primitive:
    if not isinstance(primitive.op, _FACTORS):
        return primitive
    value = tensors[primitive.stored["weight"].name]
    found = constant_of(value)
    own = primitive.op.tensors(primitive.shape)[0]
    if found is None or found == _initial(own) or (value.numel() == 1 and not _is_short(found)):
        return primitive
    return replace(primitive, op=primitive.op.changed({"init": found}))


def constant_of(value: torch.Tensor) -> float | None:
    """The number that all elements are, with as few digits as its type distinguishes; None if they differ."""
    if not value.is_floating_point() or not value.numel() or not bool((value == value.flatten()[0]).all()):
        return None
    number = value.flatten()[0].item()
    if not math.isfinite(number):
        return None
    shortest = (float(f"{number:.{digits}g}") for digits in range(1, _DIGITS + 1))
    return next(one for one in shortest if torch.tensor(one, dtype=value.dtype).item() == number)


def _is_short(number: float) -> bool:
    return float(f"{number:.{_SHORT}g}") == number


def _initial(tensor: Tensor) -> float | None:
    """The number at which all elements start; None if they are random."""
    return tensor.value if tensor.init == "constant" else _CONSTANTS.get(tensor.init)


def other_starts(plan: Plan, names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """A note of what starts from another value than in the original when it is trained without these weights.

    Values that differ from element to element are trained or random, and no reason for a note. Of values that start
    at random here, only layers of 0 are: a bias or a class token of 0 is close to them.

    Args:
        names: Address -> name in the original.
        tensors: Those of the original.
    """
    found: dict[tuple[str, float], list[str]] = {}
    for call in plan.calls:
        for tensor in call.tensors:
            name = names.get(f"{call.weights}.{tensor.name}")
            own = constant_of(tensors[name]) if name is not None and tensor.trainable else None
            if name is None or own is None or (tensor.elements == 1 and call.op.parameter_group != "scales"):
                continue
            start = _initial(tensor)
            is_layer_of_zeros = own == 0 and isinstance(call.op, _LAYERS) and tensor.name == "weight"
            is_other = is_layer_of_zeros if start is None else start != own
            users = found.setdefault(("random" if start is None else f"{start:g}", own), []) if is_other else [name]
            if name not in users:
                users.append(name)
    if not found:
        return ()
    parts = [f"{_listed(users)} at {start} (in the original at {own:.9g})" for (start, own), users in found.items()]
    more = f"; and {len(parts) - _SHOWN} more values" if len(parts) > _SHOWN else ""
    return (f"without '--weights', training starts {'; '.join(parts[:_SHOWN])}{more}. A spec has no field for it",)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"
