"""Expansion into primitive operations: shapes, projections, merges, slots, weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.plan import Call, Plan


def net(text: str, size: tuple[int, ...] = (3, 8, 8)) -> hrg.Architecture:
    keys = ("channels", "height", "width")
    shape = ", ".join(f"{key}: {value}" for key, value in zip(keys, size, strict=False))
    return hrg.loads(f"name: net\nparams: {{w: 4}}\ninput: {{{shape}}}\n{text}", "net.yaml")


def plan(text: str, size: tuple[int, ...] = (3, 8, 8)) -> Plan:
    return net(text, size).plan


def calls(text: str, size: tuple[int, ...] = (3, 8, 8)) -> dict[str, Call]:
    return {call.name: call for call in plan(text, size).calls}


def on_edge(made: dict[str, Call], name: str) -> list[str]:
    """The operations on an edge, as `kind field=value ...`."""
    found = []
    for call in made.values():
        if call.name.startswith(f"{name}."):
            fields = {k: v[0] if isinstance(v, tuple) and v[0] == v[1] else v for k, v in dict(call.op).items()}
            default = {k: field.default for k, field in type(call.op).model_fields.items()}
            shown = [f"{k}={v}" for k, v in fields.items() if v != default[k]]
            found.append(" ".join([call.op.kind, *shown]))
    return found


def run(text: str, x: torch.Tensor) -> torch.Tensor:
    module = net(text, tuple(x.shape[1:])).build().eval()
    with torch.no_grad():
        out: torch.Tensor = module(x)
    return out


def image(*size: int) -> torch.Tensor:
    return torch.randn(2, *size, generator=torch.Generator().manual_seed(0))


# ----------------------------------------------------------------------------------------------------- projections

JOIN = """nodes: {{a: {{block: {block}}}, t: identity}}
flow: input -> a -> t
edges: [{{from: input, to: t, slot: output, projection: {projection}}}]
"""


def project(block: str, projection: str, size: tuple[int, ...]) -> list[str]:
    return on_edge(calls(JOIN.format(block=block, projection=projection), size), "edges.input__t")


def test_equal_shapes_need_no_projection() -> None:
    assert project("relu", "standard", (4, 8, 8)) == []


def test_when_always() -> None:
    assert project("relu", "{when: always}", (4, 8, 8)) == ["conv2d width=4 kernel_size=1 bias=False", "batch_norm"]
    assert project("relu", "{when: always, channels: none}", (4, 8, 8)) == ["batch_norm"]
    assert project("relu", "{when: always, channels: none, norm: none}", (4, 8, 8)) == []


@pytest.mark.parametrize(
    ("size", "stride", "pool"),
    [
        ((8, 8), 2, "avg_pool kernel_size=2"),
        ((7, 7), 2, "avg_pool kernel_size=2 ceil_mode=True"),
        ((7, 8), 2, "avg_pool kernel_size=2 ceil_mode=True"),
        ((7, 1), 2, "avg_pool kernel_size=(2, 1) ceil_mode=True"),
        ((9, 12), 3, "avg_pool kernel_size=3"),
        ((10, 11), 3, "avg_pool kernel_size=3 ceil_mode=True"),
        ((5, 7), 2, "avg_pool kernel_size=2 ceil_mode=True"),
    ],
)
def test_pooling_rounds_as_the_target_does(size: tuple[int, int], stride: int, pool: str) -> None:
    block = f"conv, width: 4, stride: {stride}"
    assert project(block, "{channels: none, norm: none}", (4, *size))[0] == pool
    floor = [s // stride for s in size]
    if all(floor):
        made = project(f"pool, kernel_size: {stride}", "{channels: none, norm: none}", (4, *size))
        assert made == [f"avg_pool kernel_size={stride}"]


def test_pooling_7_to_4_gives_the_means_of_windows_that_fit() -> None:
    x = image(4, 7, 7)
    text = JOIN.format(block="conv2d, width: 4, stride: 2, bias: false", projection="{channels: none, norm: none}")
    made = net(text, (4, 7, 7)).build().eval()
    with torch.no_grad():
        made.a.weight.zero_()
        assert torch.equal(made(x), F.avg_pool2d(x, 2, ceil_mode=True))
        assert torch.allclose(made(x)[:, :, 3, 3], x[:, :, 6, 6])


def test_a_projection_changes_size_then_channels_then_norm() -> None:
    made = project("conv, width: 8, stride: 2", "{spatial: max, norm: group}", (4, 8, 8))
    assert made == ["max_pool kernel_size=2", "conv2d width=8 kernel_size=1 bias=False", "group_norm"]


def test_stride_and_conv1x1_become_one_convolution() -> None:
    made = project("conv, width: 8, stride: 2", "{spatial: stride}", (4, 7, 8))
    assert made == ["conv2d width=8 kernel_size=1 stride=2 bias=False", "batch_norm"]


def test_stride_and_pad_take_every_second_pixel_and_add_zeros() -> None:
    projection = "{spatial: stride, channels: pad, norm: none}"
    assert project("conv, width: 9, stride: 2", projection, (4, 7, 8)) == [
        "subsample",
        "pad_channels width=9",
    ]
    x = image(4, 7, 8)
    made = net(JOIN.format(block="conv2d, width: 9, stride: 2, bias: false", projection=projection), (4, 7, 8)).build()
    with torch.no_grad():
        made.a.weight.zero_()
        assert torch.equal(made(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3)))


def test_slice_takes_the_first_channels() -> None:
    projection = "{channels: slice, norm: none}"
    assert project("conv, width: 2", projection, (4, 8, 8)) == ["slice_channels width=2"]
    x = image(4, 4, 4)
    made = net(JOIN.format(block="conv2d, width: 2, bias: false", projection=projection), (4, 4, 4)).build()
    with torch.no_grad():
        made.a.weight.zero_()
        assert torch.equal(made(x), x[:, :2])


def test_adaptive_pools_to_any_size() -> None:
    made = project("conv2d, width: 4, kernel_size: 4, padding: 0", "{spatial: adaptive, norm: none}", (4, 8, 9))
    assert made[0] == "adaptive_avg_pool size=(5, 6)"


UP = "upsample, mode: deconv, width: 6, scale: 3"


def test_upsampling_comes_last() -> None:
    made = project(UP, "{spatial: nearest}", (4, 2, 3))
    assert made == ["conv2d width=6 kernel_size=1 bias=False", "batch_norm", "resize size=(6, 9)"]
    made = project(UP, "{spatial: bilinear, norm: none}", (4, 2, 3))
    assert made == ["conv2d width=6 kernel_size=1", "resize mode=bilinear size=(6, 9)"]
    made = project(UP, "{spatial: deconv, norm: layer}", (4, 2, 3))
    assert made[-1] == "conv_transpose2d width=6 kernel_size=3 stride=3"


@pytest.mark.parametrize(("size", "want"), [((2, 3), (4, 5)), ((3, 3), (7, 7)), ((2, 2), (3, 4)), ((4, 4), (7, 8))])
def test_deconv_to_odd_sizes(size: tuple[int, int], want: tuple[int, int]) -> None:
    text = f"""nodes: {{a: {{block: resize, size: [{want[0]}, {want[1]}]}}, t: identity}}
