"""Blocks of transformers that some operations may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiresnet_graph import ops
from hiresnet_graph.ops import Op
from hiresnet_graph.shapes import Shape

Candidates = Iterator[tuple[str, dict[str, Any]]]


def token_candidates(found: Sequence[Op], source: Shape, activation: str) -> Candidates:
    """Blocks, with fields, that may compute these operations on tokens."""
    convs = [op for op in found if isinstance(op, ops.Conv2d)]
    linear = [op for op in found if isinstance(op, ops.Linear)]
    products = [op for op in found if isinstance(op, ops.DotProductAttention)]
    kinds = {op.kind for op in found}
    if len(convs) == 1 and "to_tokens" in kinds and not linear:
        norm = {"norm": "layer"} if "layer_norm" in kinds else {}
        yield "patch_embed", {"width": convs[0].width, **_without({"patch": convs[0].kernel_size}, patch=16), **norm}
    if len(linear) == 1 and "merge_patches" in kinds:
        yield "patch_merging", _without({"width": linear[0].width}, width=2 * source.channels)
    if len(linear) == 1 and kinds & {"select_token", "token_mean"}:
        yield "token_head", _head(linear[0], found, kinds)
    common = _without(
        {"hidden": _hidden(linear, source), "activation": activation, "drop_path": _probability(found, "drop_path")},
        hidden=4 * source.channels,
        activation="gelu",
        drop_path=0,
    )
    if len(products) == 1 and len(linear) == 4:
        yield from _attention(products[0], linear, found, common)
    if len(convs) == 1 and len(linear) == 2:
        own = {"kernel_size": convs[0].kernel_size, "layer_scale": _layer_scale(found)}
        yield "convnext", {**_without(own, kernel_size=7, layer_scale=1e-6), **common}
    if len(linear) == 4 and "transpose_tokens" in kinds:
        tokens = {"tokens_hidden": linear[0].width}
        yield "mixer", {**_without(tokens, tokens_hidden=max(1, source.channels // 2)), **common}


def _head(linear: ops.Linear, found: Sequence[Op], kinds: set[str]) -> dict[str, Any]:
    fields = {
        "pool": "class" if "select_token" in kinds else "mean",
        "norm": "layer" if "layer_norm" in kinds else "none",
        "dropout": _probability(found, "dropout"),
    }
    return {"classes": linear.width, **_without(fields, pool="class", norm="layer", dropout=0)}


def _attention(
    product: ops.DotProductAttention, linear: Sequence[ops.Linear], found: Sequence[Op], common: Mapping[str, Any]
) -> Candidates:
    bias = {} if linear[0].bias else {"qkv_bias": False}
    if product.relative_positions:
        own = _without({"window": product.window, "shift": product.shift}, window=7, shift=0)
        yield "swin", {"heads": product.heads, **own, **common, **bias}
        return
    scale = _layer_scale(found)
    fields = {"heads": product.heads, **common, **bias, **({} if scale is None else {"layer_scale": scale})}
    dropout = _probability(found, "dropout")
    fields |= {"dropout": dropout} if dropout else {}
    yield "encoder", fields
    yield "encoder", {**fields, "norm_first": False}


def _layer_scale(found: Sequence[Op]) -> float | None:
    return next((float(op.model_dump()["init"]) for op in found if op.kind == "layer_scale"), None)


def _hidden(linear: Sequence[ops.Linear], source: Shape) -> int:
    return linear[-2].width if len(linear) > 1 else source.channels


def _probability(found: Sequence[Op], kind: str) -> float:
    return next((float(op.model_dump()["p"]) for op in found if op.kind == kind), 0)


def _without(fields: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value != defaults[name]}
