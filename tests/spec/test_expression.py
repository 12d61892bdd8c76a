"""Expressions: values, bounds, positions of errors, and that nothing but their own errors comes out."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import ExpressionError
from hiresnet_graph.spec import arithmetic, expression
from hiresnet_graph.spec.arithmetic import FUNCTIONS
from hiresnet_graph.spec.expression import evaluate, names_in

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
        ("$(0 or 'no')", "no"),
        ("$(block or 'x')", "basic"),
        ("$('' or 'x')", "x"),
        ("$(1 if block else 2)", 1),
        ("$(block == 3)", False),
        ("$('no' == 'no')", True),
        ("$(nothing == 'none')", False),
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
        ("$(width +)", 9, "not a valid expression", ""),
        ("$(2 $width)", 4, "not a valid expression", "without a '$'"),
        ("$(width ? 1)", 8, "not a valid expression", ""),
        ("$(1 + ('a)", 0, "never closed", ""),
        ("x $(1 / 0)", 4, "divide by zero", ""),
        ("$(width // (4 - 4))", 2, "divide by zero", ""),
        ("$(width % 0.0)", 2, "divide by zero", ""),
        ("$(0 ** -1)", 2, "divide by zero", ""),
        ("$(1 + 'a' * 3)", 6, "'*' cannot be applied to text and a number", ""),
        ("$([1] * 3)", 2, "'*' cannot be applied to a list and a number", ""),
        ("$('%d' % 3)", 2, "'%' cannot be applied to text and a number", ""),
        ("$(1 if 'no' else 2)", 7, "'no' is text, and as a condition text is always true", "true, false"),
        ("$(not 'off')", 6, "'off' is text, and as a condition", ""),
        ("$('None' or 3)", 2, "'None' is text, and as a condition", ""),
        ("$(1 if width and '0' else 2)", 7, "'0' is text, and as a condition", ""),
        ("$('7' == 7)", 2, "'7' is text, which never equals 7", "without quotes"),
        ("$(True != 'yes')", 2, "'yes' is text, which never equals True", ""),
        ("$(width + 'a')", 2, "'+' cannot be applied to a number and text", ""),
        ("$(width + None)", 2, "'+' cannot be applied to a number and None", ""),
        ("$(-'a')", 2, "'-' cannot be applied to text", ""),
        ("$(width < 'a')", 2, "'<' cannot be applied to a number and text", ""),
        ("$(1 in width)", 2, "'in' cannot be applied to a number and a number", ""),
        ("$(9**9**9)", 2, "too large", ""),
        ("$(2 ** 50)", 2, "too large", ""),
        ("$(10**15 + 1)", 2, "too large", ""),
        ("$(9999999999999999)", 2, "too large", ""),
        ("$(1e308 * 10)", 2, "not a finite number", ""),
        ("$(1e999)", 2, "not a finite number", ""),
        ("$(10.0 ** 999)", 2, "too large", ""),
        ("$((-8) ** 0.5)", 2, "not a real number", ""),
        ("$(float('nan'))", 2, "not a finite number", ""),
        ("$(int('x'))", 2, "'x' is not a number", ""),
        ("$(round(1, 10 ** 9))", 2, "-15 to 15", ""),
        ("$(xs[7])", 5, "no item 7: there are 3", ""),
        ("$(xs['a'])", 5, "whole number, got text", ""),
        ("$(xs[True])", 5, "whole number, got True", ""),
        ("$(d['aa'])", 4, "no key 'aa'", "'a'"),
        ("$(d[1])", 4, "key is text", ""),
        ("$(width[0])", 2, "a number has no items", ""),
        ("$(xs[0:1])", 5, "'0:1'", ""),
        ("$(len(3))", 2, "'len' cannot be applied to a number", ""),
        ("$(min())", 2, "takes 1 to 100 values, got 0", ""),
        ("$(max([]))", 2, "at least one value", ""),
        ("$(max(1, 'a'))", 2, "'max' cannot be applied to", ""),
        ("$(round('a'))", 2, "'round' cannot be applied to text", ""),
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
        ("a $xs", 2, "a list cannot be part of", "whole value"),
        ("$d$width", 0, "a mapping cannot be part of", ""),
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
    if "$" not in text:
        assert evaluate(text, {}) is text


@given(st.text())
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert evaluate(text.replace("$", "$$"), {}) == text


def test_names_in() -> None:
    assert names_in("plain") == names_in("$$w") == frozenset()
    assert names_in("$w and $(max(a, xs[i]) if b['k'] else 'c')") == {"w", "a", "xs", "i", "b"}
    assert names_in("$(max + max(1, 2))") == {"max"}
    assert names_in("$(w") == frozenset()


def test_nothing_is_ever_evaluated_by_python() -> None:
    names: set[str] = set()
    for module in (arithmetic, expression):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "parse" in names and not names & {"eval", "exec", "__import__", "getattr_static", "literal_eval"}
    assert error("$(__import__('os'))").offset == 2
