"""How operations on tokens are computed for all replicas at once on a GPU.

A CPU rounds sums over tokens, and matrix products, according to the position of the replica. There, these operations
are computed one replica after another.

Axes: B samples, L tokens, M replicas, C features of one replica, O outputs, H heads.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from hiresnet_graph.lower.weights import find
from hiresnet_graph.ops import ClassToken, DotProductAttention, LayerNorm, Linear, Op, PositionEmbedding
from hiresnet_graph.ops.layers import attention, window_attention, window_bias
from hiresnet_graph.shapes import Tokens
from hiresnet_graph.stack.rules import Lowered, Pass, Rule, Site, join, split


def token_rule(site: Site) -> Rule | None:
    """The rule of a call on tokens; None if it has none, and on a CPU."""
    return None if site.device.type == "cpu" else rule_of_any_device(site)


def rule_of_any_device(site: Site) -> Rule | None:
    """The rule of a call on tokens; None if it has none."""
    shapes = (*site.call.input_shapes, site.call.shape)
    if any(not isinstance(shape, Tokens) or shape.steps for shape in shapes):
        return None
    if isinstance(site.op, PositionEmbedding) and site.op.encoding != "learned":
        return None
    return _RULES.get(type(site.op))


def _linear(site: Site) -> Lowered:
    """One matrix product for each replica."""
    weight, bias = site.tensor("weight"), site.tensor("bias") if site.op.bias else None
    shape = site.call.input_shapes[0]

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        x_MNC = split(x, site.count, shape).flatten(0, 1).transpose(0, 1)
        weights_MCO = now.weight(weight).transpose(1, 2)
        if bias is None:
            found_MNO = torch.bmm(x_MNC, weights_MCO)
        else:
            found_MNO = torch.baddbmm(now.weight(bias)[:, None], x_MNC, weights_MCO)
        return found_MNO.transpose(0, 1).reshape(*x.shape[:2], -1)

    return Lowered(run)


def _layer_norm(site: Site) -> Lowered:
    """The norm of each replica, then all scales and shifts."""
    weight, bias, shape, eps = site.tensor("weight"), site.tensor("bias"), site.call.shape, site.op.eps

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        normed = functional.layer_norm(split(x, site.count, shape), (shape.channels,), eps=eps)
        return join(torch.addcmul(now.weight(bias), normed, now.weight(weight)), shape)

    return Lowered(run)


def _attention(site: Site) -> Lowered:
    """Attention with M times as many heads."""
    op, heads = site.op, site.op.heads * site.count
    weight = site.tensor("weight")

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        x_BLMC = split(x, site.count, site.call.input_shapes[0])
        qkv = x_BLMC.reshape(*x_BLMC.shape[:3], 3, -1).transpose(2, 3).flatten(2)
        if op.window is None:
            return attention(qkv, heads)
        grid, window, shift = op.windows(site.call.input_shapes[0])
        bias = None
        if op.relative_positions:
            bias = window_bias(now.weight(weight).transpose(0, 1).flatten(1), window)
        return window_attention(qkv, heads, grid, window, shift, bias)

    return Lowered(run)


def _learned(site: Site) -> Lowered:
    """A layer whose weight has the features of all replicas."""
    layer = site.op.layer(*site.call.input_shapes)
    with torch.device("meta"):
        module = find(layer.target)(*layer.args, **layer.kwargs)
    weight = site.tensor("weight")

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        own = {"weight": now.weight(weight).transpose(0, 1).flatten(1)}
        found: torch.Tensor = torch.func.functional_call(module, own, (x,))
        return found

    return Lowered(run)


_RULES: dict[type[Op], Rule] = {
    Linear: _linear,
    LayerNorm: _layer_norm,
    DotProductAttention: _attention,
    ClassToken: _learned,
    PositionEmbedding: _learned,
}
