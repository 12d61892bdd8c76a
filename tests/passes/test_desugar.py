"""Desugaring: from a section of a spec to calls of blocks and edges between them."""

from __future__ import annotations

from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.graph import BlockEdge, BlockGraph
from hiresnet_graph.merges import AddMerge, ConcatMerge
from hiresnet_graph.ops import Conv2d

HEAD = "name: net\nparams: {w: 4}\ninput: {channels: 3, height: 8, width: 8}\n"
STAGES = """nodes:
  stem: {block: conv, width: 4}
  s1: {block: basic, width: 4, depth: 2}
  s2: {block: basic, width: 8, depth: 3, stride: 2}
  head: {block: classifier, classes: 2}
flow: stem -> s1 -> s2 -> head
"""


def graph(text: str) -> BlockGraph:
    return hrg.loads(HEAD + text, "net.yaml").graph


def edges(text: str, family: str = "") -> list[tuple[str, str, str]]:
    """Name, source and target of the edges, in the order in which their targets take them."""
    made = graph(text)
    found = [edge for name in made.order() for edge in made.incoming(name)]
    return [(edge.name, edge.source, edge.target) for edge in found if family in ("", edge.family)]


def pairs(skips: str) -> list[tuple[str, str]]:
    """The ends of the skips, as the spec names them."""
    made = graph(STAGES + skips)
    return sorted(edge.ends for edge in made.edges if edge.family == "skip")


def edge(made: BlockGraph, name: str) -> BlockEdge:
    (found,) = [edge for edge in made.edges if edge.name == name]
    return found


def fields(made: BlockGraph, node: str) -> dict[str, Any]:
    block = made[node].block
    assert block is not None
    return block.model_dump(exclude_unset=True)


# ------------------------------------------------------------------------------------------------------------ flow


def test_a_chain_starts_at_the_input() -> None:
    assert edges("nodes: {a: relu, b: relu}\nflow: a -> b\n") == [
        ("flow.input__a", "input", "a"),
        ("flow.a__b", "a", "b"),
    ]


def test_a_chain_may_name_the_input() -> None:
    assert edges("nodes: {a: relu, b: relu}\nflow: input -> a -> b\n") == edges(
        "nodes: {a: relu, b: relu}\nflow: a -> b\n"
    )


def test_one_node_needs_no_flow() -> None:
    assert edges("nodes: {a: relu}\n") == [("flow.input__a", "input", "a")]


def test_no_edge_from_the_input_is_added_if_there_is_one() -> None:
    text = "nodes: {a: relu, b: relu, c: relu}\nflow: [input -> b, b -> c, a -> c]\nedges: [{from: b, to: a}]\n"
    assert [pair[1:] for pair in edges(text)] == [("input", "b"), ("b", "a"), ("a", "c"), ("b", "c")]


def test_nodes_after_an_unreached_node_are_one_problem() -> None:
    chain = "nodes: {a: relu, b: relu, c: relu, d: relu}\nflow: a -> b -> c -> d\n"
    with pytest.raises(SpecError) as replaced:
        graph(chain + "edges: [{from: input, to: d}]\n")
    (problem,) = replaced.value.problems
    assert problem.message == "no path leads from the input to 'a' (nor to the 2 nodes after it)."
    assert problem.hint == "As another edge starts at the input, the flow does not: begin the chain with 'input -> a'."
    with pytest.raises(SpecError) as two:
        graph(chain.replace("flow: a -> b -> c -> d", "flow: [a, b -> c, d]"))
    assert [problem.path for problem in two.value.problems] == ["nodes.b", "nodes.d"]
    with pytest.raises(SpecError) as loop:
        graph(chain.replace("flow: a -> b -> c -> d", "flow: [a, b -> c -> d -> b]"))
    assert [problem.path for problem in loop.value.problems] == ["nodes.b", "flow[1]"]


def test_operands_of_the_flow_follow_the_order_of_nodes() -> None:
    text = "nodes: {s: relu, b: relu, a: relu, t: relu}\nflow: [s -> a -> t, s -> b -> t]\n"
    assert [edge.source for edge in graph(text).incoming("t")] == ["b", "a"]


