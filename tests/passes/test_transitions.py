"""The matrix of transitions as edges: selected entries and their fields."""

from __future__ import annotations

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.graph import BlockEdge, BlockGraph
from hiresnet_graph.passes.desugaring.kinds import OpOnEdge

HEAD = "name: net\ninput: {channels: 2, height: 8, width: 8}\n"
NODES = """
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [6, 4, 4]}
  s3: {block: state, shape: [8, 2, 2]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s3 -> post]
"""
FULL = """
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2, s3: brc2}
  s2: {s1: brd2, s2: brc2, s3: brc2}
  s3: {s1: brd2, s2: brd2, s3: brc2}
"""
TIME = "time: {steps: 6, input: first}\n"


def network(transitions: str = FULL, more: str = "") -> hrg.Architecture:
    return hrg.loads(HEAD + NODES + transitions + TIME + more, "net.yaml")


def matrix(net: hrg.Architecture) -> dict[tuple[str, str], BlockEdge]:
    """The transitions by their ends."""
    return {edge.ends: edge for edge in net.graph.edges if edge.family == "edge"}


def named(graph: BlockGraph) -> dict[str, BlockEdge]:
    return {edge.name: edge for edge in graph.edges}


def pairs(expression: str | list[str]) -> str:
    """The entries of the full matrix that an edge set selects, as `12 23`: row and column."""
    chosen = matrix(network().with_edges(expression, "transitions"))
    return " ".join(sorted(source[1] + target[1] for source, target in chosen))


# ------------------------------------------------------------------------------------------------------- what they are


def test_an_entry_is_an_edge_of_one_step_with_a_block() -> None:
    edges = matrix(network())
    assert len(edges) == 9
    edge = edges["s1", "s2"]
    assert (edge.name, edge.source, edge.target, edge.slot) == ("edges.s1__s2", "s1", "s2", "input")
    assert (edge.delay, edge.at, edge.weights, edge.per_step) == (1, None, "", None)
    assert edge.block is not None and edge.block.describe() == "brc2"
    assert edges["s1", "s1"].block.model_dump(exclude_unset=True) == {"identity": True}  # type: ignore[union-attr]
    assert str(edge.origin) == "net.yaml:13:47 (transitions.s1.s2)"


def test_an_entry_has_all_the_fields_of_an_edge() -> None:
    more = """
    {block: brc2, hidden: 3, delay: 2, at: [4, 2, 4], weights: w, per_step: all, name: n, merge: mean, gate: g,
    projection: {channels: none, norm: none}}"""
    text = f"transitions: {{s1: {{s2: {more}}}, s2: {{s3: brc2}}}}\n"
    net = hrg.loads(
        HEAD
        + NODES.replace("post:", "pool: {block: pool, pool: adaptive, size: 1}\n  g: sigmoid\n  post:").replace(
            "pre -> s1", "pre -> s1, pre -> pool -> g"
        )
        + text
        + TIME,
    )
    edge = matrix(net)["s1", "s2"]
    assert (edge.name, edge.delay, edge.at, edge.weights, edge.per_step) == ("edges.n", 2, (2, 4), "w", "all")
    assert edge.gate == "g" and edge.merge is not None and edge.merge.kind == "mean"
    assert edge.block is not None and edge.block.model_dump(exclude_unset=True) == {"hidden": 3}


def test_an_entry_may_have_a_projection_instead_of_a_block() -> None:
    edges = matrix(network("transitions: {s1: {s3: {projection: standard}}}\n"))
    edge = edges["s1", "s3"]
    assert edge.block is None and edge.projection is not None
    assert edge.delay == 1


def test_an_entry_may_set_its_delay() -> None:
    edges = matrix(network("transitions: {s1: {s2: {block: brc2, delay: 0}, s3: {block: brc2, delay: 3}}}\n"))
    assert [edge.delay for edge in edges.values()] == [0, 3]