flow: input -> a -> t
edges: [{{from: input, to: t, projection: {{spatial: deconv, norm: none}}}}]
"""
    assert run(text, image(4, *size)).shape[2:] == want


def test_a_projection_by_name_has_its_defaults() -> None:
    assert project("conv, width: 8, stride: 2", "standard", (4, 8, 8)) == [
        "avg_pool kernel_size=2",
        "conv2d width=8 kernel_size=1 bias=False",
        "batch_norm",
    ]


def test_no_norm_gives_the_convolution_a_bias() -> None:
    assert project("conv, width: 8", "{norm: none}", (4, 8, 8)) == ["conv2d width=8 kernel_size=1"]


# ----------------------------------------------------------------------------------------------------------- merges

MANY = """nodes: {{a: {{block: scale}}, b: {{block: scale}}, c: {{block: scale}}, t: identity}}
flow: input -> a -> b -> c -> t
edges: [{{from: [input, a, b], to: t, slot: {slot}, merge: {merge}}}]
"""


@pytest.mark.parametrize("slot", ["input", "output"])
def test_the_nearest_operand_comes_first(slot: str) -> None:
    made = calls(MANY.format(merge="add", slot=slot))
    assert made[f"t.{slot}.add"].inputs == ("c", "b", "a", "input")


def test_concatenation_keeps_the_order_and_the_channels() -> None:
    text = """nodes:
  a: {block: conv, width: 2}
  b: {block: conv, width: 5, stride: 2}
  t: {block: identity, merge: concat}
