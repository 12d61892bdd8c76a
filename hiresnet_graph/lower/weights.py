"""The torch modules with the tensors of a plan, and their seeded initial values."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, UsageError
from hiresnet_graph.formats import format_bytes
from hiresnet_graph.lower.weight_files import Fit, maps_beside, read_weights
from hiresnet_graph.ops import Tensor
from hiresnet_graph.plan import Call, Plan, layers_by_weight
from hiresnet_graph.seeding import derive_seed


def find(path: str) -> Any:
    """The torch object of a dotted path, like `torch.nn.functional.relu`."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def call_function(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the torch function of a dotted path."""
    return find(path)(*args, **kwargs)


class _WithoutValues(TorchFunctionMode):
    """Leaves out torch's own initial values, which take as long to compute on `meta` as the rest of a layer."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else next(iter((kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


def make_layers(plan: Plan, seed: int) -> dict[str, nn.Module]:
    """One initialised module for each name of weights, on the default device of torch.

    The initial values are drawn on the CPU, so that they are the same on each device. There are none on `meta`.

    Raises:
        OutOfMemory: They are larger than the memory of this machine.
    """
    device = torch.get_default_device()
    size_bytes, memory_bytes = 4 * sum(math.prod(tensor.shape) for tensor in plan.tensors().values()), _memory_bytes()
    if size_bytes > memory_bytes and device.type != "meta":
        raise OutOfMemory(
            f"the weights of '{plan.name}' take {format_bytes(size_bytes)}; this machine has "
            f"{format_bytes(int(memory_bytes))} of memory. Reduce the width or the number of blocks."
        )
    layers = {}
    for name, (layer, call) in layers_by_weight(plan).items():
        with torch.device("meta"), _WithoutValues():
            module = cast(nn.Module, find(layer.target)(*layer.args, **layer.kwargs))
        _check_tensors(module, layer.target, call)
        if device.type != "meta":
            _allocate(module)
            initialize(module, name, call.tensors, seed)
        if device.type not in ("meta", "cpu"):
            module.to(device)
        layers[name] = module
    return layers


def _allocate(module: nn.Module) -> None:
    """Give the tensors of a layer memory; `to_empty` takes several times as long."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                part._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


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


def floating_type(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """The type of the first tensor of floating-point numbers; float32 if there is none."""
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


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


def container(root: nn.Module, folders: Iterable[str]) -> nn.Module:
    """The module below `root` along these names, made of empty modules where there is none."""
    parent = root
    for folder in folders:
        child = parent._modules.get(folder)
        if child is None:
            child = nn.Module()
            parent.add_module(folder, child)
        parent = child
    return parent


def attach(root: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Add each layer to `root` under its dotted name, in modules without `forward`."""
    for name, layer in layers.items():
        *folders, last = name.split(".")
        parent = container(root, folders)
        earlier = parent._modules.get(last)  # weights may lie below the name of other weights
        for below, module in () if earlier is None else earlier._modules.items():
            layer.add_module(below, module)
        parent.add_module(last, layer)


def load_weights(
    module: nn.Module,
    path: Path,
    error: type[HrgError] = RunError,
    *,
    specs: Iterable[Path] = (),
    reinit: bool = False,
    hint: str = "",
) -> list[str]:
    """Copy the tensors of a file into a module.

    The prefixes that `torch.compile` and `DataParallel` put before all names are removed.

    Args:
        path: As for `read_weights`.
        specs: The files of the spec, beside which an import may have written the names of the tensors.
        reinit: Tensors of the module that the file lacks, or has in another shape, keep their values; tensors of the
            file that the module lacks are not used. By default both are errors.
        hint: What to do about them, for the error.

    Returns:
        Sentences on what was changed and what does not fit.

    Raises:
        error: The file cannot be read, or has other tensors.
    """
    file = read_weights(path, error, maps_beside(specs))
    fit = Fit.of(file, {name: tuple(value.shape) for name, value in module.state_dict().items()})
    if refusal := fit.refusal(reinit=reinit, hint=hint):
        raise error(refusal)
    module.load_state_dict(fit.tensors, strict=False)
    return [*([file.note] if file.note else []), *fit.sentences()]


def check_weights(plan: Plan, path: Path) -> None:
    """Check that the tensors of a file are those of a network, which need not be built for this.

    Raises:
        RunError: The file cannot be read, or has other tensors.
    """
    if refusal := Fit.of(read_weights(path), shapes_of(plan)).refusal():
        raise RunError(refusal)


def shapes_of(plan: Plan) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a network, by name."""
    return {name: tuple(tensor.shape) for name, tensor in plan.tensors().items()}
