"""How the tests of this folder compare networks: outputs, gradients and running statistics, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

TOLERANCE = 1e-10


class Outcome(NamedTuple):
    """What one call gives: the output, the gradient of each parameter and input, and all buffers after it."""

    output: torch.Tensor
    gradients: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]


def outcome(module: nn.Module, inputs: tuple[torch.Tensor, ...], run: Callable[..., Any] | None = None) -> Outcome:
    """The outcome of a call of a copy of the module, and of the gradient of a random linear function of its output.

    Args:
        run: Computes the output from a module and inputs; by default the module is called.
    """
    module = copy.deepcopy(module)
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = module(*leaves) if run is None else run(module, *leaves)
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    wanted = dict(module.named_parameters()) | {f"input {i}": x for i, x in enumerate(leaves)}
    found = torch.autograd.grad((output * direction).sum(), list(wanted.values()), allow_unused=True)
    gradients = {name: grad for name, grad in zip(wanted, found, strict=True) if grad is not None}
    return Outcome(output.detach(), gradients, dict(module.named_buffers()))


def near(mine: torch.Tensor, other: torch.Tensor, what: str = "", scale: float = 0) -> None:
    """Whether two tensors agree to 1e-10 of the larger of `scale` and the norm of the second."""
    assert mine.shape == other.shape, f"{what}: {mine.shape} and {other.shape}"
    difference = (mine - other).double().norm().item()
    assert difference <= TOLERANCE * max(other.double().norm().item(), scale, 1e-6), f"{what}: off by {difference}"


def near_all(mine: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], what: str = "gradient") -> None:
    """Whether all tensors agree by name, to 1e-10 of their own norm or of a thousandth of the largest norm.

    Some gradients are 0 but for rounding: that of a bias before a batch norm, say.
    """
    assert mine.keys() == other.keys(), f"{what}: {sorted(mine.keys() ^ other.keys())}"
    largest = max((tensor.double().norm().item() for tensor in other.values()), default=0)
    for name, tensor in other.items():
        near(mine[name], tensor, f"{what} of {name}", largest / 1000)


def same(mine: Outcome, other: Outcome, *, buffers: bool = True) -> None:
    """Whether two outcomes agree."""
    near(mine.output, other.output, "output")
    near_all(mine.gradients, other.gradients)
    if buffers:
        near_all(mine.buffers, other.buffers, "buffer")


def renamed(found: Outcome, names: Callable[[str], str]) -> Outcome:
    """The outcome with the names of tensors of another network."""
    gradients = {key if key.startswith("input ") else names(key): value for key, value in found.gradients.items()}
    return Outcome(found.output, gradients, {names(key): value for key, value in found.buffers.items()})


def carry(target: nn.Module, source: nn.Module, names: Callable[[str], str]) -> None:
    """Copy all tensors of one module into another; `names` gives, for a name of the target, that of the source."""
    held = source.state_dict()
    target.load_state_dict({name: held[names(name)] for name in target.state_dict()}, strict=True)
    target.train(source.training)
