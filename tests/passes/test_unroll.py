"""Unrolling: names, operands and weights of the calls of all steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.passes import PASSES, cse, expand, prune, unroll
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Map

HEAD = "name: net\ninput: {channels: 2, height: 8, width: 8}\n"
LOOP = """
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
flow: a -> b
edges: [{from: b, to: b, delay: 1}]
"""

LATER = LOOP.replace("flow: a -> b", "outputs: b\nflow: input -> a").replace("from: b, to: b", "from: a, to: b")
"""At step 0, b is empty."""


def network(text: str = LOOP, **time: Any) -> hrg.Architecture:
    net = hrg.loads(HEAD + text + ("" if "\ntime:" in text else "time: {steps: 3}\n"), "net.yaml")
    return net.override({f"time.{key}": value for key, value in time.items()})


def reads(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Call -> its operands."""
    return {call.name: call.inputs for call in plan.calls}


def weights(plan: Plan) -> dict[str, str]:
    """Call -> its weights, for calls with tensors."""
    return {call.name: call.weights for call in plan.calls if call.tensors}


def tensors(plan: Plan, end: str = "") -> list[str]:
    return sorted(name for name in plan.tensors() if name.endswith(end))


# --------------------------------------------------------------------------------------------------------- as a pass


def test_a_graph_without_time_is_returned_itself() -> None:
    graph = expand(hrg.load("resnet20").graph)
    assert unroll(graph) is graph


def test_unrolling_is_idempotent_and_leaves_its_input_unchanged() -> None:
    folded = expand(network().graph)
    before = ([*folded.nodes], dict(folded.outputs), folded.records)
    flat = unroll(folded)
    assert unroll(flat) is flat
    assert ([*folded.nodes], dict(folded.outputs), folded.records) == before
    assert flat.folded is folded and flat.time is None


def test_the_result_is_valid_and_has_no_delays() -> None:
    flat = unroll(expand(network().graph))
    flat.check()
    assert all(node.delay == 0 for node in flat.nodes)
    assert not any("@" in node.name for node in flat.nodes)
    assert all(node.at is None and node.role == "call" for node in flat.nodes if node.op is not None)


def test_the_order_of_passes() -> None:
    assert list(PASSES) == [unroll, cse, prune]


# --------------------------------------------------------------------------------------------------- calls and values


def test_every_step_has_its_calls_which_read_earlier_steps() -> None:
    plan = network(per_step="none").plan
    found = reads(plan)
    assert found["b.conv.step0"] == ("a.relu.step0",)
    assert found["b.input.add.step1"] == ("a.relu.step1", "b.relu.step0")
    assert found["b.conv.step2"] == ("b.input.add.step2",)
    assert plan.outputs == {"b": "b.relu.step2"}
    assert [call.step for call in plan.calls if call.op.kind == "add"] == [1, 2]
    assert all(call.name.endswith(f".step{call.step}") for call in plan.calls)


def test_a_sum_of_one_value_is_omitted() -> None:
    plan = network().plan
    assert "b.input.add.step0" not in reads(plan)


def test_a_constant_value_is_computed_once() -> None:
    """The input is constant, and so is a convolution of it; a batch norm counts its batches."""
    plan = network(per_step="none", input="every").plan
    assert [call.name for call in plan.calls if call.weights == "a.conv"] == ["a.conv.step0"]
    assert [call.step for call in plan.calls if call.weights == "a.norm"] == [0, 1, 2]


def test_an_input_at_the_first_step_only() -> None:
    plan = network(input="first").plan
    found = reads(plan)
    assert {call.step for call in plan.calls if call.owner == "a"} == {0}
    assert found["b.conv.step1"] == ("b.relu.step0",)


def test_a_sequence_is_read_step_by_step() -> None:
    plan = network(input="sequence").plan
    assert tuple(plan.inputs["input"]) == (3, 2, 8, 8)
    assert reads(plan)["a.conv.step2"] == ("input.step2",)
    assert [call.step for call in plan.calls if call.op.kind == "frame"] == [0, 1, 2]


