"""Attention of torch, torchvision and timm, also written as products of matrices, as primitive operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.importing.layers import fields
from hiresnet_graph.importing.primitives import (
    DROPOUT,
    AttentionScores,
    AxisOrder,
    Converter,
    Inexpressible,
    Ref,
    Stored,
    function,
    whole,
)
from hiresnet_graph.importing.tokens import fitted, multiple
from hiresnet_graph.importing.trace import TracedTensor
from hiresnet_graph.shapes import Tokens

_TOLERANCE = 1e-6
"""Relative difference of a scale, which users compute in float32."""


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
    if attn_mask is not None or is_causal or scale is not None:
        raise Inexpressible("attention with a mask, or with a scale of its own")
    if dropout_p:
        raise Inexpressible(DROPOUT)
    return _product(c, [c.ref(one) for one in (query, key, value)])


def _product(c: Converter, refs: Sequence[Ref]) -> Ref:
    """Attention of queries, keys and values, which are parts of one linear map, or the values of several."""
    kinds, heads = [ref.layout.kind for ref in refs], refs[0].layout.groups
    together = len({ref.index for ref in refs}) == 1 and kinds == ["query", "key", "value"]
    if not together and (set(kinds) != {"in_heads"} or len({ref.layout for ref in refs}) > 1):
        raise Inexpressible("attention whose queries, keys and values are not split into the same number of heads")
    if len({c.shape(ref) for ref in refs}) > 1:
        raise Inexpressible("attention between different tokens; only self-attention is supported")
    x = Ref(refs[0].index) if together else _side_by_side(c, [ref.index for ref in refs])
    return c.emit(ops.DotProductAttention(heads=heads), x, layout=AxisOrder("in_heads", heads))


def _side_by_side(c: Converter, indices: Sequence[int]) -> Ref:
    """Queries, keys and values as one value: what they are slices of, or their concatenation."""
    parts = [c.primitives[index] if index >= 0 else None for index in indices]
    width = c.shape(Ref(indices[0])).channels
    slices = [(one.op.start, one.operands[0]) for one in parts if one and isinstance(one.op, ops.SliceChannels)]
    source = slices[0][1] if slices else 0
    is_whole = slices == [(start * width, source) for start in range(3)]
    if is_whole and c.shape(Ref(source)).channels == 3 * width:
        return Ref(source)
    return c.emit(ops.Concat(), *map(Ref, indices))


@function("matmul", "__matmul__", "bmm")
def _matmul(c: Converter, input: TracedTensor, other: TracedTensor) -> Ref:
    weights = c.refs.get(id(input))
    if isinstance(weights, AttentionScores):
        if not weights.is_softmax:
            raise Inexpressible("attention without a softmax")
        return _product(c, [Ref(weights.index, weights.layout), weights.keys, c.ref(other)])
    query, key = c.ref(input), c.ref(other)
    kind = {"in_heads_last": "in_heads", "key_last": "key"}.get(key.layout.kind)
    if kind is None:
        raise Inexpressible(
            f"the product of {list(input.sizes)} and {list(other.sizes)}, which is not that of attention"
        )
    query, scale = _unscaled(c, query)
    key, factor = _unscaled(c, Ref(key.index, AxisOrder(kind, key.layout.groups)))
    return AttentionScores(query.index, query.layout, key, scale * factor)


def _unscaled(c: Converter, x: Ref) -> tuple[Ref, float]:
    """What was multiplied by numbers, and their product."""
    scale = 1.0
    while x.index >= 0:
        source = c.primitives[x.index]
        if not isinstance(source.op, ops.FixedScale):
            break
        x, scale = Ref(source.operands[0], x.layout), scale * source.op.factor
    return x, scale


@function("softmax")
def _softmax(c: Converter, input: TracedTensor, dim: int | None = None, *rest: Any, **kwargs: Any) -> Ref:
    scores = c.refs.get(id(input))
    if not isinstance(scores, AttentionScores):
        return _probabilities(c, input)
    width = c.shape(scores).channels // scores.layout.groups // (3 if scores.layout.kind == "query" else 1)
    if dim not in (-1, 3) or scores.is_softmax:
        raise Inexpressible("attention with another softmax than that over the keys")
    if not math.isclose(scores.scale, width**-0.5, rel_tol=_TOLERANCE):
        raise Inexpressible(f"attention with the scale {scores.scale:g}; it must be 1 / sqrt({width})")
    return replace(scores, is_softmax=True)


@function("log_softmax")
def _probabilities(c: Converter, input: TracedTensor, *rest: Any, **kwargs: Any) -> Ref:
    raise Inexpressible(
        f"there is no operation for {c.name}. If it is the last operation, remove it: commands that train and test "
        "take the scores before it"
    )


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
    if not module.batch_first:
        raise Inexpressible("attention among the elements of the first axis, the batch. Build it with batch_first=True")
    if module.dropout:
        raise Inexpressible(DROPOUT)
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
        fitted(c, x, multiple(shape.grid, (height, width))),
        product,
        (module.qkv.weight, module.qkv.bias),
        (module.proj.weight, module.proj.bias),
        module.relative_position_bias_table,
    )
    return Ref(fitted(c, found, shape.grid).index, AxisOrder("grid"))


@whole("hiresnet_graph.ops.layers.WindowAttention")
def _own_windows(c: Converter, module: Any, input: TracedTensor) -> Ref:
    weight = c.parameter(module.weight)
    return _in_windows(c, c.standard(input), weight, module.heads, module.grid, module.window, module.shift)


@function("relative_window_attention")
def _windows_of_a_file(
    c: Converter,
    qkv: TracedTensor,
    offsets: TracedTensor,
    heads: int,
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
) -> Ref:
    return _in_windows(c, c.standard(qkv), c.stored(offsets), heads, grid, window, shift)


def _in_windows(
    c: Converter,
    x: Ref,
    offsets: Stored,
    heads: int,
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
) -> Ref:
    size = window[0] if window[0] == window[1] else tuple(window)
    product = ops.DotProductAttention(heads=heads, window=size, shift=max(shift), relative_positions=True)
    if product.windows(c.shape(x)) != (tuple(grid), tuple(window), tuple(shift)):
        raise Inexpressible(f"attention in windows of a grid of {list(grid)} with tokens of {c.shape(x)}")
    return c.emit(product, x, weight=offsets)
