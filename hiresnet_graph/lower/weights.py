"""The torch modules with the tensors of a plan, and their seeded initial values."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, UsageError
from hiresnet_graph.files import read_bytes
from hiresnet_graph.formats import format_bytes
from hiresnet_graph.ops import Tensor
from hiresnet_graph.plan import Call, Plan, layers_by_weight
from hiresnet_graph.seeding import derive_seed

# In the folder of a run.
_FILE = "model.safetensors"
# Of DataParallel and its kin, and of torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def find(path: str) -> Any:
    """The torch object of a dotted path, like `torch.nn.functional.relu`."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def call_function(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the torch function of a dotted path."""
    return find(path)(*args, **kwargs)


def make_layers(plan: Plan, seed: int) -> dict[str, nn.Module]:
    """One initialised module for each name of weights.

    Raises:
        OutOfMemory: They are larger than the memory of this machine.
    """
    size_bytes, memory_bytes = 4 * sum(math.prod(tensor.shape) for tensor in plan.tensors().values()), _memory_bytes()
    if size_bytes > memory_bytes:
        raise OutOfMemory(
            f"the weights of '{plan.name}' take {format_bytes(size_bytes)}; this machine has "
            f"{format_bytes(int(memory_bytes))} of memory. Reduce the width or the number of blocks."
        )
    layers = {}
    for name, (layer, call) in layers_by_weight(plan).items():
        with torch.device("meta"):
            module = cast(nn.Module, find(layer.target)(*layer.args, **layer.kwargs))
        _check_tensors(module, layer.target, call)
        module.to_empty(device="cpu")
        initialize(module, name, call.tensors, seed)
        layers[name] = module
    return layers


def _check_tensors(module: nn.Module, target: str, call: Call) -> None:
    """Check that a layer has the tensors that its operation declares, and no others: these would have no value.

    Raises:
        UsageError: It has others.
    """
    declared = {tensor.name: tensor for tensor in call.tensors}
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    faults = []
    for name, value in {**parameters, **buffers}.items():
        what = "parameter" if name in parameters else "buffer"
        tensor = declared.get(name)
        if tensor is None:
            faults.append(f"its {what} '{name}' {list(value.shape)} is not declared")
        elif tuple(value.shape) != tensor.shape:
            faults.append(f"its {what} '{name}' is {list(value.shape)}, but declared as {list(tensor.shape)}")
        elif tensor.trainable != (name in parameters):
            faults.append(f"'{name}' is a {what}, but declared as {'trainable' if tensor.trainable else 'a buffer'}")
    faults += [f"it lacks the declared '{name}'" for name in declared if name not in parameters and name not in buffers]
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        names = [prefix + name for name, value in vars(part).items() if isinstance(value, torch.Tensor)]
        faults += [f"its attribute '{name}' is a tensor outside the state_dict" for name in names]
    if faults:
        raise UsageError(
            f"the layer '{target}' of the operation '{call.op.kind}' (in '{call.name}') does not fit the tensors of "
            f"the operation: {'; '.join(faults)}. Only tensors that 'tensors' of the operation returns get values: "
            "declare each with its name and shape, and compute constants in 'forward'."
        )


def _memory_bytes() -> float:
    """The memory of this machine; infinity where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


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
            if tensor.init == "normal":
                value.normal_(0, tensor.value, generator=generator)
            elif tensor.init == "he_normal":
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


def load_weights(module: nn.Module, path: Path, error: type[HrgError] = RunError) -> str:
    """Copy the tensors of a safetensors file into a module.

    The prefixes that `torch.compile` and `DataParallel` put before all names are removed.

    Args:
        path: The file; or the folder of a run, for its weights of the epoch of best validation.

    Returns:
        A sentence that names the removed prefix; empty without one.

    Raises:
        error: The file cannot be read, or has other tensors.
    """
    if path.is_dir():
        path = _file_in(path, error)
    own = module.state_dict()
    tensors, prefix = _without_prefix(_read(path, error), own)
    _compare({name: tuple(value.shape) for name, value in own.items()}, tensors, path, error)
    module.load_state_dict(tensors)
    return f"Removed the prefix '{prefix}' from the names of the weights in {path}." if prefix else ""


def check_weights(plan: Plan, path: Path) -> None:
    """Check that the tensors of a safetensors file are those of a network, which need not be built for this.

    Raises:
        RunError: The file cannot be read, or has other tensors.
    """
    _compare({name: tuple(tensor.shape) for name, tensor in plan.tensors().items()}, _read(path, RunError), path)


def _compare(
    own: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    error: type[HrgError] = RunError,
) -> None:
    """Compare the tensors of a file with the shapes of those of a network."""
    faults = [f"it lacks '{name}'" for name in own if name not in tensors]
    faults += [f"'{name}' is not in the network" for name in tensors if name not in own]
    faults += [
        f"'{name}' is {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in own.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise error(f"{path}: these weights belong to another network: {'; '.join(faults[:3])}{more}.")


def _file_in(folder: Path, error: type[HrgError]) -> Path:
    """The file with the weights of the run in a folder."""
    path = folder / _FILE
    if path.is_file():
        return path
    if (folder / "runs").is_dir():
        raise error(f"{folder} holds a study, which has no weights. Give a folder below '{folder / 'runs'}'.")
    raise error(f"{folder}: there is no file '{_FILE}' in this folder. A run writes it when it has finished.")


def _read(path: Path, error: type[HrgError]) -> dict[str, torch.Tensor]:
    try:
        # From bytes, not mapped: the file may be replaced while the module is in use.
        content = read_bytes(path)
        return load(content)
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}.") from reason
    except KeyError as reason:
        raise error(f"{path}: holds numbers of the type {reason}, which is not supported.") from None
    except SafetensorError as reason:
        raise error(f"{path}: {_describe(path, content) or f'not a safetensors file, or damaged: {reason}.'}") from None


def _describe(path: Path, content: bytes) -> str:
    """What a file is that is not safetensors, and what to do; empty if that is unknown."""
    if content.startswith((b"PK", b"\x80")):
        new = path.with_suffix(".safetensors").name
        return (
            "this is a file of torch.save, not of safetensors. Convert it in Python: safetensors.torch.save_file("
            f"torch.load('{path.name}', weights_only=True), '{new}')"
        )
    if content.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the weights. Fetch them with 'git lfs pull'."
    if not content:
        return "the file is empty."
    if all(byte >= 32 or byte in b"\t\r\n" for byte in content[:64]):
        return "this is a text, not a safetensors file."
    return ""


def _without_prefix(tensors: dict[str, torch.Tensor], own: Collection[str]) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors without the prefixes that all of their names have and a network's names lack; and these."""
    removed = ""
    while True:
        shared = (prefix for prefix in _PREFIXES if tensors and all(name.startswith(prefix) for name in tensors))
        prefix = next(shared, "")
        if not prefix or any(name.startswith(prefix) for name in own):
            return tensors, removed
        removed += prefix
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
