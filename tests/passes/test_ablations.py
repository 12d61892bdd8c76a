"""What a variant, an edge set or an extension leaves without a reader or without an input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError

GATED = """\
name: ablated_gate
input: {channels: 3, height: 16, width: 16}
nodes:
  stem: {block: conv, width: 8}
  body: {block: basic, width: 8, depth: 2}
  attend: {block: conv2d, width: 1, kernel_size: 1}
  gate: sigmoid
  head: {block: classifier, classes: 10}
flow: [stem -> body -> head, stem -> attend -> gate]
skips: {levels: [stem, body], edges: full, gate: gate}
variants:
  none: {edges: none}
"""
CELL = """\
name: cell
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 8}
  n1: {block: conv, width: 8}
  n2: {block: conv, width: 8}
  n3: {block: identity}
  head: {block: classifier, classes: 10}
flow: [stem, n3 -> head]
skips: {levels: [stem, n1, n2, n3], edges: full, slot: input}
"""


def names(net: hrg.Architecture) -> list[str]:
    return [node.name for node in net.plan.nodes]


def messages(net: hrg.Architecture) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as raised:
        _ = net.plan
    return [(problem.message, problem.advice) for problem in raised.value.problems]


# ----------------------------------------------------------------------------------------------------- without readers


def test_a_gate_of_an_ablated_skip_is_no_output() -> None:
    net = hrg.loads(GATED)
    none = net.variant("none")
    assert none.plan.outputs.keys() == net.plan.outputs.keys() == {"head"}
    assert names(none) == ["input", "stem", "body.block1", "body.block2", "head"]
    plain = hrg.loads(
        GATED[: GATED.index("  attend")] + "  head: {block: classifier, classes: 10}\nflow: stem -> body -> head\n"
    )
    assert none.plan.digest() == net.with_edges("none").plan.digest() == plain.plan.digest()
    assert net.override({"skips.edges": "none"}).plan.digest() == plain.plan.digest()
    weights, fewer = net.build(2).state_dict(), none.build(2).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in fewer.items())
    net.validate()


def test_an_extension_that_removes_an_edge_keeps_the_outputs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GATED)
    (tmp_path / "less.yaml").write_text("name: less\nextends: base.yaml\nskips: {edges: none}\n")
    (tmp_path / "more.yaml").write_text("name: more\nextends: less.yaml\nnodes: {body: {depth: 1}}\n")
    for name in ("less", "more"):
        net = hrg.load(tmp_path / f"{name}.yaml")
        assert list(net.plan.outputs) == ["head"] and "gate" not in names(net)


def test_side_paths_and_lone_nodes_are_left_out() -> None:
    net = hrg.loads(CELL)
    assert names(net.with_edges("stem>n3 + stem>n1 + n1>n2")) == ["input", "stem", "n3", "head"]
    assert names(net.with_edges("stem>n3")) == ["input", "stem", "n3", "head"]
    assert names(net.with_edges("stem>n1 + n1>n3")) == ["input", "stem", "n1", "n3", "head"]


def test_an_input_that_nothing_reads_any_more_remains_an_argument() -> None:
    text = GATED.replace(
        "input: {channels: 3, height: 16, width: 16}",
        "input: {image: {channels: 3, height: 16, width: 16}, other: {channels: 8, height: 16, width: 16}}",
    )
    text = text.replace("flow: [stem", "flow: [image -> stem").replace("levels: [stem, body]", "levels: [other, body]")
    net = hrg.loads(text).variant("none")
    assert list(net.plan.inputs) == ["image", "other"]
    assert hrg.loads(net.to_yaml()).plan.digest() == net.plan.digest()


def test_an_ablation_connects_the_input_to_no_other_node() -> None:
    net = hrg.loads(
        CELL.replace("  stem: {block: conv, width: 8}\n", "").replace("stem, n3", "n3").replace("stem", "input")
    )
    assert names(net) == ["input", "n1", "n2", "n3", "head"]
    ((message, _),) = messages(net.with_edges("n1>n3"))
    assert message == "no path leads from the input to 'n1' (nor to the 2 nodes after it)."


def test_outputs_in_time_are_those_before_an_ablation() -> None:
    net = hrg.loads(
        "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
        "nodes: {pre: {block: conv, width: 4}, a: {block: state, shape: [4, 8, 8]}, "
        "b: {block: state, shape: [4, 8, 8]}, side: {block: conv, width: 4}, post: {block: classifier, classes: 2}}\n"
        "flow: [pre -> a, b -> post, a -> side]\nedges: [{from: side, to: b, delay: 1, name: e}]\n"
        "transitions: {a: {a: brc2, b: brc2}, b: {a: brd2}}\ntime: {steps: 4}\n"
        "variants: {no side: {edges: [{name: e, from: a, to: b, delay: 2}]}}\n"
    )
    assert list(net.plan.outputs) == list(net.variant("no side").plan.outputs) == ["post"]
    assert "side" not in names(net.variant("no side"))


# -------------------------------------------------------------------------------------------------- what a change adds


def test_a_node_that_a_variant_adds_and_forgets_is_an_error() -> None:
    net = hrg.loads(
        GATED + "  more: {nodes: {extra: relu}, flow: [stem -> body -> head, stem -> attend -> gate, stem -> extra]}\n"
    )
    ((message, advice),) = messages(net.variant("more"))
    assert message == "there are 2 ends: head, extra."
    assert advice == (
        "Connect all but one, or set 'outputs' to those of them that are outputs, like 'outputs: [head, extra]'. "
        "Caused by the variant 'more' at text:13:10."
    )


def test_new_nodes_after_or_in_place_of_the_output_are_the_output() -> None:
    more = """\
  after: {nodes: {post: relu}, edges: [{from: head, to: post}]}
  other: {nodes: {new: {block: classifier, classes: 3}}, flow: [stem -> body -> new, stem -> attend -> gate]}
