"""Reading YAML and JSON: data, positions, limits, and the position of every error."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import Position, Problem, SpecError
from hiresnet_graph.spec import reader
from hiresnet_graph.spec.marked import key_position_at, position_at, position_in
from hiresnet_graph.spec.reader import parse, parse_value, read

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
        monkeypatch.setattr(reader, "_Composer", reader._PythonComposer)
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


def test_slashes_that_are_no_comments() -> None:
    text = 'a: {b: $(3 // 2), c: http://x/*, d: "// x"}'
    assert parse(text, "f") == {"a": {"b": "$(3 // 2)", "c": "http://x/*", "d": "// x"}}


# ---- mistakes


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("", (1, 1), "nothing here", ""),
        ("# only a comment\n", (1, 1), "nothing here", ""),
        ("~", (1, 1), "must be a mapping, got nothing", "name: value"),
        ("# c\n- 1", (2, 1), "must be a mapping, got a list", ""),
        ("\n  word", (2, 3), "must be a mapping, got text 'word'", ""),
        ("--- word", (1, 5), "must be a mapping, got text 'word'", ""),
        ("---\n# c\n\n - 1", (4, 2), "must be a mapping, got a list", ""),
        ("%YAML 1.2\n--- |\n\n  word", (4, 3), "must be a mapping, got text", ""),
        ("\ufeff--- 3", (1, 5), "must be a mapping, got the number 3", ""),
        ("\ufeff[a", (1, 1), "'[' is never closed", ""),
        ('{\n// c\n"a": 1}', (2, 1), "'//' does not start a comment", "'#', also in JSON files"),
        ('{"a": 1, // c\n"b": 2}', (1, 10), "'//' does not start a comment", "'#'"),
        ('{"a": 1 // c\n}', (1, 9), "'//' does not start a comment", "'#'"),
        ('{"a": "x" // c\n}', (1, 11), "'//' does not start a comment", "'#'"),
        ('{"a": [1] /* c */}', (1, 11), "'/*' does not start a comment", "'#'"),
        ('{/* c */ "a": 1}', (1, 2), "'/*' does not start a comment", "'#'"),
        ("a: 1\n---\nb: 1", (2, 1), "one document", ""),
        ("a: 1\n...\nb: 1", (3, 1), "one document", ""),
        ("a: {b: *.block1}", (1, 8), "leading '*'", "'*.block1'"),
        ("a: [*]", (1, 5), "leading '*'", "'*'"),
        ("a: *b", (1, 4), "leading '*' makes this an alias", "'*b'"),
        ("a: &", (1, 4), "leading '&'", ""),
        ("a: &b", (1, 4), "leading '&' makes this an anchor", "'&b'"),
        ("s: {e: &in + out}", (1, 8), "leading '&'", "'&in + out'"),
        ("a: &b x\nc: *b", (1, 4), "leading '&'", "'&b x'"),
        ("&k d: 1\n*k : 3", (1, 1), "leading '&'", "'&k d: 1'"),
        ("a: &b x\nc: &b y", (2, 4), "leading '&'", "'&b y'"),
        ("a: &a [x, *a]", (1, 4), "leading '&'", ""),
        ("a: &a {b: {c: *a}}", (1, 4), "leading '&'", ""),
        ("a: {w: $(max(8, w))}", (1, 8), "cuts this template off", "in quotes: '$(max(8, w))'"),
        ("a: {w: $(x[0])}", (1, 8), "cuts this template off", "in quotes: '$(x[0])'"),
        ("a: [1, 2 $(max(8, w)), 3]", (1, 10), "cuts this template off", "'$(max(8, w))'"),
        ("a: {w: $(x['k'])}", (1, 8), "cuts this template off", "\"$(x['k'])\""),
        ("a: !!python/object:os.system x", (1, 4), "leading '!' makes this a tag", "'!!python/object:os.system x'"),
        ("a: !mine {b: 1}", (1, 4), "leading '!' makes this a tag", ""),
        ("a: !!set {b}", (1, 4), "leading '!' makes this a tag", ""),
        ("a: !x!y 3", (1, 4), "tag", ""),
        ("a: !!str 5", (1, 4), "leading '!' makes this a tag", ""),
        ("a: ! 7", (1, 4), "leading '!' makes this a tag", ""),
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
    found = problems("a: 1\nb: {c: 1, c: 2, c: 3}\na: 2\n3: 4\nd: {<<: &y}\n")
    assert [(place(p.position), p.path) for p in found] == [
        ((2, 11), "b"),
        ((2, 17), "b"),
        ((3, 1), ""),
        ((4, 1), ""),
        ((5, 5), "d"),
        ((5, 9), "d.<<"),
    ]
    assert "'c' is given here and at 2:5" in found[0].message
    assert "'a' is given here and at 1:1" in found[2].message


def test_a_syntax_error_is_reported_alone(either: str) -> None:
    assert [place(p.position) for p in problems("a: 1\na: 2\nb: [")] == [(3, 4)]
    (problem,) = problems("nodes:\n  a: {b: 'x\n")
    assert problem.path == "nodes.a"


def test_paths_in_problems(either: str) -> None:
    (problem,) = problems("nodes:\n  a: {b: 1}\nedges:\n  - {from: x}\n  - {to: {a: 1, a: 2}}\n")
    assert problem.path == "edges[1].to" and place(problem.position) == (5, 17)


def test_nesting_is_bounded(either: str) -> None:
    assert parse("a: " + "[" * 63 + "]" * 63, "f")
    at, message, _ = only("a: " + "[" * 64 + "]" * 64)
    assert at == (1, 67) and "64 deep" in message
    for opening in ("[", "{a: ", "- ", "? "):
        assert any("64 deep" in problem.message for problem in problems(opening * 50_000))


@pytest.mark.timeout(60)  # expanding it would never end
def test_alias_bombs_are_refused_without_expanding(either: str) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert {problem.message for problem in problems(text)} == {
        "a leading '&' makes this an anchor of YAML, which is not supported."
    }


def test_keys_of_nested_aliases_are_refused_without_expanding(either: str) -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    found = problems(text + "? &z [*a39, *a39]\n: 1\n? [b]\n: {c: 1, c: 2}\n")
    assert len(found) < 50 and max(len(str(problem)) for problem in found) < 200
    keys = [problem for problem in found if problem.message == "a key must be text, got a list."]
    assert [problem.hint for problem in keys] == ["Write a name before the ':'."] * 2


def test_too_many_values(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 1_000)
    assert parse("a: [" + "1," * 990 + "]", "f")
    at, message, _ = only("a: [" + "1," * 2_000_000 + "]")
    assert at == (1, 4) and "at most 1,000 values" in message


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
    for composer in (reader._Composer, reader._PythonComposer):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "_Composer", composer)
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
    path.write_bytes(b"\xef\xbb\xbfa: \xff")
    assert place(read_problem(path).position) == (1, 4)
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
        ("a: |\n\n  one $x", "$x"),
        ("a: |  # c\n  \n\n  $x", "$x"),
        ("a: >-\n\n  one\n\n   two $x\n", "$x"),
        ("a: |2\n\n    one $x", "$x"),
        ("a: |\n\n  \u00a0 $x", "$x"),
    ],
)
def test_position_in_a_text(either: str, text: str, needle: str) -> None:
    tree = parse(text, "f")
    value = tree["a"]
    position = position_in(tree.value_positions["a"], value, value.index(needle))
    line = text.splitlines()[position.line - 1]
    assert line[position.column - 1 :].startswith(needle)
    assert place(position_in(position, "something computed", 5)) in {place(position), place(position.shifted(5))}
