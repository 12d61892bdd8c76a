"""Functions of torch that move axes, join and split tensors, or add and multiply them, as primitive operations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.importing.attention import part
from hiresnet_graph.importing.layers import elementwise, fields, largest_pixel, pair_of
from hiresnet_graph.importing.primitives import (
    STANDARD,
    AttentionScores,
    AxisOrder,
    Converter,
    Inexpressible,
    Ref,
    function,
)
from hiresnet_graph.importing.tokens import (
    class_tokens,
    padded,
    permuted,
    picked,
    positions,
    reshaped,
    token_mean,
)
from hiresnet_graph.importing.trace import GRADIENT_STOPS, TracedTensor
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Map, Shape, Tokens

# (layout, order of the axes) -> layout.
_ORDERS = {
    ("standard", (0, 2, 3, 1)): "last",
    ("last", (0, 3, 1, 2)): "standard",
    ("flat", (0, 2, 1)): "flat_last",
    ("flat_last", (0, 2, 1)): "flat",
    ("grouped", (0, 2, 1, 3, 4)): "swapped",
}
_CHANNELS = {"standard": 1, "last": 3, "flat": 1, "flat_last": 2}
"""Order of the axes of a map -> the axis of its channels."""


@function("contiguous", "clone", "alias", "detach", "detach_", "get data", "to", "float", "double", "type_as")
def _same(c: Converter, input: TracedTensor, *args: Any, **kwargs: Any) -> Ref:
    assert c.call is not None
    if c.call.outputs[0].tensor.dtype != input.tensor.dtype:
        raise Inexpressible(f"{c.name} to {c.call.outputs[0].tensor.dtype}: a network has one type of numbers")
    if name := GRADIENT_STOPS.get(c.call.function):
        raise Inexpressible(f"'{name}', which stops gradients")
    return c.ref(input)


@function("permute")
def _permute(c: Converter, input: TracedTensor, *given: Any, dims: Any = None) -> Ref:
    x = c.ref(input)
    given = given if dims is None else (dims,)
    order = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    axes = tuple(int(axis) % len(input.sizes) for axis in order)
    if axes == tuple(range(len(axes))):
        return x
    if isinstance(c.shape(x), Tokens):
        found = permuted(c, x, axes)
        if found is None:
            raise Inexpressible(f"'permute' of {list(input.sizes)} to {list(axes)}")
        return found
    kind = _ORDERS.get((x.layout.kind, axes))
    if kind is None or (kind == "last" and not c.shape(x).spatial):
        raise Inexpressible(f"'permute' of {list(input.sizes)} to {list(axes)}")
    return Ref(x.index, AxisOrder(kind, x.layout.groups))


@function("transpose", "swapaxes", "swapdims")
def _transpose(c: Converter, input: TracedTensor, dim0: int, dim1: int) -> Ref:
    axes = list(range(len(input.sizes)))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return _permute(c, input, tuple(axes))


@function("get mT")
def _last_axes(c: Converter, input: TracedTensor) -> Ref:
    return _transpose(c, input, -2, -1)


@function("flatten", "view", "reshape", "squeeze", "unsqueeze", "view_as", "reshape_as", "unflatten")
def _reshape(c: Converter, input: TracedTensor, *args: Any, **kwargs: Any) -> Ref:
    assert c.call is not None
    x = c.ref(input)
    sizes = c.call.outputs[0].sizes
    if sizes[:1] != input.sizes[:1] or len(sizes) < 2:
        raise Inexpressible(f"{c.name} of {list(input.sizes)} to {list(sizes)}, which changes the batch axis")
    return _reshaped(c, x, input.sizes[1:], sizes[1:])


def _reshaped(c: Converter, x: Ref, old: tuple[int, ...], new: tuple[int, ...]) -> Ref:
    if old == new:
        return x
    shape, (kind, groups) = c.shape(x), x.layout
    if isinstance(shape, Tokens):
        tokens = reshaped(c, x, new)
        if tokens is None:
            raise Inexpressible(f"{c.name} of {list(old)} to {list(new)}")
        return tokens
    if not isinstance(shape, Map):
        if kind == "standard" and new in ((shape.channels, 1), (shape.channels, 1, 1)):
            pixel = c.emit(OPS.get("to_map")(), x)
            return Ref(pixel.index, AxisOrder("flat")) if len(new) == 2 else pixel
        if kind == "standard" and len(new) == 3 and not isinstance(shape, Tokens):
            return c.emit(fields(OPS.get("to_map"), size=pair_of(new[1:])), x)
        raise Inexpressible(f"{c.name} of a vector of {shape} to {list(new)}")
    channels, height, width = shape
    pixels = height * width
    one_pixel = pixels == 1
    if kind == "standard" and new == (channels * pixels,):
        return c.emit(ops.Flatten(), x)
    if one_pixel and new == (channels,) and kind in ("last", "flat", "flat_last"):
        return c.emit(ops.Flatten(), Ref(x.index))
    known = {
        ("standard", (channels, pixels)): "flat",
        ("flat", (channels, height, width)): "standard",
        ("last", (pixels, channels)): "flat_last",
        ("flat_last", (height, width, channels)): "last",
    }
    found = known.get((kind, new))
    if found is not None:
        return Ref(x.index, AxisOrder(found))
    if kind == "standard" and len(new) == 4 and new[0] * new[1] == channels and new[2:] == (height, width):
        return Ref(x.index, AxisOrder("grouped", new[0]))
    if kind == "grouped" and new == (channels, height, width):
        return Ref(x.index)
    if kind == "swapped" and new == (channels, height, width):
        return c.emit(ops.ChannelShuffle(groups=groups), Ref(x.index))
    raise Inexpressible(f"{c.name} of {list(old)} to {list(new)}")


@function("mean")
def _mean(c: Converter, input: TracedTensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Ref:
    x = c.ref(input)
    rank = len(input.sizes)
    dim, keepdim = kwargs.get("axis", dim), kwargs.get("keepdims", keepdim)
    axes = sorted(int(axis) % rank for axis in (dim if isinstance(dim, tuple | list) else (dim,)) if axis is not None)
    if not keepdim and (mean := token_mean(c, x, axes)) is not None:
        return mean
    expected = {"standard": [2, 3], "last": [1, 2], "flat": [2], "flat_last": [1]}.get(x.layout.kind)
    if not c.shape(x).spatial or axes != expected or kwargs.get("dtype") is not None:
        raise Inexpressible(f"'mean' of {list(input.sizes)} over the axes {axes}; only height and width are supported")
    pooled = c.emit(fields(ops.AdaptiveAvgPool, size=1), Ref(x.index))
    if keepdim:
        return Ref(pooled.index, x.layout)
    return c.emit(ops.Flatten(), pooled)


@function("amax")
def _amax(c: Converter, input: TracedTensor, dim: Any = (), keepdim: bool = False) -> Ref:
    axes = sorted(int(axis) % len(input.sizes) for axis in (dim if isinstance(dim, tuple | list) else (dim,)))
    if axes != [2, 3]:
        raise Inexpressible(f"'amax' of {list(input.sizes)} over the axes {axes}; only height and width are supported")
    found = largest_pixel(c, c.standard(input))
    return found if keepdim else c.emit(ops.Flatten(), found)


@function("expand", "expand_as", "broadcast_to")
def _expand(c: Converter, input: TracedTensor, *sizes: Any) -> Ref:
    assert c.call is not None
    x, new = c.ref(input), c.call.outputs[0].sizes
    if new == input.sizes:
        return x
    shape = c.shape(x)
    if x.layout != STANDARD or not isinstance(shape, Map) or shape.spatial != (1, 1) or new[:2] != input.sizes[:2]:
        raise Inexpressible(f"{c.name} of {list(input.sizes)} to {list(new)}")
    return c.emit(fields(ops.Resize, size=pair_of(new[2:])), x)


@function("cat", "concat", "concatenate")
def _cat(c: Converter, tensors: Any, dim: int = 0, *, axis: int | None = None) -> Ref:
    if (dim if axis is None else axis) == 1 and (prefixed := class_tokens(c, tensors)) is not None:
        return prefixed
    refs = [c.ref(tensor) for tensor in tensors]
    layouts = {ref.layout for ref in refs}
    place = (dim if axis is None else axis) % len(tensors[0].sizes)
    features = _CHANNELS.get(refs[0].layout.kind)
    if len(layouts) > 1 or place != features:
        raise Inexpressible(f"'cat' along axis {place} of {list(tensors[0].sizes)}, which is not the channels")
    if len(refs) == 1:
        return refs[0]
    return c.emit(ops.Concat(), *refs, layout=refs[0].layout)


@function("chunk", "split", "tensor_split", "split_with_sizes")
def _chunk(c: Converter, input: TracedTensor, sizes: Any = None, dim: int = 0, **kwargs: Any) -> tuple[Ref, ...]:
    assert c.call is not None
    x = c.ref(input)
    features = _CHANNELS.get(x.layout.kind)
    if x.layout == STANDARD:
        features = 1 + c.shape(x).feature_axis
    if dim % len(input.sizes) != features:
        raise Inexpressible(f"{c.name} along axis {dim} of {list(input.sizes)}, which is not the channels")
    start, parts = 0, []
    for output in c.call.outputs:
        width = output.sizes[features]
        parts.append(c.emit(fields(ops.SliceChannels, width=width, start=start), x, layout=x.layout))
        start += width
    return tuple(parts)


@function("__getitem__")
def _getitem(c: Converter, input: TracedTensor, index: Any) -> Ref:
    assert c.call is not None
    x = c.ref(input)
    keys = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in keys and None not in keys:
        place = keys.index(Ellipsis)
        keys[place : place + 1] = [slice(None)] * (len(input.sizes) - len(keys) + 1)
    sizes = c.call.outputs[0].sizes
    if x.layout.kind == "apart" and len(keys) == 1 and isinstance(keys[0], int):
        return part(x, keys[0])
    if all(key is None or key == slice(None) or key is Ellipsis for key in keys) and sizes[:1] == input.sizes[:1]:
        return _reshaped(c, x, input.sizes[1:], sizes[1:])
    shape = c.shape(x)
    if (taken := picked(c, x, keys)) is not None:
        return taken
    if x.layout == STANDARD and not isinstance(shape, Tokens) and len(keys) >= 2 and keys[0] == slice(None):
        own, rest = keys[1], keys[2:]
        if isinstance(own, slice) and own.step in (None, 1) and all(key == slice(None) for key in rest):
            start, stop, _ = own.indices(shape.channels)
            return c.emit(fields(ops.SliceChannels, width=stop - start, start=start), x)
        if own == slice(None) and len(rest) == 2 and all(_is_step(key) for key in rest):
            stride = pair_of([key.step or 1 for key in rest])
            return c.emit(fields(ops.Subsample, stride=stride), x)
    raise Inexpressible(f"'[{', '.join(map(_key, keys))}]' of a tensor of {list(input.sizes)}")


@function("aten::slice")
def _aten_slice(
    c: Converter, input: TracedTensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Ref:
    keys = [slice(None)] * len(input.sizes)
    size = input.sizes[dim]
    stop = None if end is None or end >= size else end
    keys[dim] = slice(start or None, stop, None if step == 1 else step)
    return c.ref(input) if keys[dim] == slice(None) else _getitem(c, input, tuple(keys))


@function("select", "aten::select")
def _aten_select(c: Converter, input: TracedTensor, dim: int, index: int) -> Ref:
    return _getitem(c, input, (*[slice(None)] * dim, index))


def _is_step(key: Any) -> bool:
    return isinstance(key, slice) and key.start in (None, 0) and key.stop is None


def _key(key: Any) -> str:
    if isinstance(key, slice):
        ends = [key.start, key.stop, *([] if key.step is None else [key.step])]
        return ":".join("" if end is None else str(end) for end in ends)
    return "..." if key is Ellipsis else "a tensor" if isinstance(key, TracedTensor) else str(key)


@function("add", "add_", "__add__", "__radd__", "__iadd__")
def _add(c: Converter, input: Any, other: Any, *, alpha: float = 1) -> Ref:
    if alpha != 1:
        raise Inexpressible(f"'add' with the factor {alpha}")
    if not isinstance(other, TracedTensor) or not isinstance(input, TracedTensor):
        number = other if isinstance(input, TracedTensor) else input
        if number == 0:
            return c.ref(input if isinstance(input, TracedTensor) else other)
        raise Inexpressible(f"the sum of a tensor and the number {number}")
    if input.depends != other.depends:
        found = positions(c, *((input, other) if input.depends else (other, input)))
        if found is None:
            weight = other if input.depends else input
            what = f"the tensor '{weight.root.name}'" if weight.root.name else "numbers that do not depend on the input"
            raise Inexpressible(f"the sum of {list(input.sizes)} and {what} {list(weight.sizes)}")
        return found
    return _sum(c, c.ref(input), c.ref(other), f"the sum of {list(input.sizes)} and {list(other.sizes)}")


def _sum(c: Converter, one: Ref, two: Ref, name: str) -> Ref:
    left, right = _alike(c, one, two)
    left, right = _spread(c, left, c.shape(right)), _spread(c, right, c.shape(left))
    if left.layout != right.layout or c.shape(left) != c.shape(right):
        raise Inexpressible(f"{name}, whose shapes differ")
    return c.emit(ops.Add(), left, right, layout=left.layout)


def _spread(c: Converter, x: Ref, target: Shape) -> Ref:
    """A map of one pixel with the height and width of another map; any other value as it is."""
    shape = c.shape(x)
    if not isinstance(shape, Map) or not isinstance(target, Map) or shape.channels != target.channels:
        return x
    if shape.spatial != (1, 1) or target.spatial == (1, 1):
        return x
    return Ref(c.emit(fields(ops.Resize, size=pair_of(target.spatial)), Ref(x.index)).index, x.layout)


@function("sub", "sub_", "subtract", "__sub__", "__isub__")
def _sub(c: Converter, input: Any, other: Any, *, alpha: float = 1) -> Ref:
    if not all(isinstance(one, TracedTensor) and one.depends for one in (input, other)) or alpha != 1:
        raise Inexpressible("a difference, unless both values depend on the input")
    name = f"the difference of {list(input.sizes)} and {list(other.sizes)}"
    return _sum(c, c.ref(input), _scaled(c, other, -1.0), name)


@function("neg", "__neg__", "negative")
def _neg(c: Converter, input: TracedTensor) -> Ref:
    return _scaled(c, input, -1.0)


@function("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
def _mul(c: Converter, input: Any, other: Any) -> Ref:
    input, other = _number(input), _number(other)
    if not (isinstance(input, TracedTensor) and isinstance(other, TracedTensor)):
        tensor, number = (input, other) if isinstance(input, TracedTensor) else (other, input)
        return _scaled(c, tensor, number)
    if not (input.depends and other.depends):
        return _weighted(c, *((input, other) if input.depends else (other, input)))
    left, right = (_unexpanded(c, c.ref(one)) for one in (input, other))
    if left.layout != right.layout:
        raise Inexpressible(f"the product of {list(input.sizes)} and {list(other.sizes)}, whose axes differ")
    if not c.shape(right).broadcasts_to(c.shape(left)):
        left, right = right, left
    if c.shape(left) != c.shape(right) and not c.shape(left).spatial:
        raise Inexpressible(f"the product of {list(input.sizes)} and {list(other.sizes)}, whose shapes differ")
    return c.emit(ops.Multiply(), left, right, layout=left.layout)


def _unexpanded(c: Converter, x: Ref) -> Ref:
    """What was expanded from one pixel, which a product does itself."""
    source = c.primitives[x.index] if x.index >= 0 else None
    if source is not None and isinstance(source.op, ops.Resize) and c.shape(Ref(source.operands[0])).spatial == (1, 1):
        return Ref(source.operands[0])
    return x


def _alike(c: Converter, left: Ref, right: Ref) -> tuple[Ref, Ref]:
    """Two operands with their axes in the same order."""
    if left.layout == right.layout and c.shape(left).kind == c.shape(right).kind:
        return left, right
    pair = [c.transposed(ref) for ref in (left, right)]
    if any(isinstance(c.shape(ref), Tokens) for ref in pair):
        pair = [c.as_tokens(ref) for ref in pair]
    return pair[0], pair[1]


def _number(value: Any) -> Any:
    """A tensor of one element that is a plain number; anything else as it is."""
    is_number = isinstance(value, TracedTensor) and not value.depends and not value.root.name and value.sizes == ()
    return value.tensor.item() if is_number else value


def _scaled(c: Converter, tensor: TracedTensor, factor: Any) -> Ref:
    if not isinstance(factor, int | float) or not math.isfinite(factor):
        raise Inexpressible(f"the product of a tensor and {factor!r}")
    weights = c.refs.get(id(tensor))
    if isinstance(weights, AttentionScores) and not weights.is_softmax:
        return replace(weights, scale=weights.scale * factor)
    return elementwise(c, tensor, ops.FixedScale(factor=float(factor)))


def _weighted(c: Converter, tensor: TracedTensor, weight: TracedTensor) -> Ref:
    root = weight.root
    x = c.ref(tensor)
    if root.name and (root.sizes == () or (math.prod(root.sizes) == 1 and set(weight.sizes) <= {1})):
        return c.emit(ops.LearnedScale(), x, layout=x.layout, weight=c.stored(root, ()))
    channels = c.shape(x).channels
    first = {"standard": 1, "last": len(tensor.sizes) - 1, "flat_last": 2, "flat": 1}.get(x.layout.kind, 0)
    if isinstance(c.shape(x), Tokens):
        first = len(tensor.sizes) - 1
    along = [1] * len(tensor.sizes)
    along[first] = channels
    padded = (1,) * (len(along) - len(weight.sizes)) + weight.sizes
    if not root.name or math.prod(root.sizes) != channels or padded != tuple(along):
        what = f"the weights '{root.name}'" if root.name else "numbers outside of its state_dict, of the shape"
        raise Inexpressible(f"the product of a tensor and {what} {list(weight.sizes)}")
    return c.emit(ops.ChannelScale(), x, layout=x.layout, weight=c.stored(root, (channels,)))


@function("pad")
def _pad(c: Converter, input: TracedTensor, pad: Any, mode: str = "constant", value: float | None = None) -> Ref:
    names = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate"}
    if mode == "constant" and not value and (grid := padded(c, c.ref(input), [int(number) for number in pad])):
        return grid
    x = c.standard(input)
    left, right, top, bottom, *more = [int(number) for number in pad] + [0] * (4 - len(pad))
    if not any((left, right, top, bottom, *more)):
        return x
    if mode not in names or value or len(input.sizes) != 4:
        raise Inexpressible(f"'pad' with the mode '{mode}' or the value {value}")
    if more and not any((left, right, top, bottom)) and mode == "constant":
        return _pad_channels(c, x, int(more[0]), int(more[1]))
    if any(more) or min(left, right, top, bottom) < 0:
        raise Inexpressible(f"'pad' by {list(pad)} of {list(input.sizes)}")
    if top == bottom == left == right:
        sides: Any = top
    else:
        sides = [top, left] if top == bottom and left == right else [top, bottom, left, right]
    return c.emit(fields(OPS.get("pad"), padding=sides, mode=names[mode]), x)


def _pad_channels(c: Converter, x: Ref, before: int, after: int) -> Ref:
    width = c.shape(x).channels + before + after
    if before not in (0, (before + after) // 2):
        raise Inexpressible(f"'pad' by {before} channels before and {after} after")
    return c.emit(fields(ops.PadChannels, width=width, side="both" if before else "end"), x)


@function("new_zeros")
def _new_zeros(c: Converter, input: TracedTensor, *sizes: Any, **kwargs: Any) -> Ref:
    return _constant(c, input, 0.0)


@function("new_full")
def _new_full(c: Converter, input: TracedTensor, size: Any, fill_value: float, **kwargs: Any) -> Ref:
    return _constant(c, input, float(fill_value))


@function("zeros_like")
def _zeros_like(c: Converter, input: TracedTensor, **kwargs: Any) -> Ref:
    return _constant(c, input, 0.0)


def _constant(c: Converter, input: TracedTensor, value: float) -> Ref:
    """A number everywhere, for each sample."""
    assert c.call is not None
    sizes = c.call.outputs[0].sizes
    if sizes[:1] != input.sizes[:1] or len(sizes) not in (2, 4):
        raise Inexpressible(f"{c.name} of {list(sizes)}, which is no feature map and no vector of each sample")
    return c.emit(fields(OPS.get("constant"), sizes=sizes[1:], value=value), c.ref(input))


@function("div", "true_divide", "__truediv__", "div_")
def _div(c: Converter, input: Any, other: Any) -> Ref:
    other = _number(other)
    if isinstance(other, TracedTensor) or not isinstance(input, TracedTensor) or not other:
        raise Inexpressible("a division by a tensor")
    return _scaled(c, input, 1 / other)