def test_transitions_may_be_operations_and_written_blocks() -> None:
    blocks = "blocks: {mine: {nodes: {p: {block: pool}, c: {block: conv, width: 6}}, flow: p -> c}, halve: pool}\n"
    text = "transitions: {s1: {s2: mine, s1: relu}, s2: {s3: {block: brc2, width: 8}}}\n"
    edges = matrix(network(text, blocks))
    assert isinstance(edges["s1", "s1"].block, OpOnEdge)
    assert edges["s1", "s2"].block.describe() == "mine"  # type: ignore[union-attr]


def test_a_list_gives_several_edges_between_one_pair() -> None:
    edges = named(
        network(
            "transitions: {s1: {s2: [brc2, {block: brc2, delay: 2, name: slow}, {block: brc2, at: 3, name: late}]}}\n"
            "edges: [{from: s2, to: s3, block: brc2, delay: 1}]\n"
        ).graph
    )
    assert {name: edge.delay for name, edge in edges.items() if edge.ends == ("s1", "s2")} == {
        "edges.s1__s2": 1,
        "edges.slow": 2,
        "edges.late": 1,
    }
    assert edges["edges.late"].at == (3,)


def test_null_gives_no_edge() -> None:
    edges = matrix(network("transitions: {s1: {s1: null, s2: brc2, s3: brc2}, s2: null, s3: {s3: null}}\n"))
    assert list(edges) == [("s1", "s2"), ("s1", "s3")]


def test_rows_and_columns_may_be_blocks_of_a_stage() -> None:
    text = """
nodes: {a: {block: conv, width: 4, depth: 2}, b: {block: conv, width: 4, depth: 2}}
flow: a -> b
transitions: {b: {a: {merge: add}}, a.block1: {b.block2: {merge: add}}}
time: {steps: 3}
"""
    edges = named(hrg.loads(HEAD + text).graph)
    assert (edges["edges.b__a"].source, edges["edges.b__a"].target) == ("b.block2", "a.block1")
    assert (edges["edges.a_block1__b_block2"].source, edges["edges.a_block1__b_block2"].target) == (
        "a.block1",
        "b.block2",
    )


def test_the_same_network_as_edges() -> None:
    entries = [
        f"{{from: s{i}, to: s{j}, delay: 1, block: {'brd2' if i > j else 'brc2'}{', identity: true' * (i == j == 1)}}}"
        for i in (1, 2, 3)
        for j in (1, 2, 3)
    ]
    as_edges = network(f"edges: [{', '.join(entries)}]\n")
    assert as_edges.plan.digest() == network().plan.digest()


def test_the_order_of_rows_and_columns_changes_nothing() -> None:
    other = """
transitions:
  s3: {s3: brc2, s1: brd2, s2: brd2}
  s1: {s3: brc2, s2: brc2, s1: {identity: true, block: brc2}}
  s2: {s3: brc2, s2: brc2, s1: brd2}
"""
    assert network(other).plan.digest() == network().plan.digest()


# ------------------------------------------------------------------------------------------------------------ the sets


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("all", "11 12 13 21 22 23 31 32 33"),
        ("lateral", "11 22 33"),
        ("forward", "12 13 23"),
        ("feedback", "21 31 32"),
        ("bypass", "13 31"),
        ("adjacent", "11 12 21 22 23 32 33"),
        ("all - feedback", "11 12 13 22 23 33"),
        ("all - lateral", "12 13 21 23 31 32"),
        ("all - bypass", "11 12 21 22 23 32 33"),
        ("forward & bypass", "13"),
        ("forward - bypass + s3>s3", "12 23 33"),
        ("s1>s3", "13"),
        ("p1", "12 23"),
        ("full", "12 13 23"),
        (["p1", "s1>s1"], "11 12 23"),
    ],
)
def test_entries_are_selected_by_kind(expression: str, chosen: str) -> None:
    if "23" in chosen or "13" in chosen:
        assert pairs(expression) == chosen
    else:  # then the output is not reached: an output with the pre-net as its source instead
        net = network(FULL, "edges: [{from: pre, to: s3, projection: standard}]\n").with_edges(
            expression, "transitions"
        )
        chosen_pairs = [ends for ends in matrix(net) if ends != ("pre", "s3")]
        assert " ".join(sorted(source[1] + target[1] for source, target in chosen_pairs)) == chosen