def test_a_delay_reads_an_earlier_step() -> None:
    plan = network(LOOP.replace("delay: 1", "delay: 2"), steps=4).plan
    assert reads(plan)["b.input.add.step3"] == ("a.relu.step3", "b.relu.step1")
    assert "b.input.add.step1" not in reads(plan)


def test_two_edges_from_one_source_may_have_different_delays() -> None:
    text = LOOP.replace("delay: 1}", "delay: 1}, {from: b, to: b, delay: 2, name: slow}")
    assert reads(network(text).plan)["b.input.add.step2"] == ("a.relu.step2", "b.relu.step1", "b.relu.step0")


def test_an_edge_is_open_at_its_steps_only() -> None:
    plan = network(LOOP.replace("delay: 1", "delay: 1, at: [1, 3]"), steps=4).plan
    assert [call.step for call in plan.calls if call.op.kind == "add"] == [3]  # the value of step 1 is lost at step 2
    plan = network(LOOP.replace("delay: 1", "delay: 1, at: 3"), steps=4).plan
    assert reads(plan)["b.input.add.step3"] == ("a.relu.step3", "b.relu.step2")


def test_zeros_replace_missing_values() -> None:
    text = LATER.replace("delay: 1}]", "delay: 1}, {from: b, to: b, delay: 1}]")
    plan = network(text, empty="zeros", per_step="none").plan
    zeros = [call for call in plan.calls if call.op.kind == "zeros"]
    assert [(call.name, call.inputs, call.shape) for call in zeros] == [("input.zeros4x8x8", ("input",), Map(4, 8, 8))]
    assert reads(plan)["b.conv.step0"] == ("input.zeros4x8x8",)
    assert reads(plan)["b.input.add.step1"] == ("a.relu.step0", "b.relu.step0")
    assert "b.input.add.step0" not in reads(plan)  # zeros are omitted from sums
    assert not any(call.op.kind == "zeros" for call in network(text, empty="skip").plan.calls)


def test_zeros_replace_the_value_after_the_operation_of_an_edge() -> None:
    text = LOOP.replace("delay: 1}", "delay: 1, block: conv, width: 4}")
    plan = network(text, empty="zeros", per_step="none").plan
    assert [call.step for call in plan.calls if call.weights == "edges.b__b.conv"] == [1, 2]


def test_a_concatenation_takes_zeros_for_missing_values_in_both_modes() -> None:
    text = """
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4, merge: concat}}
flow: a -> b
edges: [{from: a, to: b, delay: 1, projection: {channels: none, norm: none}, name: before}]
"""
    for empty in ("skip", "zeros"):
        plan = network(text, empty=empty, readout="all", per_step="none").plan
        assert reads(plan)["b.input.concat.step0"] == ("a.relu.step0", "input.zeros4x8x8")
        assert reads(plan)["b.input.concat.step1"] == ("a.relu.step1", "a.relu.step0")


def test_other_merges_omit_missing_values() -> None:
    text = LOOP.replace("delay: 1", "delay: 1, merge: mean")
    plan = network(text).plan
    assert {call.name: len(call.inputs) for call in plan.calls if call.op.kind == "mean"} == {
        "b.input.mean.step1": 2,
        "b.input.mean.step2": 2,
    }
    zeros = network(text, empty="zeros").plan
    assert {call.name: len(call.inputs) for call in zeros.calls if call.op.kind == "mean"} == {
        "b.input.mean.step0": 2,
        "b.input.mean.step1": 2,
        "b.input.mean.step2": 2,
    }


# ------------------------------------------------------------------------------------------------------------ readouts


def test_the_last_step_is_read_by_default() -> None:
    assert network(steps=5).plan.outputs == {"b": "b.relu.step4"}
    assert network(steps=5, readout=2).plan.outputs == {"b": "b.relu.step2"}


def test_steps_after_the_readout_are_not_computed() -> None:
    plan = network(steps=5, readout=2).plan
    assert max(call.step or 0 for call in plan.calls) == 2
    assert plan.digest() != network(steps=3).plan.digest() or tensors(plan) == tensors(network(steps=3).plan)
    assert plan.canonical()["calls"] == network(steps=3).plan.canonical()["calls"]


