"""Merges of hundreds of values: all forms of a network agree, and no expression is longer than Python can compile."""

from __future__ import annotations

import ast

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.emit.body import _LONGEST_CHAIN
from hiresnet_graph.testing import check_network


def network(values: int, merge: str, in_time: bool = False) -> hrg.Architecture:
    names = [f"b{i}" for i in range(values)]
    listed = ", ".join(names)
    return hrg.loads(f"""
name: long
input: {{channels: 2, height: 2, width: 2}}
nodes:
{"".join(f"  {name}: {{block: scale, sigmoid: true}}" + chr(10) for name in names)}
  t: {{block: conv, width: 2, kernel_size: 1, norm: none, merge: {merge}}}
  head: {{block: classifier, classes: 3}}
flow: {"input -> t" if in_time else "t"} -> head
edges:
- {{from: input, to: [{listed}]}}
- {{from: [{listed}], to: t, delay: {int(in_time)}}}
{"time: {steps: 2}" if in_time else ""}
""")


def _depth(tree: ast.AST) -> int:
    """The depth of nested operators and calls, without recursion."""
    deepest, todo = 0, [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        todo += [(child, depth + isinstance(node, ast.BinOp | ast.Call)) for child in ast.iter_child_nodes(node)]
    return deepest


@pytest.mark.parametrize("merge", ["add", "mean", "multiply"])
@pytest.mark.parametrize("values", [_LONGEST_CHAIN, _LONGEST_CHAIN + 1, 2 * _LONGEST_CHAIN])
def test_all_forms_agree_around_the_limit(values: int, merge: str) -> None:
    net = network(values, merge)
    check_network(net)
    lines = net.source().splitlines()
    assert _depth(ast.parse(net.source())) <= _LONGEST_CHAIN + 4 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("merge", ["mean", "concat"])
def test_four_hundred_operands(merge: str) -> None:
    check_network(network(400, merge))


@pytest.mark.slow
def test_a_thousand_delayed_edges_into_one_node() -> None:
    net = network(1000, "add", in_time=True)
    check_network(net)
    assert _depth(ast.parse(net.source())) <= _LONGEST_CHAIN + 4


def test_a_long_sum_is_several_statements() -> None:
    source = network(70, "add").source()
    lines = [line.strip() for line in source.splitlines()]
    assert lines.count("t = (") == 2 and lines.count("t") == 1 and any(line.startswith("t = t + ") for line in lines)