flow: input -> a -> b -> t
edges: [{from: [input, a], to: t, projection: {channels: none, norm: none}}]
"""
    made = calls(text)
    assert made["t.input.concat"].inputs == ("b.relu", "edges.a__t.pool", "edges.input__t.pool")
    assert tuple(made["t.input.concat"].shape) == (5 + 2 + 3, 4, 4)


def test_the_order_of_a_merge() -> None:
    made = calls(MANY.format(merge="{kind: concat, order: [input, c]}", slot="input"))
    assert made["t.input.concat"].inputs == ("input", "c", "b", "a")


def test_an_order_may_name_a_node_whose_edge_a_variant_left_out() -> None:
    text = MANY.format(merge="{kind: concat, order: [input, c]}", slot="input").replace("[input, a, b]", "[a, b]")
    assert calls(text)["t.input.concat"].inputs == ("c", "b", "a")
    unet = hrg.load("unet")
    assert unet.with_edges("none").cost().parameters < unet.cost().parameters


@pytest.mark.parametrize("merge", ["add", "mean", "multiply", "weighted", "gated"])
def test_what_merges_compute(merge: str) -> None:
    x = image(2, 3, 3)
    text = "nodes: {a: tanh, b: sigmoid, t: identity}\nflow: [input -> a -> t, a -> b]\n"
    text += f"edges: [{{from: [b, input], to: t, merge: {merge}}}]\n"
    a = torch.tanh(x)
    b = torch.sigmoid(a)
    half = torch.tensor(0.5)
    expected = {
        "add": a + b + x,
        "mean": (a + b + x) / 3,
        "multiply": a * b * x,
        "weighted": a + b + x,
        # Every gate is initially half open.
        "gated": a * half + b * half + x * half,
    }[merge]
    assert torch.equal(run(text, x), expected)


def test_a_single_value_is_not_weighed() -> None:
    alone = "nodes: {a: relu, t: {block: identity, merge: weighted}}\nflow: a -> t\n"
    assert net(alone).cost().parameters == 0
    assert net(MANY.format(merge="weighted", slot="input")).cost().parameters == 3 + 4


def test_a_product_broadcasts_one_channel_and_one_pixel() -> None:
    text = """nodes:
  a: {block: conv, width: 5}
  m: {block: conv2d, width: 1}
  p: {block: adaptive_avg_pool}
  t: {block: identity, merge: multiply}
flow: [input -> a -> t, input -> m -> t, a -> p -> t]
"""
    made = calls(text)
    assert made["t.input.multiply"].inputs == ("a.relu", "m", "p")
    assert tuple(made["t.input.multiply"].shape) == (5, 8, 8)


def test_gates_multiply_after_the_projection() -> None:
    text = """nodes:
  a: {block: conv, width: 6, stride: 2}
  p: {block: adaptive_avg_pool}
  g: {block: conv, width: 6, kernel_size: 1, norm: none, activation: sigmoid}
  t: identity
flow: [input -> a -> t, input -> p -> g]
edges: [{from: input, to: t, slot: output, projection: standard, gate: g}]
"""
    made = calls(text)
    assert made["edges.input__t.gate"].inputs == ("edges.input__t.norm", "g.sigmoid")
    assert made["t.output.add"].inputs == ("a.relu", "edges.input__t.gate")


def test_slots_of_a_residual_block() -> None:
    text = """nodes: {{a: {{block: basic, width: 4}}, b: {{block: basic, width: 4}}}}
flow: input -> a -> b
edges: [{{from: input, to: b, slot: {slot}, projection: {{channels: pad, norm: none}}}}]
"""
    made = {slot: calls(text.format(slot=slot)) for slot in ("input", "residual", "output")}
    assert made["input"]["b.input.add"].inputs == ("a.relu2", "edges.input__b.pad")
    assert made["input"]["b.conv1"].inputs == ("b.input.add",)
    # The block's own shortcut comes first, then the edges; the activation is after the sum.
    assert made["residual"]["b.residual.add"].inputs == ("b.norm2", "a.relu2", "edges.input__b.pad")
    assert made["residual"]["b.relu2"].inputs == ("b.residual.add",)
    assert made["output"]["b.output.add"].inputs == ("b.relu2", "edges.input__b.pad")


def test_the_residual_slot_of_a_plain_block_is_before_its_last_activation() -> None:
    text = """nodes: {a: {block: plain, width: 3}}
