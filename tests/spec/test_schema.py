"""The JSON Schema: takes what is right, refuses what is plainly wrong, and knows every kind."""

import copy
import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
import yaml

import hiresnet_graph as hg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.shipped import spec_names, spec_path
from hiresnet_graph.spec.model import ArchitectureSpec, TimeSpec, TransitionSpec
from hiresnet_graph.spec.problems import known_keys
from hiresnet_graph.spec.reader import parse, read
from hiresnet_graph.spec.schema import documented, schema

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
        BASE + "nodes: {a: relu}\ntime: {steps: 3}",
        BASE + "nodes: {a: relu}\ntime: {steps: $n, delay: $d, input: sequence, empty: zeros, readout: $(n - 1)}",
        BASE + "nodes: {a: relu}\ntime: {steps: 9, readout: 4, per_step: norm_stats, past: last, norm_scale: 0.1}",
        BASE + "nodes: {a: {block: state, shape: [3, $h, 8], per_step: all}}\ntime: {steps: 2, readout: all}",
        BASE + "nodes: {a: relu}\nedges: [{from: a, to: a, delay: 1, at: [2, $s], per_step: norm, weights: w}]",
        BASE + "nodes: {a: relu}\nskips: {edges: full, delay: 2, at: 3}",
        BASE + "nodes: {a: relu}\nskips: {edges: full, scale: {learned: true, init: 0.0}}\nprune: dead",
        BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, scale: gate}, {from: a, to: c, scale: -2}]",
        BASE + "nodes: {a: relu}\nskips: {edges: full, scale: $s}\nvariants: {v: {skips: {scale: none}}}",
        BASE
        + "nodes: {a: relu}\ntransitions: {edges: [all - feedback, a>b], a: {a: brc2, b: null, c: $block}, b: null}",
        BASE + "nodes: {a: relu}\ntransitions: {a: {a: {block: brc2, hidden: 3, at: 2, weights: w, delay: 0}}}",
        BASE + "nodes: {a: relu}\ntransitions: {a: {a: [brd2, {block: mine, name: b, some: field}, {merge: mean}]}}",
        BASE + "nodes: {a: relu}\nblocks: {b: {nodes: {c: relu}, transitions: {c: {c: relu}}, time: {steps: $t}}}",
        BASE + "nodes: {a: relu}\nvariants: {v: {time: {steps: 4}, transitions: {edges: none}}, w: {time: null}}",
        "name: x\nextends: three\ntime: {readout: all}\ntransitions: {s1: {s2: {at: 3}}}",
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
        (BASE + "nodes: {a: relu}\nskips: {edges: full, scale: gates}", "skips.scale", "'gates'"),
        (BASE + "nodes: {a: relu}\nskips: {edges: full, scale: {inti: 0}}", "skips.scale", "'inti'"),
        (BASE + "nodes: {a: relu}\nskips: {edges: full, scale: {init: low}}", "skips.scale.init", "'low'"),
        (BASE + "nodes: {a: relu}\nprune: live", "prune", "'live'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a}]", "edges.0", "'to'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, width: 3}]", "edges.0", "'width'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: b, block: conv, widht: 3}]", "edges.0", "'widht'"),
        (BASE + "nodes: {a: relu}\nvariants: {v: {extends: b}}", "variants.v", "'extends'"),
        (BASE + "nodes: {a: relu}\nblocks: {b: {nodes: {c: relu}, flwo: c}}", "blocks.b", "'flwo'"),
        ("name: x\ninput: {channels: 3, hight: 3}\nnodes: {a: relu}", "input", "'hight'"),
        (BASE + "nodes: {a: relu}\ntime: {input: first}", "time", "'steps' is a required property"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, readot: last}", "time", "'readot'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 0}", "time.steps", "minimum"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, delay: 2}", "time.delay", "2 is not one of"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, input: once}", "time.input", "'once'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, empty: hold}", "time.empty", "'hold'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, readout: first}", "time.readout", "'first'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, per_step: norms}", "time.per_step", "'norms'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, past: zeros}", "time.past", "'zeros'"),
        (BASE + "nodes: {a: relu}\ntime: {steps: 3, norm_scale: -1}", "time.norm_scale", "minimum"),
        (BASE + "nodes: {a: {block: relu, per_step: norms}}", "nodes.a.per_step", "'norms'"),
        (BASE + "nodes: {a: {block: state, shape: 3}}", "nodes.a.shape", "3 is not of type 'array'"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: a, at: []}]", "edges.0.at", "non-empty"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: a, at: -1}]", "edges.0.at", "minimum"),
        (BASE + "nodes: {a: relu}\nedges: [{from: a, to: a, delay: -1}]", "edges.0.delay", "minimum"),
        (BASE + "nodes: {a: relu}\nskips: {edges: full, per_step: norm}", "skips", "'per_step'"),
        (BASE + "nodes: {a: relu}\ntransitions: {a: brc2}", "transitions.a", "'brc2' is not of type 'object'"),
        (BASE + "nodes: {a: relu}\ntransitions: {a: {b: 3}}", "transitions.a.b", "3 is not"),
        (BASE + "nodes: {a: relu}\ntransitions: {a: {b: {blok: brc2}}}", "transitions.a.b", "'blok'"),
        (BASE + "nodes: {a: relu}\ntransitions: {a: {b: {block: brc2, hiden: 2}}}", "transitions.a.b", "'hiden'"),
        (
            BASE + "nodes: {a: relu}\ntransitions: {a: {b: [brc2, {block: brd2, spatial: stride}]}}",
            "transitions.a.b.1.spatial",
            "'stride'",
        ),
        (
            BASE + "nodes: {a: relu}\nblocks: {b: {nodes: {c: relu}, time: {steps: 2, emty: skip}}}",
            "blocks.b.time",
            "'emty'",
        ),
        (BASE + "nodes: {a: relu}\nvariants: {v: {time: {readout: no}}}", "variants.v.time.readout", "'no'"),
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


