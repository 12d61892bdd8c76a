"""Templates: values, bounds, places of mistakes, and that nothing but their own errors comes out."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import ExpressionError, SpecError
from hiresnet_graph.spec import template
from hiresnet_graph.spec.source import MarkedDict, MarkedList, parse, position_at
from hiresnet_graph.spec.template import FUNCTIONS, evaluate, is_template, names_in, resolve_params, substitute

NAMES: Mapping[str, Any] = {
    "w": 16,
    "f": 2.5,
    "flag": True,
    "nothing": None,
    "block": "basic",
    "xs": [1, 2, {"k": 3}],
    "d": {"a": 1, "b": [4]},
    "big": 10**18,
}


def error(text: str, names: Mapping[str, Any] = NAMES) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, names)
    assert caught.value.message.endswith(".") and 0 <= caught.value.offset <= len(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$w", 16),
        ("$xs", [1, 2, {"k": 3}]),
        ("$block", "basic"),
        ("$nothing", None),
        ("$big", 10**18),
        ("$(w)", 16),
        ("$(2 * w)", 32),
        ("$(w // 3)", 5),
        ("$(w / 4)", 4.0),
        ("$(w % 5)", 1),
        ("$(-w + +1)", -15),
        ("$(2 ** 10)", 1024),
        ("$(2 ** -1)", 0.5),
        ("$(2 + 3 * 4 - 1)", 13),
        ("$(-7 // 2)", -4),
        ("$(1 < 2 < 3)", True),
        ("$(1 < 3 < 3)", False),
        ("$(w == 16 != 3)", True),
        ("$(block == 'basic')", True),
        ("$('a' in ['a', 'b'])", True),
        ("$('b' not in d)", False),
        ("$(not flag)", False),
        ("$(0 or 'x')", "x"),
        ("$(1 and 0 and 1 // 0)", 0),
        ("$(1 if flag else 1 // 0)", 1),
        ("$(xs[0])", 1),
        ("$(xs[-1]['k'])", 3),
        ("$(block[0])", "b"),
        ("$(d['b'][0])", 4),
        ("$([w, 'a', None])", [16, "a", None]),
        ("$(1, 2)", [1, 2]),
        ("$(min(3, w))", 3),
        ("$(max([1, 7, 2]))", 7),
        ("$(round(2.5))", 2),
        ("$(round(2.567, 2))", 2.57),
        ("$(ceil(2.1))", 3),
        ("$(floor(-2.1))", -3),
        ("$(len(xs))", 3),
        ("$(abs(-3))", 3),
        ("$(int('12') + int(2.9))", 14),
        ("$(float(3))", 3.0),
        ("$(str(3) + 'x3')", "3x3"),
        ("$([1] + [2])", [1, 2]),
        ("$(0x10 + 1_000)", 1016),
        ("$(1e-3)", 0.001),
        ("$('a)b(')", "a)b("),
        ('$("it\'s")', "it's"),
        ("$(w\n  + 1)", 17),
        ("$( w )", 16),
        ("$(True)", True),
        ("$(" + " + ".join(["1"] * 240) + ")", 240),
        ("x$w", "x16"),
        ("$w$w", "1616"),
        ("$w.block", "16.block"),
        ("a $(w * 2) b $f", "a 32 b 2.5"),
        ("$$", "$"),
        ("$$w", "$w"),
        ("$$$w", "$16"),
        ("5$$ $w", "5$ 16"),
        ("$flag/$nothing", "true/null"),
        ("$w>$block", "16>basic"),
    ],
)
def test_evaluate(text: str, value: Any) -> None:
    got = evaluate(text, NAMES)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["$(floor(2.5))", "$(ceil(2.5))", "$(round(2.5))", "$(int(2.5))", "$(w // 4)"])
def test_whole_numbers_are_ints(text: str) -> None:
    assert type(evaluate(text, NAMES)) is int


@pytest.mark.parametrize(
    ("text", "offset", "message", "hint"),
    [
        ("$", 0, "after '$'", "'$$'"),
        ("cost: 5$.", 7, "after '$'", "'$$'"),
        ("a $(", 2, "never closed", ""),
        ("a $(w", 2, "never closed", ""),
        ("$()", 2, "expected an expression", ""),
        ("$( )", 2, "expected an expression", ""),
        ("$widht", 1, "no name 'widht'", "'width'"),
        ("ab $(2 * widht)", 9, "no name 'widht'", "'width'"),
        ("$('é' + widht)", 8, "no name 'widht'", "'width'"),
        ("$(true)", 2, "no name 'true'", "'True'"),
        ("$max", 1, "is a function", "max(...)"),
        ("$(max + 1)", 2, "is a function", "max(...)"),
        ("$(foo(1))", 2, "no function 'foo'", "floor"),
        ("$(flor(1))", 2, "no function 'flor'", "'floor'"),
        ("$(width +)", 9, "no expression", ""),
        ("$(2 $width)", 4, "no expression", "without a '$'"),
        ("$(width ? 1)", 8, "no expression", ""),
        ("$(1 + ('a)", 0, "never closed", ""),
        ("x $(1 / 0)", 4, "divide by zero", ""),
        ("$(width // (4 - 4))", 2, "divide by zero", ""),
        ("$(width % 0.0)", 2, "divide by zero", ""),
        ("$(0 ** -1)", 2, "divide by zero", ""),
        ("$(1 + 'a' * 3)", 6, "'*' cannot take text and a number", ""),
        ("$([1] * 3)", 2, "'*' cannot take a list and a number", ""),
        ("$('%d' % 3)", 2, "'%' cannot take text and a number", ""),
        ("$(width + 'a')", 2, "'+' cannot take a number and text", ""),
        ("$(width + None)", 2, "'+' cannot take a number and None", ""),
        ("$(-'a')", 2, "'-' cannot take text", ""),
        ("$(width < 'a')", 2, "'<' cannot take a number and text", ""),
        ("$(1 in width)", 2, "'in' cannot take a number and a number", ""),
        ("$(9**9**9)", 2, "too large", ""),
        ("$(2 ** 50)", 2, "too large", ""),
        ("$(10**15 + 1)", 2, "too large", ""),
        ("$(9999999999999999)", 2, "too large", ""),
        ("$(1e308 * 10)", 2, "not a finite number", ""),
        ("$(1e999)", 2, "not a finite number", ""),
        ("$(10.0 ** 999)", 2, "too large", ""),
        ("$((-8) ** 0.5)", 2, "no real number", ""),
        ("$(float('nan'))", 2, "not a finite number", ""),
        ("$(int('x'))", 2, "'x' is no number", ""),
        ("$(round(1, 10 ** 9))", 2, "-15 to 15", ""),
        ("$(xs[7])", 5, "no item 7: there are 3", ""),
        ("$(xs['a'])", 5, "whole number, got text", ""),
        ("$(xs[True])", 5, "whole number, got True", ""),
        ("$(d['aa'])", 4, "no key 'aa'", "'a'"),
        ("$(d[1])", 4, "key is text", ""),
        ("$(width[0])", 2, "a number has no items", ""),
        ("$(xs[0:1])", 5, "'0:1'", ""),
        ("$(len(3))", 2, "'len' cannot take a number", ""),
        ("$(min())", 2, "takes 1 to 100 values, got 0", ""),
        ("$(max([]))", 2, "at least one value", ""),
        ("$(max(1, 'a'))", 2, "'max' cannot take", ""),
        ("$(round('a'))", 2, "'round' cannot take text", ""),
        ("$(max(1, key=len))", 2, "without names", ""),
        ("$(max(*xs))", 6, "'*xs'", ""),
        ("$(xs.append)", 2, "'xs.append'", "functions"),
        ("$(().__class__)", 2, "'().__class__'", ""),
        ("$(lambda: 1)", 2, "'lambda: 1'", ""),
        ("$([x for x in xs])", 2, "'[x for x in xs]'", ""),
        ("$({1: 2})", 2, "'{1: 2}'", ""),
        ("$(f'{width}')", 2, "f'{width}'", ""),
        ("$(1 + b'x')", 6, "b'x'", ""),
        ("$(2j)", 2, "'2j'", ""),
        ("$(...)", 2, "'...'", ""),
        ("$(x := 1)", 2, "'x := 1'", ""),
        ("$((yield))", 3, "'yield'", ""),
        ("$(width & 3)", 2, "'width & 3'", ""),
        ("$(width is None)", 11, "'is'", "=="),
        ("$(xs.pop()(1))", 2, "xs.pop()", ""),
        ("a $xs", 2, "a list may not stand inside", "whole value"),
        ("$d$width", 0, "a mapping may not stand inside", ""),
    ],
)
def test_mistakes(text: str, offset: int, message: str, hint: str) -> None:
    got = error(text, {"width": 16, "xs": [1, 2, 3], "d": {"a": 1}})
    assert (got.offset, message in got.message, hint in got.hint) == (offset, True, True), (got.message, got.hint)


@pytest.mark.timeout(60)  # each would run for hours if it were computed
def test_bounds() -> None:
    assert "1,000 characters" in error("$(" + "1" * 1001 + ")").message
    assert "1,000 characters" in error("$(" + "'\\" * 100_000).message
    for deep in ("(" * 400 + "1" + ")" * 400, "-" * 900 + "1", "not " * 200 + "1"):
        assert error(f"$({deep})").message
    assert "50 deep" in error("$(" + "-" * 60 + "1)").message
    assert "50 deep" in error("$(" + "[" * 60 + "]" * 60 + ")").message
    assert evaluate("$(" + "(" * 100 + "w" + ")" * 100 + ")", NAMES) == 16
    long = {"s": "x" * 9_000, "xs": [0] * 9_000, "huge": 10**299}
    assert "too long" in error("$(s + s)", long).message
    assert "too long" in error("$(xs + xs)", long).message
    assert "at most 10,000 characters" in error("$s$s", long).message
    assert "too large" in error("$(huge * huge)", long).message
    assert "too large" in error("$(huge ** huge)", long).message
    assert "too large" in error("$(-huge ** 3)", long).message
    assert evaluate("$(huge > 3)", long) is True
    assert "too long" in error("a$x", {"x": 10**5000}).message


@pytest.mark.parametrize(
    "value", [10**400, math.inf, -math.inf, math.nan, object(), {1: 2}, b"x", {1, 2}, 1j, (), "x" * 10**6]
)
def test_odd_values_of_names(value: Any) -> None:
    parts = ["x + 1", "x * x", "x ** 9", "x / 3", "x // 3", "x % 3", "-x", "x[0]", "x < 1", "x in x", "x == x"]
    forms = [
        "a$x",
        *(f"$({part})" for part in parts),
        *(f"$({name}(x))" for name in FUNCTIONS),
        *(f"$({name}(x, x))" for name in FUNCTIONS),
    ]
    for text in forms:
        try:
            evaluate(text, {"x": value})
        except ExpressionError as caught:
            assert caught.message.endswith(".")


@settings(deadline=None)
@given(
    st.integers(-50, 50),
    st.integers(-50, 50),
    st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or"]),
)
def test_arithmetic_is_that_of_python(a: int, b: int, sign: str) -> None:
    assume(not (sign in ("/", "//", "%") and b == 0) and not (sign == "**" and (abs(b) > 8 or (a == 0 and b < 0))))
    expected = eval(f"a {sign} b", {"a": a, "b": b})
    got = evaluate(f"$(a {sign} b)", {"a": a, "b": b})
    assert got == expected and type(got) is type(expected)


PIECES = st.sampled_from(
    [
        "$",
        "$$",
        "$(",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "w",
        "xs",
        "d",
        "min(",
        "max(",
        "len",
        "round(",
        "int(",
        "str(",
        "float(",
        "9",
        "0",
        "1e9",
        "**",
        "*",
        "+",
        "-",
        "/",
        "//",
        "%",
        " ",
        ",",
        ".",
        ":",
        "=",
        "==",
        "<",
        " in ",
        " not ",
        " is ",
        " if ",
        " else ",
        " and ",
        " or ",
        "'a'",
        '"',
        "'",
        "\\",
        "\n",
        "#",
        "lambda",
        "f'",
        "b'",
        "0x",
        "0b",
        "1_",
        "é",
        "😀",
        "\0",
        "\t",
        "ª",
        "async ",
        "await ",
        "yield ",
        "\x0c",
        "`",
        "'k'",
        "~",
        "@",
        "&",
        "|",
        "^",
        ";",
        "import os",
        "__",
        "9" * 20,
        "if",
        "1if",
        "0o",
        "1j",
    ]
)


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(
        st.text(),
        st.lists(PIECES, max_size=25).map("".join),
        st.lists(PIECES, max_size=25).map(lambda p: f"$({''.join(p)})"),
    )
)
@example("$(0x1if 2 else 3)")
@example("$('\\d')")
@example("$('\\N{x}')")
@example("$(\ud800)")
@example("$(1 is 1)")
@example("$(()())")
@example("$(1()[1])")
def test_only_expression_errors_come_out(text: str) -> None:
    try:
        evaluate(text, NAMES)
    except ExpressionError as caught:
        assert caught.message.endswith(".") and 0 <= caught.offset <= len(text)
        assert not caught.hint or caught.hint[-1] in ".?"
    assert isinstance(names_in(text), frozenset)
    assert isinstance(is_template(text), bool)
    if not is_template(text) and "$" not in text:
        assert evaluate(text, {}) is text


@given(st.text())
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert evaluate(text.replace("$", "$$"), {}) == text
    assert not is_template(text.replace("$", "$$"))


def test_names_in() -> None:
    assert names_in("plain") == names_in("$$w") == frozenset()
    assert names_in("$w and $(max(a, xs[i]) if b['k'] else 'c')") == {"w", "a", "xs", "i", "b"}
    assert names_in("$(max + max(1, 2))") == {"max"}
    assert names_in("$(w") == frozenset()


def test_is_template() -> None:
    assert is_template("$w") and is_template("a$(b)") and is_template("$$$w") and is_template("$(")
    assert not is_template("a") and not is_template("$$w") and not is_template("5$") and not is_template("")


def test_nothing_is_ever_evaluated_by_python() -> None:
    tree = ast.parse(Path(template.__file__).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "parse" in names and not names & {"eval", "exec", "__import__", "getattr_static", "literal_eval"}
    assert error("$(__import__('os'))").offset == 2


# ---- trees

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
    tree = parse("a: &a [$xs, $xs]\nb: [" + "*a, " * 600 + "]", "f")
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
        ("params.b", "f.yaml:2:4", "params may not need themselves, but here is a cycle: b -> a -> c -> b."),
        ("params.self", "f.yaml:5:7", "params may not need themselves, but here is a cycle: self -> self."),
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
            st.lists(PIECES, max_size=8).map("".join),
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
