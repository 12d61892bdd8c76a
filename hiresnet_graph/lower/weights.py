"""The torch modules with the tensors of a plan, and their seeded initial values."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from hiresnet_graph.errors import HrgError, RunError
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


def load_weights(module: nn.Module, path: Path, error: type[HrgError] = RunError) -> None:
    """Copy the tensors of a safetensors file into a module.

    Raises:
        error: The file cannot be read, or has other tensors.
    """
    try:
        # From bytes, not mapped: the file may be replaced while the module is in use.
        tensors = load(path.read_bytes())
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}.") from reason
    except SafetensorError as reason:
        raise error(f"{path}: not a safetensors file, or damaged: {reason}.") from None
    own = module.state_dict()
    faults = [f"it lacks '{name}'" for name in own if name not in tensors]
    faults += [f"'{name}' is not in the network" for name in tensors if name not in own]
    faults += [
        f"'{name}' is {list(tensors[name].shape)}, not {list(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise error(f"{path}: these weights belong to another network: {'; '.join(faults[:3])}{more}.")
    module.load_state_dict(tensors)
