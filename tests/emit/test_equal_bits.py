"""Emitted source: bitwise equal outputs and the same `state_dict` as other lowerings."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.emit import emit
from hiresnet_graph.errors import SpecError
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.shipped import spec_names
from tests.emit.compare import assert_same, assert_well_written
from tests.emit.networks import CASES, CELL, IN_TIME
from tests.kinds import accepted, network_of
from tests.recurrent.graphs import make


def small(name: str) -> hrg.Architecture:
    """A shipped spec, with a smaller input if it is for large images."""
    architecture = hrg.load(name)
    (shape,) = architecture.plan.inputs.values()
    if max(shape.spatial, default=0) < 224:
        return architecture
    own_size = "size" in architecture.tree.get("params", {})  # then the shapes of states depend on it
    return architecture.override({"size": 64} if own_size else {"input.height": 64, "input.width": 64})


LARGE = {
    "convnext_tiny",
    "densenet121",
    "hiresnet101",
    "hiresnet50",
    "resnet101",
    "swin_tiny",
    "vgg16",
    "vit_base",
    "vit_small",
    "wide_resnet50_2",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in spec_names()]
)
def test_shipped_specs_give_equal_bits(name: str) -> None:
    assert_well_written(assert_same(small(name).plan))


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_specs_are_well_written(name: str) -> None:
    assert_well_written(emit(hrg.load(name).plan))


def test_variants_of_hiresnet18_give_equal_bits() -> None:
    for variant in ("original", "in", "out", "p1"):
        assert_same(hrg.load("hiresnet18").variant(variant).plan)
    for block in ("plain", "resnext", "preact_basic", "bottleneck"):
        assert_same(hrg.load("hiresnet18").override({"block": block}).variant("full").plan)


# Every kind


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind not in OPS])
def test_blocks_give_equal_bits(kind: str) -> None:
    for example in BLOCKS.get(kind).examples:
        fields = {"block": kind, **example}
        for shape in accepted(fields):
            net = network_of(fields, shape)
            assert_well_written(assert_same(net.plan))
            if (example.get("width") == 8 and isinstance(shape, Map)) or kind in ("encoder", "swin", "mixer"):
                assert_well_written(assert_same(network_of({**fields, "depth": 3}, shape).plan))


@pytest.mark.parametrize("kind", list(OPS))
def test_operations_give_equal_bits(kind: str) -> None:
    for example in OPS.get(kind).examples:
        fields = {"block": kind, **example}
        for shape in accepted(fields):
            assert_well_written(assert_same(network_of(fields, shape).plan))


@pytest.mark.parametrize("kind", ["affine", "batch_norm", "layer_norm", "scale"])
def test_operations_on_vectors_give_equal_bits(kind: str) -> None:
    fields = {"block": kind, **OPS.get(kind).examples[-1]}
    assert_well_written(assert_same(network_of(fields, Vector(8)).plan))


# Special cases


@pytest.mark.parametrize("case", CASES)
def test_cases_give_equal_bits(case: str) -> None:
    assert_well_written(assert_same(CASES[case].plan))


@pytest.mark.parametrize("seed", range(40))
def test_random_specs_give_equal_bits(seed: int) -> None:
    plan = None
    draw = random.Random(seed)
    while plan is None:
        try:
            plan = hrg.loads(random_spec(draw)).plan
        except SpecError:
            continue
    assert_same(plan)


def random_spec(draw: random.Random) -> str:
    """A chain of nodes with all kinds of edges; not every such spec is valid."""
    kinds = ["basic", "plain", "preact_basic", "mbconv", "conv", "cell", "twice", "dense_layer", "dropout", "conv2d"]
    merges = ["add", "mean", "weighted", "gated", "concat", "multiply"]
    names = [f"n{k}" for k in range(draw.randint(2, 5))]
    nodes: dict[str, Any] = {}
    for name in names:
        kind = draw.choice(kinds)
        node: dict[str, Any] = {"block": kind}
        if kind == "dense_layer":
            node |= {"growth": 4, "dropout": draw.choice([0, 0.3])}
        elif kind != "dropout":
            node |= {"width": draw.choice([8, 8, 8, 12])}
        if kind != "dropout" and draw.random() < 0.4:
            node |= {"depth": draw.randint(1, 3), **({"weights": "shared"} if draw.random() < 0.3 else {})}
        elif kind != "dropout" and draw.random() < 0.3:
            node["weights"] = draw.choice(["w1", "w2"])
        if kind in ("basic", "plain", "preact_basic", "mbconv", "conv") and draw.random() < 0.3:
            node["stride"] = 2
        nodes[name] = node
    edges = []
    merge_at: dict[tuple[str, str], str] = {}
    for k in range(draw.randint(0, 6)):
        source, target = sorted(draw.sample(range(-1, len(names)), 2))
        slot = draw.choice(["input", "output", "output", "residual"])
        merge = merge_at.setdefault((names[target], slot), draw.choice(merges))
        edge: dict[str, Any] = {"from": "input" if source < 0 else names[source], "to": names[target], "slot": slot}
        edge |= {"merge": merge, "name": f"e{k}", "projection": {"spatial": draw.choice(["avg", "stride", "adaptive"])}}
        if merge == "concat":
            edge["projection"] |= {"channels": "none"}
        if source >= 0 and draw.random() < 0.2:
            edge["from"] += draw.choice([".conv", ".conv1", ".norm1", ".a.conv"])
        if draw.random() < 0.3:
            block = draw.choice(["conv", "basic", "cell", "dropout"])
            edge |= {"block": block, **({} if block == "dropout" else {"width": 8})}
        edges.append(edge)
    spec = {
        "name": "random",
        "input": {"channels": 8, "height": 8, "width": 8},
        "nodes": {**nodes, "head": {"block": "classifier", "classes": 3}},
        "flow": " -> ".join(["input", *names, "head"]),
        "edges": edges,
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in spec.items()) + CELL


# Networks in time


@pytest.mark.parametrize("case", IN_TIME)
def test_networks_in_time_give_equal_bits(case: str) -> None:
    assert_well_written(assert_same(IN_TIME[case].plan))


@pytest.mark.parametrize("seed", range(5000, 5040))
def test_random_networks_in_time_give_equal_bits(seed: int) -> None:
    text = assert_same(make(seed).arch.plan)
    if seed % 4 == 0:
        assert_well_written(text)
