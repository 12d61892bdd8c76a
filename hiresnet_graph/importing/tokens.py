"""Tokens and attention of torch, torchvision and timm as primitive operations."""

from __future__ import annotations

from functools import partial
from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.importing.layers import fields
from hiresnet_graph.importing.primitives import (
    STANDARD,
    AxisOrder,
    Converter,
    Inexpressible,
    Ref,
    function,
    sizes_of,
    whole,
)
from hiresnet_graph.importing.trace import TracedTensor
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Tokens


def permuted(c: Converter, x: Ref, axes: tuple[int, ...]) -> Ref | None:
    """Tokens with their axes in another order; None if that is none of theirs."""
    kind = x.layout.kind
    if (kind, axes) == ("grid", (0, 3, 1, 2)):
        return c.emit(ops.ToMap(), Ref(x.index))
    found = {
        ("standard", (0, 2, 1)): "features_first",
        ("features_first", (0, 2, 1)): "standard",
        ("in_three", (2, 0, 3, 1, 4)): "apart",
        ("in_heads", (0, 2, 1, 3)): "merged",
        ("split", (0, 1, 3, 4, 2, 5)): "patches",
    }.get((kind, axes))
    return None if found is None else Ref(x.index, AxisOrder(found, x.layout.groups))


def reshaped(c: Converter, x: Ref, new: tuple[int, ...]) -> Ref | None:
    """Tokens with other axes; None if these are none of theirs."""
    shape, kind = c.shape(x), x.layout.kind
    assert isinstance(shape, Tokens)
    length, width = shape.sizes
    if new == (length, width) and kind in ("grid", "merged"):
        return Ref(x.index)
    if kind == "standard" and shape.grid is not None and not shape.prefix and new == (*shape.grid, width):
        return Ref(x.index, AxisOrder("grid"))
    if kind == "standard" and shape.grid is not None and not shape.prefix and len(new) == 5:
        split = AxisOrder("split", new[1])
        return Ref(x.index, split) if new == sizes_of(shape, split) else None
    if kind == "patches" and new == (*new[:2], x.layout.groups**2 * width):
        merged = c.emit(fields(OPS.get("merge_patches"), size=x.layout.groups), Ref(x.index))
        return Ref(merged.index, AxisOrder("grid"))
    if kind == "features_first" and shape.grid is not None and new == (width, *shape.grid):
        return c.emit(ops.ToMap(), Ref(x.index))
    if kind == "standard" and len(new) == 4 and new[:2] == (length, 3) and 3 * new[2] * new[3] == width:
        return Ref(x.index, AxisOrder("in_three", new[2]))
    return None


@function("unbind")
def _unbind(c: Converter, input: TracedTensor, dim: int = 0) -> tuple[Ref, ...]:
    x = c.ref(input)
    if x.layout.kind != "apart" or dim != 0:
        raise Inexpressible(f"'unbind' of {list(input.sizes)}")
    return tuple(map(partial(part, x), range(3)))


def part(x: Ref, index: int) -> Ref:
    """The queries, keys or values of attention, which are the first axis of a tensor."""
    return Ref(x.index, AxisOrder(("query", "key", "value")[index], x.layout.groups))


