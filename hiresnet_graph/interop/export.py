"""Writes a network as a file for other programs: Python source, an exported program, ONNX, or the plan as JSON.

A file is replaced atomically. Exported programs and ONNX files are in eval mode and accept any batch size, on request
also feature maps of any height and width.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiresnet_graph.emit import emit
from hiresnet_graph.errors import MissingToolError, UsageError, did_you_mean, first_line
from hiresnet_graph.files import check_output, write_atomic
from hiresnet_graph.formats import format_count
from hiresnet_graph.interop.dynamic import size_range
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Map

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiresnet_graph.lower.inference import InferenceForm

_SUFFIXES = (".py", ".pt2", ".onnx", ".json")
Dynamic = Literal["batch", "hw"]
"""What may vary in an exported program: the batch size, or also height and width of the inputs."""


def export(
    plan: Plan,
    path: str | Path,
    *,
    seed: int = 0,
    weights: str | Path | None = None,
    specs: Iterable[Path] = (),
    reinit: bool = False,
    dynamic: Dynamic = "batch",
    inference: bool = False,
    message: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write a network to a file, in the format given by its suffix.

    `.py` is source that imports torch alone, `.pt2` an exported program for `torch.export.load`, `.onnx` ONNX, and
    `.json` the plan: the primitive calls in order, with their fields, shapes and weight names.

    Args:
        seed: Random seed of the initial weights, for `.pt2` and `.onnx`.
        weights: A file or the folder of a run, as for `read_weights`, whose weights replace the initial ones; same
            suffixes.
        specs: The files of the spec, beside which an import may have written the names of the tensors.
        reinit: Tensors that do not fit keep their initial values.
        dynamic: What may vary in `.pt2` and `.onnx` files: the batch size (`batch`), or also height and width (`hw`).
        inference: Write the inference form (`.pt2` and `.onnx`): norms and factors folded into convolutions, and
            convolutions that meet in a sum joined.
        message: Called with what the user should know about weights, sizes and the inference form.

    Raises:
        UsageError: The suffix is unknown, the weights do not fit, height and width are baked in, or the file cannot be
            written.
        MissingToolError: The packages `onnx` and `onnxscript` are not installed.
    """
    target = Path(path).expanduser()
    suffix = _format(target)
    if suffix in (".py", ".json"):
        if weights is not None:
            raise UsageError(f"a {target.suffix} file holds no weights. Omit them, or write .pt2 or .onnx.")
        if dynamic != "batch" or inference:
            option = "inference" if inference else "dynamic"
            raise UsageError(f"'{option}' does not apply to {suffix} files. Omit it, or write .pt2 or .onnx.")
    if suffix == ".onnx":
        _require_onnx()
    check_output(target)
    if suffix == ".py":
        data = emit(plan).encode()
    elif suffix == ".json":
        data = (json.dumps(plan.to_json(), indent=1) + "\n").encode()
    else:
        form = _inference_form(plan) if inference else None
        varying = _varying(plan if form is None else form.plan, dynamic, suffix, message)
        module = _module(plan, seed, weights, specs, reinit, message)
        if form is not None:
            module = _inference(form, module, message)
        data = _program(module, varying) if suffix == ".pt2" else _onnx(plan, module, varying)
    write_atomic(target, data, UsageError)
    return target


def _format(target: Path) -> str:
    """The suffix of a file, which is its format."""
    suffix = target.suffix.lower()
    if suffix in _SUFFIXES:
        return suffix
    found = f"'{target.suffix}' is not an export format" if suffix else f"'{target}' has no suffix"
    hint = did_you_mean(suffix, _SUFFIXES) if suffix else ""
    closest = f" {hint}" if hint.startswith("Did") else ""
    raise UsageError(f"{found}; the suffix must be one of {', '.join(_SUFFIXES)}.{closest}")