def test_a_stage_is_a_chain_of_blocks_whose_first_block_has_the_stride() -> None:
    made = graph(STAGES)
    assert [node.name for node in made.nodes if node.stage == "s2"] == ["s2.block1", "s2.block2", "s2.block3"]
    assert [getattr(made[f"s2.block{i}"].block, "stride", None) for i in (1, 2, 3)] == [2, 1, 1]
    assert ("flow.s1__s2", "s1.block2", "s2.block1") in edges(STAGES)
    assert ("flow.s2.block2", "s2.block1", "s2.block2") in edges(STAGES)


def test_a_stage_may_have_depth_one() -> None:
    made = graph("nodes: {s: {block: relu, depth: 1}}\n")
    assert "s.block1" in made and "s" not in made
    assert made.outputs == {"s": "s.block1"}


def test_the_stride_of_an_alias_applies_to_the_first_block_only() -> None:
    made = graph("blocks: {down: {block: conv, width: 4, stride: 2}}\nnodes: {s: {block: down, depth: 2}}\n")
    assert [getattr(made[f"s.block{i}"].block, "stride", None) for i in (1, 2)] == [2, 1]


def test_a_patch_may_set_the_stride_of_a_later_block() -> None:
    made = graph(STAGES.replace("  head", "  s2.block3: {stride: 2}\n  head"))
    assert [getattr(made[f"s2.block{i}"].block, "stride", None) for i in (1, 2, 3)] == [2, 1, 2]


def test_a_stage_of_pools_keeps_their_default_stride() -> None:
    made = graph("nodes: {s: {block: pool, depth: 2}}\n")
    assert [getattr(made[f"s.block{i}"].block, "stride", 0) for i in (1, 2)] == [None, None]


# ------------------------------------------------------------------------------------------------ fields and patches


def test_fields_of_a_stage_know_the_index() -> None:
    made = graph("nodes:\n  s: {block: basic, width: $w, hidden: $(w + 2 * i), depth: 3}\n")
    assert [fields(made, f"s.block{i}")["hidden"] for i in (1, 2, 3)] == [4, 6, 8]


def test_patches_of_blocks_know_the_index_too() -> None:
    made = graph(
        'nodes:\n  s: {block: basic, width: 4, depth: 3}\n  "s.*": {hidden: $(8 - i)}\n  s.block3: {hidden: $i}\n'
    )
    assert [fields(made, f"s.block{i}")["hidden"] for i in (1, 2, 3)] == [8, 7, 2]


def test_exact_patches_override_patterns_which_override_the_stage() -> None:
    text = """nodes:
  s: {block: basic, width: 4, hidden: 2, depth: 3}
  s.block2: {hidden: 6}
  "s.block*": {hidden: 8, activation: gelu}
"""
    made = graph(text)
    assert [fields(made, f"s.block{i}")["hidden"] for i in (1, 2, 3)] == [8, 6, 8]
    assert fields(made, "s.block2")["activation"] == "gelu"


def test_fields_of_a_node_override_patterns() -> None:
    made = graph(
        "nodes:\n  a1: {block: conv, width: 4, norm: group}\n  a2: {block: conv, width: 4}\n"
        '  "a*": {norm: none}\nflow: a1 -> a2\n'
    )
    assert fields(made, "a1")["norm"] == "group" and fields(made, "a2")["norm"] == "none"


def test_patches_merge_mappings_and_delete_with_null() -> None:
    text = """nodes:
  s: {block: basic, width: 4, hidden: 2, shortcut: {norm: none, spatial: avg}, depth: 2}
  s.block2: {shortcut: {norm: group}, hidden: null}
"""
    made = graph(text)
    shortcut = fields(made, "s.block2")["shortcut"]
    assert (shortcut["norm"], shortcut["spatial"]) == ("group", "avg")
    assert "hidden" not in fields(made, "s.block2")


def test_a_patch_may_change_the_kind() -> None:
    made = graph("nodes:\n  s: {block: basic, width: 4, depth: 2}\n  s.block2: {block: plain}\n")
    assert [getattr(made[f"s.block{i}"].block, "kind", "") for i in (1, 2)] == ["basic", "plain"]