@function("scaled_dot_product_attention")
def _attention(
    c: Converter,
    query: TracedTensor,
    key: TracedTensor,
    value: TracedTensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Ref:
    refs = [c.ref(one) for one in (query, key, value)]
    together = len({ref.index for ref in refs}) == 1
    if not together or [ref.layout.kind for ref in refs] != ["query", "key", "value"]:
        raise Inexpressible("attention whose queries, keys and values are no parts of one linear map")
    if attn_mask is not None or is_causal or scale is not None or dropout_p:
        raise Inexpressible("attention with a mask, a scale or dropout of its own")
    heads = refs[0].layout.groups
    return c.emit(ops.DotProductAttention(heads=heads), Ref(refs[0].index), layout=AxisOrder("in_heads", heads))


@whole("torch.nn.modules.activation.MultiheadAttention")
def _multi_head(
    c: Converter,
    module: Any,
    query: TracedTensor,
    key: TracedTensor,
    value: TracedTensor,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Ref:
    if not (query is key is value) or module.in_proj_weight is None:
        raise Inexpressible("attention between different tokens; only self-attention is supported")
    if key_padding_mask is not None or attn_mask is not None or module.bias_k is not None or module.add_zero_attn:
        raise Inexpressible("attention with a mask, or with a bias of keys")
    if not module.batch_first or module.dropout:
        raise Inexpressible("attention with the batch on the second axis, or with dropout of the weights")
    bias = module.in_proj_bias
    return _self_attention(
        c,
        c.as_tokens(c.ref(query)),
        ops.DotProductAttention(heads=module.num_heads),
        (module.in_proj_weight, bias),
        (module.out_proj.weight, module.out_proj.bias),
    )


def _self_attention(
    c: Converter,
    x: Ref,
    product: ops.DotProductAttention,
    qkv: tuple[Any, Any],
    out: tuple[Any, Any],
    table: Any = None,
) -> Ref:
    """A linear map, attention and another linear map, with these tensors of a module."""
    width = c.shape(x).channels
    first = c.emit(
        fields(ops.Linear, width=3 * width, bias=qkv[1] is not None),
        x,
        weight=c.parameter(qkv[0]),
        bias=None if qkv[1] is None else c.parameter(qkv[1]),
    )
    inner = c.emit(product, first, weight=None if table is None else c.parameter(table))
    op = fields(ops.Linear, width=width, bias=out[1] is not None)
    bias = None if out[1] is None else c.parameter(out[1])
    return c.emit(op, inner, weight=c.parameter(out[0]), bias=bias)


@whole("torchvision.models.swin_transformer.ShiftedWindowAttention")
def _windows(c: Converter, module: Any, input: TracedTensor) -> Ref:
    x = c.as_tokens(c.ref(input))
    (height, width), shifts = module.window_size, module.shift_size
    if module.dropout or module.attention_dropout or shifts[0] != shifts[1]:
        raise Inexpressible("attention in windows with dropout, or with two different shifts")
    window = height if height == width else (height, width)
    product = ops.DotProductAttention(heads=module.num_heads, window=window, shift=shifts[0], relative_positions=True)
    shape = c.shape(x)
    assert isinstance(shape, Tokens) and shape.grid is not None
    found = _self_attention(
        c,
        _fitted(c, x, _multiple(shape.grid, (height, width))),
        product,
        (module.qkv.weight, module.qkv.bias),
        (module.proj.weight, module.proj.bias),
        module.relative_position_bias_table,
    )
    return Ref(_fitted(c, found, shape.grid).index, AxisOrder("grid"))


@whole("hiresnet_graph.ops.layers.WindowAttention")
def _own_windows(c: Converter, module: Any, input: TracedTensor) -> Ref:
    window = module.window[0] if module.window[0] == module.window[1] else tuple(module.window)
    product = ops.DotProductAttention(
        heads=module.heads, window=window, shift=max(module.shift), relative_positions=True
    )
    return c.emit(product, c.standard(input), weight=c.parameter(module.weight))


@whole("torchvision.models.swin_transformer.PatchMerging")
def _patch_merging(c: Converter, module: Any, input: TracedTensor) -> Ref:
    x = c.as_tokens(c.ref(input))
    shape = c.shape(x)
    assert isinstance(shape, Tokens) and shape.grid is not None
    merged = c.emit(OPS.get("merge_patches")(), _fitted(c, x, _multiple(shape.grid, (2, 2))))
    norm = fields(ops.LayerNorm, eps=module.norm.eps)
    normed = c.emit(norm, merged, weight=c.parameter(module.norm.weight), bias=c.parameter(module.norm.bias))
    op = ops.Linear(width=module.reduction.out_features, bias=False)
    found = c.emit(op, normed, weight=c.parameter(module.reduction.weight))
    return Ref(found.index, AxisOrder("grid"))


def _multiple(grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    return -(-grid[0] // size[0]) * size[0], -(-grid[1] // size[1]) * size[1]


def _fitted(c: Converter, x: Ref, grid: tuple[int, int]) -> Ref:
    shape = c.shape(x)
    assert isinstance(shape, Tokens)
    return Ref(x.index) if shape.grid == grid else c.emit(ops.FitGrid(grid=grid), Ref(x.index))


def class_tokens(c: Converter, tensors: tuple[Any, ...]) -> Ref | None:
    """Learned tokens that are put before others; None if these tensors are something else."""
    *learned, last = tensors
    if not learned or any(one.depends or not one.root.name for one in learned):
        return None
    x = c.as_tokens(c.ref(last))
    if x.layout != STANDARD or not isinstance(c.shape(x), Tokens):
        return None
    for one in reversed(learned):
        count, width = one.sizes[-2:]
        x = c.emit(fields(ops.ClassToken, count=count), x, weight=c.stored(one.root, (count, width)))
    return x


def positions(c: Converter, tensor: TracedTensor, weight: TracedTensor) -> Ref | None:
    """Tokens with learned positions added; None if this sum is another one."""
    root = weight.root
    if weight.depends or not root.name or weight.sizes[-2:] != tensor.sizes[1:] or len(tensor.sizes) != 3:
        return None
    x = c.as_tokens(c.ref(tensor))
    return c.emit(ops.PositionEmbedding(), x, weight=c.stored(root, tuple(tensor.sizes[1:])))


def picked(c: Converter, x: Ref, keys: list[Any]) -> Ref | None:
    """One token, or those without the prefix; None if an index takes something else."""
    shape = c.shape(x)
    if not isinstance(shape, Tokens) or x.layout != STANDARD or len(keys) != 2 or keys[0] != slice(None):
        return None
    if isinstance(keys[1], int):
        return c.emit(fields(ops.SelectToken, index=keys[1] % shape.length), x)
    if isinstance(keys[1], slice) and (keys[1].start or 0, keys[1].stop) == (shape.prefix, None):
        return x if shape.prefix == 0 else c.emit(ops.DropPrefix(), x)
    return None


def token_mean(c: Converter, x: Ref, axes: list[int]) -> Ref | None:
    """The mean of all tokens; None if a mean is another one."""
    shape = c.shape(x)
    whole_axes = {"standard": [1], "grid": [1, 2], "features_first": [2]}.get(x.layout.kind)
    if not isinstance(shape, Tokens) or shape.prefix or axes != whole_axes:
        return None
    return c.emit(ops.TokenMean(), Ref(x.index))
