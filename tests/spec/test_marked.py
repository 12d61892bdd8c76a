"""Mappings and lists with positions: copies, paths and merging."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from hiresnet_graph.spec.marked import (
    MarkedDict,
    MarkedList,
    format_path,
    key_position_at,
    merge,
    position_at,
    position_in,
)
from hiresnet_graph.spec.reader import parse
from tests.spec.test_reader import SKETCH


def test_plain_data_has_no_positions() -> None:
    assert position_at({"a": [1]}, ("a", 0)) is None
    assert key_position_at({"a": [1]}, ("a",)) is None


# ---- containers


def test_containers_can_be_copied() -> None:
    tree = parse(SKETCH, "f.yaml")
    for new in (copy.copy(tree), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree)), tree.copy()):
        assert type(new) is MarkedDict and new == tree and new is not tree
        assert new.position == tree.position
        assert new.key_positions == tree.key_positions and new.value_positions == tree.value_positions
        assert position_at(new, ("flow", 1)) == position_at(tree, ("flow", 1))
        new["name"] = "other"
        del new.value_positions["name"]
        assert tree["name"] == "hiresnet18" and "name" in tree.value_positions
    assert copy.copy(tree)["flow"] is tree["flow"]
    assert copy.deepcopy(tree)["flow"] is not tree["flow"]
    flow = tree["flow"]
    for items in (copy.copy(flow), copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), flow.copy()):
        assert type(items) is MarkedList and items == flow and items is not flow
        assert items.positions == flow.positions and items.position == flow.position
    inner = MarkedDict({"b": 1})
    shared = MarkedDict({"a": inner, "c": inner})
    new = copy.deepcopy(shared)
    assert new["a"] is new["c"] and new["a"] is not shared["a"]


def test_format_path() -> None:
    assert format_path(("edges", 7, "to")) == "edges[7].to"
    assert format_path(("nodes", "stem", "width")) == "nodes.stem.width"
    assert format_path(()) == "" and format_path((3, "a")) == "[3].a"


# ---- merging


def merged(base: str, patch: str) -> MarkedDict:
    one, two = parse(base, "base"), parse(patch, "patch")
    before = copy.deepcopy(one), copy.deepcopy(two)
    new = merge(one, two)
    assert (one, two) == before and one.value_positions == before[0].value_positions
    return new


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ("{a: 1, b: {c: 2, d: 3}}", "{b: {c: 4}, e: 5}", {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}),
        ("{a: 1, b: {c: 2}}", "{a: null, b: {c: null}}", {"b": {}}),
        ("{a: {b: 1}}", "{a: null, c: {d: null}}", {"c": {"d": None}}),
        ("{a: 1}", "{b: null}", {"a": 1, "b": None}),
        ("{a: [1, 2]}", "{a: [3]}", {"a": [3]}),
        ("{a: {b: 1}}", "{a: text}", {"a": "text"}),
        ("{a: text}", "{a: {b: null}}", {"a": {"b": None}}),
        ("{a: null}", "{a: 1}", {"a": 1}),
        ("{params: {w: 1}}", "{params: {w: {x: 1}}}", {"params": {"w": {"x": 1}}}),
        ("{edges: [{from: a}]}", "{edges: [{from: b}]}", {"edges": [{"from": "a"}, {"from": "b"}]}),
        (
            "{edges: [{name: x, from: a, to: b}, {from: c}]}",
            "{edges: [{from: d}, {name: x, to: e}]}",
            {"edges": [{"name": "x", "to": "e"}, {"from": "c"}, {"from": "d"}]},
        ),
        ("{edges: [{from: a}]}", "{edges: full}", {"edges": "full"}),
        ("{edges: [{from: a}]}", "{edges: [a>b]}", {"edges": ["a>b"]}),
        ("{edges: [{from: a}]}", "{edges: []}", {"edges": []}),
        (
            "{edges: [{from: a, to: [b, c]}, {from: a, to: b}]}",
            "{edges: [{from: a, to: b, delay: 1}, {from: a, to: [b, c], slot: output}, {name: x, from: a, to: b}]}",
            {
                "edges": [
                    {"from": "a", "to": ["b", "c"], "slot": "output"},
                    {"from": "a", "to": "b", "delay": 1},
                    {"name": "x", "from": "a", "to": "b"},
                ]
            },
        ),
        ("{edges: [{from: a}]}", "{edges: null}", {}),
        ("{skips: {edges: [a>b]}}", "{skips: {edges: [c>d]}}", {"skips": {"edges": ["c>d"]}}),
        ("{v: {edges: [{from: a}]}}", "{v: {edges: [{from: b}]}}", {"v": {"edges": [{"from": "b"}]}}),
        (
            "{blocks: {cell: {edges: [{from: a}]}}}",
            "{blocks: {cell: {edges: [{from: b}]}}}",
            {"blocks": {"cell": {"edges": [{"from": "a"}, {"from": "b"}]}}},
        ),
    ],
)
def test_merge(base: str, patch: str, expected: dict[str, Any]) -> None:
    assert merged(base, patch) == expected


def test_merge_keeps_order_and_positions() -> None:
    base = "a: 1\nb: {c: 2, d: 3}\nedges: [{name: x}, {from: a}]"
    new = merged(base, "b: {d: 4, e: 5}\nedges: [{from: b}, {name: x}]")
    assert list(new) == ["a", "b", "edges"] and list(new["b"]) == ["c", "d", "e"]
    at = {path: str(position_at(new, path)) for path in [("a",), ("b",), ("b", "c"), ("b", "d"), ("b", "e")]}
    assert at == {
        ("a",): "base:1:4",
        ("b",): "base:2:4",
        ("b", "c"): "base:2:8",
        ("b", "d"): "patch:1:8",
        ("b", "e"): "patch:1:14",
    }
    assert [str(position_at(new, ("edges", i))) for i in range(3)] == ["patch:2:20", "base:3:20", "patch:2:9"]
    assert str(key_position_at(new, ("b", "e"))) == "patch:1:11"
    gone = merged("{a: 1, b: 2}", "{a: null}")
    assert "a" not in gone.key_positions and "a" not in gone.value_positions


def test_merge_of_data_without_positions() -> None:
    new = merge(parse("{a: 1, edges: [{from: a}]}", "f"), MarkedDict({"a": 2, "edges": [{"from": "b"}]}))
    assert new == {"a": 2, "edges": [{"from": "a"}, {"from": "b"}]}
    assert "a" not in new.value_positions and new["edges"].positions == []


@pytest.mark.parametrize("sign", ["|", ">-"])
def test_the_position_in_a_text_of_several_lines_is_in_its_line(sign: str) -> None:
    text = f"flow: {sign}\n  stem ->\n\n  nope -> h\n"
    tree = parse(text, "file")
    value = tree["flow"]
    found = position_in(tree.value_positions["flow"], value, value.index("nope"))
    assert (found.line, found.column) == (4, 3)
