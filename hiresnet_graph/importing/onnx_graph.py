"""ONNX files as modules that can be imported: each of their nodes as a call of torch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from hiresnet_graph.errors import MissingToolError, UnsupportedNetwork, UsageError
from hiresnet_graph.files import read_bytes
from hiresnet_graph.importing.comparison import max_difference
from hiresnet_graph.importing.onnx_nodes import OnnxNode, joined, numbers_of, read_nodes, weights_of
from hiresnet_graph.importing.onnx_windows import WindowLayout, relative_window_attention, with_windows
from hiresnet_graph.importing.programs import ProgramModule
from hiresnet_graph.importing.trace import foreign_message
from hiresnet_graph.lower.weights import container

_TOLERANCE = 1e-3
"""Largest relative difference from ONNX Runtime, which computes in float32 and in another order."""
Attributes = dict[str, Any]
Operation = Callable[..., Any]


class OnnxModule(ProgramModule):
    """An ONNX graph of operations that torch has, too.

    Args:
        graph: Of the file.
        arrays: Name -> initial value, for weights and constants.

    Raises:
        UnsupportedNetwork: It has operations that are not known here; all of them are listed.
    """

    def __init__(self, graph: Any, arrays: dict[str, torch.Tensor]) -> None:
        super().__init__()
        inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input if value.name not in arrays}
        self.inputs = tuple(inputs)
        self.batch = next((int(sizes[0].dim_value) for sizes in inputs.values() if sizes), 0) or None
        self.outputs = [value.name for value in graph.output]
        nodes, arrays = with_windows(read_nodes(graph), arrays, self.outputs, self.batch or 2, _computed)
        numbers = numbers_of(graph, arrays)
        self.nodes, arrays = joined(nodes, arrays, self.outputs, numbers)
        weights = weights_of(self.nodes, arrays, numbers)
        self.constants: dict[str, torch.Tensor] = {}
        self.addresses: dict[str, str] = {}
        for name, value in arrays.items():
            if name in weights:
                self._register(name, value)
            else:
                self.constants[name] = value
        self.samples = tuple(tuple(int(size.dim_value) for size in sizes)[1:] for sizes in inputs.values())
        unknown = [f"{node.op_type} (node '{node.name}')" for node in self.nodes if node.op_type not in OPERATIONS]
        if unknown:
            raise UnsupportedNetwork(
                "\n".join(["the ONNX file cannot be imported: it has operations without a form in a spec.", *unknown]),
                unknown,
            )

    def _register(self, name: str, value: torch.Tensor) -> None:
        *folders, last = [part for part in name.replace("/", ".").split(".") if part] or ["tensor"]
        parent = container(self, folders)
        while hasattr(parent, last):
            last += "_"
        parent.register_buffer(last, value)
        self.addresses[name] = ".".join([*folders, last])

    def _number(self, name: str, value: Any) -> Any:
        """A constant of one element as a plain number; anything else as it is."""
        is_number = name in self.constants and value.is_floating_point() and value.numel() == 1
        return value.item() if is_number else value

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one sample of each input; empty if the file leaves sizes open."""
        return self.samples if all(all(sizes) and sizes for sizes in self.samples) else ()

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs of the graph."""
        values: dict[str, Any] = {"": None, **dict(zip(self.inputs, inputs, strict=True))}
        own = dict(self.named_buffers())
        values |= {name: own[address] for name, address in self.addresses.items()}
        values |= self.constants
        for node in self.nodes:
            if self.on_call is not None:
                self.on_call((), f"node '{node.name}'")
            operands = [values[name] for name in node.inputs]
            if node.op_type in ("Mul", "Div") and not set(node.inputs) <= self.constants.keys():
                operands = [self._number(name, values[name]) for name in node.inputs]
            if node.op_type in ("ConstantOfShape", "Expand"):
                operands.append(inputs[0])  # numbers for each sample: the batch is that of the input
            results = _computed(node, operands)
            results = results if isinstance(results, tuple) else (results,)
            values |= dict(zip(node.outputs, results, strict=False))
        results = [values[name] for name in self.outputs]
        return results[0] if len(results) == 1 else dict(zip(self.outputs, results, strict=True))


def _computed(node: OnnxNode, operands: Sequence[Any]) -> Any:
    try:
        return OPERATIONS[node.op_type](node.attributes, *operands)
    except UnsupportedNetwork as error:
        raise UnsupportedNetwork(f"{error} (node '{node.name}')") from None
    except Exception as error:
        where = f"'{node.op_type}' cannot be computed (node '{node.name}')"
        raise UnsupportedNetwork(f"{where}: {foreign_message(error)}") from error


def read_onnx(path: Path) -> OnnxModule:
    """The network of an ONNX file.

    Raises:
        UsageError: It cannot be read, or is damaged.
        UnsupportedNetwork: It has operations that are not known here.
        MissingToolError: The package `onnx` is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingToolError("ONNX import requires onnx. Install: python -m pip install onnx.")
    import onnx
    from onnx import numpy_helper

    try:
        content = read_bytes(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    try:
        model = onnx.load_model_from_string(content)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
        stored = [(tensor.name, tensor) for tensor in model.graph.initializer]
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                stored.append((node.output[0], node.attribute[0].t))
        arrays = {name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for name, tensor in stored}
    except Exception as error:
        raise UsageError(f"'{path}' is no ONNX file, or is damaged: {foreign_message(error)}") from error
    return OnnxModule(model.graph, arrays)


def _numbers(value: Any) -> list[int]:
    """A tensor or list of whole numbers that does not depend on the input."""
    return [int(number) for number in (value.tolist() if isinstance(value, torch.Tensor) else value)]


def _symmetric(a: Attributes, x: torch.Tensor, rank: int, value: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """A value, padded where the padding of both ends differs, and the padding that is left to do."""
    pads = list(a.get("pads", [0] * 2 * rank))
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnsupportedNetwork(f"the padding '{a['auto_pad'].decode()}' depends on the size of the input.")
    before, after = pads[:rank], pads[rank:]
    if before == after:
        return x, before
    order = [number for pair in zip(reversed(before), reversed(after), strict=True) for number in pair]
    return F.pad(x, order, value=value), [0] * rank


def _conv(a: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    x, padding = _symmetric(a, x, 2)
    return F.conv2d(x, weight, bias, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))


def _conv_transpose(
    a: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    x, padding = _symmetric(a, x, 2)
    if "output_shape" in a:
        raise UnsupportedNetwork("'ConvTranspose' with the size of its output, which decides on the padding.")
    extra, strides, dilations = a.get("output_padding", 0), a.get("strides", 1), a.get("dilations", 1)
    return F.conv_transpose2d(x, weight, bias, strides, padding, extra, a.get("group", 1), dilations)


def _gemm(a: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1 or a.get("transA", 0) or not a.get("transB", 0):
        raise UnsupportedNetwork("'Gemm' with factors, or with a weight that is not transposed.")
    return F.linear(x, weight, bias)


def _batch_norm(a: Attributes, x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
    weight, bias, mean, variance = tensors
    momentum = 1 - a.get("momentum", 0.9)
    return F.batch_norm(x, mean, variance, weight, bias, False, momentum, a.get("epsilon", 1e-5))


def _max_pool(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    x, padding = _symmetric(a, x, 2, float("-inf"))
    return F.max_pool2d(
        x, a["kernel_shape"], a.get("strides", 1), padding, a.get("dilations", 1), bool(a.get("ceil_mode", 0))
    )


def _average_pool(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    x, padding = _symmetric(a, given := x, 2)
    counts = bool(a.get("count_include_pad", 0))
    if set(a.get("dilations", [1])) != {1} or (x is not given and not counts):
        raise UnsupportedNetwork("'AveragePool' with a dilation, or with different padding of both ends, not counted.")
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides", 1), padding, bool(a.get("ceil_mode", 0)), counts)


def _clip(a: Attributes, x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    bounds = [None if one is None else float(one) for one in (a.get("min", low), a.get("max", high))]
    if bounds == [0, 6]:
        return F.relu6(x)
    return torch.clamp(x, bounds[0], bounds[1])


def _reduce_mean(a: Attributes, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    own = _numbers(a["axes"] if axes is None else axes)
    return torch.mean(x, own, bool(a.get("keepdims", 1)))


def _reshape(a: Attributes, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    return torch.reshape(x, [x.shape[i] if size == 0 else size for i, size in enumerate(_numbers(sizes))])


def _flatten(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    axis = a.get("axis", 1) % x.dim()
    return torch.flatten(x, 1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(a: Attributes, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    given = a.get("axes", axes)
    if given is None:
        return torch.squeeze(x)
    for axis in sorted((axis % x.dim() for axis in _numbers(given)), reverse=True):
        x = torch.squeeze(x, axis)
    return x


def _unsqueeze(a: Attributes, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    for axis in sorted(_numbers(a.get("axes", axes))):
        x = torch.unsqueeze(x, axis)
    return x


def _slice(a: Attributes, x: torch.Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> torch.Tensor:
    begin, stop = _numbers(starts), _numbers(ends)
    chosen = list(range(len(begin))) if axes is None else _numbers(axes)
    strides = [1] * len(begin) if steps is None else _numbers(steps)
    keys: list[Any] = [slice(None)] * x.dim()
    for axis, first, last, stride in zip(chosen, begin, stop, strides, strict=True):
        size = x.shape[axis]
        first = max(first, -size)  # files have the smallest integer for "from the start"
        keys[axis] = slice(first or None, None if last >= size else last, None if stride == 1 else stride)
    return x[tuple(keys)]


def _split(a: Attributes, x: torch.Tensor, sizes: Any = None) -> tuple[torch.Tensor, ...]:
    axis, given = a.get("axis", 0), a.get("split", sizes)
    parts = _numbers(given) if given is not None else -(-x.shape[axis] // a["num_outputs"])
    return tuple(torch.split(x, parts, dim=axis))


def _resize(a: Attributes, x: torch.Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> torch.Tensor:
    mode = {b"nearest": "nearest", b"linear": "bilinear"}.get(a.get("mode", b"nearest"), "bicubic")
    pixels = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = a.get("nearest_mode", b"round_prefer_floor").decode() if mode == "nearest" else ""
    # As torch computes it; the second one finds the same pixels if the factors are whole numbers.
    known = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}
    known |= {("half_pixel", ""), ("pytorch_half_pixel", "")}
    if (pixels, rounding) not in known or a.get("antialias", 0) or "axes" in a:
        raise UnsupportedNetwork(f"'Resize' with the coordinates '{pixels}', {rounding or mode}, antialiasing or axes.")
    if sizes is not None:
        target = _numbers(sizes)[2:]
        factors = [new / old for new, old in zip(target, x.shape[2:], strict=True)]
    else:
        factors = [float(scale) for scale in scales.tolist()][2:]
        target = None
    if rounding == "round_prefer_floor" and any(factor != int(factor) for factor in factors):
        raise UnsupportedNetwork("'Resize' to the nearest pixel by a factor that is no whole number.")
    return F.interpolate(x, target, None if target else tuple(factors), mode)


def _layer_norm(a: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.layer_norm(x, tuple(weight.shape), weight, bias, a.get("epsilon", 1e-5))


def _pad(a: Attributes, x: torch.Tensor, pads: Any, value: Any = None, axes: Any = None) -> torch.Tensor:
    numbers = _numbers(pads)
    half = len(numbers) // 2
    order = [number for i in reversed(range(half)) for number in (numbers[i], numbers[half + i])]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[a.get("mode", b"constant")]
    while mode == "constant" and len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    return F.pad(x, order, mode=mode, value=0.0 if value is None else float(value))


def _hard_sigmoid(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    if abs(a.get("alpha", 0.2) - 1 / 6) > 1e-6 or a.get("beta", 0.5) != 0.5:
        raise UnsupportedNetwork("'HardSigmoid' with another slope than 1/6.")
    return F.hardsigmoid(x)


def _group_norm(a: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, a["num_groups"], weight, bias, a.get("epsilon", 1e-5))


def _attention(a: Attributes, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    is_usual = abs(a["scale"] * query.shape[-1] ** 0.5 - 1) < 1e-5
    return F.scaled_dot_product_attention(query, key, value, scale=None if is_usual else a["scale"])


def _window_attention(a: Attributes, x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    layout: WindowLayout = a["layout"]
    length, channels = layout.sizes
    if x.shape[1:] != (length, 3 * channels):
        raise UnsupportedNetwork(f"attention in windows of {list(x.shape)}; it requires {length} tokens.")
    return relative_window_attention(x, offsets, layout.heads, layout.grid, layout.window, layout.shift)


def _expand(a: Attributes, x: torch.Tensor, sizes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if x.is_floating_point() and x.numel() == 1:
        return like.new_full(tuple(_numbers(sizes)), float(x))
    given = _numbers(sizes)
    rank = max(x.dim(), len(given))
    pair = [[1] * (rank - len(own)) + list(own) for own in (x.shape, given)]
    return x.expand([max(sizes) for sizes in zip(*pair, strict=True)])


def _constant_of_shape(a: Attributes, sizes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    import onnx

    value = float(onnx.numpy_helper.to_array(a["value"]).item()) if "value" in a else 0.0
    return like.new_full(tuple(_numbers(sizes)), value)


def _gather(a: Attributes, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    axis = a.get("axis", 0) % x.dim()
    if index.dim() == 0:
        return torch.select(x, axis, int(index))
    found = torch.index_select(x, axis, index.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _restride(a: Attributes, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    if index.numel() == x.numel() and torch.equal(index.flatten(), torch.arange(x.numel())):
        return x.reshape(index.shape)
    return x.flatten()[index]


OPERATIONS: dict[str, Operation] = {
    "Abs": lambda a, x: torch.abs(x),
    "Add": lambda a, x, y: x + y,
    "Attention": _attention,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda a, *xs: torch.cat(list(xs), a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda a, x, y: x / y,
    "Dropout": lambda a, x, *rest: x,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: F.adaptive_avg_pool2d(x, 1),
    "GlobalMaxPool": lambda a, x: F.adaptive_max_pool2d(x, 1),
    "GroupNorm": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda a, x: F.hardswish(x),
    "Identity": lambda a, x: x,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Linear": lambda a, x, weight, bias=None: F.linear(x, weight, bias),
    "LRN": lambda a, x: F.local_response_norm(
        x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    ),
    "MatMul": lambda a, x, y: x @ y,
    "MaxPool": _max_pool,
    "Mish": lambda a, x: F.mish(x),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "Pad": _pad,
    "Range": lambda a, start, limit, step: torch.arange(start.item(), limit.item(), step.item()),
    "ReduceMean": _reduce_mean,
    "Relu": lambda a, x: F.relu(x),
    "Reshape": _reshape,
    "Resize": _resize,
    "Restride": _restride,
    "Select": lambda a, x: torch.select(x, a["axis"], a["index"]),
    "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]),
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": lambda a, x, y: x - y,
    "Sum": lambda a, *xs: sum(xs[1:], start=xs[0]),
    "Tanh": lambda a, x: torch.tanh(x),
    "Transpose": lambda a, x: x.permute(tuple(a["perm"])),
    "Unsqueeze": _unsqueeze,
    "WindowAttention": _window_attention,
}
"""Operation of ONNX -> its form in torch, given its attributes and operands."""


def check_onnx(path: Path, module: OnnxModule, shape: tuple[int, ...]) -> None:
    """Compare the module of a file with ONNX Runtime, where that is installed.

    Raises:
        UnsupportedNetwork: Outputs differ.
    """
    images = torch.rand(module.batch or 1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = module(images)
    values = list(found.values()) if isinstance(found, dict) else [found]
    scale = max(1.0, *(float(value.abs().max()) for value in values))
    difference = largest_difference(path, module, [images])
    if difference is not None and not difference <= _TOLERANCE * scale:
        raise UnsupportedNetwork(f"'{path}': the outputs differ by {difference:.1e} from those of ONNX Runtime.")


def largest_difference(path: Path, module: OnnxModule, inputs: Sequence[torch.Tensor]) -> float | None:
    """The largest difference of outputs from those of ONNX Runtime, in float32; None where that cannot run it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # type: ignore[import-untyped]

    arrays = {name: value.numpy() for name, value in zip(module.inputs, inputs, strict=True)}
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        expected = session.run(None, arrays)
    except Exception:  # an operation or a version that it does not support
        return None
    with torch.no_grad():
        found = module(*inputs)
    values = list(found.values()) if isinstance(found, dict) else [found]
    pairs = zip(expected, values, strict=True)
    return max(max_difference(torch.from_numpy(one), other) for one, other in pairs)
