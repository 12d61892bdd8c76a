"""Operations, projections and numbers in the few words that fit into a diagram."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiresnet_graph.ops import Op
from hiresnet_graph.ops.base import pair

_SHORT = {
    "batch_norm": "BN",
    "group_norm": "GN",
    "layer_norm": "LN",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "leaky ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "pad_channels": "zero pad",
    "slice_channels": "channel slice",
    "to_map": "to map",
}
_PROJECTION = {
    "avg": "avg pool",
    "max": "max pool",
    "stride": "subsample",
    "adaptive": "adaptive pool",
    "conv1x1": "1x1 conv",
    "pad": "zero pad",
    "slice": "channel slice",
    "batch": "BN",
    "group": "GN",
    "layer": "LN",
}


def _window(size: int | tuple[int, int]) -> str:
    return "x".join(map(str, pair(size)))


def _stride(stride: int | tuple[int, int]) -> str:
    height, width = pair(stride)
    if height == width:
        return f" /{height}" if height > 1 else ""
    return f" /{height}x{width}"


def _conv(op: Any) -> str:
    groups = f", {op.groups} groups" if op.groups > 1 else ""
    return f"{_window(op.kernel_size)} conv{_stride(op.stride)}{groups}"


_PHRASES: dict[str, Callable[[Any], str]] = {
    "conv2d": _conv,
    "conv_transpose2d": lambda op: f"{_window(op.kernel_size)} deconv{_stride(op.stride)}",
    "max_pool": lambda op: f"{_window(op.kernel_size)} max pool",
    "avg_pool": lambda op: f"{_window(op.kernel_size)} avg pool",
    "adaptive_avg_pool": lambda op: "global avg pool" if op.size == 1 else f"avg pool to {_window(op.size)}",
    "subsample": lambda op: f"subsample{_stride(op.stride)}",
    "resize": lambda op: f"{op.mode} resize",
}
_POOLS = {"max_pool": "max pool", "avg_pool": "avg pool"}


def operation(op: Op, *, brief: bool = False) -> str:
    """An operation, like `3x3 conv /2`; without the window of a pooling if `brief`."""
    if brief and op.kind in _POOLS:
        return _POOLS[op.kind]
    phrase = _PHRASES.get(op.kind)
    return phrase(op) if phrase is not None else _SHORT.get(op.kind, op.kind.replace("_", " "))


def projection(text: str) -> str:
    """The description of a projection, like `avg, conv1x1, batch`, in words: `avg pool, 1x1 conv, BN`."""
    parts = text.removesuffix(" (always)").split(", ")
    return ", ".join(_PROJECTION.get(part, part.replace("_", " ")) for part in parts)


def parameters(number: int) -> str:
    """A number of parameters for a box; nothing for none."""
    return f"{number:,} params" if number else ""


def amount(number: int) -> str:
    """A large number with its unit: `35.8 M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