def test_patches_of_parts_stay_on_the_node() -> None:
    text = """nodes:
  s: {block: basic, width: 4, depth: 2}
  s.block1.conv2: {bias: true}
  "s.*.conv1": {bias: true}
"""
    made = graph(text)
    assert [patch.key for patch in made["s.block1"].patches] == ["s.*.conv1", "s.block1.conv2"]
    assert [patch.address for patch in made["s.block2"].patches] == ["conv1"]


def test_an_alias_presets_fields() -> None:
    text = """blocks:
  base: {block: conv, width: $(2 * w), norm: group}
  act: {block: base, activation: gelu}
  same: act
nodes: {a: {block: same, norm: none}, b: base}
flow: a -> b
"""
    made = graph(text)
    assert fields(made, "a") == {"width": 8, "norm": "none", "activation": "gelu"}
    assert fields(made, "b") == {"width": 8, "norm": "group"}


def test_a_written_block_sees_only_its_params() -> None:
    text = """blocks:
  cell:
    params: {width: , inner: $(2 * width), more: $(in_width + inner)}
    nodes: {x: {block: conv2d, width: $more, kernel_size: 1}}
nodes: {a: {block: cell, width: $w}, b: {block: cell, width: 2, inner: 3}}
flow: a -> b
"""
    plan = hrg.loads(HEAD + text).plan
    assert [call.shape.channels for call in plan.calls] == [3 + 8, 11 + 3]
    assert [call.name for call in plan.calls] == ["a.x", "b.x"]


# ---------------------------------------------------------------------------------------------------------- edges


def test_all_pairs_of_lists_and_patterns() -> None:
    text = """nodes: {a: relu, b: relu, c: relu, d: relu}
flow: a -> b -> c -> d
edges: [{from: [a, b], to: ["c*", d], slot: output}]
"""
    assert [pair[1:] for pair in edges(text, "edge")] == [("b", "c"), ("a", "c"), ("b", "d"), ("a", "d")]


def test_names_of_edges_are_those_of_their_ends() -> None:
    text = STAGES + (
        "edges:\n"
        "  - {from: s1.block1, to: s2, slot: output, projection: standard}\n"
        "  - {from: s1.block2, to: s2.block3, slot: output, projection: standard}\n"
        "  - {from: s1.block1.conv1, to: s2.block3, slot: residual, projection: standard, name: mine}\n"
    )
    names = [name for name, *_ in edges(text, "edge")]
    # s1.block2 is s1, and s2.block3 as a target of `output` is s2.
    assert sorted(names) == ["edges.mine", "edges.s1__s2", "edges.s1_block1__s2"]


def test_one_edge_with_two_addresses_is_a_duplicate() -> None:
    twice = "edges: [{from: s1, to: s2, slot: output}, {from: s1.block2, to: s2.block3, slot: output}]\n"
    with pytest.raises(SpecError, match="'s1__s2' already exists"):
        graph(STAGES + twice)


def test_nearest_first_then_the_order_of_nodes() -> None:
    text = """nodes: {a: relu, c: relu, b: relu, t: identity}
flow: [input -> a -> c -> t, a -> b]
edges: [{from: input, to: t}, {from: b, to: t}, {from: a, to: t}]
"""
    # The flow comes first; b and c have the same distance from the input.
    assert [edge.source for edge in graph(text).incoming("t")] == ["c", "b", "a", "input"]


def test_the_order_of_skips_does_not_depend_on_other_skips() -> None:
    text = STAGES + "skips: {levels: [stem, s1.block1, s1, s2], edges: %s}\n"
    few, many = (
        [pair[1] for pair in edges(text % chosen, "skip") if pair[2] == "s2.block3"] for chosen in ("out", "full")
    )
    assert few == many == ["s1.block2", "s1.block1", "stem"]


def test_a_gate_is_a_separate_edge() -> None:
    text = """nodes: {a: relu, g: {block: sigmoid}, t: relu}
flow: [a -> t, a -> g]
edges: [{from: a, to: t, gate: g, slot: output}]
"""
    made = graph(text)
    assert edge(made, "edges.a__t").gate == "g"
    gate = edge(made, "edges.a__t.gate")
    assert (gate.source, gate.target, gate.slot, gate.family) == ("g", "t", "gate", "gate")


