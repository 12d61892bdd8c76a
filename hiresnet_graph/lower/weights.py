"""The torch modules with the tensors of a plan, and their seeded initial values."""

from __future__ import annotations

import importlib
import math
from typing import Any, cast

import torch
from torch import nn

from hiresnet_graph.ops import Tensor
from hiresnet_graph.plan import Plan, layers_by_weight
from hiresnet_graph.seeding import derive_seed


def find(path: str) -> Any:
    """The torch object of a dotted path, like `torch.nn.functional.relu`."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def call_function(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the torch function of a dotted path."""
    return find(path)(*args, **kwargs)


def make_layers(plan: Plan, seed: int) -> dict[str, nn.Module]:
    """One initialised module for each name of weights."""
    layers = {}
    for name, (layer, call) in layers_by_weight(plan).items():
        with torch.device("meta"):
            module = cast(nn.Module, find(layer.target)(*layer.args, **layer.kwargs))
        module.to_empty(device="cpu")
        initialize(module, name, call.tensors, seed)
        layers[name] = module
    return layers


@torch.no_grad()
def initialize(module: nn.Module, name: str, tensors: tuple[Tensor, ...], seed: int) -> None:
    """Set the tensors of one layer to their initial values, each drawn from (seed, its name)."""
    for tensor in tensors:
        value = cast(torch.Tensor, getattr(module, tensor.name))
        if tensor.init == "zeros":
            value.zero_()
        elif tensor.init == "ones":
            value.fill_(1)
        elif tensor.init == "constant":
            value.fill_(tensor.value)
        else:
            generator = torch.Generator().manual_seed(derive_seed(seed, f"{name}.{tensor.name}"))
            if tensor.init == "he_normal":
                fan_out = tensor.shape[0] * math.prod(tensor.shape[2:])
                value.normal_(0, math.sqrt(2 / fan_out), generator=generator)
            else:
                bound = 1 / math.sqrt(tensor.fan)
                value.uniform_(-bound, bound, generator=generator)


def attach(root: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Add each layer to `root` under its dotted name, in modules without `forward`."""
    for name, layer in layers.items():
        parent = root
        *folders, last = name.split(".")
        for folder in folders:
            child = parent._modules.get(folder)
            if child is None:
                child = nn.Module()
                parent.add_module(folder, child)
            parent = child
        container = parent._modules.get(last)  # weights may lie below the name of other weights
        for below, module in () if container is None else container._modules.items():
            layer.add_module(below, module)
        parent.add_module(last, layer)