def test_all_steps_are_stacked() -> None:
    plan = network(LATER, readout="all").plan
    (call,) = [call for call in plan.calls if call.op.kind == "stack"]
    assert call.name == plan.outputs["b"] == "b.steps"
    assert call.inputs == ("b.relu.step1", "b.relu.step2")  # at step 0 it is empty
    assert call.shape == Map(4, 8, 8, steps=2) and call.step is None
    zeros = network(LATER, readout="all", empty="zeros").plan
    assert zeros.calls[-1].shape == Map(4, 8, 8, steps=3)


def test_several_outputs_have_one_readout() -> None:
    plan = network(LOOP + "outputs: [a, b]\n", readout="all").plan
    assert plan.outputs == {"a": "a.steps", "b": "b.steps"}


def test_an_output_that_is_empty_at_its_readout_is_an_error() -> None:
    text = LOOP.replace("a -> b", "input -> a").replace(
        "{from: b, to: b, delay: 1}", "{from: a, to: b, at: [0, 1, 2, 4, 6]}"
    )
    with pytest.raises(SpecError, match=r"nodes\.b: the output 'b' holds no value at its readout, step 7\. ") as caught:
        _ = network(text, steps=8).plan
    assert "It holds one at steps 0 to 2, 4 and 6." in str(caught.value)
    assert "'readout'" in caught.value.problems[0].hint


# -------------------------------------------------------------------------------------------------------------- copies

COPIES: Mapping[str, tuple[str, ...]] = {
    "none": ("b.conv.weight", "b.norm.running_mean", "b.norm.weight"),
    "norm_stats": (
        "b.conv.weight",
        "b.norm.stats.step0.running_mean",
        "b.norm.stats.step1.running_mean",
        "b.norm.stats.step2.running_mean",
        "b.norm.weight",
    ),
    "norm": (
        "b.conv.weight",
        "b.norm.step0.running_mean",
        "b.norm.step0.weight",
        "b.norm.step1.running_mean",
        "b.norm.step1.weight",
        "b.norm.step2.running_mean",
        "b.norm.step2.weight",
    ),
    "all": (
        "b.conv.step0.weight",
        "b.conv.step1.weight",
        "b.conv.step2.weight",
        "b.norm.step0.running_mean",
        "b.norm.step0.weight",
        "b.norm.step1.running_mean",
        "b.norm.step1.weight",
        "b.norm.step2.running_mean",
        "b.norm.step2.weight",
    ),
}


@pytest.mark.parametrize("level", COPIES)
def test_which_tensors_have_a_copy_for_each_step(level: str) -> None:
    def of_b(net: hrg.Architecture) -> tuple[str, ...]:
        ends = (".weight", ".running_mean")
        return tuple(name for name in tensors(net.plan) if name.startswith("b.") and name.endswith(ends))

    assert of_b(network(per_step=level)) == COPIES[level]
    for other in COPIES:  # the setting of a node overrides that of the network
        text = LOOP.replace("b: {block: conv", f"b: {{per_step: {level}, block: conv")
        assert of_b(network(text, per_step=other)) == COPIES[level]


def test_all_tensors_of_norms_have_copies_by_default() -> None:
    assert network().plan.digest() == network(per_step="norm").plan.digest()
    assert network().plan.digest() != network(per_step="norm_stats").plan.digest()


def test_an_edge_may_set_per_step() -> None:
    text = LOOP.replace("delay: 1}", "delay: 1, block: conv, width: 4, per_step: all}")
    assert tensors(network(text, per_step="none").plan, "conv.step2.weight") == ["edges.b__b.conv.step2.weight"]


def test_group_norms_have_copies_but_no_statistics() -> None:
    text = LOOP.replace("b: {block: conv", "b: {norm: group, block: conv")
    named = {level: tensors(network(text, per_step=level).plan, "weight") for level in COPIES}
    assert "b.norm.weight" in named["norm_stats"] and "b.norm.step1.weight" in named["norm"]


