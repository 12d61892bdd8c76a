"""`scale`: a factor that belongs to one edge."""

from __future__ import annotations

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.ops import FixedScale, LearnedScale

GATED = """\
name: gated_skip
params: {width: 8, classes: 10}
input: {channels: 3, height: 16, width: 16}
nodes:
  stem: {block: conv, width: $width}
  stage1: {block: basic, width: $width}
  stage2: {block: basic, width: $(2 * width), stride: 2}
  stage3: {block: basic, width: $(2 * width)}
  head: {block: classifier, classes: $classes}
flow: stem -> stage1 -> stage2 -> stage3 -> head
edges:
  - {from: stage1, to: stage3, FACTOR, projection: {spatial: avg, channels: conv1x1}}
"""
TRUNK = GATED[: GATED.index("edges:")]
SKIP = "edges.stage1__stage3"


def gated(factor: str) -> hrg.Architecture:
    return hrg.loads(GATED.replace("FACTOR", factor), "gated.yaml")


def image(net: hrg.Architecture) -> torch.Tensor:
    (shape,) = net.plan.inputs.values()
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def small(edges: str, more: str = "") -> hrg.Architecture:
    return hrg.loads(
        "name: net\ninput: {channels: 3, height: 4, width: 4}\n"
        f"nodes: {{a: tanh, g: sigmoid, t: identity}}\nflow: [input -> a -> t, input -> g]\nedges: [{edges}]\n{more}"
        "outputs: t\n",
        "net.yaml",
    )


# ------------------------------------------------------------------------------------------------ what is computed


@pytest.mark.parametrize(
    ("scale", "op"),
    [
        ("learned", LearnedScale()),
        ("gate", LearnedScale(sigmoid=True)),
        ("-0.5", FixedScale(factor=-0.5)),
        ("2", FixedScale(factor=2)),
        ("{}", LearnedScale()),
        ("{learned: true, init: 0.0}", LearnedScale(init=0)),
        ("{init: 1}", LearnedScale()),
        ("{gate: true, init: -2}", LearnedScale(sigmoid=True, init=-2)),
        ("{learned: false, init: 0.5}", FixedScale(factor=0.5)),
    ],
)
def test_one_operation_on_the_edge_after_its_projection(scale: str, op: object) -> None:
    plain, scaled = hrg.loads(TRUNK).plan, gated(f"scale: {scale}").plan
    made = {call.name: call for call in scaled.calls}
    assert made[f"{SKIP}.scale" if isinstance(op, LearnedScale) else f"{SKIP}.fixed_scale"].op == op
    on_edge = [call.name for call in scaled.calls if call.owner == SKIP]
    assert on_edge == [f"{SKIP}.pool", f"{SKIP}.conv", f"{SKIP}.norm", on_edge[-1]]
    # All that is not on the edge is as before, but for the sum that the edge joins.
    assert {call for call in made if not call.startswith(SKIP)} - {call.name for call in plain.calls} == {
        "stage3.input.add"
    }
    assert made["stage3.input.add"].inputs == ("stage2.relu2", on_edge[-1])


@pytest.mark.parametrize(
    ("scale", "factor"),
    [("learned", 1), ("gate", 0.5), ("0.25", 0.25), ("-3", -3), ("{init: 0}", 0), ("none", 1), ("1", 1)],
)
def test_only_the_edge_is_multiplied(scale: str, factor: float) -> None:
    net = small(f"{{from: input, to: t, scale: {scale}}}")
    x = image(net)
    assert torch.equal(net.build()(x), torch.tanh(x) + factor * x)


def test_a_single_value_at_a_slot_is_scaled_too() -> None:
    net = hrg.loads("name: n\ninput: {channels: 4}\nnodes: {a: identity}\nedges: [{from: input, to: a, scale: 3}]\n")
    x = image(net)
    assert torch.equal(net.build()(x), 3 * x)


def test_none_and_one_are_the_same_network_as_without_a_scale() -> None:
    digests = {gated(f"scale: {scale}").plan.digest() for scale in ("none", "1", "1.0", "null")}
    assert digests == {hrg.loads(GATED.replace("FACTOR, ", "")).plan.digest()}


@pytest.mark.parametrize("slot", ["input", "residual", "output"])
def test_from_zero_the_network_computes_bit_for_bit_what_it_computed_without_the_skips(slot: str) -> None:
    zero = {"skips.scale": {"learned": True, "init": 0.0}, "skips.slot": slot, "width": 4}
    net = hrg.load("hiresnet18").variant("full").override(zero)
    before = hrg.load("hiresnet18").variant("original").override({"width": 4})
    module, old = net.build(3), before.build(3)
    weights = module.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in old.state_dict().items())
    x = image(net)
    for mode in (True, False):
        assert torch.equal(module.train(mode)(x), old.train(mode)(x))
    module.train()(x).square().sum().backward()
    scales = {name: p for name, p in module.named_parameters() if name.endswith(".scale.weight")}
    assert len(scales) == 6 and all(p.item() == 0 for p in scales.values())
    assert all(p.grad is not None and p.grad.item() != 0 for p in scales.values())


def test_dropping_a_scaled_edge_leaves_every_other_initial_weight_as_it_was() -> None:
    net = hrg.load("hiresnet18").override({"width": 4, "skips.scale": "gate"})
    full, fewer = (net.with_edges(edges).build(1).state_dict() for edges in ("full", "full - p2"))
    assert fewer.keys() < full.keys()
    assert all(torch.equal(full[name], value) for name, value in fewer.items())