edges: [{from: input, to: a, slot: residual}]
flow: input -> a
"""
    made = calls(text)
    assert made["a.residual.add"].inputs == ("a.norm2", "input")
    assert made["a.relu2"].inputs == ("a.residual.add",)


# ------------------------------------------------------------------------------------------------- parts and patches


def test_a_part_of_a_block_as_a_source() -> None:
    text = """nodes: {a: {block: basic, width: 4, depth: 2}, t: {block: identity}}
flow: a -> t
edges: [{from: a.block1.conv2, to: t, slot: output}, {from: a.block2.residual.add, to: t, slot: output, name: sum}]
"""
    made = calls(text)
    assert made["t.output.add"].inputs == ("a.block2.relu2", "a.block2.residual.add", "a.block1.conv2")


def test_a_part_of_a_written_block_as_a_source() -> None:
    text = """blocks: {cell: {nodes: {x: {block: conv, width: 3}, y: relu}, flow: x -> y}}
nodes: {a: cell, t: identity}
flow: a -> t
edges: [{from: a.x.conv, to: t}, {from: a.x, to: t, name: whole}]
"""
    assert calls(text)["t.input.add"].inputs == ("a.y", "a.x.relu", "a.x.conv")


def test_patches_of_parts() -> None:
    text = """nodes:
  s: {block: basic, width: 4, depth: 2}
  s.block2.conv1: {kernel_size: 5}
  "s.*.conv2": {bias: true}
  "*.block1.norm*": {eps: 0.01}
"""
    made = calls(text)
    assert getattr(made["s.block1.conv1"].op, "kernel_size", 0) == 3
    assert getattr(made["s.block2.conv1"].op, "kernel_size", 0) == 5
    assert [getattr(made[f"s.block{i}.conv2"].op, "bias", None) for i in (1, 2)] == [True, True]
    assert [getattr(made[f"s.block{i}.norm1"].op, "eps", 0) for i in (1, 2)] == [0.01, 1e-5]


def test_exact_patches_of_parts_override_patterns_in_any_order() -> None:
    text = """nodes:
  s: {block: basic, width: 4, depth: 2}
  s.block1.conv1: {kernel_size: 5}
  "s.*.conv1": {kernel_size: 1}
"""
    made = calls(text)
    assert [getattr(made[f"s.block{i}.conv1"].op, "kernel_size", 0) for i in (1, 2)] == [5, 1]


def test_a_pattern_of_parts_need_not_match_in_every_block() -> None:
    text = """nodes:
  s: {block: basic, width: 6, depth: 2}
  "s.*.shortcut.conv": {bias: true}
"""
    made = calls(text)
    assert getattr(made["s.block1.shortcut.conv"].op, "bias", None) is True
    assert "s.block2.shortcut.conv" not in made


def test_a_pattern_of_nodes_need_not_match_parts_of_other_nodes() -> None:
    """`*.block1` names the first block of each stage; a written block without such a part is left alone."""
    text = """blocks: {cell: {nodes: {x: {block: conv, width: 4}}}}
nodes:
  s: {block: basic, width: 4, depth: 2}
  c: cell
  "*.block1": {hidden: 3}
flow: s -> c
"""
    made = calls(text)
    assert [made[f"s.block{i}.conv1"].shape.channels for i in (1, 2)] == [3, 4]
    with pytest.raises(SpecError, match=r"there is no part 'y' to patch"):
        plan(text.replace("*.block1", "c.y"))


def test_the_shortcut_of_a_block_is_recorded_as_an_edge_without_delay() -> None:
    shortcuts = [edge for edge in plan("nodes: {s: {block: basic, width: 4}}\n").edges if edge.family == "shortcut"]
    (found,) = shortcuts
    assert (found.name, found.source, found.target, found.ends) == ("s.shortcut", "s", "s", ("s", "s"))
    assert (found.slot, found.merge, found.delay, found.gate, found.at) == ("residual", "add", 0, "", None)
    assert found.projection == "stride, conv1x1, batch"


CELL = """blocks:
  inner: {params: {width: 2}, nodes: {c: {block: conv, width: $width}}}
  cell: {params: {width: 4}, nodes: {x: {block: basic, width: $width, depth: 2}, y: {block: inner}}, flow: x -> y}
nodes:
  a: {block: cell, depth: 2}