def test_none_selects_nothing() -> None:
    net = network(FULL, "edges: [{from: pre, to: s3, projection: standard}]\n").with_edges("none", "transitions")
    net = net.override({"time.input": "every"})
    assert list(matrix(net)) == [("pre", "s3")]
    assert not any(name.startswith("edges.s") for name in net.plan.tensors())


def test_kinds_count_in_the_order_of_nodes() -> None:
    """Not in the order of the rows; nodes without a row do not count."""
    text = "transitions: {edges: adjacent, s3: {s1: brd2, s3: brc2}, s1: {s3: brc2}}\n"
    assert sorted(matrix(network(text))) == [("s1", "s3"), ("s3", "s1"), ("s3", "s3")]


def test_a_set_selects_only_existing_entries() -> None:
    text = "transitions: {edges: adjacent, s1: {s2: brc2}, s2: {s3: brc2}, s3: {s1: brd2}}\n"
    assert sorted(matrix(network(text))) == [("s1", "s2"), ("s2", "s3")]


def test_entries_that_are_not_selected_are_checked_too() -> None:
    with pytest.raises(hrg.errors.SpecError, match=r"there is no node 's4'"):
        _ = network("transitions: {edges: s1>s3, s1: {s3: brc2, s4: brc2}}\n").graph


def test_all_entries_of_a_list_are_of_one_kind() -> None:
    text = "transitions: {edges: forward, s1: {s3: [brc2, {block: brc2, name: two}], s1: brc2}}\n"
    assert {edge.name for edge in network(text).graph.edges if edge.family == "edge"} == {"edges.s1__s3", "edges.two"}


# ------------------------------------------------------------------------------------------------------------- patches


def test_a_variant_changes_an_entry_that_was_the_name_of_a_block() -> None:
    net = network(FULL, "variants: {v: {transitions: {s1: {s2: {hidden: 5}, s3: {at: 4}}}}}\n").variant("v")
    edges = matrix(net)
    assert edges["s1", "s2"].block.model_dump(exclude_unset=True) == {"hidden": 5}  # type: ignore[union-attr]
    assert edges["s1", "s2"].block.describe() == "brc2"  # type: ignore[union-attr]
    assert edges["s1", "s3"].at == (4,)
    assert len(edges) == 9


def test_a_variant_may_change_only_the_block() -> None:
    net = network(FULL, "variants: {v: {transitions: {s1: {s1: relu}}}}\n").variant("v")
    with pytest.raises(hrg.errors.SpecError, match=r"net\.yaml:13:26: transitions\.s1\.s1\.identity: unknown key"):
        _ = net.graph
    net = network(FULL, "variants: {v: {transitions: {s1: {s1: {block: relu, identity: null}}}}}\n").variant("v")
    assert matrix(net)["s1", "s1"].block.describe() == "relu"  # type: ignore[union-attr]


def test_a_variant_removes_entries_and_rows() -> None:
    net = network(FULL, "variants: {v: {transitions: {s1: {s1: null, s2: null}, s2: null}}}\n").variant("v")
    assert list(matrix(net)) == [("s1", "s3"), ("s3", "s1"), ("s3", "s2"), ("s3", "s3")]
    net = network(FULL, "edges: [{from: s1, to: s3, delay: 2, projection: standard, name: e}]\n").override(
        {"transitions.edges": "lateral + feedback"}
    )
    assert ("s1", "s3") in matrix(net) and len(matrix(net)) == 7


def test_a_variant_adds_entries() -> None:
    more = "variants: {v: {transitions: {s2: {s3: brc2}}}}\n"
    net = network("transitions: {s1: {s2: brc2, s3: brc2}}\n", more)
    assert len(matrix(net)) == 2 and len(matrix(net.variant("v"))) == 3


def test_a_variant_replaces_a_list() -> None:
    text = "transitions: {s1: {s2: [brc2, {block: brc2, delay: 2, name: slow}]}, s2: {s3: brc2}}\n"
    net = network(text, "variants: {v: {transitions: {s1: {s2: brc2}}}}\n")
    assert len(named(net.graph)) == len(named(net.variant("v").graph)) + 1


