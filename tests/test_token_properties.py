"""Random networks of feature maps and tokens with random skips: all forms agree; an edge changes no other weight."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.shapes import Tokens
from hiresnet_graph.stack import Stacked
from tests.emit.compare import assert_same

Node = dict[str, Any]


def maps(draw: random.Random, size: int) -> tuple[Node, int]:
    """A node from a feature map to another, and the size of that."""
    width, stride = draw.choice([4, 6, 8]), draw.choice([1, 2]) if size > 2 else 1
    norm = draw.choice(["batch", "layer2d"])
    nodes: list[tuple[Node, int]] = [
        (
            {"block": "conv", "width": width, "stride": stride, "norm": norm},
            size // stride,
        ),
        ({"block": "basic", "width": width, "stride": stride}, size // stride),
        ({"block": "convnext", "kernel_size": 3, "layer_scale": 0.5}, size),
    ]
    return draw.choice(nodes)


def tokens(draw: random.Random, size: int, prefix: bool) -> tuple[Node, int]:
    """A node from tokens to tokens, and the height and width of their grid."""
    nodes: list[tuple[Node, int]] = [
        ({"block": "encoder", "heads": 2, "hidden": 6, "norm_first": draw.random() < 0.7}, size),
        ({"block": "attention", "heads": 1}, size),
        ({"block": "position_embedding", "encoding": draw.choice(["learned", "sincos"])}, size),
        ({"block": "linear", "width": draw.choice([4, 8, 12])}, size),
    ]
    if not prefix:
        nodes += [
            ({"block": "swin", "heads": 2, "window": draw.choice([2, 3]), "shift": 1}, size),
            ({"block": "mixer", "tokens_hidden": 5, "hidden": 6}, size),
            *([({"block": "patch_merging", "width": 8}, size // 2)] if size > 2 else []),
        ]
    return draw.choice(nodes)


def spec(seed: int) -> dict[str, Any]:
    """A chain of blocks of feature maps and tokens, with skips between all of them."""
    draw = random.Random(seed)
    size, is_tokens, prefix = 8, False, False
    nodes: dict[str, Node] = {"stem": {"block": "conv", "width": 8}}
    for i in range(draw.randint(3, 6)):
        chance = draw.random()
        if is_tokens and prefix and chance < 0.2:
            node, prefix = {"block": "drop_prefix"}, False
        elif is_tokens and not prefix and chance < 0.3:
            node, is_tokens = {"block": "to_map"}, False
        elif is_tokens and chance < 0.55:
            node, prefix = {"block": "class_token", "count": draw.choice([1, 2])}, True
        elif is_tokens:
            node, size = tokens(draw, size, prefix)
        elif chance < 0.5:
            patch = draw.choice([1, 2]) if size > 2 else 1
            node, size, is_tokens = {"block": "patch_embed", "width": 8, "patch": patch}, size // patch, True
        else:
            node, size = maps(draw, size)
        nodes[f"n{i}"] = node
    nodes["head"] = (
        {"block": "token_head", "classes": 3, "pool": "mean"} if is_tokens else {"block": "classifier", "classes": 3}
    )
    levels = [name for name in nodes if name != "head"]
    skips: dict[str, Any] = {"levels": levels, "edges": draw.choice(["full", "in", "out", "p1 + p2", "full - p1"])}
    skips["projection"] = {
        "prefix": draw.choice(["keep", "drop", "mean"]),
        "spatial": draw.choice(["avg", "max", "stride"]),
    }
    size_of_input = {"channels": 3, "height": 8, "width": 8}
    flow = " -> ".join(nodes)
    return {"name": f"random{seed}", "input": size_of_input, "nodes": nodes, "flow": flow, "skips": skips}


@pytest.mark.parametrize("seed", range(24))
def test_all_forms_of_random_networks_agree(seed: int) -> None:
    net = hrg.from_dict(spec(seed))
    assert hrg.loads(net.to_yaml()).plan.digest() == net.plan.digest()
    assert_same(net.plan)
    alone = [net.build(k).double().eval() for k in range(3)]
    together = Stacked(net.plan, [net.plan] * 3, dtype=torch.float64)
    for k, module in enumerate(alone):
        together.load(k, module.state_dict())
    x_MB = torch.randn(3, 2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        y_MB = together(x_MB, training=False)
        for k, module in enumerate(alone):
            assert torch.allclose(y_MB[k], module(x_MB[k]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_an_edge_changes_no_other_initial_weight(seed: int) -> None:
    net = hrg.from_dict(spec(seed))
    full, none = net.build(seed=2).state_dict(), net.with_edges("none").build(seed=2).state_dict()
    assert all(torch.equal(value, full[name]) for name, value in none.items())
    assert all(name.startswith("edges.") for name in set(full) - set(none))


def test_the_networks_mix_maps_and_tokens() -> None:
    plans = [hrg.from_dict(spec(seed)).plan for seed in range(24)]
    pairs = set()
    for plan in plans:
        shapes = {node.name: node.shape for node in plan.nodes}
        pairs |= {
            (type(shapes[edge.source]), type(shapes[edge.target])) for edge in plan.edges if edge.family == "skip"
        }
    assert len(pairs) == 4
    prefixes = {call.shape.prefix for plan in plans for call in plan.calls if isinstance(call.shape, Tokens)}
    assert {0, 1, 2} <= prefixes