def test_default_slots() -> None:
    made = graph(
        STAGES
        + "skips: {one: {edges: [stem>s2]}, two: {edges: [s1>s2], merge: concat}}\nedges: [{from: stem, to: s1}]\n"
    )
    assert edge(made, "edges.one.stem__s2").slot == "output"
    assert edge(made, "edges.two.s1__s2").slot == "input"
    assert edge(made, "edges.stem__s1").slot == "input"


def test_the_merge_of_a_node_applies_to_its_input() -> None:
    made = graph("nodes: {a: relu, b: relu, t: {block: identity, merge: concat}}\nflow: [a -> t, a -> b -> t]\n")
    assert made["t"].merge == ConcatMerge()
    assert made["a"].merge == AddMerge()


def test_an_edge_may_repeat_the_merge_of_its_node() -> None:
    text = """nodes: {a: relu, b: relu, t: {block: identity, merge: {kind: concat, order: [b, a]}}}
flow: a -> b -> t
edges: [{from: a, to: t, merge: concat}]
"""
    assert graph(text)["t"].merge == ConcatMerge(order=("b", "a"))


# ---------------------------------------------------------------------------------------------------------- skips


def test_sets_count_over_the_expanded_levels() -> None:
    assert pairs("skips: {levels: [stem, stages], edges: full}\n") == [("s1", "s2"), ("stem", "s1"), ("stem", "s2")]
    assert pairs("skips: {levels: [stem, stages], edges: p2}\n") == [("stem", "s2")]
    assert pairs("skips: {levels: [stem, stages], edges: in + out - stem>s2}\n") == [("s1", "s2"), ("stem", "s1")]
    assert pairs("skips: {levels: [stem, stages], edges: [p1 & in, stem>s2]}\n") == [("stem", "s1"), ("stem", "s2")]
    assert pairs("skips: {levels: [stem, stages], edges: none}\n") == []
    assert len(pairs("skips: {levels: [stem, blocks], edges: full - p1}\n")) == 15 - 5


def test_levels_are_in_the_order_of_the_flow() -> None:
    one = pairs("skips: {levels: [stem, s1.block1, s2], edges: p1}\n")
    assert (
        one
        == pairs("skips: {levels: [s2, s1.block1, stem], edges: p1}\n")
        == [("s1.block1", "s2"), ("stem", "s1.block1")]
    )


def test_a_single_edge_is_the_pair_of_levels_with_its_ends() -> None:
    for one in ("stem>s2", "stem>s2.block3"):
        assert pairs(f"skips: {{levels: [stem, stages], edges: full - {one}}}\n") == [("s1", "s2"), ("stem", "s1")]


def test_the_last_block_of_a_stage_may_be_a_level() -> None:
    # As a target of the slot `input`, a stage would be its first block.
    text = STAGES + "skips: {levels: blocks, edges: out, slot: input, merge: concat}\n"
    assert {pair[2] for pair in edges(text, "skip")} == {"s2.block3"}
    # An edge to itself would be the cycle s2.block3 -> s2.block3.
    assert ("edges.s2_block2__s2_block3", "s2.block2", "s2.block3") in edges(text, "skip")


def test_single_edges_need_no_levels() -> None:
    assert pairs("skips: {edges: [stem>s2, 's1.*>s2']}\n") == [("s1", "s2"), ("s1.block1", "s2"), ("stem", "s2")]


def test_named_groups_keep_their_edges_apart() -> None:
    made = graph(STAGES + "skips: {one: {edges: [stem>s2]}, two: {edges: [stem>s2], slot: residual}}\n")
    assert edge(made, "edges.one.stem__s2").slot == "output"
    assert edge(made, "edges.two.stem__s2").slot == "residual"


def test_the_input_as_a_level() -> None:
    made = graph(STAGES.replace("flow: stem", "flow: input -> stem") + "skips: {levels: [input, stages], edges: in}\n")
    assert [edge.ends for edge in made.edges if edge.family == "skip"] == [("input", "s1"), ("input", "s2")]