def test_an_override_reaches_an_entry() -> None:
    net = network().override({"transitions.s1.s2.hidden": 7})
    assert matrix(net)["s1", "s2"].block.model_dump(exclude_unset=True) == {"hidden": 7}  # type: ignore[union-attr]


def test_a_file_that_extends_another_changes_its_matrix(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "base.yaml").write_text(HEAD + NODES + FULL + TIME)
    (folder / "own.yaml").write_text("name: own\nextends: base.yaml\ntransitions: {s1: {s3: null}, edges: all}\n")
    assert len(matrix(hrg.load(folder / "own.yaml"))) == 8


def test_templates_in_the_matrix_are_evaluated() -> None:
    text = HEAD.replace("name: net", "name: net\nparams: {inner: 5, late: [3, 4], kind: brc2}")
    net = hrg.loads(
        text + NODES + "transitions: {s1: {s2: {block: $kind, hidden: $inner, at: $late}}, s2: {s3: $kind}}\n" + TIME
    )
    edge = matrix(net)["s1", "s2"]
    assert edge.at == (3, 4) and edge.block.model_dump(exclude_unset=True) == {"hidden": 5}  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------------- the sizes


def calls(net: hrg.Architecture) -> dict[str, tuple[int, ...]]:
    """The shape of each weight, by the name of its first call."""
    return {name: tensor.shape for name, tensor in net.plan.tensors().items() if name.endswith(".weight")}


def test_the_inner_width_is_the_mean_of_both_states() -> None:
    weights = calls(network())
    assert weights["edges.s1__s2.conv1.weight"] == (5, 4, 3, 3)
    assert weights["edges.s1__s2.conv2.weight"] == (6, 5, 3, 3)
    assert weights["edges.s1__s3.conv1.weight"] == (6, 4, 3, 3)
    assert weights["edges.s3__s1.conv1.weight"] == (8, 6, 4, 4)  # over four scales: a kernel as wide as its stride
    assert weights["edges.s3__s2.conv1.weight"] == (8, 7, 3, 3)


@pytest.mark.parametrize("spatial", ["stride", "avg", "max"])
@pytest.mark.parametrize(("large", "small"), [((8, 8), (4, 4)), ((8, 8), (2, 4)), ((7, 9), (7, 3)), ((8, 6), (1, 1))])
def test_brc2_reaches_the_size_exactly(spatial: str, large: tuple[int, int], small: tuple[int, int]) -> None:
    net = two_states(large, small, f"{{block: brc2, spatial: {spatial}}}")
    (found,) = {call.shape for call in net.plan.calls if call.weights == "edges.a__b.conv2"}
    assert found.spatial == small


@pytest.mark.parametrize("spatial", ["deconv", "nearest", "bilinear"])
@pytest.mark.parametrize(
    ("small", "large"), [((4, 4), (8, 8)), ((2, 2), (7, 8)), ((1, 1), (5, 3)), ((3, 5), (7, 10)), ((4, 4), (13, 16))]
)
def test_brd2_reaches_the_size_exactly(spatial: str, small: tuple[int, int], large: tuple[int, int]) -> None:
    net = two_states(small, large, f"{{block: brd2, spatial: {spatial}}}")
    (found,) = {call.shape for call in net.plan.calls if call.weights == "edges.a__b.conv2"}
    assert found.spatial == large


@pytest.mark.parametrize("large", range(4, 34))
def test_brc2_gives_all_sizes_that_a_stride_gives(large: int) -> None:
    for stride in range(1, large + 1):
        small = -(-large // stride)
        if -(-large // small) == stride:
            two_states((large, large), (small, small), "brc2").validate()


def two_states(one: tuple[int, int], other: tuple[int, int], entry: str) -> hrg.Architecture:
    return hrg.loads(
        f"""
name: net
input: {{channels: 3, height: {one[0]}, width: {one[1]}}}
nodes: {{a: {{block: state, shape: [3, {one[0]}, {one[1]}]}}, b: {{block: state, shape: [5, {other[0]}, {other[1]}]}}}}
flow: input -> a
transitions: {{a: {{b: {entry}}}}}
time: {{steps: 2, input: first}}
outputs: b
"""
    )
