"""Any text as the name of a network, a block or a label: valid source, diagrams and tables, that do nothing else."""

from __future__ import annotations

import ast
import builtins
import csv
import io
import json
import keyword
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import fx, nn

import hiresnet_graph as hrg
from hiresnet_graph.emit import emit
from hiresnet_graph.errors import SpecError
from hiresnet_graph.formats import one_line
from hiresnet_graph.identifiers import argument_names, class_name
from hiresnet_graph.lower import build
from hiresnet_graph.report import make_report, make_table, to_csv, to_latex, to_markdown
from hiresnet_graph.sweep.folders import run_folder
from hiresnet_graph.train.record import Seeds
from tests.emit.compare import assert_same, load_source
from tests.report.studies import Net, study

ODD = (
    *("my-block", "My-Block", "my_block", "a b", "a/b", "a.b", "..", "", " ", "1x", "class", "None", "Exception"),
    *('"""', "'", "\\", "a\\", 'x"""\nimport os\n"""', "): pass\nclass X(nn.Module", "a\nb", "a\x00b", "a\u2028b"),
    *(
        "a\u202eb",
        "{x}",
        "%s",
        "*",
        "-",
        "=1+1",
        "é",
        "日本",
        "\U0001d41a",
        "ﬁ",
        "nn",
        "F",
        "torch",
        "Tensor",
        "nn.Module",
    ),
    *(
        "Tensor",
        "nn.Module",
        "projection",
        "written",
        "operation",
        "x" * 300,
        "<b>&amp;]]>",
        "%3A",
        "CON",
        "[a](b)",
        "$x$",
    ),
)
NAMES = ("torch", "slice", "nn", "F", "Tensor", "device", "inf", "nan", "range", "isinstance", "print")
texts = st.one_of(st.sampled_from(ODD), st.text(max_size=12).filter(lambda text: "$" not in text)).filter(bool)


def spec(block: str, name: str = "net") -> dict[str, Any]:
    """A network with an own block, which is used by nodes and on an edge."""
    return {
        "name": name,
        "input": {"channels": 2, "height": 4, "width": 4},
        "blocks": {block: {"nodes": {"x": {"block": "conv", "width": 2}, "y": "relu"}, "flow": "x -> y"}},
        "nodes": {"a": {"block": "conv", "width": 2}, "b": {"block": block}, "c": {"block": block}},
        "flow": "a -> b -> c",
        "edges": [{"from": "a", "to": "c", "slot": "output", "block": block}],
    }


def network(block: str, name: str = "net") -> hrg.Architecture | None:
    """The network; None where a spec refuses these names."""
    try:
        found = hrg.loads(json.dumps(spec(block, name)))
        _ = found.plan
    except SpecError:
        return None
    return found


def statements(text: str) -> set[str]:
    """The kinds of statements in source, and its imports in full."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    return {ast.unparse(one) if isinstance(one, ast.Import) else type(one).__name__ for one in found}


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(texts, texts)
@example("my-block", "a\u202eb")
@example("my-block", "\u00a8")  # joins with the letter before it
@example('x"""\nimport os\n"""', "\U0001d41a")
@example("): pass\nclass X(nn.Module", '"""')
def test_source_is_that_of_plain_names(block: str, name: str) -> None:
    arch = network(block, name)
    if arch is None:
        return
    text = emit(arch.plan)
    assert statements(text) <= statements(emit(hrg.loads(json.dumps(spec("cell"))).plan))
    assert all(char.isprintable() or char == "\n" or char in "\u200c\u200d" for char in text)
    module = load_source(text)[class_name(name)]()
    assert list(module.state_dict()) == list(build(arch.plan).state_dict())


def test_odd_names_of_networks_and_blocks_are_accepted() -> None:
    refused = {text for text in ODD if network(text) is None}
    assert refused == {"$x$"}
    assert {text for text in ODD if network("cell", text) is None} == {"$x$"}


@pytest.mark.parametrize("block", ["my-block", 'x"""\nimport os\n"""', "a\u202eb"])
def test_a_network_with_an_odd_block_computes_the_same(block: str) -> None:
    arch = network(block)
    assert arch is not None
    assert_same(arch.plan)


