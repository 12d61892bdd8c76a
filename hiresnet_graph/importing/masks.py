"""Random masks of training mode: replaced by their means, which makes training mode a function, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_NOISE = 1e-7
"""Difference between probabilities that are equal but for rounding."""


class RandomMask(NamedTuple):
    """A random mask: its number of values, and the probability of each to be one."""

    size: int
    probability: float


class MeanMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces random masks by their means.

    Args:
        changed: The mask, by its number, of which every second value is half of the mean instead.
    """

    def __init__(self, changed: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changed = changed
        self.masks: list[RandomMask] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function._schema.name
        if name == "aten::bernoulli_":
            probability = args[1] if len(args) > 1 else (kwargs or {}).get("p", 0.5)
            if not isinstance(probability, torch.Tensor):
                args[0].fill_(probability)
                self._add(args[0], float(probability))
                return args[0]
        if name == "aten::native_dropout":
            result = args[0].clone()
            self._add(result, 1 - float(args[1]))
            return result, torch.ones_like(args[0], dtype=torch.bool)
        if name == "aten::native_dropout_backward":
            return args[0].clone()
        return function(*args, **(kwargs or {}))

    def _add(self, mean: torch.Tensor, probability: float) -> None:
        if self.changed == len(self.masks):
            mean *= 1 - 0.5 * (torch.arange(mean.numel()) % 2 == 0).view(mean.shape).to(mean.dtype)
        self.masks.append(RandomMask(mean.numel(), probability))


def unmatched(masks: Sequence[RandomMask], others: Sequence[RandomMask]) -> list[RandomMask] | None:
    """The masks without a counterpart among others; None if one of the others has none."""
    left = sorted(masks)
    for other in sorted(others):
        match = next((mask for mask in left if is_alike(mask, other)), None)
        if match is None:
            return None
        left.remove(match)
    return left


def is_alike(one: RandomMask, other: RandomMask) -> bool:
    """Whether two masks have the same size and the same probability but for rounding."""
    return one.size == other.size and abs(one.probability - other.probability) < _NOISE