def test_a_scale_counts_its_parameter_and_no_macs() -> None:
    without, learned, fixed = (gated(f"scale: {scale}").cost() for scale in ("none", "learned", "0.5"))
    assert (learned.parameters, fixed.parameters) == (without.parameters + 1, without.parameters)
    assert learned.macs == fixed.macs == without.macs


# --------------------------------------------------------------------------------------------- gates and merges


def test_a_gate_node_takes_the_place_of_the_learned_gate() -> None:
    edge = "{from: input, to: t, gate: g%s}"
    plain, named = small(edge % ""), small(edge % ", scale: gate")
    assert plain.plan.digest() == named.plan.digest()
    both = small(edge % ", scale: 3")
    x = image(both)
    assert torch.equal(both.build()(x), torch.tanh(x) + (3 * x) * torch.sigmoid(x))


def test_the_scale_of_an_edge_replaces_that_of_the_merge() -> None:
    net = small("{from: input, to: t, merge: gated, scale: none}, {from: g, to: t, scale: 2}")
    x = image(net)
    assert torch.equal(net.build()(x), 0.5 * torch.tanh(x) + 2 * torch.sigmoid(x) + x)


def test_a_merge_with_factors_warns_where_it_reaches_edges_that_do_not_name_it() -> None:
    (warning,) = gated("merge: gated").warnings
    assert str(warning.position) == "gated.yaml:12:5" and warning.path == "edges[0]"
    assert warning.message == "'merge: gated' also gives stage2 -> stage3 a learned gate."
    assert warning.advice == (
        "For a learned gate on this entry alone, write 'scale: gate' in place of the merge. To keep it, set it on the "
        "node 'stage3'."
    )
    assert gated("scale: gate").warnings == () and gated("merge: gated, slot: output").warnings == ()
    assert gated("merge: weighted").override({"stage3.merge": "weighted"}).warnings == ()
    skips = hrg.load("hiresnet18").override({"skips.merge": "weighted"}).variant("full")
    assert skips.warnings == ()
    (warning,) = skips.override({"skips.slot": "input"}).warnings
    assert warning.message == "'merge: weighted' also gives stem -> stage1 and 2 more a learned factor."


# ------------------------------------------------------------------------------------------------------- in specs


def test_patches_templates_and_groups_set_it() -> None:
    text = GATED.replace("FACTOR", "name: e, scale: $(s / 2)").replace("classes: 10}", "classes: 10, s: 1}")
    net = hrg.loads(text + "variants: {open: {edges: [{name: e, from: stem, to: stage3, projection: standard}]}}\n")
    assert _scales(net) == {"edges.e": FixedScale(factor=0.5)}
    assert _scales(net.override({"s": -4})) == {"edges.e": FixedScale(factor=-2)}
    assert _scales(net.variant("open")) == {}
    skips = hrg.load("hiresnet18").variant("in").override({"skips.scale": "learned"})
    assert set(_scales(skips).values()) == {LearnedScale()}
    assert set(_scales(skips.override({"skips.scale.init": 0})).values()) == {LearnedScale(init=0)}
    assert _scales(skips.override({"skips.scale": None})) == {}
    assert hrg.loads(skips.to_yaml()).plan.digest() == skips.plan.digest()


def test_shared_weights_share_the_scale() -> None:
    text = "{from: input, to: t, scale: learned, weights: w}, {from: g, to: t, scale: SECOND, weights: w}"
    tensors = small(text.replace("SECOND", "learned")).plan.tensors()
    assert list(tensors) == ["w.scale.weight"]
    with pytest.raises(
        SpecError, match=r"share the weights 'w.scale', but 'weight' starts from 0 in one and from 1 in the other"
    ):
        _ = small(text.replace("SECOND", "{init: 0}")).plan


def test_an_operation_on_the_edge_may_have_the_name_of_an_operation_in_its_block() -> None:
    inner = "blocks: {w: {nodes: {scale: relu, gate: tanh}, flow: scale -> gate}}\n"
    net = small("{from: input, to: t, block: w, scale: learned, gate: g}", inner)
    x = image(net)
    assert torch.equal(net.build()(x), torch.tanh(x) + torch.tanh(torch.relu(x)) * torch.sigmoid(x))


def test_a_field_of_the_block_that_is_called_scale_is_set_in_blocks() -> None:
    edges = "{from: input, to: t, block: half, scale: learned}"
    net = small(edges, "blocks: {half: {block: batch_norm, scale: 0.5}}\n")
    assert _scales(net) == {"edges.input__t": LearnedScale()}
    (norm,) = [call for call in net.plan.calls if call.op.normalizes]
    assert net.build().state_dict()[f"{norm.weights}.weight"].tolist() == [0.5] * 3
    for block in ("batch_norm", "open"):
        text = edges.replace("half", block)
        with pytest.raises(SpecError) as raised:
            _ = small(text, "blocks: {open: {block: batch_norm}}\n").plan
        (problem,) = raised.value.problems
        column = len("edges: [") + text.index("scale") + 1
        assert (str(problem.position), problem.path) == (f"net.yaml:5:{column}", "edges[0].scale")
        assert f"the block '{block}' has a field of this name, too" in problem.message


def test_the_records_of_edges_and_networkx_have_scale_and_gate() -> None:
    net = small("{from: input, to: t, scale: {init: 0}, gate: g}")
    (edge,) = [edge for edge in net.plan.edges if edge.family == "edge"]
    assert (edge.scale, edge.gate) == (LearnedScale(init=0), "g")
    data = net.to_networkx().edges["input", "t", "edges.input__t"]
    assert (data["scale"], data["gate"]) == ("learned from 0", "g")


def _scales(net: hrg.Architecture) -> dict[str, object]:
    return {edge.name: edge.scale for edge in net.plan.edges if edge.scale is not None}