"""
    net = hrg.loads(GATED + more)
    assert list(net.variant("after").plan.outputs) == ["post"]
    assert list(net.variant("other").plan.outputs) == ["new"]
    assert "head" not in names(net.variant("other"))


def test_two_ends_of_the_file_itself_are_an_error() -> None:
    ((message, _),) = messages(hrg.loads(GATED.replace("edges: full", "edges: none")))
    assert message == "there are 2 ends: gate, head."


# --------------------------------------------------------------------------------------------------------- prune: dead


def test_pruning_leaves_out_what_no_input_reaches() -> None:
    net = hrg.loads(CELL)
    dead = net.with_edges("stem>n3 + n1>n2 + n2>n3")
    ((message, advice),) = messages(dead)
    assert message == "no path leads from the input to 'n1'."
    assert advice == "Keep an edge that leads there, or leave out what no input reaches: 'prune: dead'."
    pruned = dead.override({"prune": "dead"})
    assert pruned.plan.digest() == net.with_edges("stem>n3").plan.digest()
    assert hrg.loads(f"{CELL}prune: dead\n").with_edges("stem>n3 + n2>n3").plan.digest() == pruned.plan.digest()


def test_pruning_counts_a_node_as_dead_without_a_value_at_its_input_or_its_gate() -> None:
    text = GATED.replace("[stem -> body -> head, stem -> attend -> gate]", "[stem -> body -> head, attend -> gate]")
    late = "edges: [{from: body, to: attend, slot: output, projection: standard}]\nprune: dead\n"
    net = hrg.loads(text + late)
    assert names(net) == ["input", "stem", "body.block1", "body.block2", "head"]
    assert [edge.name for edge in net.plan.edges if edge.family == "skip"] == []


def test_a_variant_may_revive_what_the_file_prunes() -> None:
    net = hrg.loads(f"{CELL}prune: dead\n".replace("edges: full", "edges: stem>n3"))
    assert names(net.with_edges("stem>n3 + stem>n1")) == ["input", "stem", "n3", "head"]
    assert names(net.with_edges("stem>n1 + n1>n3")) == ["input", "stem", "n1", "n3", "head"]


def test_pruning_leaves_out_no_output() -> None:
    net = hrg.loads(f"{CELL}prune: dead\n")
    assert messages(net.with_edges("stem>n1 + n1>n2")) == [
        ("no path leads from the input to the output 'head'.", "Keep an edge that leads there.")
    ]


def test_a_change_that_reaches_no_output_says_so() -> None:
    ((message, advice),) = messages(hrg.loads(CELL).with_edges("stem>n1"))
    assert message == "no path leads from the input to 'n3'."
    assert advice == "Keep an edge that leads there: without it no path leads to the output."


# ---------------------------------------------------------------------------------------------------------- standalone


@pytest.mark.parametrize("prune", [None, "dead"])
@pytest.mark.parametrize("edges", ["full", "stem>n3", "stem>n1 + n1>n3", "stem>n3 + n2>n3"])
def test_an_ablated_network_is_the_same_as_a_file_of_its_own(edges: str, prune: str | None) -> None:
    net = hrg.loads(CELL).with_edges(edges).override({"prune": prune})
    if prune is None and edges.endswith("n2>n3"):
        pytest.skip("it is no network without pruning")
    for text in (net.to_yaml(), net.to_json()):
        assert hrg.loads(text).plan.digest() == net.plan.digest()


def test_a_file_of_its_own_is_as_short_as_before_where_nothing_is_left_out() -> None:
    net = hrg.load("hiresnet18").variant("in")
    assert "prune" not in net.to_yaml() and "outputs" not in net.to_yaml()
