"""What reaches no output is not computed, and has no weights."""

from __future__ import annotations

import hiresnet_graph as hrg
from hiresnet_graph.graph import Graph
from hiresnet_graph.passes import expand, prune

HEAD = "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
SIDE = """nodes:
  a: {block: conv, width: 4}
  s: {block: basic, width: 4, depth: 2}
  side: {block: conv, width: 2}
  h: relu
flow: [a -> s -> h, a -> side]
skips: {edges: [a>side, s.block1>h]}
outputs: h
"""


def expanded(text: str) -> Graph:
    return expand(hrg.loads(HEAD + text).graph)


def test_a_branch_to_nowhere_goes_with_its_weights() -> None:
    before = expanded(SIDE)
    after = prune(before)
    assert "side.conv" in before and "side.conv" not in after
    assert not any(name.startswith(("side", "edges.a__side")) for name in hrg.loads(HEAD + SIDE).plan.tensors())
    assert {record.name for record in before.records[0]} - {record.name for record in after.records[0]} == {"side"}
    gone = {record.name for record in before.records[1]} - {record.name for record in after.records[1]}
    assert gone == {"flow.a__side", "edges.a__side"}


def test_what_is_behind_an_output_goes() -> None:
    after = prune(expanded(SIDE.replace("outputs: h", "outputs: s.block1")))
    assert "s.block1.relu2" in after and "s.block2.conv1" not in after and "h" not in after


def test_inputs_stay_since_they_are_arguments() -> None:
    text = """name: net
input: {l: {channels: 3}, r: {channels: 3}}
nodes: {a: {block: linear, width: 2}, b: {block: linear, width: 2}}
flow: [l -> a, r -> b]
outputs: a
"""
    made = hrg.loads(text)
    assert list(made.plan.inputs) == ["l", "r"]
    assert [call.name for call in made.plan.calls] == ["a"]


def test_nothing_to_prune_is_the_same_graph() -> None:
    graph = expanded("nodes: {a: {block: basic, width: 4}}\n")
    assert prune(graph) is graph
    once = prune(expanded(SIDE))
    assert prune(once) is once
