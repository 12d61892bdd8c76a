"""Equal calls computed once: two skips that pool one value; never what remembers or draws."""

from __future__ import annotations

import torch

import hiresnet_graph as hrg
from hiresnet_graph.graph import Graph
from hiresnet_graph.passes import expand, share
from hiresnet_graph.plan import make_plan

HEAD = "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
SKIPS = """nodes:
  a: {{block: conv, width: 4, stride: 2}}
  b: {{block: conv, width: 4}}
  c: {{block: conv, width: 4}}
flow: input -> a -> b -> c
skips: {{edges: [input>b, input>c], projection: {projection}}}
"""


def expanded(text: str) -> Graph:
    return expand(hrg.loads(HEAD + text).graph)


def kinds(graph: Graph) -> list[str]:
    return sorted(node.block.kind for node in graph.nodes if node.block is not None)


def test_two_pools_of_one_value_are_one() -> None:
    before = expanded(SKIPS.format(projection="{norm: batch}"))
    after = share(before)
    assert kinds(before).count("avg_pool") == 2 and kinds(after).count("avg_pool") == 1
    # The convolutions have weights of their own, and the norms statistics of their own.
    assert kinds(after).count("conv2d") == kinds(before).count("conv2d")
    assert kinds(after).count("batch_norm") == kinds(before).count("batch_norm")
    sources = {edge.source for name in ("edges.input__b.conv", "edges.input__c.conv") for edge in after.incoming(name)}
    assert sources == {"edges.input__b.pool"}


def test_what_is_equal_through_and_through_is_one() -> None:
    after = share(expanded(SKIPS.format(projection="{spatial: stride, channels: pad, norm: none}")))
    assert kinds(after).count("subsample") == 1 and kinds(after).count("pad_channels") == 1
    assert after.incoming("b.output.add")[1].source == after.incoming("c.output.add")[1].source


def test_different_fields_are_different() -> None:
    text = "nodes: {a: {block: max_pool, kernel_size: 2}, b: {block: avg_pool, kernel_size: 2}, t: identity}\n"
    graph = expanded(text + "flow: [input -> a -> t, input -> b -> t]\n")
    assert share(graph) is graph


def test_norms_and_dropout_stay_apart_even_with_one_name_of_weights() -> None:
    text = """nodes:
  a: {block: batch_norm, weights: w}
  b: {block: batch_norm, weights: w}
  c: dropout
  d: dropout
  t: identity
flow: [input -> a -> t, input -> b -> t, input -> c -> t, input -> d -> t]
"""
    graph = expanded(text)
    assert share(graph) is graph


def test_one_name_of_weights_and_one_operand_is_one_call() -> None:
    text = """nodes: {a: {block: conv2d, width: 3, weights: w}, b: {block: conv2d, width: 3, weights: w}, t: identity}
flow: [input -> a -> t, input -> b -> t]
"""
    after = share(expanded(text))
    assert kinds(after) == ["add", "conv2d"]
    assert [edge.source for edge in after.incoming("t.input.add")] == ["a", "a"]
    make_plan(after)


def test_an_output_moves_to_the_call_that_stays() -> None:
    text = "nodes: {a: relu, b: relu}\nflow: [input -> a, input -> b]\noutputs: [a, b]\n"
    after = share(expanded(text))
    assert after.outputs == {"a": "a", "b": "a"}
    assert [record.value for record in after.records[0]] == ["input", "a", "a"]
    module = hrg.loads(HEAD + text).build()
    assert list(module(torch.ones(1, 3, 8, 8))) == ["a", "b"]


def test_nothing_to_share_is_the_same_graph() -> None:
    graph = expanded("nodes: {a: relu}\n")
    assert share(graph) is graph
    once = share(expanded(SKIPS.format(projection="standard")))
    assert share(once) is once
