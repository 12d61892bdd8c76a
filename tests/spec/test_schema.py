"""The JSON Schema: takes what is right, refuses what is plainly wrong, and knows every kind."""

import copy
import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

import hiresnet_graph as hg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.shipped import spec_names, spec_path
from hiresnet_graph.spec.model import ArchitectureSpec
from hiresnet_graph.spec.problems import known_keys
from hiresnet_graph.spec.schema import documented, schema
from hiresnet_graph.spec.source import parse, read

SKETCHES = sorted((Path(__file__).parent.parent / "sketches").glob("*.yaml"))
FRAGMENTS = ("attention_gate", "cornet_s_area")


@pytest.fixture(scope="module")
def validator():
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def faults(validator, text):
    """Paths and messages of what the schema refuses, the branches of alternatives included."""
    found, todo = [], list(validator.iter_errors(parse(text, "test")))
    while todo:
        error = todo.pop()
        found.append(f"{'.'.join(map(str, error.absolute_path))}: {error.message}")
        todo += error.context
    return found


BASE = "name: x\ninput: {channels: 3, height: 8, width: 8}\n"


@pytest.mark.parametrize("name", spec_names())
def test_every_shipped_spec_fits(validator, name):
    assert not list(validator.iter_errors(read(spec_path(name))))
    assert not list(validator.iter_errors(json.loads(hg.load(name).to_json())))


@pytest.mark.parametrize("path", SKETCHES, ids=lambda path: path.stem)
def test_every_sketch_fits(validator, path):
    tree = dict(read(path))
    if path.stem in FRAGMENTS:
        tree |= {"name": "x", "input": {"channels": 3}}
    assert not list(validator.iter_errors(tree))


@pytest.mark.parametrize(
    "text",
    [
        BASE + "nodes: {a: relu}",
        BASE + "nodes: {a: {block: conv, width: $(2 * 3), kernel_size: [3, $k], bias: $b}}",
        BASE + "nodes: {a: {block: my_block, anything: [1, {b: c}]}}",
        BASE + "nodes: {a: {block: $block, width: 3, depth: $n}, 'a.block*': {hidden: 3}, a.block1.conv2: {groups: 2}}",
        BASE + "nodes: {a: {block: basic, width: 4, shortcut: {kind: identity}}, b: {block: basic, shortcut: $s}}",
        BASE + "nodes: {a: relu}\nskips: {near: {levels: [a], edges: p1}, far: {edges: [a>b, c>d], slot: input}}",
        BASE + "nodes: {a: relu}\nedges: [{from: [a, b], to: 'c*', block: conv, width: 3}]",
        BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, merge: {kind: concat, order: [a]}}]",
        BASE + "nodes: {a: relu}\nvariants: {v: {edges: full}, w: {edges: [in, out]}, y: null}",
        BASE + "nodes: {a: relu}\nvariants: {x: {edges: [{from: a, to: b}], nodes: {b: gelu}}}",
        BASE
        + "nodes: {a: relu}\nblocks: {b: relu, c: {block: conv, norm: none}, d: {params: {w: }, nodes: {e: relu}}}",
        "name: x\nextends: hiresnet18\nnodes: {stage1: null, stage2: {hidden: 3}}\nskips: null\ninput: {height: 16}",
        "name: x\ninput: {left: {channels: 3}, right: {channels: $c}}\nnodes: {a: relu}\noutputs: [a, b]",
        BASE + "$schema: s.json\nnodes: {a: relu}\noutputs: a",
    ],
)
def test_what_is_right_fits(validator, text):
    assert faults(validator, text) == []


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ("name: x\nnodes: {a: relu}", "", "'input' is a required property"),
        (BASE, "", "'nodes' is a required property"),
        (BASE + "nodes: {a: relu}\nflows: a", "", "'flows'"),
        (BASE + "nodes: {a: {block: conv, width: abc}}", "nodes.a.width", "'abc'"),
        (BASE + "nodes: {a: {block: conv, width: 0}}", "nodes.a.width", "minimum"),
        (BASE + "nodes: {a: {block: conv, width: 3, kernl: 3}}", "nodes.a", "'kernl'"),
        (BASE + "nodes: {a: {block: conv, width: 3, norm: batsh}}", "nodes.a.norm", "'batsh'"),
        (BASE + "nodes: {a: {block: conv, width: 3, depth: 0}}", "nodes.a.depth", "minimum"),
        (BASE + "nodes: {a__b: relu}", "nodes", "'a__b'"),
        (BASE + "nodes: {a: 3}", "nodes.a", "3 is not"),
        (BASE + "nodes: {a: relu, a.block1: {hidden: abc}}", "nodes.a.block1.hidden", "'abc'"),
        (BASE + "nodes: {a: {block: basic, width: 4, shortcut: {spatial: up}}}", "nodes.a.shortcut.spatial", "'up'"),
        (BASE + "nodes: {a: relu}\nskips: {levels: [a], edges: full, slots: input}", "skips", "'slots'"),
        (
            BASE + "nodes: {a: relu}\nskips: {g: {edges: full, merge: {kind: concat, ordr: []}}}",
            "skips.g.merge",
            "'ordr'",
        ),
        (BASE + "nodes: {a: relu}\nedges: [{from: a}]", "edges.0", "'to'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, width: 3}]", "edges.0", "'width'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, block: conv, widht: 3}]", "edges.0", "'widht'"),
        (BASE + "nodes: {a: relu}\nvariants: {v: {extends: b}}", "variants.v", "'extends'"),
        (BASE + "nodes: {a: relu}\nblocks: {b: {nodes: {c: relu}, flwo: c}}", "blocks.b", "'flwo'"),
        ("name: x\ninput: {channels: 3, hight: 3}\nnodes: {a: relu}", "input", "'hight'"),
    ],
)
def test_what_is_plainly_wrong_is_refused_at_its_place(validator, text, path, word):
    found = faults(validator, text)
    assert any(fault.startswith(f"{path}: ") and word in fault for fault in found), found


