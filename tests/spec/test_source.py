"""Reading, merging and writing data with positions."""

from __future__ import annotations

import copy
import json
import math
import pickle
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import Position, Problem, SpecError
from hiresnet_graph.spec import source
from hiresnet_graph.spec.source import (
    MarkedDict,
    MarkedList,
    format_path,
    key_position_at,
    merge,
    parse,
    parse_value,
    position_at,
    position_in,
    read,
    to_json,
    to_yaml,
)

SKETCH = """\
name: hiresnet18
params: {width: 16, block: basic}
nodes:
  stem:   {block: conv, width: $width}
  stage1: {block: $block, note: "two", depth: 2}
flow: [stem -> stage1, 'stage1 -> head']
edges:
  - from: stem
    to: stage1
"""


def place(position: Position | None) -> tuple[int, int] | None:
    return None if position is None else (position.line, position.column)


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    return caught.value.problems


def only(text: str) -> tuple[tuple[int, int] | None, str, str]:
    """Place, message and hint of the one problem of a text."""
    (problem,) = problems(text)
    return place(problem.position), problem.message, problem.hint


@pytest.fixture(params=["libyaml", "python"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: libyaml's, and PyYAML's own."""
    if request.param == "python":
        monkeypatch.setattr(source, "_fast_parser", lambda: source._PurePythonParser)
    elif not yaml.__with_libyaml__:
        pytest.skip("libyaml is missing")
    return str(request.param)


# ---- data and positions


def test_a_sketch_is_read_as_plain_data(either: str) -> None:
    assert parse(SKETCH, "f.yaml") == {
        "name": "hiresnet18",
        "params": {"width": 16, "block": "basic"},
        "nodes": {
            "stem": {"block": "conv", "width": "$width"},
            "stage1": {"block": "$block", "note": "two", "depth": 2},
        },
        "flow": ["stem -> stage1", "stage1 -> head"],
        "edges": [{"from": "stem", "to": "stage1"}],
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), (1, 1)),
        (("name",), (1, 7)),
        (("params",), (2, 9)),
        (("params", "width"), (2, 17)),
        (("nodes",), (4, 3)),
        (("nodes", "stem", "width"), (4, 32)),
        (("nodes", "stage1", "note"), (5, 34)),
        (("flow", 0), (6, 8)),
        (("flow", 1), (6, 25)),
        (("edges", 0), (8, 5)),
        (("edges", 0, "to"), (9, 9)),
        (("nodes", "stem", "missing"), (4, 11)),
        (("nodes", "stem", "missing", "deeper"), (4, 11)),
        (("nowhere", 3), (1, 1)),
        (("flow", 7), (6, 7)),
        (("name", 0), (1, 7)),
    ],
)
def test_position_at(either: str, path: tuple[str | int, ...], expected: tuple[int, int]) -> None:
    tree = parse(SKETCH, "f.yaml")
    position = position_at(tree, path)
    assert place(position) == expected
    assert position is not None and position.source.name == "f.yaml" and position.source.text == SKETCH


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("params", "block"), (2, 21)),
        (("nodes", "stem"), (4, 3)),
        (("nodes", "stage1", "note"), (5, 27)),
        (("edges", 0, "to"), (9, 5)),
        (("flow", 1), (6, 25)),
        (("nodes", "stem", "missing"), (4, 11)),
        (("nowhere", "a", "b"), (1, 1)),
        ((), (1, 1)),
    ],
)
def test_key_position_at(either: str, path: tuple[str | int, ...], expected: tuple[int, int]) -> None:
    assert place(key_position_at(parse(SKETCH, "f.yaml"), path)) == expected


def test_plain_data_has_no_positions() -> None:
    assert position_at({"a": [1]}, ("a", 0)) is None
    assert key_position_at({"a": [1]}, ("a",)) is None


def test_positions_count_characters_not_bytes(either: str) -> None:
    tree = parse("é: {ü😀: 'äö', b: 2}", "f.yaml")
    assert place(position_at(tree, ("é", "ü😀"))) == (1, 10)
    assert place(position_at(tree, ("é", "b"))) == (1, 18)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_line_break(either: str, newline: str) -> None:
    tree = parse("a: 1" + newline + newline + "b: {c: 2}" + newline, "f.yaml")
    assert tree == {"a": 1, "b": {"c": 2}}
    assert place(position_at(tree, ("b", "c"))) == (3, 8)


def test_block_scalars_start_at_their_text(either: str) -> None:
    tree = parse("a: |  # comment\n\n    one\n    two\nb: >-\n  three\n", "f.yaml")
    assert tree == {"a": "\none\ntwo\n", "b": "three"}
    assert place(tree.value_positions["a"]) == (3, 5)
    assert place(tree.value_positions["b"]) == (6, 3)


def test_tagged_and_anchored_values(either: str) -> None:
    tree = parse("a: !!str 5\nb: &b 'x'\nc: *b\nd: ! 7\ne: !!float 2\nf: &f {g: 1}\n", "f.yaml")
    assert tree == {"a": "5", "b": "x", "c": "x", "d": "7", "e": 2.0, "f": {"g": 1}}
    assert isinstance(tree["e"], float)
    assert {key: place(p) for key, p in tree.value_positions.items()} == {
        "a": (1, 10),
        "b": (2, 8),
        "c": (3, 4),
        "d": (4, 6),
        "e": (5, 12),
        "f": (6, 4),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("-3", -3),
        ("+3", 3),
        (".5", 0.5),
        ("1.", 1.0),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("Null", None),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("0b1", "0b1"),
        ("1e", "1e"),
        ("-.inf", -math.inf),
        ("-0x1", "-0x1"),
        ("=", "="),
        ("٣", "٣"),
        ("3x3", "3x3"),
    ],
)
def test_core_schema(either: str, text: str, value: Any) -> None:
    got = parse(f"a: {text}", "f")["a"]
    assert got == value and type(got) is type(value)
    got = parse_value(text, "f")
    assert got == value and type(got) is type(value)


@given(st.text("0123456789abcdefoxXOEetrunlTRUNLF~.+-_ai", max_size=6))
def test_scalars_are_those_of_yamlcore(text: str) -> None:
    yamlcore = pytest.importorskip("yamlcore")
    if text[:2] in ("- ", "? ") or text in ("-", "---", "..."):
        return
    expected = yaml.load(f"a: {text}", Loader=yamlcore.CoreLoader)["a"]
    got = parse(f"a: {text}", "f")["a"]
    assert repr(got) == repr(expected)


def test_json(either: str) -> None:
    text = '{\n\t"a":\t"x\\/\\u00e9\\n\\t\\"",\r\n\t"b":[1,-2.5E+3,true,null,{}],"c":{"d":"e"}\n}'
    tree = parse(text, "f.json")
    assert tree == json.loads(text)
    assert place(position_at(tree, ("b", 1))) == (3, 9)
    assert place(position_at(tree, ("c", "d"))) == (3, 41)


def test_surrogate_pairs_of_json(either: str) -> None:
    tree = parse('{"\\ud83d\\ude00": "\\uD83D\\uDE00 $x",\n\t"b": "c"}', "f.json")
    assert tree == {"😀": "😀 $x", "b": "c"}
    assert place(position_at(tree, ("b",))) == (2, 8)
    assert place(position_in(tree.value_positions["😀"], "😀 $x", 2)) == (1, 32)
    at, message, _ = only('{"a": "x\\ud83d"}')
    assert at == (1, 8) and "surrogate" in message


def test_byte_order_mark_is_no_text() -> None:
    tree = parse("\ufeffa: 1", "f")
    assert tree == {"a": 1} and place(tree.position) == (1, 1)


# ---- mistakes


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("", (1, 1), "nothing here", ""),
        ("# only a comment\n", (1, 1), "nothing here", ""),
        ("~", (1, 1), "must be a mapping, got nothing", "name: value"),
        ("# c\n- 1", (2, 1), "must be a mapping, got a list", ""),
        ("\n  word", (2, 3), "must be a mapping, got text 'word'", ""),
        ("a: 1\n---\nb: 1", (2, 1), "one document", ""),
        ("a: 1\n...\nb: 1", (3, 1), "one document", ""),
        ("a: {b: *.block1}", (1, 8), "leading '*'", "'*.block1'"),
        ("a: [*]", (1, 5), "leading '*'", "'*'"),
        ("a: *b", (1, 4), "no anchor '&b'", "'*b'"),
        ("a: &", (1, 4), "leading '&'", ""),
        ("a: &b", (1, 4), "'&b' is an anchor", "'&b'"),
        ("s: {e: &in + out}", (1, 8), "nothing uses", "'&in + out'"),
        ("a: &a [x, *a]", (1, 11), "into itself", ""),
        ("a: &a {b: {c: *a}}", (1, 15), "into itself", ""),
        ("a: {w: $(max(8, w))}", (1, 8), "cuts this template off", "in quotes: '$(max(8, w))'"),
        ("a: {w: $(x[0])}", (1, 8), "cuts this template off", "in quotes: '$(x[0])'"),
        ("a: [1, 2 $(max(8, w)), 3]", (1, 10), "cuts this template off", "'$(max(8, w))'"),
        ("a: {w: $(x['k'])}", (1, 8), "cuts this template off", "\"$(x['k'])\""),
        ("a: !!python/object:os.system x", (1, 4), "'!!python/object:os.system' is a tag", "Remove"),
        ("a: !mine {b: 1}", (1, 4), "'!mine' is a tag", ""),
        ("a: !!set {b}", (1, 4), "'!!set' is a tag", ""),
        ("a: !x!y 3", (1, 4), "tag", ""),
        ("a: !!int x", (1, 4), "not of the type", ""),
        ("a: {<<: {b: 1}}", (1, 5), "'<<'", "extends"),
        ("1: a", (1, 1), "key must be text, got the number 1", "'1'"),
        ("{true: a}", (1, 2), "key must be text, got true", "'true'"),
        ("{: a}", (1, 2), "got ':'", ""),
        ("?\n: b", (1, 2), "key must be text, got nothing", "Write a name"),
        ("~: b", (1, 1), "key must be text, got nothing", "'~'"),
        ("? [a]\n: b", (1, 3), "key must be text, got a list", ""),
        ("{{a: 1}: b}", (1, 2), "key must be text, got a mapping", ""),
        ("\ta: 1", (1, 1), "tab", "spaces"),
        ("a:\n\tb: 1", (2, 1), "tab", "spaces"),
        ("a: {b: 1", (1, 4), "'{' is never closed", ""),
        ("a:\n  - [1, 2\n\n", (2, 5), "'[' is never closed", ""),
        ("a: 'b", (1, 4), "quote is never closed", ""),
        ("a: b: c", (1, 5), "':' is not expected", "quotes"),
        ("a: @x", (1, 4), "may not start with '@'", "quotes"),
        ("a: %x", (1, 4), "may not start with '%'", "quotes"),
        ("a:\n  b: 1\n c: 2", (3, 2), "next key of the mapping that starts at 1:1", "indentation"),
        ("a: 1\nb\n", (2, 1), "name: value", ""),
        ("a: }", (1, 4), "got '}'", "quotes"),
        ("a: - b", (1, 4), "list may not start here", "own line"),
        ('{"a" 1}', (1, 6), "expected ',' or '}'", ""),
        ("a: \x00", (1, 4), "U+0000", "\\u0000"),
        ("a: b\u2028c", (1, 5), "U+2028", "\\u2028"),
        ("a: b\ufeff", (1, 5), "byte order mark", ""),
        ("a: \ud800", (1, 4), "surrogate", ""),
        ("a: " + "1" * 400, (1, 4), "at most 300 digits", ""),
    ],
)
def test_one_mistake(either: str, text: str, at: tuple[int, int], message: str, hint: str) -> None:
    position, got, advice = only(text)
    assert position == at
    assert message in got and got.endswith(".")
    assert hint in advice and (not advice or advice[-1] in ".?")


def test_escapes_that_are_none() -> None:
    for text in ('a: "\\q"', '{"a": "\\U99999999"}', '{"a": "\\u12"}'):
        ((line, column), message, _) = only(text)  # type: ignore[misc]
        assert line == 1 and 4 <= column <= 12 and "escape" in message


def test_all_mistakes_are_told_in_the_order_of_the_file(either: str) -> None:
    found = problems("a: 1\nb: {c: 1, c: 2, c: 3}\na: 2\n3: *x\nd: {<<: &y}\n")
    assert [(place(p.position), p.path) for p in found] == [
        ((2, 11), "b"),
        ((2, 17), "b"),
        ((3, 1), ""),
        ((4, 1), ""),
        ((4, 4), "3"),
        ((5, 5), "d"),
        ((5, 9), "d.<<"),
    ]
    assert "'c' stands here and at 2:5" in found[0].message
    assert "'a' stands here and at 1:1" in found[2].message


def test_a_mistake_before_a_syntax_error_is_told_too(either: str) -> None:
    assert [place(p.position) for p in problems("a: 1\na: 2\nb: [")] == [(2, 1), (3, 4)]
    # An anchor whose use comes after the error is not called unused.
    assert [place(p.position) for p in problems("a: &x 1\nb: [\nc: *x")] != [(1, 4)]


def test_paths_in_problems(either: str) -> None:
    (problem,) = problems("nodes:\n  a: {b: 1}\nedges:\n  - {from: x}\n  - {to: {a: 1, a: 2}}\n")
    assert problem.path == "edges[1].to" and place(problem.position) == (5, 17)


def test_nesting_is_bounded(either: str) -> None:
    assert parse("a: " + "[" * 63 + "]" * 63, "f")
    at, message, _ = only("a: " + "[" * 64 + "]" * 64)
    assert at == (1, 67) and "64 deep" in message
    for opening in ("[", "{a: ", "- ", "? "):
        assert any("64 deep" in problem.message for problem in problems(opening * 50_000))
    deep = "a0: &a0 [" * 1 + "x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 80))
    at, message, _ = only(deep)
    assert at == (64, 12) and "64 deep" in message


@pytest.mark.timeout(60)  # expanding it would never end
def test_alias_bombs_are_found_without_expanding(either: str) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    at, message, _ = only(text)
    assert at == (7, 10) and "1,000,000" in message


def test_too_many_values(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_VALUES", 1_000)
    assert parse("a: [" + "1," * 990 + "]", "f")
    at, message, _ = only("a: [" + "1," * 2_000_000 + "]")
    assert at == (1, 1999) and "at most 1,000 values" in message


def test_aliases_give_the_same_value(either: str) -> None:
    tree = parse("a: &a {b: 1}\nc: [*a, *a]\n&k d: *k\n", "f")
    assert tree == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}], "d": "d"}
    assert place(position_at(tree, ("c", 1))) == (2, 9)
    assert place(position_at(tree, ("c", 1, "b"))) == (1, 11)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text("a:b,{}[]&*!|>'\"%#-?\\ \n\tu08d$()<~1.@`", max_size=40)))
@example('"\\ud83d')
@example('a: "\\ud83d\\u0041"')
@example("a: !!int 99\n")
@example("a: !!float")
@example("!!str : b")
@example("{a: *a, &a b: c}")
@example("&a a: *a\n*a : 3")
@example("%TAG ! tag:x,2000:\n---\na: !b c")
@example("%YAML 1.3\n---\na: 1")
@example("? ")
@example("a: |9\n x")
def test_only_spec_errors_come_out(text: str) -> None:
    for parser in (source._fast_parser, lambda: source._PurePythonParser):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "_fast_parser", parser)
            for verb in (parse, parse_value):
                try:
                    verb(text, "f")
                except SpecError as error:
                    assert error.problems
                    for problem in error.problems:
                        assert problem.position is not None and problem.message.endswith(".")
                        assert problem.position.line >= 1 and problem.position.column >= 1
                        str(problem)


# ---- files


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: {b: 1}\r\n")
    tree = read(path)
    assert tree == {"a": {"b": 1}}
    assert str(position_at(tree, ("a", "b"))) == f"{path}:1:8"


def read_problem(path: Path) -> Problem:
    with pytest.raises(SpecError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert problem.position is not None and problem.position.source.name == str(path)
    return problem


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet.yaml").write_text("a: 1")
    problem = read_problem(tmp_path / "resnte.yaml")
    assert "no such file" in problem.message and problem.hint == "Did you mean 'resnet.yaml'?"
    assert place(problem.position) == (1, 1)
    assert "folder" in read_problem(tmp_path).message
    assert read_problem(tmp_path / "resnet.yaml" / "x").position is not None
    assert read_problem(tmp_path / "a\0b").position is not None
    (tmp_path / "empty.yaml").write_text("")
    assert "nothing here" in read_problem(tmp_path / "empty.yaml").message

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read" in read_problem(tmp_path / "resnet.yaml").message


def test_files_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: é\nb: ".encode() + "é".encode("latin-1"))
    problem = read_problem(path)
    assert place(problem.position) == (2, 4) and "not UTF-8 (byte 9)" in problem.message
    path.write_bytes("a: 1".encode("utf-16"))
    assert "UTF-16" in read_problem(path).message


def test_files_that_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))
    assert "16 MiB" in read_problem(path).message


def test_a_large_file_is_read() -> None:
    lines = ["nodes:"]
    lines += [f"  n{i}: {{block: basic, width: $(2 * w), stride: 1}}" for i in range(10_000)]
    lines += ["edges:"]
    lines += [f"  - {{from: n{i % 9999}, to: n{i % 7777}, merge: add}}" for i in range(30_000)]
    tree = parse("\n".join(lines), "f")
    assert place(position_at(tree, ("edges", 29_999, "merge")))[0] == 40_002  # type: ignore[index]


# ---- values of a command line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        (" 1e-3 ", 0.001),
        ("", None),
        ("null", None),
        ("*.block1", "*.block1"),
        ("in & out", "in & out"),
        ("$(max(8, w))", "$(max(8, w))"),
        ("a: b", "a: b"),
        ("x #y", "x #y"),
        ("- a", "- a"),
        ("!!str 5", "!!str 5"),
        ("'16'", "16"),
        ('"a\\n"', "a\n"),
        ("[1, a, {b: 2}]", [1, "a", {"b": 2}]),
        ("{channels: pad}", {"channels": "pad"}),
        ("---", "---"),
        ("stem>stage2", "stem>stage2"),
        ("|", "|"),
    ],
)
def test_parse_value(text: str, value: Any) -> None:
    assert parse_value(text, "command line") == value


@pytest.mark.parametrize(
    ("text", "at"),
    [("{a: 1", (1, 1)), ("[1, 2] x", (1, 8)), ("{a: 1, a: 2}", (1, 8)), ("1" * 999, (1, 1)), ("a\0", (1, 2))],
)
def test_parse_value_errors(text: str, at: tuple[int, int]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_value(text, "command line")
    assert [place(problem.position) for problem in caught.value.problems] == [at]


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
    shared = parse("a: &a {b: 1}\nc: *a", "f")
    new = copy.deepcopy(shared)
    assert new["a"] is new["c"] and new["a"] is not shared["a"]


def test_format_path() -> None:
    assert format_path(("edges", 7, "to")) == "edges[7].to"
    assert format_path(("nodes", "stem", "width")) == "nodes.stem.width"
    assert format_path(()) == "" and format_path((3, "a")) == "[3].a"


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("a: one $x", "$x"),
        ("a: 'it''s $x'", "$x"),
        ("a: '''$x'", "$x"),
        ('a: "\\u00e9\\t\\x41\\U0001F600 $x"', "$x"),
        ('a: "one \\\n   two $x"', "$x"),
        ('a: "one\n\n   two $x"', "$x"),
        ("a: one\n  two\n  three $x", "$x"),
        ("a: |\n  one\n    two\n  $x", "$x"),
        ("a: >\n  one\n  two\n\n  $x", "$x"),
        ("a: 'one\n   two $x'\n", "$x"),
        ("a: $x", "$x"),
        ("a: &b $x\nb: *b", "$x"),
    ],
)
def test_position_in_a_text(either: str, text: str, needle: str) -> None:
    tree = parse(text, "f")
    value = tree["a"]
    position = position_in(tree.value_positions["a"], value, value.index(needle))
    line = text.splitlines()[position.line - 1]
    assert line[position.column - 1 :].startswith(needle)
    assert place(position_in(position, "something computed", 5)) in {place(position), place(position.shifted(5))}


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
        ("{edges: [{from: a}]}", "{edges: []}", {"edges": [{"from": "a"}]}),
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


# ---- writing

NASTY = st.sampled_from(
    [
        "on",
        "Yes",
        "1e-3",
        "~",
        "",
        " ",
        "*x",
        "&x",
        "a: b",
        "a #b",
        "#",
        "- a",
        "-",
        "?",
        "? a",
        "---",
        "...",
        "%x",
        "@x",
        "`",
        "!a",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "it's",
        '"a"',
        "a\nb",
        "\n",
        "\ta",
        "é",
        "😀",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x00",
        "\x7f",
        "$(max(8, w))",
        "$width",
        "$(2 * width)",
        "stem -> stage1",
        "stem>stage2",
        "in & out",
        "stage*.block*",
        "{a}",
        "[a]",
        "a,b",
        "null",
        "True",
        ".inf",
        "-.INF",
        "0x1f",
        "0o7",
        "1_0",
        "12",
        "-1",
        "+1",
        ".5",
        "1.",
        "a ",
        " a",
        "a:",
        ":a",
        "<<",
        "=",
        "https://a/b?c",
        "\u200bx",
        "\xa0",
        "k" * 200,
        "\r",
        "a\r\nb",
        "$(a, b)",
        "x: $(f(1, 2))",
        "\xad",
    ]
)
TEXTS = st.one_of(NASTY, st.text(max_size=20), st.text(string.printable, max_size=12))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**290), 10**290), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
DATA = st.dictionaries(
    TEXTS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXTS, inner, max_size=5)),
        max_leaves=25,
    ),
    max_size=6,
)


def same(one: Any, two: Any) -> bool:
    """Equal, with equal types and in equal order."""
    return json.dumps(one, allow_nan=True) == json.dumps(two, allow_nan=True)


@settings(deadline=None)
@given(DATA)
def test_parse_undoes_to_yaml(data: dict[str, Any]) -> None:
    text = to_yaml(data)
    assert same(parse(text, "f"), data)
    assert to_yaml(parse(text, "f")) == text


@settings(deadline=None)
@given(DATA)
def test_parse_undoes_to_json(data: dict[str, Any]) -> None:
    text = to_json(data)
    assert same(parse(text, "f"), data)
    assert same(json.loads(text), data)


@settings(deadline=None)
@given(DATA)
def test_json_of_others_is_read(data: dict[str, Any]) -> None:
    # Python's own writer leaves these as they are, where YAML knows them as line breaks or control characters.
    raw = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for text in (json.dumps(data, indent="\t"), json.dumps(data), *([raw] if raw.isprintable() else [])):
        assert same(parse(text, "f"), data)


@settings(deadline=None)
@given(DATA)
def test_pure_python_reads_the_same(data: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_fast_parser", lambda: source._PurePythonParser)
        assert same(parse(to_yaml(data), "f"), data)
        assert same(parse(to_json(data), "f"), data)


@given(st.one_of(SCALARS, st.lists(SCALARS, max_size=4)))
def test_parse_value_undoes_to_yaml_of_short_data(value: Any) -> None:
    if isinstance(value, list):
        value = {"a": value}
        assert same(parse(to_yaml(value), "f"), value)
    else:
        assert same(parse_value(to_yaml(value).removesuffix("\n"), "f"), value)


def test_yaml_reads_as_people_write_it() -> None:
    data = {
        "name": "net",
        "params": {"width": 16, "lr": 1e-05},
        "nodes": {
            "stem": {"block": "conv", "width": "$width"},
            "stage1.block1": {"shortcut": {"channels": "none", "when": "always"}},
            "long": {f"field_number_{i}": "a value of some length" for i in range(4)},
        },
        "flow": ["stem -> stage1", "a -> $(max(8, w))"],
        "edges": [{"from": "a", "to": ["b", "c"]}, {"from": "a", "with": {"deep": {"er": [1]}}}],
        "empty": {},
        "none": None,
        "note": "it's: 1\n",
    }
    assert to_yaml(data) == (
        "name: net\n"
        "params: {width: 16, lr: 1e-05}\n"
        "nodes:\n"
        "  stem: {block: conv, width: $width}\n"
        "  stage1.block1: {shortcut: {channels: none, when: always}}\n"
        "  long:\n"
        "    field_number_0: a value of some length\n"
        "    field_number_1: a value of some length\n"
        "    field_number_2: a value of some length\n"
        "    field_number_3: a value of some length\n"
        "flow: [stem -> stage1, 'a -> $(max(8, w))']\n"
        "edges:\n"
        "  - {from: a, to: [b, c]}\n"
        "  - from: a\n"
        "    with:\n"
        "      deep: {er: [1]}\n"
        "empty: {}\n"
        "none: null\n"
        'note: "it\'s: 1\\n"\n'
    )


def test_json_reads_as_people_write_it() -> None:
    data = {"a": {"b": [1, 2]}, "c": [], "d": {"e": {"f": {"g": 1}}}, "h": [True, None, 0.5]}
    assert to_json(data) == (
        '{\n  "a": {\n    "b": [1, 2]\n  },\n  "c": [],\n'
        '  "d": {\n    "e": {"f": {"g": 1}}\n  },\n  "h": [true, null, 0.5]\n}\n'
    )
    assert to_json({}) == "{}\n" and to_json(3) == "3\n" and to_yaml({}) == "{}\n" and to_yaml("on") == "'on'\n"


def test_lines_stay_short() -> None:
    data = {"a": {"b": {f"k{i}": i for i in range(100)}, "c": ["word"] * 30}}
    assert all(len(line) <= 120 for text in (to_yaml(data), to_json(data)) for line in text.splitlines())


def test_numbers_that_are_not_finite() -> None:
    text = to_yaml({"a": math.inf, "b": -math.inf, "c": math.nan})
    assert text == "a: .inf\nb: -.inf\nc: .nan\n"
    tree = parse(text, "f")
    assert tree["a"] == math.inf and tree["b"] == -math.inf and math.isnan(tree["c"])
    with pytest.raises(ValueError, match="inf"):
        to_json({"a": [math.inf]})


@pytest.mark.parametrize("write", [to_yaml, to_json])
def test_only_plain_data_is_written(write: Any) -> None:
    assert parse(write({"a": (1, 2)}), "f") == {"a": [1, 2]}
    with pytest.raises(TypeError, match="object"):
        write({"a": [object()]})
    with pytest.raises(TypeError, match="key"):
        write({"a": {1: 2}})