"""


@pytest.mark.parametrize(
    ("patch", "call", "field", "value"),
    [
        ("a.block1.x.block2: {hidden: 7}", "a.block1.x.block2.conv1", "width", 7),
        ("a.block1.x: {hidden: 7}", "a.block1.x.block1.conv1", "width", 7),
        ("a.block2.x.block1.conv1: {bias: true}", "a.block2.x.block1.conv1", "bias", True),
        ("a.block1.y: {width: 5}", "a.block1.y.c.conv", "width", 5),
        ("a.block1.y.c: {kernel_size: 1}", "a.block1.y.c.conv", "kernel_size", 1),
        ("a.block1.y.c.conv: {dilation: 2}", "a.block1.y.c.conv", "dilation", 2),
        ("a.block2: {width: 6}", "a.block2.x.block1.conv1", "width", 6),
        ('"a.*.y": {width: 5}', "a.block2.y.c.conv", "width", 5),
    ],
)
def test_patches_inside_written_blocks(patch: str, call: str, field: str, value: object) -> None:
    assert getattr(calls(CELL)[call].op, field) != value
    made = calls(CELL + f"  {patch}\n")
    assert getattr(made[call].op, field) == value


def test_a_patch_of_a_written_block_may_name_its_params_only() -> None:
    with pytest.raises(SpecError, match=r"unknown key 'widht'\. Did you mean 'width'\?"):
        plan(CELL + "  a.block1.y: {widht: 5}\n")
    with pytest.raises(SpecError, match=r"there is no part 'z' to patch\. 'cell' has the parts "):
        plan(CELL + "  a.block1.z: {width: 5}\n")


# ---------------------------------------------------------------------------------------------------------- weights


def test_a_tied_stage_shares_weights_but_not_norms() -> None:
    text = "nodes: {{s: {{block: basic, width: 3, depth: 3, weights: shared{more}}}}}\n"
    made = net(text.format(more=""))
    names = set(made.plan.tensors())
    assert {name for name in names if "conv" in name} == {"s.conv1.weight", "s.conv2.weight"}
    assert {name.rsplit(".", 1)[0] for name in names if "norm" in name} == {
        f"s.block{i}.norm{j}" for i in (1, 2, 3) for j in (1, 2)
    }
    once = net(text.format(more=", per_step: none"))
    assert {name.rsplit(".", 1)[0] for name in once.plan.tensors()} == {"s.conv1", "s.conv2", "s.norm1", "s.norm2"}
    assert made.cost().parameters - once.cost().parameters == 4 * 2 * 3


def test_a_tied_stage_may_have_a_stride_and_a_projection_in_its_first_block() -> None:
    made = net("nodes: {s: {block: basic, width: 3, depth: 2, weights: shared, stride: 2}}\n")
    strides = {call.name: getattr(call.op, "stride", 1) for call in made.plan.calls if call.op.kind == "conv2d"}
    assert strides.pop("s.block1.shortcut.conv") == 2
    assert strides == {"s.block1.conv1": 2, "s.block1.conv2": 1, "s.block2.conv1": 1, "s.block2.conv2": 1}
    assert "s.shortcut.conv.weight" in made.plan.tensors()


def test_one_weight_called_with_two_strides() -> None:
    text = """nodes: {a: {block: conv2d, width: 3, weights: w}, b: {block: conv2d, width: 3, stride: 2, weights: w}}
flow: a -> b
"""
    x = image(3, 7, 7)
    made = net(text, (3, 7, 7)).build(seed=1)
    assert set(made.state_dict()) == {"w.weight", "w.bias"}
    weight, bias = made.state_dict().values()
    assert torch.equal(made(x), F.conv2d(F.conv2d(x, weight, bias, padding=1), weight, bias, stride=2, padding=1))


def test_named_weights_are_global_even_inside_written_blocks() -> None:
    text = """blocks: {cell: {nodes: {x: {block: conv2d, width: 3, weights: w}}}}
nodes: {a: cell, b: cell, c: {block: conv2d, width: 3, weights: w}}
flow: a -> b -> c
"""
    assert set(plan(text).tensors()) == {"w.weight", "w.bias"}


def test_weights_of_written_blocks_are_named_below_their_node() -> None:
    text = """blocks:
  cell:
    nodes: {x: {block: conv2d, width: 3}, y: relu}
    flow: x -> y
    edges: [{from: x, to: y, slot: output, projection: {when: always, norm: none}}]
