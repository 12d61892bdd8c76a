"""Timing: when nodes hold values, how many steps are needed, and the warnings."""

from __future__ import annotations

from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.passes.timing import Timing, along_flow, format_steps

HEAD = "name: net\ninput: {channels: 2, height: 8, width: 8}\n"
THREE = """
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [4, 8, 8]}
  s3: {block: state, shape: [4, 8, 8]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s3 -> post]
"""
FULL = (
    "transitions: {s1: {s1: brc2, s2: brc2, s3: brc2}, s2: {s1: brc2, s2: brc2, s3: brc2}, s3: {s1: brc2, s2: brc2}}\n"
)
ADJACENT = "transitions: {s1: {s1: brc2, s2: brc2}, s2: {s1: brc2, s2: brc2, s3: brc2}, s3: {s2: brc2, s3: brc2}}\n"


def network(text: str, **time: Any) -> hrg.Architecture:
    net = hrg.loads(HEAD + text + "time: {steps: 8}\n", "net.yaml")
    return net.override({f"time.{key}": value for key, value in time.items()})


def timing(text: str, **time: Any) -> Timing:
    found = network(text, **time).timing
    assert found is not None
    return found


def ends(edges: tuple[Any, ...]) -> set[str]:
    return {f"{edge.ends[0]}>{edge.ends[1]}" for edge in edges}


def test_without_time_there_is_none() -> None:
    net = hrg.loads(HEAD + "nodes: {a: relu}")
    assert net.timing is None and net.warnings == ()


# ---------------------------------------------------------------------------------------------------------- who, when


def test_the_steps_at_which_nodes_hold_values() -> None:
    found = timing(THREE + ADJACENT, steps=5, input="first")
    assert found.steps == 5
    assert found.holds == {
        "input": (0,),
        "pre": (0,),
        "s1": (0, 1, 2, 3, 4),
        "s2": (1, 2, 3, 4),
        "s3": (2, 3, 4),
        "post": (2, 3, 4),
    }
    assert timing(THREE + ADJACENT, steps=5, input="every").holds["pre"] == (0, 1, 2, 3, 4)


def test_values_do_not_persist() -> None:
    text = "nodes: {a: relu, b: relu}\nflow: input -> a\nedges: [{from: a, to: b, delay: 2}]\noutputs: b\n"
    assert timing(text, input="first", readout=2).holds == {"input": (0,), "a": (0,), "b": (2,)}


def test_zeros_do_not_depend_on_the_input() -> None:
    skip = timing(THREE + ADJACENT, input="first")
    zeros = timing(THREE + ADJACENT, input="first", empty="zeros")
    assert skip.holds == zeros.holds
    assert skip.smallest == zeros.smallest == 3


def test_a_closed_edge_delivers_nothing() -> None:
    text = (
        "nodes: {a: relu, b: relu}\nflow: input -> a\nedges: [{from: a, to: b, delay: 1, at: [2, 5, 9]}]\noutputs: b\n"
    )
    assert timing(text, readout=5).holds["b"] == (2, 5)


def test_a_gate_without_a_value_closes_its_edge() -> None:
    text = """
nodes: {g: relu, a: relu, b: relu}
flow: [input -> a -> b]
edges: [{from: input, to: g, delay: 3}, {from: a, to: b, delay: 1, gate: g}]
"""
    net = network(text, input="sequence", steps=6, readout="all")
    (edge,) = [edge for edge in net.plan.edges if edge.gate]
    assert edge.gate == "g"
    assert net.timing is not None and net.timing.holds["g"] == (3, 4, 5)
    assert [call.step for call in net.plan.calls if call.op.kind == "multiply"] == [3, 4, 5]
    assert [call.step for call in net.plan.calls if call.op.kind == "add"] == [3, 4, 5]


# ------------------------------------------------------------------------------------------------------ number of steps


def test_two_smallest_numbers_of_steps() -> None:
    found = timing(THREE + ADJACENT, input="first")
    assert (found.smallest, found.complete) == (3, 5)
    bypass = timing(THREE + FULL, input="first")
    assert (bypass.smallest, bypass.complete) == (2, 4)


