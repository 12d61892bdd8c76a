"""Convolutions, norms, activations and pooling of torch as primitive operations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from hiresnet_graph import ops
from hiresnet_graph.importing.primitives import (
    DROPOUT,
    STANDARD,
    AttentionScores,
    Converter,
    Inexpressible,
    Ref,
    Stored,
    function,
    whole,
)
from hiresnet_graph.importing.trace import TracedTensor
from hiresnet_graph.ops import OPS, Op
from hiresnet_graph.shapes import Map

_UNCHANGED = "scales of 1 and shifts of 0 change nothing"


def fields(kind: type[Op], **values: Any) -> Op:
    """An operation with the fields that differ from their defaults."""
    defaults = kind.model_fields
    set_ = {name: value for name, value in values.items() if value != defaults[name].get_default()}
    return kind(**set_)


def rounded(value: float) -> float:
    """A number without the noise of its computation: 0.0003 for 1 - 0.9997."""
    return float(f"{value:.10g}")


def pair_of(value: Any) -> Any:
    """One number for height and width if both are equal, else two."""
    if isinstance(value, tuple | list):
        numbers = tuple(int(number) for number in value)
        if len(numbers) == 1 or len(set(numbers)) == 1:
            return numbers[0]
        return numbers
    return value


@function("conv2d")
def _conv2d(
    c: Converter,
    input: TracedTensor,
    weight: TracedTensor,
    bias: TracedTensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Ref:
    x = c.standard(input)
    width, _, *kernel = weight.sizes
    if isinstance(padding, str):
        padding = _same_padding(padding, tuple(kernel), _two(dilation))
    half = tuple(d * (k - 1) // 2 for d, k in zip(_two(dilation), kernel, strict=True))
    op = fields(
        ops.Conv2d,
        width=width,
        kernel_size=pair_of(kernel),
        stride=pair_of(stride),
        padding=None if _two(padding) == half else pair_of(padding),
        dilation=pair_of(dilation),
        groups=groups,
        bias=bias is not None,
    )
    return c.emit(op, x, weight=c.stored(weight), bias=None if bias is None else c.stored(bias))


def _two(value: Any) -> tuple[int, int]:
    numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
    return (numbers * 2)[0], (numbers * 2)[1]


def _same_padding(padding: str, kernel: tuple[int, ...], dilation: tuple[int, int]) -> tuple[int, ...]:
    if padding == "valid":
        return (0, 0)
    total = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    if any(size % 2 for size in total):
        raise Inexpressible("'conv2d' with the padding 'same' of an even kernel pads one side more than the other")
    return tuple(size // 2 for size in total)


@function("conv_transpose2d")
def _conv_transpose2d(
    c: Converter,
    input: TracedTensor,
    weight: TracedTensor,
    bias: TracedTensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Ref:
    x = c.standard(input)
    if pair_of(dilation) != 1:
        raise Inexpressible("'conv_transpose2d' with a dilation")
    op = fields(
        ops.ConvTranspose2d,
        width=weight.sizes[1] * groups,
        kernel_size=pair_of(weight.sizes[2:]),
        stride=pair_of(stride),
        padding=pair_of(padding),
        output_padding=pair_of(output_padding),
        groups=groups,
        bias=bias is not None,
    )
    return c.emit(op, x, weight=c.stored(weight), bias=None if bias is None else c.stored(bias))


@function("linear")
def _linear(c: Converter, input: TracedTensor, weight: TracedTensor, bias: TracedTensor | None = None) -> Ref:
    x = c.ref(input)
    width, features = weight.sizes
    shift = None if bias is None else c.stored(bias)
    if x.layout != STANDARD:
        x = c.as_tokens(c.transposed(x))
    shape = c.shape(x)
    if x.layout.kind not in ("standard", "grid") or shape.trailing or input.sizes[-1] != features:
        raise Inexpressible(f"'linear' along the last axis of {list(input.sizes)}, which is not the channels")
    op = fields(ops.Linear, width=width, bias=bias is not None)
    return c.emit(op, x, layout=x.layout, weight=c.stored(weight), bias=shift)


@function("batch_norm")
def _batch_norm(
    c: Converter,
    input: TracedTensor,
    running_mean: TracedTensor | None = None,
    running_var: TracedTensor | None = None,
    weight: TracedTensor | None = None,
    bias: TracedTensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Ref:
    if running_mean is None or running_var is None:
        raise Inexpressible("a batch norm without running statistics. Build it with track_running_stats=True")
    if momentum is None:
        raise Inexpressible("a batch norm with 'momentum=None', a cumulative average")
    if (weight is None) != (bias is None):
        raise Inexpressible("a batch norm with a scale and no shift")
    mean = c.stored(running_mean)
    counter = mean.name.removesuffix("running_mean") + "num_batches_tracked"
    return c.emit(
        fields(ops.BatchNorm, eps=rounded(eps), momentum=rounded(momentum), affine=weight is not None),
        c.standard(input),
        weight=None if weight is None else c.stored(weight),
        bias=None if bias is None else c.stored(bias),
        running_mean=mean,
        running_var=c.stored(running_var),
        num_batches_tracked=Stored(counter, ()) if counter in c.buffers else None,
    )


@function("aten::batch_norm")
def _aten_batch_norm(
    c: Converter,
    input: TracedTensor,
    weight: TracedTensor | None,
    bias: TracedTensor | None,
    running_mean: TracedTensor | None,
    running_var: TracedTensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Ref:
    return _batch_norm(c, input, running_mean, running_var, weight, bias, training, momentum, eps)


@function("group_norm")
def _group_norm(
    c: Converter,
    input: TracedTensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Ref:
    if weight is None or bias is None:
        raise Inexpressible(f"a group norm without scale and shift. Build it with affine=True; {_UNCHANGED}")
    x = c.standard(input)
    if num_groups == 1 and isinstance(c.shape(x), Map):
        op: Op = fields(ops.LayerNorm, eps=rounded(eps))
    else:
        op = fields(ops.GroupNorm, groups=num_groups, eps=rounded(eps))
    return c.emit(op, x, weight=c.stored(weight), bias=c.stored(bias))


@function("instance_norm")
def _instance_norm(
    c: Converter,
    input: TracedTensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: TracedTensor | None = None,
    bias: TracedTensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Ref:
    if running_mean is not None or running_var is not None:
        raise Inexpressible("an instance norm with running statistics. Build it with track_running_stats=False")
    if weight is None or bias is None:
        raise Inexpressible(f"an instance norm without scale and shift. Build it with affine=True; {_UNCHANGED}")
    return _group_norm(c, input, input.sizes[1], weight, bias, eps)


def elementwise(c: Converter, input: TracedTensor, op: Op) -> Ref:
    """An operation on single elements, whatever the order of the axes is."""
    x = c.ref(input)
    return c.emit(op, x, layout=x.layout)


def _register_activations() -> None:
    for name, kind in {
        "relu": "relu",
        "relu_": "relu",
        "relu6": "relu6",
        "silu": "silu",
        "silu_": "silu",
        "hardswish": "hardswish",
        "hardswish_": "hardswish",
        "hardsigmoid": "hardsigmoid",
        "mish": "mish",
        "mish_": "mish",
        "hardsigmoid_": "hardsigmoid",
        "sigmoid": "sigmoid",
        "sigmoid_": "sigmoid",
        "tanh": "tanh",
        "tanh_": "tanh",
        "abs": "abs",
        "abs_": "abs",
        "absolute": "abs",
    }.items():
        op = OPS.get(kind)

        def convert(c: Converter, input: TracedTensor, inplace: bool = False, *, _op: type[Op] = op) -> Ref:
            return elementwise(c, input, _op())

        function(name)(convert)


_register_activations()


@function("hardtanh", "hardtanh_")
def _hardtanh(
    c: Converter, input: TracedTensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Ref:
    if (min_val, max_val) != (0, 6):
        raise Inexpressible(f"'hardtanh' between {min_val} and {max_val}; only 0 and 6 are available")
    return elementwise(c, input, OPS.get("relu6")())


@function("clamp", "clip", "clamp_min")
def _clamp(c: Converter, input: TracedTensor, min: Any = None, max: Any = None) -> Ref:
    if (min, max) == (0, None):
        return elementwise(c, input, ops.ReLU())
    return _hardtanh(c, input, min, max)


@function("leaky_relu", "leaky_relu_")
def _leaky_relu(c: Converter, input: TracedTensor, negative_slope: float = 0.01, inplace: bool = False) -> Ref:
    return elementwise(c, input, fields(OPS.get("leaky_relu"), slope=negative_slope))


@function("prelu")
def _prelu(c: Converter, input: TracedTensor, weight: TracedTensor) -> Ref:
    op = fields(OPS.get("prelu"), per_channel=weight.sizes != (1,))
    return c.emit(op, c.standard(input), weight=c.stored(weight))


@function("gelu", "gelu_")
def _gelu(c: Converter, input: TracedTensor, approximate: str = "none") -> Ref:
    return elementwise(c, input, OPS.get("gelu" if approximate == "none" else "gelu_tanh")())


@function("elu", "elu_")
def _elu(c: Converter, input: TracedTensor, alpha: float = 1.0, inplace: bool = False) -> Ref:
    return elementwise(c, input, fields(OPS.get("elu"), alpha=alpha))


@function("layer_norm")
def _layer_norm(
    c: Converter,
    input: TracedTensor,
    normalized_shape: Any,
    weight: TracedTensor | None = None,
    bias: TracedTensor | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Ref:
    x = c.ref(input)
    if weight is None or bias is None:
        raise Inexpressible(f"a layer norm without scale or shift. Build it with both; {_UNCHANGED}")
    if x.layout != STANDARD:
        x = c.as_tokens(x)
    shape = c.shape(x)
    if tuple(normalized_shape) != (shape.channels,) or shape.trailing or x.layout.kind not in ("standard", "grid"):
        raise Inexpressible(
            f"'layer_norm' over {list(normalized_shape)} of {list(input.sizes)}, which is not the channels"
        )
    op = fields(ops.LayerNorm, eps=rounded(eps))
    return c.emit(op, x, layout=x.layout, weight=c.stored(weight), bias=c.stored(bias))


@function("local_response_norm")
def _local_response_norm(
    c: Converter, input: TracedTensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Ref:
    return c.emit(
        fields(OPS.get("local_response_norm"), size=size, alpha=alpha, beta=beta, k=float(k)), c.standard(input)
    )


@function("channel_shuffle")
def _channel_shuffle(c: Converter, input: TracedTensor, groups: int) -> Ref:
    return c.emit(ops.ChannelShuffle(groups=groups), c.standard(input))


@function("dropout", "dropout_")
def _dropout(c: Converter, input: TracedTensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
    weights = c.refs.get(id(input))
    if isinstance(weights, AttentionScores):
        if p:
            raise Inexpressible(DROPOUT)
        return weights
    _check_dropout(c, p, training)
    return c.ref(input) if p == 0 else elementwise(c, input, ops.Dropout(p=rounded(p)))


def _check_dropout(c: Converter, p: float, training: bool) -> None:
    if p and training:
        raise Inexpressible(f"{c.name} in evaluation mode, too. Pass 'training=self.training', or use nn.Dropout")


@function("dropout2d", "feature_dropout")
def _dropout2d(c: Converter, input: TracedTensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Ref:
    _check_dropout(c, p, training)
    return c.ref(input) if p == 0 else c.emit(ops.Dropout2d(p=rounded(p)), c.standard(input))


def _pool(
    c: Converter,
    kind: type[ops.MaxPool] | type[ops.AvgPool],
    input: TracedTensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    **other: Any,
) -> Ref:
    x = c.standard(input)
    own = None if stride is None or stride == () or pair_of(stride) == pair_of(kernel_size) else pair_of(stride)
    op = fields(
        kind, kernel_size=pair_of(kernel_size), stride=own, padding=pair_of(padding), ceil_mode=ceil_mode, **other
    )
    if (
        isinstance(op, ops.AvgPool)
        and ceil_mode
        and op.shape(c.shape(x))
        == fields(kind, **{"kernel_size": op.kernel_size, "stride": own, "padding": op.padding}).shape(c.shape(x))
    ):
        op = fields(kind, kernel_size=op.kernel_size, stride=own, padding=op.padding, **other)
    return c.emit(op, x)


@function("max_pool2d")
def _max_pool2d(
    c: Converter,
    input: TracedTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Ref:
    if pair_of(dilation) != 1 or return_indices:
        raise Inexpressible("'max_pool2d' with a dilation, or with indices")
    return _pool(c, ops.MaxPool, input, kernel_size, stride, padding, ceil_mode)


@function("adaptive_max_pool2d")
def _adaptive_max_pool2d(c: Converter, input: TracedTensor, output_size: Any, return_indices: bool = False) -> Ref:
    if tuple(_two(output_size)) != (1, 1) or return_indices:
        raise Inexpressible("'adaptive_max_pool2d' to more than one pixel, or with indices")
    return largest_pixel(c, c.standard(input))


def largest_pixel(c: Converter, x: Ref) -> Ref:
    """The largest value of each channel, as a map of one pixel."""
    return c.emit(fields(ops.MaxPool, kernel_size=pair_of(c.shape(x).spatial)), x)


@function("avg_pool2d")
def _avg_pool2d(
    c: Converter,
    input: TracedTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Ref:
    if divisor_override is not None:
        raise Inexpressible("'avg_pool2d' with another divisor")
    other: dict[str, Any] = {}
    if not count_include_pad and pair_of(padding) != 0:
        other["count_include_pad"] = False
    return _pool(c, ops.AvgPool, input, kernel_size, stride, padding, ceil_mode, **other)


@function("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(c: Converter, input: TracedTensor, output_size: Any) -> Ref:
    x = c.standard(input)
    size = tuple(own if want is None else want for own, want in zip(c.shape(x).spatial, _two(output_size), strict=True))
    return c.emit(fields(ops.AdaptiveAvgPool, size=pair_of(size)), x)


@function("aten::upsample_nearest2d", "aten::upsample_bilinear2d")
def _aten_upsample(c: Converter, input: TracedTensor, *args: Any, **kwargs: Any) -> Ref:
    assert c.call is not None
    mode = "nearest" if "nearest" in c.call.function else "bilinear"
    aligned = args[1] if mode == "bilinear" and len(args) > 1 else False
    return _interpolate(c, input, size=c.call.outputs[0].sizes[2:], mode=mode, align_corners=aligned)


@function("interpolate", "upsample")
def _interpolate(
    c: Converter,
    input: TracedTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Ref:
    if mode not in ("nearest", "bilinear") or align_corners or antialias:
        raise Inexpressible(f"'interpolate' with the mode '{mode}', aligned corners or antialiasing")
    assert c.call is not None
    x, found = c.standard(input), c.call.outputs[0].sizes[2:]
    scales = None if scale_factor is None or recompute_scale_factor else _two(scale_factor)
    if scales is not None and not _is_ratio(scales, input.sizes[2:], found, mode):
        raise Inexpressible(
            f"'interpolate' by {scale_factor}, which is not {list(found)} / {list(input.sizes[2:])}. Give it the size, "
            "or 'recompute_scale_factor=True'"
        )
    target = {"size": pair_of(found)}
    if scales is not None and scales[0] == scales[1] == int(scales[0]):
        target = {"scale": int(scales[0])}
    return c.emit(fields(ops.Resize, mode=mode, **target), x)


def _is_ratio(scales: tuple[Any, Any], old: tuple[int, ...], new: tuple[int, ...], mode: str) -> bool:
    """Whether interpolation by these factors reads the same pixels as interpolation to the size that they give."""
    ramp = torch.arange(math.prod(old), dtype=torch.float64).view(1, 1, *old)
    expected = F.interpolate(ramp, size=new, mode=mode)
    return torch.allclose(F.interpolate(ramp, scale_factor=scales, mode=mode), expected)


@whole("torch.nn.modules.linear.Identity")
def _identity(c: Converter, module: Any, input: TracedTensor) -> Ref:
    assert c.call is not None
    # timm puts an identity where the probability of stochastic depth is zero.
    is_path = c.call.frames[-1].path.rpartition(".")[2].startswith("drop_path")
    return elementwise(c, input, ops.StochasticDepth(p=0)) if is_path else c.ref(input)


@whole(
    "torchvision.ops.stochastic_depth.StochasticDepth",
    "timm.layers.drop.DropPath",
    "hiresnet_graph.ops.layers.DropPath",
)
def _drop_path(c: Converter, module: Any, input: TracedTensor) -> Ref:
    p = getattr(module, "drop_prob", None)
    p = module.p if p is None else p
    if getattr(module, "mode", "row") != "row" or not getattr(module, "scale_by_keep", True):
        raise Inexpressible("stochastic depth of whole batches, or without rescaling")
    return elementwise(c, input, ops.StochasticDepth(p=rounded(p)))