@dataclass(frozen=True)
class _Varying:
    """What varies in an exported program.

    Attributes:
        axes: For each input, index of an axis that may vary -> its symbol, shared by all inputs.
        example: For each input, zeros for two samples, to trace the network with.
    """

    axes: tuple[dict[int, Any], ...]
    example: tuple[Tensor, ...]

    @property
    def has_sizes(self) -> bool:
        """Whether height and width vary, not the batch size alone."""
        return any(len(axes) > 1 for axes in self.axes)

    def failed(self, error: Exception) -> Exception:
        """The error of an export that torch refused: one for users where height and width vary."""
        if not self.has_sizes:
            return error
        return UsageError(
            f"torch cannot export this network for other heights and widths: {first_line(error)} "
            "Omit 'dynamic' to export for the size of the spec."
        )


def _program(module: nn.Module, varying: _Varying) -> bytes:
    import torch
    from torch._dynamo.exc import UserError

    try:
        # What torch cannot prove of all sizes in the range, the program checks when it runs.
        program = torch.export.export(
            module,
            varying.example,
            dynamic_shapes=varying.axes,
            prefer_deferred_runtime_asserts_over_guards=varying.has_sizes,
        )
    except UserError as error:
        raise varying.failed(error) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"ONNX export requires {' and '.join(missing)}. Install: python -m pip install {' '.join(missing)}."
        )


def _onnx(plan: Plan, module: nn.Module, varying: _Varying) -> bytes:
    import torch

    with warnings.catch_warnings():
        # All inputs share these axes, on purpose.
        warnings.filterwarnings("ignore", message="# The axis name: .* will not be used")
        try:
            program = torch.onnx.export(
                module,
                varying.example,
                dynamo=True,
                dynamic_shapes=varying.axes,
                input_names=list(plan.inputs),
                output_names=list(plan.outputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise varying.failed(error) from error
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # of the rest, which is half of a small file, some are local paths of torch
        kept = [one for one in node.metadata_props if one.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    data: bytes = model.SerializeToString()
    return data


def _module(
    plan: Plan,
    seed: int,
    weights: str | Path | None,
    specs: Iterable[Path],
    reinit: bool,
    message: Callable[[str], None],
) -> nn.Module:
    """The module in eval mode."""
    from hiresnet_graph.lower import build
    from hiresnet_graph.lower.weight_files import REINIT_HINT
    from hiresnet_graph.lower.weights import load_weights

    module = build(plan, seed).eval()
    if weights is not None:
        path = Path(weights).expanduser()
        for note in load_weights(module, path, UsageError, specs=specs, reinit=reinit, hint=REINIT_HINT):
            message(note)
    return module


def _inference_form(plan: Plan) -> InferenceForm:
    from hiresnet_graph.lower.inference import inference_form

    return inference_form(plan)


def _inference(form: InferenceForm, module: nn.Module, message: Callable[[str], None]) -> nn.Module:
    """The module in the form for inference."""
    message(
        f"Inference form: {format_count(form.absorbed, 'norm or factor', 'norms and factors')} folded into the "
        f"convolution before; {format_count(form.joined, 'convolution')} saved in sums."
    )
    return form.build(module)


def _varying(plan: Plan, dynamic: Dynamic, suffix: str, message: Callable[[str], None]) -> _Varying:
    """The axes of each input that may vary, and examples of the inputs."""
    import torch

    batch = torch.export.Dim("batch")
    axes: list[dict[int, Any]] = [{0: batch} for _ in plan.inputs]
    shapes = list(plan.inputs.values())
    if dynamic == "hw":
        found = size_range(plan, onnx=suffix == ".onnx")
        if text := found.describe():
            message(text)
        step = found.step
        height, width = (
            step * torch.export.Dim(name, min=smallest // step)
            for name, smallest in zip(("height", "width"), found.smallest, strict=True)
        )
        for i, shape in enumerate(shapes):
            if isinstance(shape, Map):
                axes[i] |= {shape.feature_axis + 2: height, shape.feature_axis + 3: width}
                shapes[i] = replace(shape, height=found.example[0], width=found.example[1])
    return _Varying(tuple(axes), tuple(torch.zeros(2, *shape) for shape in shapes))