nodes: {a: cell, s: {block: cell, depth: 2, weights: shared}}
flow: a -> s
"""
    assert set(plan(text).tensors()) == {
        f"{owner}.{name}.{tensor}"
        for owner in "as"
        for name in ("x", "edges.x__y.conv")
        for tensor in ("weight", "bias")
    }


# ---------------------------------------------------------------------------------------------------------- records


def test_records_describe_the_nodes_and_edges_of_the_spec() -> None:
    text = """nodes:
  stem: {block: conv, width: 4}
  s: {block: basic, width: 8, depth: 2, stride: 2}
  h: {block: classifier, classes: 2}
flow: stem -> s -> h
skips: {edges: [stem>s]}
"""
    made = plan(text)
    assert [(node.name, node.block, str(node.shape), node.stage) for node in made.nodes] == [
        ("input", "input", "3x8x8", ""),
        ("stem", "conv", "4x8x8", ""),
        ("s.block1", "basic", "8x4x4", "s"),
        ("s.block2", "basic", "8x4x4", "s"),
        ("h", "classifier", "2", ""),
    ]
    skip = next(edge for edge in made.edges if edge.family == "skip")
    assert (skip.name, skip.source, skip.target, skip.ends) == ("edges.stem__s", "stem", "s.block2", ("stem", "s"))
    assert (skip.slot, skip.merge, skip.projection) == ("output", "add", "avg, conv1x1, batch")
    shortcuts = [edge for edge in made.edges if edge.family == "shortcut"]
    assert [(edge.name, edge.projection) for edge in shortcuts] == [
        ("s.block1.shortcut", "stride, conv1x1, batch"),
        ("s.block2.shortcut", ""),
    ]
    owners = {call.owner for call in made.calls}
    assert owners == {"stem", "s.block1", "s.block2", "h", "edges.stem__s", "s.block1.shortcut"}


def test_every_automatic_call_has_the_line_that_caused_it() -> None:
    text = "nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 8}}\nflow: a -> b\nskips: {edges: [a>b]}\n"
    made = calls(text)
    assert str(made["edges.a__b.conv"].origin) == "net.yaml:6:16 (skips.edges)"
    assert str(made["b.output.add"].origin) == "net.yaml:4:40 (nodes.b)"


def test_all_errors_of_shapes_are_reported_together() -> None:
    text = """nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 6, groups: 4}
  c: {block: linear, width: 2}
  t: identity
flow: [input -> a -> t, input -> b -> t, input -> c -> t]
edges: [{from: input, to: a, slot: output}]
"""
    with pytest.raises(SpecError) as caught:
        plan(text)
    assert [problem.path for problem in caught.value.problems] == ["nodes.b", "nodes.c", "edges[0]"]


def test_an_error_of_a_stage_is_reported_once() -> None:
    with pytest.raises(SpecError) as caught:
        plan("nodes: {s: {block: conv, width: 6, groups: 4, depth: 3}}\n")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("time", ["", "edges: [{from: s, to: s, delay: 1}]\ntime: {steps: 3}\n"])
def test_a_declared_shape_holds_after_the_edges_into_the_output(time: str) -> None:
    text = """nodes:
  pre: {block: conv, width: 4}
  s: {block: state, shape: [4, 8, 8]}
flow: pre -> s
skips: {edges: [pre>s], slot: output, merge: MERGE}
"""
    with pytest.raises(SpecError) as error:
        _ = plan(text.replace("MERGE", "concat") + time)
    assert str(error.value) == (
        "net.yaml:8:16: skips.edges: the shape of 's' is declared as 4x8x8, but with the edges into its slot 'output' "
        "it is 8x8x8. Use a merge that keeps the shape, like 'add', or merge in a node before it."
    )
    added = plan(text.replace("MERGE", "add") + time)
    assert added.calls[-1].shape.sizes == (4, 8, 8)


def test_the_limit_on_calls_counts_blocks_and_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "nodes: {a: {block: conv, width: 4, depth: 5}}\n"
    monkeypatch.setattr("hiresnet_graph.passes.expansion.state.MAX_CALLS", 18)
    assert len(calls(text)) == 15
    monkeypatch.setattr("hiresnet_graph.passes.expansion.state.MAX_CALLS", 17)
    with pytest.raises(SpecError) as error:
        calls(text)
    (problem,) = error.value.problems
    assert problem.message == "with 'a' the network has more than 17 blocks and operations."
    assert problem.hint == "Make the network smaller."
