"""Writing YAML and JSON: what is written is read as the same data, and looks as people write it."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.spec import reader
from hiresnet_graph.spec.reader import parse, parse_value
from hiresnet_graph.spec.writer import to_json, to_yaml

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
        patch.setattr(reader, "_Composer", reader._PythonComposer)
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


def test_numbers_of_numpy_are_numbers() -> None:
    assert to_json({"a": np.int64(4), "b": np.float32(0.5)}) == to_json({"a": 4, "b": 0.5})
    node = {"block": "conv", "width": np.int64(4)}
    spec = {"name": "n", "input": {"channels": 3, "height": 8, "width": 8}, "nodes": {"a": node}}
    assert hrg.from_dict(spec).cost().parameters == 116
    for wrong in ({1: "relu"}, {"a": object()}, {"a": {"block": "conv", "width": float("nan")}}):
        with pytest.raises(SpecError):
            hrg.from_dict({**spec, "nodes": wrong})
