"""Gradients of a network and of its import: code that stops or changes them leaves no trace in the outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from hiresnet_graph.formats import format_bytes
from hiresnet_graph.importing.masks import MeanMasks
from hiresnet_graph.importing.trace import ModuleInputs, foreign_message, stored_tensors

_LARGEST_BYTES = 2 << 30
"""What the backward pass of the comparison may keep; the gradients of larger networks are not compared."""
_TOLERANCE = 1e-8
"""Largest relative difference of gradients in float64."""
Select = Callable[[Any], Sequence[torch.Tensor]]


class NotCompared(Exception):
    """Bare: gradients cannot be compared; its message says why."""


def other_gradients(
    pair: tuple[nn.Module, nn.Module],
    calls: tuple[ModuleInputs, ModuleInputs],
    outputs: tuple[Select, Select],
    names: Mapping[str, str],
) -> list[str]:
    """Tensors of the original whose gradients in training mode are not those of the imported network, in order.

    Tensors that the original does not train are not compared.

    Args:
        pair: The original and the imported network, with equal weights. Their settings and statistics change.
        calls: The arguments of both.
        outputs: Which results of both are compared.
        names: Address in the imported network -> name in the original.

    Raises:
        NotCompared: A backward pass fails or takes much memory.
    """
    trained = {name for name, value in stored_tensors(pair[0]).items() if value.requires_grad}
    trainable = [address for address, _ in pair[1].named_parameters() if names.get(address) in trained]
    own = {address: address for address in trainable}
    expected = _gradients(pair[0], calls[0], outputs[0], {address: names[address] for address in trainable})
    found = _gradients(pair[1], calls[1], outputs[1], own)
    largest = max((float(value[1]) for value in (*expected.values(), *found.values())), default=0.0)
    none = torch.zeros(2, dtype=torch.float64)
    return [
        names[address]
        for address in trainable
        if not float((expected.get(address, none) - found.get(address, none)).abs().max()) <= _TOLERANCE * largest
    ]


def _gradients(
    network: nn.Module, call: ModuleInputs, select: Select, names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Address -> two sums of its gradient: of all elements with weights, and of their sizes.

    Args:
        names: Address -> name of a tensor of the network.
    """
    network.train()
    for value in network.parameters():
        value.requires_grad_(False)
    tensors = stored_tensors(network)
    sums: dict[str, torch.Tensor] = {}
    for address, name in names.items():
        tensor = tensors[name].requires_grad_(True)
        tensor.register_post_accumulate_grad_hook(partial(_sum_up, sums, address))  # type: ignore[no-untyped-call]
    inputs = {name: tensor.clone().requires_grad_(True) for name, tensor in call.tensors.items()}
    call = call._replace(tensors=inputs).copy()
    kept = _KeptBytes()
    try:
        with (
            warnings.catch_warnings(),
            torch.enable_grad(),
            torch.random.fork_rng(devices=[]),
            MeanMasks(),
            torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor),
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            loss = sum(((value * _weights(value)).sum() for value in select(call.run(network))), torch.zeros(()))
            loss.backward()  # type: ignore[no-untyped-call]
    except NotCompared:
        raise
    except Exception as error:
        raise NotCompared(f"the backward pass fails ({foreign_message(error)})") from error
    return sums


def _sum_up(sums: dict[str, torch.Tensor], address: str, tensor: torch.Tensor) -> None:
    assert tensor.grad is not None
    sums[address] = torch.stack([(tensor.grad * _weights(tensor)).sum(), tensor.grad.abs().sum()])
    tensor.grad = None


def _weights(value: torch.Tensor) -> torch.Tensor:
    """Different numbers for all elements, whatever the shape is."""
    return torch.linspace(0.5, 1.5, value.numel(), dtype=torch.float64).cos().view(value.shape)


class _KeptBytes:
    """Counts what is kept for a backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        self.total = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself.

        Raises:
            NotCompared: They take too much memory.
        """
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages[storage.data_ptr()] = storage.nbytes()
            self.total += storage.nbytes()
        if self.total > _LARGEST_BYTES:
            raise NotCompared(f"the backward pass takes more than {format_bytes(_LARGEST_BYTES)}")
        return tensor
