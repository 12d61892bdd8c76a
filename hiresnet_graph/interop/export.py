"""Writes a network as a file for other programs: Python source, an exported program, ONNX, or the plan as JSON.

A file is replaced atomically. Exported programs and ONNX files are in eval mode and accept any batch size.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresnet_graph.emit import emit
from hiresnet_graph.errors import MissingToolError, UsageError, did_you_mean
from hiresnet_graph.files import check_output, write_atomic
from hiresnet_graph.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

_SUFFIXES = (".py", ".pt2", ".onnx", ".json")


def export(
    plan: Plan,
    path: str | Path,
    *,
    seed: int = 0,
    weights: str | Path | None = None,
    reinit: bool = False,
    message: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write a network to a file, in the format given by its suffix.

    `.py` is source that imports torch alone, `.pt2` an exported program for `torch.export.load`, `.onnx` ONNX, and
    `.json` the plan: the primitive calls in order, with their fields, shapes and weight names.

    Args:
        seed: Random seed of the initial weights, for `.pt2` and `.onnx`.
        weights: A file or the folder of a run, as for `read_weights`, whose weights replace the initial ones; same
            suffixes.
        reinit: Tensors that do not fit keep their initial values.
        message: Called with what the user should know about the weights.

    Raises:
        UsageError: The suffix is unknown, the weights do not fit, or the file cannot be written.
        MissingToolError: The packages `onnx` and `onnxscript` are not installed.
    """
    target = Path(path).expanduser()
    suffix = target.suffix.lower()
    if suffix not in _SUFFIXES:
        found = f"'{target.suffix}' is not an export format" if suffix else f"'{target}' has no suffix"
        hint = did_you_mean(suffix, _SUFFIXES) if suffix else ""
        closest = f" {hint}" if hint.startswith("Did") else ""
        raise UsageError(f"{found}; the suffix must be one of {', '.join(_SUFFIXES)}.{closest}")
    if suffix in (".py", ".json") and weights is not None:
        raise UsageError(f"a {target.suffix} file holds no weights. Omit 'weights', or write .pt2 or .onnx.")
    if suffix == ".onnx":
        _require_onnx()
    check_output(target)
    if suffix == ".py":
        data = emit(plan).encode()
    elif suffix == ".json":
        data = (json.dumps(plan.to_json(), indent=1) + "\n").encode()
    elif suffix == ".pt2":
        data = _program(*_module(plan, seed, weights, reinit, message))
    else:
        data = _onnx(plan, *_module(plan, seed, weights, reinit, message))
    write_atomic(target, data, UsageError)
    return target


def _program(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    import torch

    program = torch.export.export(module, inputs, dynamic_shapes=_dynamic_batch(inputs))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"ONNX export requires {' and '.join(missing)}. Install: python -m pip install 'hiresnet-graph[onnx]'."
        )


def _onnx(plan: Plan, module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    import torch

    with warnings.catch_warnings():
        # All inputs share one batch axis, on purpose.
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=_dynamic_batch(inputs),
            input_names=list(plan.inputs),
            output_names=list(plan.outputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # they contain local paths of torch, and are half of a small file
    data: bytes = model.SerializeToString()
    return data


def _module(
    plan: Plan, seed: int, weights: str | Path | None, reinit: bool, message: Callable[[str], None]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module in eval mode, and example inputs."""
    import torch

    from hiresnet_graph.lower import build
    from hiresnet_graph.lower.weights import load_weights

    module = build(plan, seed).eval()
    if weights is not None:
        hint = "To keep initial values for what does not fit: '--reinit'."
        for note in load_weights(module, Path(weights).expanduser(), UsageError, reinit=reinit, hint=hint):
            message(note)
    return module, tuple(torch.zeros(2, *shape) for shape in plan.inputs.values())


def _dynamic_batch(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    """One batch axis of any size, shared by all inputs."""
    import torch

    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)