def test_only_steps_that_need_a_copy_have_one() -> None:
    plan = network(input="first", steps=4).plan
    assert tensors(plan, "norm.step0.weight") == ["a.norm.step0.weight", "b.norm.step0.weight"]
    assert tensors(plan, "norm.step3.weight") == ["b.norm.step3.weight"]


def test_shared_weights_share_their_copies() -> None:
    text = """
nodes: {a: {block: conv, width: 2}, b: {block: conv, width: 2}, c: {block: conv, width: 2, weights: w}}
flow: a -> b -> c
edges: [{from: c, to: b, delay: 1, block: conv, width: 2, weights: w}]
"""
    found = weights(network(text, input="first").plan)
    assert found["edges.c__b.norm.step1"] == found["c.norm.step1"] == "w.norm.step1"
    assert found["edges.c__b.conv.step2"] == found["c.conv.step0"] == "w.conv"


def test_a_tied_stage_has_norms_for_each_block_and_step() -> None:
    text = "nodes: {s: {block: conv, width: 2, depth: 2, weights: shared}}\nedges: [{from: s, to: s, delay: 1}]\n"
    found = weights(network(text, steps=2).plan)
    assert set(found.values()) == {
        "s.conv",
        "s.block1.norm.step0",
        "s.block1.norm.step1",
        "s.block2.norm.step0",
        "s.block2.norm.step1",
    }
    none = weights(network(text.replace("shared", "shared, per_step: none"), steps=2).plan)
    assert set(none.values()) == {"s.conv", "s.norm.step0", "s.norm.step1"}


def test_norms_start_at_the_scale_of_time() -> None:
    text = LOOP.replace(
        "nodes:", "nodes:\n  n: {block: batch_norm, scale: 0.5}\n  g: {block: group_norm}\n  e: relu"
    ).replace("a -> b", "a -> n -> g -> e -> b")
    for level in ("norm", "norm_stats"):
        plan = network(text, norm_scale=0.1, per_step=level).plan
        scales = {
            call.weights: getattr(call.op, "scale", None)
            for call in plan.calls
            if call.op.normalizes and any(tensor.trainable for tensor in call.tensors)
        }
        own = {name: scale for name, scale in scales.items() if name.startswith("n")}
        assert set(own.values()) == {0.5}
        assert {scale for name, scale in scales.items() if name not in own} == {0.1}


def test_removing_an_edge_adds_no_copy() -> None:
    text = LOOP.replace("delay: 1}", "delay: 1}, {from: a, to: b, delay: 2, projection: {when: always}}")
    with_edge, without = network(text, steps=4).plan, network(steps=4).plan
    assert set(without.tensors()) < set(with_edge.tensors())


# -------------------------------------------------------------------------------------------------------------- records


def test_records_refer_to_the_last_step() -> None:
    plan = network(steps=4).plan
    assert {node.name: node.value for node in plan.nodes} == {
        "input": "input",
        "a": "a.relu.step3",
        "b": "b.relu.step3",
    }
    assert {edge.name: edge.delay for edge in plan.edges} == {"flow.input__a": 0, "flow.a__b": 0, "edges.b__b": 1}
    assert plan.folded is not None and plan.folded.time is not None and plan.folded.time.steps == 4


def test_a_node_that_no_output_depends_on_has_no_record() -> None:
    text = LOOP.replace("edges: [", "outputs: b\nedges: [{from: c, to: b, delay: 5}, ").replace(
        "nodes:", "nodes:\n  c: {block: conv, width: 4}"
    )
    text = text.replace("flow: a -> b", "flow: [input -> a -> b, input -> c]")
    assert [node.name for node in network(text).plan.nodes] == ["input", "a", "b"]
    assert [node.name for node in network(text, steps=6).plan.nodes] == ["input", "c", "a", "b"]


# ------------------------------------------------------------------------------------------------------ time in a block

NESTED = """
blocks:
  again:
    params: {times: 3}
    nodes: {u: {block: conv, width: 2}, x: {block: conv, width: 2}}
    flow: input -> u -> x
    edges: [{from: x, to: x, delay: 1}]
    time: {steps: $times}
nodes: {a: {block: again, times: 2}, b: again}
flow: a -> b
"""