def test_a_variant_and_an_override_change_the_set() -> None:
    net = hrg.loads(
        HEAD + STAGES + "skips: {levels: [stem, stages], edges: full}\nvariants: {p: {edges: p1}, l: {edges: [p2]}}\n"
    )

    def chosen(made: hrg.Architecture) -> int:
        return sum(edge.family == "skip" for edge in made.graph.edges)

    assert [chosen(n) for n in (net, net.variant("p"), net.variant("l"))] == [3, 2, 1]
    assert chosen(net.variant("p").with_edges("none")) == 0
    assert chosen(net.override({"skips.edges": ["stem>s1"]})) == 1


# ---------------------------------------------------------------------------------------------- outputs and weights


def test_the_only_node_that_nothing_reads_is_the_output() -> None:
    assert graph(STAGES).outputs == {"head": "head"}
    assert graph("nodes: {a: relu, s: {block: relu, depth: 2}}\nflow: a -> s\n").outputs == {"s": "s.block2"}


def test_outputs_may_be_any_nodes() -> None:
    made = graph(STAGES + "outputs: [head, s1, s2.block1]\n")
    assert made.outputs == {"head": "head", "s1": "s1.block2", "s2.block1": "s2.block1"}


def test_weights() -> None:
    text = """nodes:
  a: {block: conv, width: 3, weights: w}
  s: {block: basic, width: 3, depth: 2, weights: shared}
  t: {block: basic, width: 3, depth: 2, weights: u}
  v: {block: basic, width: 3, depth: 2, weights: shared, per_step: none}
flow: a -> s -> t -> v
"""
    made = graph(text)
    weights = {node.name: node.weights for node in made.nodes}
    assert weights["a"] == "w" and weights["s.block1"] == weights["s.block2"] == "s"
    assert weights["t.block2"] == "u.block2"
    assert made["s.block1"].private == "norm" and made["v.block1"].private == "none"


def test_every_origin_has_a_position() -> None:
    made = graph(STAGES + "skips: {levels: [stem, stages], edges: full}\n")
    assert str(made["s2.block3"].origin) == "net.yaml:7:7 (nodes.s2)"
    assert str(edge(made, "edges.stem__s2").origin) == "net.yaml:10:40 (skips.edges)"
    assert str(edge(made, "flow.s1__s2").origin) == "net.yaml:9:7 (flow)"


def test_an_operation_is_a_block() -> None:
    assert isinstance(graph("nodes: {a: {block: conv2d, width: 2}}\n")["a"].block, Conv2d)


@pytest.mark.parametrize("address", ["s1.block9", "s9*", "z*.conv"])
def test_a_patch_of_nothing_is_refused(address: str) -> None:
    with pytest.raises(SpecError) as error:
        graph(STAGES.replace("  head:", f"  '{address}': {{width: 3}}\n  head:"))
    (problem,) = error.value.problems
    assert problem.message == f"'{address}' patches nothing: there is no such node or block."
    assert problem.path == f"nodes.{address}"


def test_a_pattern_of_nothing_is_not_reported_beside_a_broken_node() -> None:
    """A pattern may name a node that is broken; an address cannot."""
    broken = STAGES.replace("s1: {block: basic, width: 4", "s1: {block: basic, width: 0")
    for address, reported in (("z*", False), ("s2.block9", True)):
        with pytest.raises(SpecError) as error:
            graph(broken.replace("  head:", f"  '{address}': {{width: 3}}\n  head:"))
        assert ["patches nothing" in problem.message for problem in error.value.problems] == [False, True][
            : 1 + reported
        ]


def test_the_limit_on_edges_is_the_number_that_the_message_names(monkeypatch: pytest.MonkeyPatch) -> None:
    made = graph(STAGES + "skips: {levels: [stem, stages], edges: full}\n")
    count = sum(1 for _ in made.edges)
    monkeypatch.setattr("hiresnet_graph.passes.desugaring.edges.MAX_EDGES", count)
    assert sum(1 for _ in graph(STAGES + "skips: {levels: [stem, stages], edges: full}\n").edges) == count
    single = "edges: [{from: stem, to: head, slot: output, projection: {}}]\n"
    with pytest.raises(SpecError, match=rf"there are more than {count} edges\. \(?Choose fewer"):
        graph(STAGES + "skips: {levels: [stem, stages], edges: full}\n" + single)