def test_every_kind_and_field_is_there_with_its_documentation():
    definitions = schema()["$defs"]
    for registry in (BLOCKS, OPS):
        for name in registry:
            kind = registry.get(name)
            known = definitions[f"kind.{name}"]
            assert list(known["properties"]) == list(kind.model_fields)
            assert known["description"] and known["description"] in " ".join((kind.__doc__ or "").split())
            assert set(kind.model_fields) < set(definitions[f"node.{name}"]["properties"])
    named = {option["const"] for option in definitions["node"]["anyOf"] if "const" in option}
    assert named == {*BLOCKS, *OPS}
    for registry, family in ((MERGES, "merge"), (PROJECTIONS, "projection")):
        assert {option["const"] for option in definitions[family]["anyOf"] if "const" in option} == set(registry)
    assert set(schema()["properties"]) >= set(known_keys(ArchitectureSpec))


def test_fields_of_every_default_node_fit(validator):
    """Each field's own default, written out, is accepted."""
    for name in BLOCKS:
        kind = BLOCKS.get(name)
        fields = {key: field.default for key, field in kind.model_fields.items() if not field.is_required()}
        fields = {key: value for key, value in fields.items() if isinstance(value, bool | int | float | str)}
        tree = {"name": "x", "input": {"channels": 3}, "nodes": {"a": {"block": name, **fields}}}
        assert not list(validator.iter_errors(tree)), name


def test_every_field_takes_a_template(validator):
    for registry in (BLOCKS, OPS):
        for name in registry:
            fields = dict.fromkeys(registry.get(name).model_fields, "$x")
            tree = {"name": "x", "input": {"channels": "$c"}, "nodes": {"a": {"block": name, "depth": "$d", **fields}}}
            assert not list(validator.iter_errors(tree)), name


def test_documentation_of_attributes_is_found_through_the_bases():
    told = documented(BLOCKS.get("bottleneck"))
    assert told["hidden"] == "Channels inside; None for the kind's own rule."
    assert documented(PROJECTIONS.get("standard"))["spatial"].startswith("How height and width change. Down: ")
    assert "`deconv`" in documented(PROJECTIONS.get("standard"))["spatial"]


def test_a_new_kind_is_in_it_without_a_word():
    class Wild(Block):
        """Does nothing, wildly.

        Attributes:
            how: In which way.
        """

        kind: ClassVar[str] = "wild_for_schema"
        how: str = "so"

        def expand(self, x):
            return x

    BLOCKS.register(Wild)
    try:
        kind = schema()["$defs"]["kind.wild_for_schema"]
    finally:
        BLOCKS.discard("wild_for_schema")
    assert (
        kind["description"] == "Does nothing, wildly." and kind["properties"]["how"]["description"] == "In which way."
    )


def test_it_is_plain_json_and_the_same_each_time():
    first = schema()
    assert json.loads(json.dumps(first)) == first == schema()
    changed = copy.deepcopy(first)
    changed["properties"].clear()
    assert schema() == first