def test_a_block_with_time_runs_all_its_steps_in_place() -> None:
    net = hrg.loads(HEAD + NESTED)
    plan = net.plan
    found = reads(plan)
    assert found["a.x.input.add.step1"] == ("a.u.relu.step1", "a.x.relu.step0")
    assert found["b.u.conv.step0"] == ("a.x.relu.step1",)
    assert plan.outputs == {"b": "b.x.relu.step2"} and plan.folded is None
    assert all(call.step is None for call in plan.calls)
    assert set(weights(plan).values()) >= {"a.u.conv", "a.x.norm.step1", "b.x.norm.step2"}


def test_a_block_with_time_in_a_network_with_time() -> None:
    net = hrg.loads(HEAD + NESTED + "edges: [{from: b, to: b, delay: 1}]\ntime: {steps: 2}\n")
    plan = net.plan
    found = weights(plan)
    assert found["b.x.norm.step2.step1"] == "b.x.norm.step2.step1"
    assert found["b.x.conv.step2.step1"] == "b.x.conv"
    assert reads(plan)["b.x.input.add.step2.step1"] == ("b.u.relu.step2.step1", "b.x.relu.step1.step1")
    shared = weights(net.override({"time.per_step": "none"}).plan)
    assert shared["b.x.norm.step2.step1"] == "b.x.norm.step2"


# --------------------------------------------------------------------------------------------------------------- limits


def test_too_many_calls_are_an_error_that_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["hiresnet_graph.passes.unroll"], "MAX_UNROLLED_CALLS", 100)
    with pytest.raises(SpecError, match=r"at step 1\d the network exceeds 100 operations\. Use fewer steps; "):
        _ = network(steps=1000).plan


def test_each_step_adds_the_same_number_of_calls() -> None:
    counts = {steps: len(network(steps=steps, readout="all").plan.calls) for steps in (10, 20, 30)}
    assert counts[30] - counts[20] == counts[20] - counts[10] == 10 * len(set(step_calls()))


def step_calls() -> list[str]:
    """The calls of a later step."""
    return [call.name for call in network(steps=10, readout="all").plan.calls if call.step == 7]


# ------------------------------------------------------------------------------------------------- edges with blocks

ON_EDGE = """
blocks: {cell: {nodes: {x: {block: conv, width: 4, bias: true}, y: {block: conv, width: 4}}, flow: x -> y}}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}}
flow: a -> b
edges: [{from: a, to: b, block: cell, delay: 1, at: [2], name: e}]
"""


@pytest.mark.parametrize("empty", ["skip", "zeros"])
def test_a_written_block_on_an_edge_is_computed_when_the_edge_is_open_and_has_a_value(empty: str) -> None:
    plan = network(ON_EDGE, steps=4, empty=empty, readout="all", per_step="none").plan
    assert {call.step for call in plan.calls if call.name.startswith("edges.e.")} == {2}
    always = network(ON_EDGE.replace(", at: [2]", ""), steps=4, empty=empty, readout="all", per_step="none").plan
    # At step 0 there is no earlier value, and a block on an edge is not computed for zeros.
    assert {call.step for call in always.calls if call.name.startswith("edges.e.")} == {1, 2, 3}


def test_edges_without_delay_set_the_shape_of_their_target() -> None:
    """An edge with a delay is projected to that shape, even if its source is nearer, so that it comes first."""
    text = """
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 6, stride: 2}, c: relu}
flow: a -> b
edges:
  - {from: b, to: c, delay: 1, projection: {spatial: nearest}, name: late}
  - {from: a, to: c, projection: standard, name: now}
outputs: c
"""
    for delay in (1, 2):
        plan = network(text.replace("delay: 1", f"delay: {delay}"), steps=4, per_step="none").plan
        assert next(call.shape for call in plan.calls if call.name == "c.step3") == Map(4, 8, 8)
        assert {call.owner for call in plan.calls if call.owner.startswith("edges.")} == {"edges.late"}