@pytest.mark.parametrize("steps", range(3, 9))
def test_edges_that_do_not_reach_the_readout(steps: int) -> None:
    """They would with more steps: 3 steps read only s1>s2 and s2>s3."""
    found = timing(THREE + ADJACENT, input="first", steps=steps)
    assert (not found.silent) == (steps >= 5)
    if steps == 3:
        assert ends(found.silent) == {"s1>s1", "s2>s1", "s2>s2", "s3>s2", "s3>s3"}
    if steps == 4:
        assert ends(found.silent) == {"s2>s1", "s3>s2"}


def test_silent_edges_have_no_tensors_and_others_have() -> None:
    for steps in (3, 4, 5):
        net = network(THREE + ADJACENT, input="first", steps=steps)
        assert net.timing is not None
        silent = {edge.name for edge in net.timing.silent}
        named = {name.split(".norm")[0].split(".conv")[0] for name in net.plan.tensors() if name.startswith("edges.")}
        assert named == {edge.name for edge in net.plan.edges if edge.family == "edge"} - silent


def test_with_readout_all_every_step_counts() -> None:
    found = timing(THREE + ADJACENT, input="first", steps=6, readout="all")
    assert found.readouts == (2, 3, 4, 5)
    assert found.complete == 5
    with_zeros = timing(THREE + ADJACENT, input="first", steps=6, readout="all", empty="zeros")
    assert with_zeros.readouts == (0, 1, 2, 3, 4, 5)


def test_the_readouts_of_one_step() -> None:
    assert timing(THREE + ADJACENT, steps=6).readouts == (5,)
    assert timing(THREE + ADJACENT, steps=6, readout=3).readouts == (3,)


def test_some_edges_never_reach_the_readout() -> None:
    text = "nodes: {a: relu, b: relu, c: {block: state, shape: [2, 8, 8]}}\nflow: a -> b\n"
    found = timing(text + "edges: [{from: a, to: c, delay: 1}]\noutputs: b\n")
    assert found.complete is None and ends(found.silent) == {"a>c"}


def test_a_window_that_is_never_reached() -> None:
    text = THREE + ADJACENT.replace("s1: {s1: brc2", "s1: {s1: {block: brc2, at: 20}")
    net = network(text, input="first", steps=8)
    assert net.timing is not None and ends(net.timing.silent) == {"s1>s1"}
    assert net.timing.complete is not None and net.timing.complete > 20
    (warning,) = net.warnings
    assert warning.message == "s1 -> s1 is open only at step 20, and values could arrive at steps 1 and 3 to 7."
    assert str(warning.position) == "net.yaml:11:24"


# --------------------------------------------------------------------------------------------------- kinds of unrolling


@pytest.mark.parametrize(
    ("edges", "kinds"),
    [
        ("{from: b, to: b, delay: 1}", ("biological", "engineering")),
        ("{from: b, to: a, delay: 1}", ("engineering",)),
        ("{from: a, to: b, delay: 2, name: x}", ("biological", "engineering")),
    ],
)
def test_the_unrolling_of_a_chain(edges: str, kinds: tuple[str, ...]) -> None:
    text = "nodes: {a: relu, b: relu, c: relu}\nflow: a -> b -> c\n" + f"edges: [{edges}]\n"
    assert timing(text).unrolling == kinds


def test_a_delayed_flow_is_biological() -> None:
    text = "nodes: {a: relu, b: relu, c: relu}\nflow: a -> b -> c\nedges: [{from: b, to: a, delay: 1}]\n"
    assert timing(text).unrolling == ("engineering",)
    assert timing(text, delay=1).unrolling == ("biological",)


def test_an_unrolling_may_be_mixed() -> None:
    text = """
nodes: {a: relu, b: relu, c: relu, d: relu}
flow: input -> a
edges:
  - {from: a, to: b, delay: 0}
  - {from: b, to: a, delay: 1}
  - {from: b, to: c, delay: 1}
  - {from: c, to: d, delay: 0}
outputs: d
"""
    assert timing(text).unrolling == ("mixed",)


