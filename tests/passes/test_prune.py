"""Calls on which no output depends are removed, with their weights."""

from __future__ import annotations

import hiresnet_graph as hrg
from hiresnet_graph.graph import OpGraph
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


def expanded(text: str) -> OpGraph:
    return expand(hrg.loads(HEAD + text).graph)


def test_an_unused_branch_is_removed_with_its_weights() -> None:
    before = expanded(SIDE)
    after = prune(before)
    assert "side.conv" in before and "side.conv" not in after
    assert not any(name.startswith(("side", "edges.a__side")) for name in hrg.loads(HEAD + SIDE).plan.tensors())
    removed = {record.name for record in before.records.nodes} - {record.name for record in after.records.nodes}
    assert removed == {"side"}
    removed = {record.name for record in before.records.edges} - {record.name for record in after.records.edges}
    assert removed == {"flow.a__side", "edges.a__side"}


def test_calls_after_the_output_are_removed() -> None:
    after = prune(expanded(SIDE.replace("outputs: h", "outputs: s.block1")))
    assert "s.block1.relu2" in after and "s.block2.conv1" not in after and "h" not in after


def test_unused_inputs_stay_as_arguments() -> None:
    text = """name: net
input: {l: {channels: 3}, r: {channels: 3}}
nodes: {a: {block: linear, width: 2}, b: {block: linear, width: 2}}
flow: [l -> a, r -> b]
outputs: a
"""
    made = hrg.loads(text)
    assert list(made.plan.inputs) == ["l", "r"]
    assert [call.name for call in made.plan.calls] == ["a"]


def test_a_graph_with_nothing_to_prune_is_returned_itself() -> None:
    graph = expanded("nodes: {a: {block: basic, width: 4}}\n")
    assert prune(graph) is graph
    once = prune(expanded(SIDE))
    assert prune(once) is once
