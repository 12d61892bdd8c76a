"""Equal pure calls are merged; calls with a state or with randomness are not."""

from __future__ import annotations

import torch

import hiresnet_graph as hrg
from hiresnet_graph.graph import OpGraph
from hiresnet_graph.passes import cse, expand
from hiresnet_graph.plan import make_plan

HEAD = "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
SKIPS = """nodes:
  a: {{block: conv, width: 4, stride: 2}}
  b: {{block: conv, width: 4}}
  c: {{block: conv, width: 4}}
flow: input -> a -> b -> c
skips: {{edges: [input>b, input>c], projection: {projection}}}
"""


def expanded(text: str) -> OpGraph:
    return expand(hrg.loads(HEAD + text).graph)


def kinds(graph: OpGraph) -> list[str]:
    return sorted(node.op.kind for node in graph.nodes if node.op is not None)


def test_two_poolings_of_one_value_become_one() -> None:
    before = expanded(SKIPS.format(projection="{norm: batch}"))
    after = cse(before)
    assert kinds(before).count("avg_pool") == 2 and kinds(after).count("avg_pool") == 1
    # Each convolution has its own weights, and each norm its own statistics.
    assert kinds(after).count("conv2d") == kinds(before).count("conv2d")
    assert kinds(after).count("batch_norm") == kinds(before).count("batch_norm")
    sources = {name for conv in ("edges.input__b.conv", "edges.input__c.conv") for name in after[conv].operands}
    assert sources == {"edges.input__b.pool"}


def test_a_chain_of_equal_calls_becomes_one() -> None:
    after = cse(expanded(SKIPS.format(projection="{spatial: stride, channels: pad, norm: none}")))
    assert kinds(after).count("subsample") == 1 and kinds(after).count("pad_channels") == 1
    assert after["b.output.add"].operands[1] == after["c.output.add"].operands[1]


def test_different_operations_stay_apart() -> None:
    text = "nodes: {a: {block: max_pool, kernel_size: 2}, b: {block: avg_pool, kernel_size: 2}, t: identity}\n"
    graph = expanded(text + "flow: [input -> a -> t, input -> b -> t]\n")
    assert cse(graph) is graph


def test_norms_and_dropout_stay_apart_even_with_shared_weights() -> None:
    text = """nodes:
  a: {block: batch_norm, weights: w}
  b: {block: batch_norm, weights: w}
  c: dropout
  d: dropout
  t: identity
flow: [input -> a -> t, input -> b -> t, input -> c -> t, input -> d -> t]
"""
    graph = expanded(text)
    assert cse(graph) is graph


def test_calls_with_shared_weights_and_one_operand_become_one() -> None:
    text = """nodes: {a: {block: conv2d, width: 3, weights: w}, b: {block: conv2d, width: 3, weights: w}, t: identity}
flow: [input -> a -> t, input -> b -> t]
"""
    after = cse(expanded(text))
    assert kinds(after) == ["add", "conv2d"]
    assert after["t.input.add"].operands == ("a", "a")
    make_plan(after)


def test_an_output_moves_to_the_remaining_call() -> None:
    text = "nodes: {a: relu, b: relu}\nflow: [input -> a, input -> b]\noutputs: [a, b]\n"
    after = cse(expanded(text))
    assert after.outputs == {"a": "a", "b": "a"}
    assert [record.value for record in after.records.nodes] == ["input", "a", "a"]
    module = hrg.loads(HEAD + text).build()
    assert list(module(torch.ones(1, 3, 8, 8))) == ["a", "b"]


def test_a_graph_without_equal_calls_is_returned_itself() -> None:
    graph = expanded("nodes: {a: relu}\n")
    assert cse(graph) is graph
    once = cse(expanded(SKIPS.format(projection="standard")))
    assert cse(once) is once