# -------------------------------------------------------------------------------------------------- errors and warnings


def test_too_few_steps_are_an_error() -> None:
    with pytest.raises(SpecError, match=r"2 steps are too few: the output 'post' first depends .* at step 2\.") as few:
        _ = network(THREE + ADJACENT, steps=2).plan
    assert few.value.problems[0].hint == "Set 'time.steps' to 3 or more."
    with pytest.raises(SpecError, match=r"a readout at step 1 is too early"):
        _ = network(THREE + ADJACENT, readout=1).plan


def test_a_state_that_is_never_filled_is_a_warning() -> None:
    net = network(THREE + ADJACENT.replace("s2: brc2}, s2", "s3: brc2}, s2"), input="first")
    without = net.override({"transitions.edges": "all - s3>s2 - s2>s2 - s2>s1 - s2>s3"})
    (warning,) = without.warnings
    assert warning.message == "'s2' never holds a value that depends on the input."
    assert str(warning.position) == "net.yaml:7:7" and "Give it an edge" in warning.hint
    assert without.timing is not None
    assert [node.name for node in without.timing.unfilled] == ["s2"]
    without.validate()
    assert without.build() is not None


def test_edges_of_a_state_that_is_never_filled_are_not_reported_again() -> None:
    net = network(THREE + "transitions: {s1: {s1: brc2, s3: brc2}, s2: {s3: brc2, s2: brc2}}\n", input="first")
    assert [warning.message for warning in net.warnings] == ["'s2' never holds a value that depends on the input."]


def test_a_sound_network_has_no_warnings() -> None:
    assert network(THREE + ADJACENT, input="first", steps=5).warnings == ()


def test_edges_of_one_origin_share_a_warning() -> None:
    text = "nodes: {a: relu, b: relu, c: relu}\nflow: a -> b -> c\nskips: {levels: [a, b, c], edges: full, delay: 9}\n"
    net = network(text)
    (warning,) = net.warnings
    assert warning.message.startswith("with 8 steps a -> b, b -> c, a -> c do not reach the readout.")
    assert warning.path == "skips.edges"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((3,), "step 3"),
        ((0, 1), "steps 0 and 1"),
        ((0, 1, 2), "steps 0 to 2"),
        ((1, 2, 4), "steps 1, 2 and 4"),
        ((0, 2, 3, 4, 5, 9), "steps 0, 2 to 5 and 9"),
    ],
)
def test_format_steps(steps: tuple[int, ...], words: str) -> None:
    assert format_steps(steps) == words


IN_CYCLES = """
nodes: {d: relu, b: relu, a: relu, c: relu}
flow: input -> a -> b -> d
edges: [{from: input, to: c}, {from: c, to: b, delay: 0}, {from: d, to: a, delay: 1}, {from: b, to: b, delay: 1}]
"""


def test_nodes_in_cycles_are_listed_along_the_flow() -> None:
    """Each after all its sources by flow, delayed or not, and after those without delay."""
    plan = network(IN_CYCLES, steps=5, delay=1).plan
    for nodes, expected in (
        (plan.nodes, ["input", "c", "a", "b", "d"]),
        (plan.nodes[::-1], ["input", "a", "c", "b", "d"]),
    ):
        assert [node.name for node in along_flow(nodes, plan.edges)] == expected


def test_of_nodes_that_wait_for_each_other_the_first_comes_first() -> None:
    text = (
        "nodes: {a: relu, x: {block: state, shape: [2, 8, 8]}, y: relu}\nflow: [input -> a, x -> y]\noutputs: [a, y]\n"
    )
    text += "edges: [{from: y, to: x, delay: 1}, {from: a, to: x, delay: 1}]\n"
    plan = network(text, steps=4).plan
    records = {node.name: node for node in plan.nodes}
    for names, expected in (("yxa", ["a", "x", "y"]), ("yx", ["y", "x"]), ("xy", ["x", "y"])):
        nodes = [records[name] for name in names]
        edges = [edge for edge in plan.edges if {edge.source, edge.target} <= set(names)]
        assert [node.name for node in along_flow(nodes, edges)] == expected
