"""Templates in trees and params: values, positions of errors, and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import SpecError
from hiresnet_graph.spec.marked import MarkedDict, MarkedList, position_at
from hiresnet_graph.spec.reader import parse
from hiresnet_graph.spec.template import resolve_params, substitute

TREE = """\
nodes:
  stem: {block: conv, width: $width, note: 'it''s $(2 * width)'}
  keep: {a: 1, b: [x, y]}
flow: [stem -> head, "$$ $block"]
plain: text
"""


def test_substitute() -> None:
    tree = parse(TREE, "f.yaml")
    before = parse(TREE, "f.yaml")
    new = substitute(tree, {"width": 16, "block": "basic"})
    assert tree == before
    assert new == {
        "nodes": {"stem": {"block": "conv", "width": 16, "note": "it's 32"}, "keep": {"a": 1, "b": ["x", "y"]}},
        "flow": ["stem -> head", "$ basic"],
        "plain": "text",
    }
    assert type(new) is MarkedDict and type(new["flow"]) is MarkedList
    for path in [(), ("nodes",), ("nodes", "stem", "width"), ("flow", 1), ("plain",)]:
        assert position_at(new, path) == position_at(tree, path) is not None
    assert new["nodes"]["stem"].key_positions == tree["nodes"]["stem"].key_positions
    assert new["nodes"]["keep"] is tree["nodes"]["keep"]
    assert substitute(new["nodes"], {}) is new["nodes"]


def test_substitute_in_plain_data() -> None:
    assert substitute({"a": ["$w", {"b": "$w"}], 1: 2}, {"w": 3}) == {"a": [3, {"b": 3}], 1: 2}
    assert substitute("$(w + 1)", {"w": 3}) == 4
    assert substitute(5, {}) == 5 and substitute(None, {}) is None
    with pytest.raises(SpecError) as caught:
        substitute(["$x"], {})
    (problem,) = caught.value.problems
    assert problem.position is None and problem.path == "[0]"


def test_values_of_names_keep_their_positions() -> None:
    tree = parse("params: {short: {spatial: avg}}\nnodes: {a: $short}", "f.yaml")
    new = substitute(tree, {"short": tree["params"]["short"]})
    assert str(position_at(new, ("nodes", "a"))) == "f.yaml:2:12"
    assert str(position_at(new, ("nodes", "a", "spatial"))) == "f.yaml:1:27"


def test_every_mistake_of_a_tree_is_told_with_its_place() -> None:
    text = (
        "nodes:\n"
        '  stem: {width: $widht, k: "\\u00e9 $(1 / 0)"}\n'
        "  other:\n"
        "    note: one\n"
        "      two $nope\n"
        "edges:\n"
        "  - {from: a, to: 'it''s $(width'}\n"
        "  - [$(width), x$y]\n"
        "text: |\n"
        "  first\n"
        "    second $z\n"
    )
    with pytest.raises(SpecError) as caught:
        substitute(parse(text, "f.yaml"), {"width": 16})
    found = [(p.path, str(p.position), p.message) for p in caught.value.problems]
    assert found == [
        ("nodes.stem.width", "f.yaml:2:18", "there is no name 'widht' here."),
        ("nodes.stem.k", "f.yaml:2:38", "'/' would divide by zero."),
        ("nodes.other.note", "f.yaml:5:12", "there is no name 'nope' here."),
        ("edges[0].to", "f.yaml:7:26", "this '$(' is never closed."),
        ("edges[1][1]", "f.yaml:8:18", "there is no name 'y' here."),
        ("text", "f.yaml:11:13", "there is no name 'z' here."),
    ]
    assert caught.value.problems[0].hint == "Did you mean 'width'?"


def test_the_place_of_a_bare_text_can_be_given() -> None:
    tree = parse("flow: a -> $b", "f.yaml")
    with pytest.raises(SpecError) as caught:
        substitute(tree["flow"], {}, ("flow",), tree.value_positions["flow"])
    (problem,) = caught.value.problems
    assert (str(problem.position), problem.path) == ("f.yaml:1:13", "flow")


def test_shared_values_stay_bounded() -> None:
    names = {"xs": list(range(1_000))}
    assert len(substitute({"a": ["$xs"] * 500}, names)["a"]) == 500
    with pytest.raises(SpecError, match="1,000,000 values"):
        substitute({"a": ["$xs"] * 1_001}, names)
    tree = parse("b: [" + "[$xs, $xs], " * 600 + "]", "f")
    with pytest.raises(SpecError, match="1,000,000 values"):
        substitute(tree, names)
    params = MarkedDict({"p0": [1, 2], **{f"p{i}": [f"$p{i - 1}", f"$p{i - 1}"] for i in range(1, 60)}})
    with pytest.raises(SpecError, match="1,000,000 values"):
        resolve_params(params)
    params = MarkedDict({"p0": [1], **{f"p{i}": [f"$p{i - 1}"] for i in range(1, 3_000)}})
    with pytest.raises(SpecError, match="64 deep"):
        resolve_params(params)
    params = MarkedDict({"p0": "x" * 100, **{f"p{i}": f"$p{i - 1}$p{i - 1}" for i in range(1, 99)}})
    with pytest.raises(SpecError, match="10,000 characters"):
        resolve_params(params)


# ---- params


def params_of(text: str) -> MarkedDict:
    return parse(text, "f.yaml")


def test_params_in_any_order() -> None:
    params = params_of("a: $(b + 1)\nb: $c\nc: 3\nd: {x: $c, y: [$a, 't$$']}\nwords: conv\n")
    assert resolve_params(params) == {"a": 4, "b": 3, "c": 3, "d": {"x": 3, "y": [4, "t$"]}, "words": "conv"}
    assert list(resolve_params(params)) == list(params)
    assert resolve_params(MarkedDict()) == {}


def test_params_beside_given_names() -> None:
    assert resolve_params(params_of("hidden: $(in_width // 2)"), {"in_width": 8}) == {"hidden": 4}
    assert resolve_params(params_of("in_width: 3\nb: $in_width"), {"in_width": 8}) == {"in_width": 3, "b": 3}


def test_a_long_chain_of_params() -> None:
    params = MarkedDict({f"p{i}": f"$(p{i + 1} + 1)" for i in range(5_000)} | {"p5000": 0})
    assert resolve_params(params)["p0"] == 5_000


def test_cycles_are_printed() -> None:
    with pytest.raises(SpecError) as caught:
        resolve_params(params_of("x: 1\nb: $(a * 2)\nc: [$b, 'x']\na: {k: $c}\nself: $self\nlater: $(a + 1)\n"))
    found = [(p.path, str(p.position), p.message) for p in caught.value.problems]
    assert found == [
        ("params.b", "f.yaml:2:4", "params may not depend on themselves: b -> a -> c -> b."),
        ("params.self", "f.yaml:5:7", "params may not depend on themselves: self -> self."),
    ]


def test_mistakes_of_params_are_told_once() -> None:
    with pytest.raises(SpecError) as caught:
        resolve_params(params_of("a: $(b + 1)\nb: $widht\nwidth: $(1 / 0)\nc: {d: '$w $q'}\n"))
    found = [(p.path, str(p.position), p.hint) for p in caught.value.problems]
    assert [(path, at) for path, at, _ in found] == [
        ("params.b", "f.yaml:2:5"),
        ("params.width", "f.yaml:3:10"),
        ("params.c.d", "f.yaml:4:10"),
    ]
    assert found[0][2] == "Did you mean 'width'?"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.one_of(
            st.integers(),
            st.text("$()abcdef+-*/1 'x", max_size=12),
            st.sampled_from(["$a", "$b", "$c", "$(d+e)", "$f"]),
        ),
    )
)
def test_only_spec_errors_come_out_of_params(data: dict[str, Any]) -> None:
    try:
        assert list(resolve_params(MarkedDict(data))) == list(data)
    except SpecError as caught:
        assert all(problem.path.startswith("params.") for problem in caught.problems)


def test_a_tree_without_templates_comes_back_itself() -> None:
    tree = {f"n{i}": {"block": "basic", "width": 3, "items": ["a", "b"]} for i in range(10_000)}
    assert substitute(tree, {}) is tree


@pytest.mark.parametrize("value", [".nan", ".inf", "[1, -.inf]", "{x: .nan}"])
def test_numbers_of_params_are_finite(value: str) -> None:
    tree = parse(f"params:\n  a: {value}\n", "file")
    with pytest.raises(SpecError, match=r"file:2:6: params.a: a param requires finite numbers"):
        resolve_params(tree["params"])
