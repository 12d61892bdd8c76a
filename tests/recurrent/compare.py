"""Comparison of networks: outputs, gradients and running statistics, in float64."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

import hiresnet_graph as hrg
from tests.recurrent.graphs import Sample
from tests.recurrent.modules import images, scrambled

TOLERANCE = 1e-10
COPY = re.compile(r"\.step\d+")
"""The suffix of the copies of weights."""
Rename = Callable[[str], str]


class Outcome(NamedTuple):
    """The result of one call: the output, the gradient of each parameter and input, and all buffers afterwards."""

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
    leaves_by_name = dict(module.named_parameters()) | {f"input {i}": x for i, x in enumerate(leaves)}
    found = torch.autograd.grad((output * direction).sum(), list(leaves_by_name.values()), allow_unused=True)
    gradients = {name: grad for name, grad in zip(leaves_by_name, found, strict=True) if grad is not None}
    return Outcome(output.detach(), gradients, dict(module.named_buffers()))


def near(mine: torch.Tensor, other: torch.Tensor, what: str = "", scale: float = 0) -> None:
    """Assert that two tensors agree to 1e-10 of the larger of `scale` and the norm of the second."""
    assert mine.shape == other.shape, f"{what}: {mine.shape} and {other.shape}"
    difference = (mine - other).double().norm().item()
    assert difference <= TOLERANCE * max(other.double().norm().item(), scale, 1e-6), f"{what}: off by {difference}"


def near_all(mine: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], what: str = "gradient") -> None:
    """Assert that all tensors agree by name, to 1e-10 of their own norm or of a thousandth of the largest norm.

    Some gradients are 0 but for rounding: that of a bias before a batch norm, say.
    """
    assert mine.keys() == other.keys(), f"{what}: {sorted(mine.keys() ^ other.keys())}"
    largest = max((tensor.double().norm().item() for tensor in other.values()), default=0)
    for name, tensor in other.items():
        near(mine[name], tensor, f"{what} of {name}", largest / 1000)


def same(mine: Outcome, other: Outcome, *, buffers: bool = True) -> None:
    """Assert that two outcomes agree."""
    near(mine.output, other.output, "output")
    near_all(mine.gradients, other.gradients)
    if buffers:
        near_all(mine.buffers, other.buffers, "buffer")


def renamed(found: Outcome, names: Callable[[str], str]) -> Outcome:
    """The outcome with the names of tensors of another network."""
    gradients = {key if key.startswith("input ") else names(key): value for key, value in found.gradients.items()}
    return Outcome(found.output, gradients, {names(key): value for key, value in found.buffers.items()})


def carry(target: nn.Module, source: nn.Module, names: Callable[[str], str]) -> None:
    """Copy all tensors of one module into another; `names` maps names of the target to names of the source."""
    held = source.state_dict()
    target.load_state_dict({name: held[names(name)] for name in target.state_dict()}, strict=True)
    target.train(source.training)


def built(text: str, seed: int = 0) -> tuple[hrg.Architecture, nn.Module]:
    arch = hrg.loads(text)
    return arch, scrambled(arch.build(seed))


def equal(text: str, other: str, names: Rename | None = None, *, buffers: bool = True) -> None:
    """The first network, with the tensors of the second, equals the second, in train mode and in eval mode.

    Args:
        names: The name in the second of a tensor of the first. Several names of the first may be one in the second:
            then the gradient of that one is the sum of theirs.
    """
    arch, module = built(text)
    _, source = built(other, seed=1)
    names = names or (lambda name: name)
    carry(module, source, names)
    xs = images(arch)
    for training in (True, False):
        module.train(training), source.train(training)
        same(summed(outcome(module, xs), names), outcome(source, xs), buffers=buffers)


def summed(found: Outcome, names: Rename) -> Outcome:
    """The outcome with other names; gradients of tensors with the same new name are added."""
    gradients: dict[str, torch.Tensor] = {}
    for name, gradient in found.gradients.items():
        key = name if name.startswith("input ") else names(name)
        gradients[key] = gradients[key] + gradient if key in gradients else gradient
    return Outcome(found.output, gradients, {names(name): value for name, value in found.buffers.items()})


def with_copies(sample: Sample, per_step: str, **time: object) -> str:
    """The spec with the same `per_step` everywhere."""
    spec = hrg.loads(sample.yaml).to_yaml()
    spec = re.sub(r"per_step: \w+", f"per_step: {per_step}", spec)
    arch = hrg.loads(spec).override({f"time.{key}": value for key, value in time.items()})
    return arch.to_yaml()
