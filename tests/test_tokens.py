"""Skips between tokens, and between tokens and feature maps: what they compute, count and refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.testing import check_network

VIT = """
name: vit
input: {channels: 3, height: 16, width: 16}
nodes:
  stem: {block: conv, width: 8}
  patches: {block: patch_embed, width: 12, patch: 2}
  class_token: class_token
  positions: position_embedding
  encoder: {block: encoder, heads: 3, depth: 3}
  merge: {block: drop_prefix}
  merging: {block: patch_merging, width: 20}
  windows: {block: swin, heads: 4, window: 2, shift: 1, depth: 2}
  back: to_map
  conv: {block: basic, width: 24, stride: 2}
  head: {block: classifier, classes: 5}
flow: stem -> patches -> class_token -> positions -> encoder -> merge -> merging -> windows -> back -> conv -> head
skips: {levels: [stem, patches, positions, blocks, conv], edges: full}
"""
BASE = hrg.loads(VIT)


def test_all_forms_of_a_network_of_maps_and_tokens_agree() -> None:
    for edges in ("p1", "out"):
        check_network(BASE.with_edges(edges))
    blocks = BASE.override({"skips.slot": "residual", "skips.levels": ["patches", "encoder.block*"]})
    check_network(blocks.with_edges("p2"))


def test_the_default_projection_asks_the_shape_of_the_target() -> None:
    parts = {edge.name.removeprefix("edges."): edge.projection for edge in BASE.plan.edges if edge.family == "skip"}
    assert parts["stem__patches"] == parts["positions__windows_block1"] == "avg, linear, layer"
    assert parts["stem__conv"] == parts["encoder_block1__conv"] == "avg, conv1x1, batch"
    assert parts["positions__encoder_block1"] == parts["encoder_block1__encoder_block2"] == ""
    padded = [
        call.name for call in BASE.plan.calls if call.name.startswith("edges.patches__") and "prefix" in call.name
    ]
    assert padded == ["edges.patches__positions.prefix"]  # computed once for all blocks behind the class token


def test_prefix_tokens_follow_the_rule() -> None:
    x = torch.randn(2, 8, 6)
    spec: dict[str, Any] = {"name": "n", "input": {"channels": 6, "grid": [2, 3], "prefix": 2}}
    nodes = {
        "a": "identity",
        "d": "drop_prefix",
        "z": {"block": "fixed_scale", "factor": 0},
        "c": {"block": "pad_prefix"},
    }
    for rule in ("keep", "drop", "mean"):
        skips = {"edges": "a>c", "projection": {"prefix": rule}}
        net = hrg.from_dict({**spec, "nodes": nodes, "flow": "input -> a -> d -> z -> c", "skips": skips})
        y = net.build()(x)
        assert torch.equal(y[:, 1:], x[:, 2:])
        first = x[:, 2:].mean(1) if rule == "mean" else torch.zeros(2, 6)
        assert torch.allclose(y[:, 0], first, atol=1e-6)


def test_pooling_follows_the_grid_and_keeps_the_class_token() -> None:
    spec: dict[str, Any] = {"name": "n", "input": {"channels": 6, "grid": [4, 6], "prefix": 1}}
    nodes = {
        "a": "identity",
        "d": "drop_prefix",
        "m": {"block": "merge_patches"},
        "l": {"block": "linear", "width": 6},
        "z": {"block": "fixed_scale", "factor": 0},
        "c": {"block": "pad_prefix"},
    }
    skips = {"edges": "a>c", "projection": {"norm": "none"}}
    net = hrg.from_dict({**spec, "nodes": nodes, "flow": " -> ".join(["input", *nodes]), "skips": skips})
    x = torch.randn(2, 25, 6)
    y = net.build()(x)
    pooled = functional.avg_pool2d(x[:, 1:].transpose(1, 2).unflatten(2, (4, 6)), 2).flatten(2).transpose(1, 2)
    assert torch.equal(y, torch.cat([x[:, :1], pooled], 1))
    up = hrg.from_dict(
        {
            **spec,
            "input": {"channels": 6, "grid": [2, 3]},
            "nodes": {"a": "identity", "m": "to_map", "u": {"block": "upsample"}, "t": "to_tokens"},
            "flow": "input -> a -> m -> u -> t",
            "skips": {"edges": "a>t", "projection": {"spatial": "nearest", "norm": "none"}},
        }
    )
    x = torch.randn(2, 6, 6)
    one = functional.interpolate(x.transpose(1, 2).unflatten(2, (2, 3)), scale_factor=2).flatten(2).transpose(1, 2)
    assert torch.equal(up.build()(x), one + one)


def test_dropping_an_edge_leaves_every_other_initial_weight_as_it_was() -> None:
    full = BASE.build(seed=4).state_dict()
    fewer = BASE.with_edges("full - positions>windows.block1").build(seed=4).state_dict()
    assert set(full) - set(fewer) == {
        f"edges.positions__windows_block1.{part}" for part in ("linear.weight", "norm.weight", "norm.bias")
    }
    assert all(torch.equal(value, full[name]) for name, value in fewer.items())
    vit = hrg.load("hiresvit_tiny").override({"width": 12, "depth": 3, "heads": 3})
    one, two = vit.variant("none").build(seed=1).state_dict(), vit.variant("full").build(seed=1).state_dict()
    assert list(one) == list(two) and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("slot", ["output", "residual", "input"])
def test_skips_of_scale_zero_leave_the_outputs_of_a_trained_network_as_they_were(slot: str) -> None:
    small = {"width": 12, "depth": 3, "heads": 3, "classes": 7, "patches.patch": 8, "positions.grid": [4, 4]}
    net = hrg.load("vit_tiny").override({**small, "input.height": 32, "input.width": 32})
    text = net.to_yaml() + (
        f"skips: {{levels: [positions, blocks], edges: full, slot: {slot}, scale: {{learned: true, init: 0}}}}\n"
    )
    trained, skipped = net.build(seed=1), hrg.loads(text).build(seed=2)
    for p in trained.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    missing, unexpected = skipped.load_state_dict(trained.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("edges.") and name.endswith(".scale.weight") for name in missing)
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(skipped(x), trained(x))


def test_tokens_export_and_compile_as_one_graph() -> None:
    module, x = BASE.build().eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = module(x)
        assert torch.equal(torch.export.export(module, (x,)).module()(x), expected)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)
        assert torch.equal(copy.deepcopy(module)(x), expected)


REFUSED = [
    (
        "heads: 3, depth",
        "heads: 5, depth",
        "nodes.encoder",
        "5 heads do not divide the width 12 of the tokens",
        "Set 'heads' to one of 1, 2, 3, 4, 6, 12; or the width to a multiple of 5",
    ),
    (
        "  merge: {block: drop_prefix}",
        "  merge: {block: to_map}",
        "nodes.merge",
        "requires the tokens of a grid alone, not tokens of 65x12 (grid 8x8, 1 before it)",
        "Remove the class token with 'drop_prefix'",
    ),
    (
        "patch: 2}",
        "patch: 3}",
        "nodes.patches",
        "an image of 16x16 does not consist of patches of 3x3",
        "Change 'patch'",
    ),
    (
        "{block: classifier, classes: 5}",
        "{block: token_head, classes: 5}",
        "nodes.head",
        "'token_head' requires tokens (length x features), not a feature map of 24x2x2",
        "patch_embed",
    ),
    (
        "  back: to_map",
        "  back: {block: classifier, classes: 3}",
        "nodes.back",
        "'classifier' requires a feature map or a vector, not tokens of 16x20",
        "Use 'token_head'",
    ),
    (
        "position_embedding",
        "{block: position_embedding, encoding: sincos, grid: [3, 3]}\n  merge2: {block: class_token, count: 0}",
        "nodes.merge2.count",
        "expected a number of at least 1, got 0",
        "",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "path", "message", "hint"), REFUSED, ids=[message for *_, message, _ in REFUSED]
)
def test_wrong_networks_are_refused_with_location_and_remedy(
    old: str, new: str, path: str, message: str, hint: str
) -> None:
    assert VIT.count(old) == 1 or old == "position_embedding"
    with pytest.raises(SpecError) as raised:
        hrg.loads(VIT.replace(old, new)).plan  # noqa: B018
    problem = next(problem for problem in raised.value.problems if problem.path == path)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.position is not None


UNKNOWN = """
name: n
input: {channels: 6, length: 12}
nodes: {a: identity, b: {block: encoder, heads: 2}, c: %s, d: {block: linear, width: 4}}
flow: input -> a -> b -> c -> d
skips: {edges: a>d, projection: {norm: none}}
"""


def test_tokens_of_an_unknown_grid_have_projections_of_features_alone() -> None:
    net = hrg.loads(UNKNOWN % "relu")
    assert net.cost().parameters == hrg.loads(UNKNOWN % "relu").with_edges("none").cost().parameters + 6 * 4 + 4
    for block, message in (("to_map", "requires tokens of a known grid"), ("merge_patches", "of a known grid")):
        with pytest.raises(SpecError, match=message) as raised:
            hrg.loads(UNKNOWN % block).plan  # noqa: B018
        assert "Give the input a 'grid'" in raised.value.problems[0].hint


def test_grids_that_do_not_divide_name_a_projection_that_fits() -> None:
    text = """
name: n
input: {channels: 6, grid: [7, 7]}
nodes: {a: identity, p: {block: fit_grid, grid: [5, 5]}, b: relu}
flow: input -> a -> p -> b
skips: {edges: a>b}
"""
    with pytest.raises(SpecError, match="no pooling with kernel = stride maps 7x7 to 5x5") as raised:
        hrg.loads(text).plan  # noqa: B018
    (problem,) = raised.value.problems
    assert problem.path == "skips.edges" and "Set 'projection: {spatial: adaptive}'" in problem.hint
    hrg.loads(text.replace("a>b}", "a>b, projection: {spatial: adaptive}}")).build()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{channels: 6, length: 12, grid: [3, 3]}", "12 tokens are not 0 and a grid of"),
        ("{channels: 6, length: 12, height: 4}", "'height' and 'width' are those of a feature map"),
        ("{channels: 6, prefix: 1}", "'prefix' requires tokens"),
    ],
)
def test_wrong_inputs_of_tokens_are_refused(entry: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        hrg.loads((UNKNOWN % "relu").replace("{channels: 6, length: 12}", entry)).plan  # noqa: B018