def test_a_delay_of_zero_does_not_require_time() -> None:
    skips = "skips: {levels: [stem, stages], edges: p1, delay: DELAY}\n"
    assert {edge.delay for edge in graph(STAGES + skips.replace("DELAY", "0")).edges} == {0}
    with pytest.raises(SpecError) as error:
        graph(STAGES + skips.replace("DELAY", "1"))
    assert [problem.path for problem in error.value.problems] == ["skips.delay"]


@pytest.mark.parametrize(
    "blocks", ["{a: {block: b}, b: {block: a}}", "{a: {block: a}}", "{a: {block: b}, b: {block: b}}"]
)
def test_blocks_that_are_each_other_are_refused(blocks: str) -> None:
    """Also where the field of a stage is looked up in them."""
    for fields in ("", ", stride: 2", ", depth: 2", ", depth: 2, stride: 2"):
        with pytest.raises(SpecError) as error:
            graph(f"blocks: {blocks}\nnodes: {{x: {{block: a{fields}}}}}\n")
        assert error.value.problems[0].message.startswith("the definition is circular: a -> ")


@pytest.mark.parametrize(
    "fields", ["block: basik", "block: basic, merge: ad", "block: basic, weights: s2.block1.conv1.x y"]
)
def test_a_broken_node_is_one_error_whatever_refers_to_it(fields: str) -> None:
    broken = STAGES.replace("s1: {block: basic", f"s1: {{{fields}")
    more = "edges: [{from: stem, to: s1, slot: residual}, {from: s1.block1.conv1, to: s2, slot: output}]\n"
    with pytest.raises(SpecError) as error:
        graph(broken + more)
    assert len(error.value.problems) == 1


def test_the_blocks_of_a_stage_may_be_named_in_the_flow() -> None:
    text = "nodes: {s: {block: conv, width: 4, depth: 2}, h: {block: classifier, classes: 3}}\n"
    long, short = (edges(f"{text}flow: input -> {chain} -> h") for chain in ("s.block1 -> s.block2", "s"))
    assert long == short


def test_edges_whose_addresses_are_one_name_are_numbered() -> None:
    conv = "block: conv, width: 4"
    nodes = f"nodes: {{s: {{{conv}, depth: 2}}, s_block1: {{{conv}}}, h: {{{conv}}}}}\n"
    made = graph(f"{nodes}flow: [input -> s -> h, input -> s_block1 -> h, s.block1 -> h]")
    names = [edge.name for edge in made.edges]
    assert len(set(names)) == len(names) and {"flow.s_block1__h", "flow.s_block1__h_2"} <= set(names)


def test_a_patch_may_not_hold_two_edges_with_the_same_ends() -> None:
    text = """name: n
input: {channels: 3, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: {block: basic, width: 4}}
flow: a -> b
edges: [{from: a, to: b}]
variants: {v: {edges: [{from: a, to: b, slot: residual}, {from: a, to: b, slot: output}]}}
"""
    with pytest.raises(SpecError, match="the edge 'a__b' already exists"):
        _ = hrg.loads(text).variant("v").plan
    one = text.replace(", {from: a, to: b, slot: output}", "")
    assert [edge.slot for edge in hrg.loads(one).variant("v").plan.edges if edge.name == "edges.a__b"] == ["residual"]


def test_a_node_that_is_the_name_of_a_block_can_be_patched() -> None:
    text = """name: n
input: {channels: 3, height: 8, width: 8}
nodes: {a: {block: conv, width: 8}, se: squeeze_excite, own: mine}
flow: a -> se -> own
blocks: {mine: {nodes: {x: {block: conv, width: 8}, y: squeeze_excite}, flow: x -> y}}
variants: {v: {nodes: {se: {reduction: 4}}}, w: {blocks: {mine: {nodes: {y: {reduction: 2}}}}}}
"""
    net = hrg.loads(text)
    for changed in (net.override({"se.reduction": 4}), net.variant("v"), net.variant("w")):
        assert changed.plan.digest() != net.plan.digest()
    assert net.override({"se.reduction": 4}).plan.digest() == net.variant("v").plan.digest()