def properties(schema, *path):
    """What stands below a path of keys, references followed."""
    found = schema
    for key in path:
        found = found["properties"][key]
        for option in found.get("anyOf", ()):
            is_template = option.get("$ref") == "#/$defs/template"
            found = option if not is_template and ("$ref" in option or "properties" in option) else found
        if "$ref" in found:
            found = schema["$defs"][found["$ref"].removeprefix("#/$defs/")]
    return found["properties"]


def test_an_editor_knows_what_can_be_said_of_time():
    found = schema()
    assert set(properties(found, "time")) == set(TimeSpec.model_fields)
    for key, field in {**properties(found, "time"), **properties(found, "transitions")}.items():
        assert field["description"].endswith("."), key
    steps = properties(found, "time")["per_step"]["anyOf"][0]["enum"]
    assert steps == ["none", "norm_stats", "norm", "all"]
    edge = found["$defs"]["edge"]["properties"]
    for key in ("delay", "at", "per_step", "weights", "block"):
        assert edge[key]["description"].endswith("."), key
    assert {"delay", "at"} <= set(found["$defs"]["skip_group"]["properties"])
    rows = found["$defs"]["transitions"]["additionalProperties"]["additionalProperties"]
    entry, several = rows["anyOf"]
    assert several["items"] == entry
    names = {option["const"] for option in entry["anyOf"] if "const" in option}
    assert {"brc2", "brd2", "conv"} <= names
    (mapping,) = [option for option in entry["anyOf"] if option.get("type") == "object"]
    assert set(mapping["properties"]) == set(known_keys(TransitionSpec))


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
    assert told["hidden"] == "Inner channels (default: see each kind)."
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


def test_a_section_may_be_a_template():
    text = """name: n
params: {s: {levels: [stem, stages], edges: full}}
input: {channels: 3, height: 8, width: 8}
nodes: {stem: {block: conv, width: 4}, a: {block: basic, width: 4, depth: 1}, b: {block: basic, width: 4, depth: 1}}
flow: stem -> a -> b
skips: $s
"""
    assert sum(edge.family == "skip" for edge in hg.loads(text).plan.edges) == 3
    jsonschema.validate(yaml.safe_load(text), schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text.replace("$s", "full")), schema())