def test_classes_of_blocks_with_similar_names_differ() -> None:
    data = spec("my-block")
    data["blocks"]["my_block"] = {"nodes": {"x": "relu"}, "flow": []}
    data["nodes"]["c"] = {"block": "my_block"}
    text = assert_same(hrg.loads(json.dumps(data)).plan)
    assert 'class MyBlock(nn.Module):\n    """Block \'my_block\': c' in text
    assert 'class MyBlock2(nn.Module):\n    """Block \'my-block\': b' in text
    assert "self.b = MyBlock2(2)" in text
    assert "self.c = MyBlock()" in text


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(texts)
@example("a\u202eb")
@example("<b>&amp;]]>")
def test_diagrams_are_valid(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    arch = network(text, text)
    if arch is None:
        return
    folder = tmp_path_factory.mktemp("diagram")
    for path in (folder / "net.svg", folder / "net.dot"):
        arch.render(path)
        content = path.read_text(encoding="utf-8")
        assert "\u202e" not in content
    boxes = ElementTree.parse(folder / "net.svg").iterfind(".//{*}g[@class='node']")
    assert len(list(boxes)) >= 4
    arch.export(folder / "net.json")
    assert json.loads((folder / "net.json").read_text())["name"] == text


@pytest.mark.parametrize("name", NAMES)
def test_an_input_never_hides_what_code_uses(name: str) -> None:
    text = f"""
name: net
input: {{{name}: {{channels: 1, height: 8, width: 8}}, {name}_: {{channels: 1, height: 8, width: 8}}}}
nodes:
  a: {{block: conv, width: 3}}
  b: {{block: conv, width: 3}}
  s: {{block: scale}}
  head: {{block: classifier, classes: 10}}
flow: [{name} -> a -> s -> head, {name}_ -> b -> head]
edges: [{{from: a, to: a, delay: 1, slot: output}}]
time: {{steps: 3, input: sequence}}
"""
    plan = hrg.loads(text).plan
    assert_same(plan)
    arguments = build(plan).graph.find_nodes(op="placeholder")
    assert (
        [node.target for node in arguments] == list(argument_names(plan.inputs).values()) == [f"{name}__", f"{name}_"]
    )


def test_names_that_code_uses_are_complete() -> None:
    known = {*fx.graph._custom_builtins, "self", *keyword.kwlist, *dir(builtins)} - {"input"}
    changed = argument_names(known)
    assert all(argument not in known for argument in changed.values())
    assert len(set(changed.values())) == len(known)
    assert argument_names(["input", "left", "a.b"]) == {"input": "input", "left": "left", "a.b": "a_b"}
    assert argument_names(["x"], {"x", "x_"}) == {"x": "x__"}


def test_names_of_classes() -> None:
    found = {
        "hiresnet18": "Hiresnet18",
        "my-block": "MyBlock",
        "\U0001d41a": "A",
        "none": "NetNone",
        "exception": "NetException",
        "tensor": "NetTensor",
        "": "Net",
        "18": "Net18",
        "a\u202eb": "AB",
    }
    assert {name: class_name(name) for name in found} == found
    assert all(nn.Module.__name__ != class_name(name) or name == "Module" for name in found)


def test_one_line_keeps_text_and_drops_what_is_invisible() -> None:
    assert one_line("a\tb\u2028c\u202ed\ud800e\x9b") == "a b c d e "
    assert one_line("naïve 日本 \u00a0 👩\u200d🔬") == "naïve 日本 \u00a0 👩\u200d🔬"


LABELS = ["full", "=1+1", "+x", "-p1", "@sum", "[a](b)", "![a][b]", "_x_ a_b ~c~ $d$ &lt; e & f", "a\u202eb"]


def test_cells_of_csv_are_no_formulas_and_numbers_stay_numbers() -> None:
    results = study(*(Net(label, [50 + k, 51.5 - k]) for k, label in enumerate(LABELS)))
    rows = list(csv.DictReader(io.StringIO(to_csv(make_table(results)))))
    assert [row["variant"] for row in rows[:5]] == ["full", "'=1+1", "'+x", "'-p1", "'@sum"]
    differences = list(csv.DictReader(io.StringIO(to_csv(make_report(results, parts=["differences"])))))
    assert [float(row["difference"]) for row in differences[:2]] == [0, 0]
    assert float(differences[0]["difference_low"]) < 0


def test_markdown_shows_labels_as_they_are() -> None:
    text = to_markdown(make_table(study(*(Net(label, [50, 51]) for label in LABELS))))
    assert r"| [a\](b) |" in text and r"| ![a\][b] |" in text
    assert r"| \_x\_ a_b \~c\~ \$d\$ \&lt; e & f |" in text
    assert "| a b |" in text
    assert "\u202e" not in text + to_latex(make_table(study(Net("a\u202eb", [50, 51]))))


def test_titles_and_captions_of_markdown_are_text() -> None:
    odd = "[x](javascript:1) *y* ![z](w)"
    text = to_markdown(make_report(study(Net(odd, [50, 51]), Net("none", [50, 52]), name=odd, architecture=odd)))
    shown = r"[x\](javascript:1) \*y\* ![z\](w)"
    assert f"\n## {shown}\n".join(["", ""]) in f"\n{text}" and f"## Differences from {shown}" in text
    assert f"{shown} on digits: 2 epochs" in text and odd not in text


def test_folders_of_runs_have_valid_names_everywhere(tmp_path: Path) -> None:
    labels = [*ODD, "con.x", "NUL.", "com1.a", "a\udcffb".encode("utf-8", "replace").decode()]
    names = [run_folder(label, {}, Seeds(0, 0)) for label in labels]
    assert len(set(names)) == len(set(labels))
    for name in names:
        assert name.isascii() and not set(name) & set('/\\:*?"<>|\n\x00') and len(name) < 200
        assert name.partition(".")[0].lower() not in ("con", "nul", "com1", "")
        (tmp_path / name).mkdir(exist_ok=True)
