"""Writes a network as a file that other programs read: source, an exported program, ONNX, or the plan as JSON.

A file is written whole or not at all. What is exported as a program is in eval mode, with a batch axis of any size.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresnet_graph.emit import emit
from hiresnet_graph.errors import MissingToolError, UsageError, did_you_mean
from hiresnet_graph.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiresnet_graph.architecture import Architecture


def export(network: Architecture | Plan, path: str | Path, *, seed: int = 0, weights: str | Path | None = None) -> Path:
    """Write a network as what the suffix of the file says: `.py`, `.pt2`, `.onnx` or `.json`.

    Args:
        seed: Of the initial weights, for the suffixes that hold weights.
        weights: A safetensors file with the weights to take instead, for the same suffixes.

    Raises:
        UsageError: The suffix is not known, the weights do not fit, or the file cannot be written.
        MissingToolError: ONNX is wanted, and its packages are not installed.
    """
    target = Path(path).expanduser()
    suffix = target.suffix.lower()
    if suffix == ".py":
        _check_no_weights(target, weights)
        return export_source(network, target)
    if suffix == ".json":
        _check_no_weights(target, weights)
        return export_plan_json(network, target)
    if suffix == ".pt2":
        return export_program(network, target, seed=seed, weights=weights)
    if suffix == ".onnx":
        return export_onnx(network, target, seed=seed, weights=weights)
    found = f"'{target.suffix}' is no format of exports" if suffix else f"'{target}' has no suffix"
    known = (".py", ".pt2", ".onnx", ".json")
    hint = did_you_mean(suffix, known) if suffix else ""
    closest = f" {hint}" if hint.startswith("Did") else ""
    raise UsageError(f"{found}; the suffix must be one of {', '.join(known)}.{closest}")


def export_source(network: Architecture | Plan, path: str | Path) -> Path:
    """Write a network as Python source that imports torch alone.

    Raises:
        UsageError: The file cannot be written.
    """
    return _written(path, lambda: emit(_plan(network)).encode())


def export_plan_json(network: Architecture | Plan, path: str | Path) -> Path:
    """Write the plan of a network: its primitive calls in order, with fields, shapes and names of weights.

    Raises:
        UsageError: The file cannot be written.
    """
    return _written(path, lambda: (json.dumps(_plan(network).to_json(), indent=1) + "\n").encode())


def export_program(
    network: Architecture | Plan, path: str | Path, *, seed: int = 0, weights: str | Path | None = None
) -> Path:
    """Write a network as an exported program, which `torch.export.load` reads.

    Raises:
        UsageError: The weights do not fit, or the file cannot be written.
    """

    def content() -> bytes:
        import torch

        module, inputs = _module(_plan(network), seed, weights)
        program = torch.export.export(module, inputs, dynamic_shapes=_dynamic(inputs))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()

    return _written(path, content)


def export_onnx(
    network: Architecture | Plan, path: str | Path, *, seed: int = 0, weights: str | Path | None = None
) -> Path:
    """Write a network as ONNX, with the names of its inputs and outputs.

    Raises:
        UsageError: The weights do not fit, or the file cannot be written.
        MissingToolError: The packages `onnx` and `onnxscript` are not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"ONNX files need {' and '.join(missing)}. Install: python -m pip install 'hiresnet-graph[onnx]'."
        )

    def content() -> bytes:
        import torch

        plan = _plan(network)
        module, inputs = _module(plan, seed, weights)
        with warnings.catch_warnings():
            # All inputs have one batch axis, on purpose.
            warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=_dynamic(inputs),
                input_names=list(plan.inputs),
                output_names=list(plan.outputs),
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        for node in model.graph.node:
            del node.metadata_props[:]  # they tell where torch lies on this machine, and make up half of a small file
        data: bytes = model.SerializeToString()
        return data

    return _written(path, content)


def _plan(network: Architecture | Plan) -> Plan:
    return network if isinstance(network, Plan) else network.plan


def _module(plan: Plan, seed: int, weights: str | Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module in eval mode, and inputs for it."""
    import torch

    from hiresnet_graph.lower import build

    module = build(plan, seed).eval()
    if weights is not None:
        _load(module, Path(weights).expanduser())
    return module, tuple(torch.zeros(2, *shape) for shape in plan.inputs.values())


def _dynamic(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    """A batch axis of any size, the same for all inputs."""
    import torch

    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _load(module: nn.Module, path: Path) -> None:
    """Fill a module with the tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise UsageError(f"'{path}' is no safetensors file: {error}.") from None
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
        raise UsageError(f"the weights in '{path}' are of another network: {'; '.join(faults[:3])}{more}.")
    module.load_state_dict(tensors)


def _check_no_weights(target: Path, weights: str | Path | None) -> None:
    if weights is not None:
        raise UsageError(f"a {target.suffix} file holds no weights. Leave 'weights' out, or write .pt2 or .onnx.")


def _written(path: str | Path, content: Callable[[], bytes]) -> Path:
    """A file, written whole or not at all. What would hinder it is told before the content is made."""
    target = Path(path).expanduser()
    if target.is_dir():
        raise UsageError(f"'{target}' is a folder. Name a file.")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder '{target.parent}' for '{target.name}'. Make it first.")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"'{target}' cannot be written: no permission to write into '{target.parent}'.")
    data = content()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(data)
        os.replace(draft, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UsageError(f"'{target}' cannot be written: {error.strerror}.") from None
    return target
