"""Tokens of torch, torchvision and timm as primitive operations."""

from __future__ import annotations

from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.importing.layers import fields
from hiresnet_graph.importing.primitives import (
    STANDARD,
    AxisOrder,
    Converter,
    Ref,
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
        ("merged", (0, 2, 1, 3)): "in_heads",
        ("merged", (0, 2, 3, 1)): "in_heads_last",
        ("in_heads", (0, 1, 3, 2)): "in_heads_last",
        ("key", (0, 1, 3, 2)): "key_last",
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
    if kind in ("standard", "grid") and shape.grid is not None and not shape.prefix and len(new) == 5:
        split = AxisOrder("split", new[1])
        return Ref(x.index, split) if new == sizes_of(shape, split) else None
    if kind == "patches" and new[-1] == x.layout.groups**2 * width and len(new) in (2, 3):
        merged = c.emit(fields(OPS.get("merge_patches"), size=x.layout.groups), Ref(x.index))
        return merged if len(new) == 2 else Ref(merged.index, AxisOrder("grid"))
    if kind == "features_first" and shape.grid is not None and new == (width, *shape.grid):
        return c.emit(ops.ToMap(), Ref(x.index))
    if kind == "standard" and len(new) == 4 and new[:2] == (length, 3) and 3 * new[2] * new[3] == width:
        return Ref(x.index, AxisOrder("in_three", new[2]))
    if kind == "standard" and len(new) == 3 and new[0] == length and new[1] * new[2] == width:
        return Ref(x.index, AxisOrder("merged", new[1]))
    return None


def multiple(grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The smallest grid that consists of parts of a size and contains another one."""
    return -(-grid[0] // size[0]) * size[0], -(-grid[1] // size[1]) * size[1]


def fitted(c: Converter, x: Ref, grid: tuple[int, int]) -> Ref:
    """Tokens on a larger or smaller grid."""
    shape = c.shape(x)
    assert isinstance(shape, Tokens)
    return Ref(x.index) if shape.grid == grid else c.emit(ops.FitGrid(grid=grid), Ref(x.index))


def padded(c: Converter, x: Ref, pad: list[int]) -> Ref | None:
    """Tokens with zeros after the last rows and columns, or without these; None if the padding is another one."""
    shape = c.shape(x)
    left, right, before, columns, above, rows = (pad + [0] * 6)[:6]
    if x.layout.kind != "grid" or any((left, right, before, above, *pad[6:])):
        return None
    assert isinstance(shape, Tokens) and shape.grid is not None
    return Ref(fitted(c, x, (shape.grid[0] + rows, shape.grid[1] + columns)).index, AxisOrder("grid"))


@whole("torchvision.models.swin_transformer.PatchMerging")
def _patch_merging(c: Converter, module: Any, input: TracedTensor) -> Ref:
    x = c.as_tokens(c.ref(input))
    shape = c.shape(x)
    assert isinstance(shape, Tokens) and shape.grid is not None
    merged = c.emit(OPS.get("merge_patches")(), fitted(c, x, multiple(shape.grid, (2, 2))))
    norm = fields(ops.LayerNorm, eps=module.norm.eps)
    normed = c.emit(norm, merged, weight=c.parameter(module.norm.weight), bias=c.parameter(module.norm.bias))
    op = ops.Linear(width=module.reduction.out_features, bias=False)
    found = c.emit(op, normed, weight=c.parameter(module.reduction.weight))
    return Ref(found.index, AxisOrder("grid"))


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
    shape = c.shape(x)
    # With the grid, the spec describes a network for images of other sizes, too.
    grid = shape.grid if isinstance(shape, Tokens) else None
    return c.emit(fields(ops.PositionEmbedding, grid=grid), x, weight=c.stored(root, tuple(tensor.sizes[1:])))


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
