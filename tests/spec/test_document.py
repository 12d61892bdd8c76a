"""A spec and its patches: the base file, a file that extends it, a variant, overrides, in this order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import Source, SpecError
from hiresnet_graph.spec.document import parse_document, read_document
from hiresnet_graph.spec.writer import to_yaml

BASE = """\
name: base
params: {width: 4, double: $(2 * width)}
input: {channels: 3, height: 8, width: 8}
nodes:
  stem: {block: conv, width: $width}
  stage1: {block: basic, width: $double, depth: 2, shortcut: {norm: none}}
  stage1.block2: {hidden: 3}
  head: {block: classifier, classes: 2}
flow: stem -> stage1 -> head
skips: {levels: [stem, stages], edges: full}
edges:
  - {from: stem, to: stage1, slot: residual, projection: standard, name: extra}
variants:
  none: {edges: none}
  wide: {params: {width: 6}}
  bare: {skips: null, edges: [{from: stem, to: stage1, slot: output, projection: standard, name: extra}]}
"""


def net(text: str = BASE) -> hrg.Architecture:
    return hrg.loads(text, "base.yaml")


def blocks(made: hrg.Architecture) -> dict[str, Any]:
    return {node.name: node.block for node in made.graph.nodes if node.block is not None}


# ------------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "change", "exact"),
    [
        ("stage*", {"width": 6}, "stage1: {width: 6}"),
        ("stage*", {"depth": 3}, "stage1: {depth: 3}"),
        ("stage*", {"block": "plain"}, "stage1: {block: plain}"),
        ("stage*", {"shortcut": {"norm": "group"}}, "stage1: {shortcut: {norm: group}}"),
        ("stage*", {"shortcut": {"when": "always"}}, "stage1: {shortcut: {when: always}}"),
        ("stage*.block*", {"hidden": 5}, "{stage1.block1: {hidden: 5}, stage1.block2: {hidden: 5}}"),
        ("stage*.block*.conv*", {"kernel_size": 1}, "stage1.block*.conv*: {kernel_size: 1}"),
    ],
)
def test_a_pattern_overrides_exact_addresses_of_earlier_patches(
    pattern: str, change: dict[str, Any], exact: str, tmp_path: Path
) -> None:
    text = BASE.replace("  head:", "  stage1.block1.conv2: {kernel_size: 5}\n  head:")
    text = text.replace("variants:", f"variants:\n  later: {{nodes: {{'{pattern}': {change}}}}}".replace("'", '"'))
    nodes = exact if exact.startswith("{") else f"{{{exact}}}"
    if "conv" in pattern:  # the same pattern in a base without the exact address
        expected = net(text.replace("  stage1.block1.conv2: {kernel_size: 5}\n", "").replace("later:", "other:"))
        expected = expected.variant("other")
    else:
        expected = net(text.replace("variants:", f"variants:\n  exact: {{nodes: {nodes}}}", 1)).variant("exact")
    digest = expected.plan.digest()
    one = net(text)
    assert one.plan.digest() != digest
    assert one.variant("later").plan.digest() == digest
    key, value = next(iter(change.items()))
    assert one.override({f"{pattern}.{key}": value}).plan.digest() == digest
    (tmp_path / "base.yaml").write_text(text)
    extension = f"name: base\nextends: base.yaml\nnodes: {{'{pattern}': {change}}}\n".replace("'", '"')
    (tmp_path / "extension.yaml").write_text(extension)
    assert hrg.load(tmp_path / "extension.yaml").plan.digest() == digest
    assert hrg.loads(one.variant("later").to_yaml()).plan.digest() == digest


def test_of_a_pattern_and_an_exact_address_the_later_patch_counts() -> None:
    first, last = net().override({"stage1.width": 6}), {"stage*.width": 5}
    assert blocks(first.override(last))["stage1.block2"].width == 5
    assert blocks(net().override(last).override({"stage1.width": 6}))["stage1.block2"].width == 6
    assert blocks(net(BASE.replace("  head:", "  stage*: {width: 5}\n  head:")))["stage1.block2"].width == 8


def test_overrides_written_as_an_extension_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    changed = read_document(tmp_path / "base.yaml").override({"stage1.width": 6, "stage*.width": 5})
    extension = changed.as_extension("changed", "base.yaml")
    assert extension["nodes"] == {"stage1": {}, "stage*": {"width": 5}}


def test_a_pattern_changes_a_node_that_is_the_name_of_a_block() -> None:
    text = BASE.replace("  head:", "  act: relu\n  head:").replace("-> head", "-> act -> head")
    assert blocks(net(text).override({"a*.block": "tanh"}))["act"].kind == "tanh"


def test_a_pattern_in_a_block_of_the_spec() -> None:
    text = """
name: own
input: {channels: 3, height: 8, width: 8}
blocks:
  two: {nodes: {a1: {block: conv2d, width: 4}, a2: {block: conv2d, width: 5}}, flow: a1 -> a2}
nodes: {n: two}
flow: n
variants:
  later: {blocks: {two: {nodes: {"a*": {width: 2}}}}}
"""
    assert net(text).cost().parameters == 4 * 28 + 5 * 37
    assert net(text).variant("later").cost().parameters == 2 * 28 + 2 * 19


# ------------------------------------------------------------------------------------------------------- variants


def test_names() -> None:
    assert net().name == "base" and net().variants == ("none", "wide", "bare")
    assert net().chosen is None and net().variant("wide").chosen == "wide"


def test_a_changed_param_reaches_every_template() -> None:
    wide = blocks(net().variant("wide"))
    assert wide["stem"].width == 6 and wide["stage1.block1"].width == 12
    assert blocks(net())["stage1.block1"].width == 8


def test_another_variant_replaces_the_first() -> None:
    assert net().variant("wide").variant("none").plan.digest() == net().variant("none").plan.digest()
    assert net().variant("wide").variant(None).plan.digest() == net().plan.digest()


def test_variants_leave_the_spec_as_it_was() -> None:
    one = net()
    before = one.to_yaml()
    digest = one.plan.digest()
    for name in one.variants:
        _ = one.variant(name).override({"stage1.depth": 3}).plan
    assert one.to_yaml() == before and net().plan.digest() == digest


def test_null_deletes_and_edges_of_one_name_replace() -> None:
    bare = net().variant("bare")
    assert [edge.name for edge in bare.graph.edges if edge.family in ("skip", "edge")] == ["edges.extra"]
    assert next(edge for edge in bare.graph.edges if edge.family == "edge").slot == "output"


def test_edges_without_a_name_are_added() -> None:
    text = BASE + "  more: {edges: [{from: stem, to: head, slot: input, projection: standard}]}\n"
    added = net(text).variant("more")
    assert {edge.name for edge in added.graph.edges if edge.family == "edge"} == {"edges.extra", "edges.stem__head"}


@pytest.mark.parametrize("edges", ["none", "[none]", "none - none"])
def test_edges_of_a_variant_as_a_set(edges: str) -> None:
    text = BASE + f"  v: {{edges: {edges}}}\n"
    skips = [edge for edge in net(text).variant("v").graph.edges if edge.family == "skip"]
    assert skips == []


@pytest.mark.parametrize("edges", ["p1 - p1", "[in - out, none]"])
def test_edges_of_a_variant_that_select_none_are_refused(edges: str) -> None:
    with pytest.raises(SpecError, match=r"selects no edge in all .*Write 'none'"):
        _ = net(BASE + f"  v: {{edges: {edges}}}\n").variant("v").graph


def test_a_variant_may_have_a_set_and_other_skips_fields() -> None:
    text = BASE + "  v: {edges: p1, skips: {slot: residual}}\n"
    (skip,) = [edge for edge in net(text).variant("v").graph.edges if edge.family == "skip"]
    assert skip.slot == "residual"


def test_an_empty_variant_changes_nothing() -> None:
    for patch in ("{}", ""):
        text = BASE + f"  same: {patch}\n"
        assert net(text).variant("same").plan.digest() == net().plan.digest()


# ------------------------------------------------------------------------------------------------------ overrides


def test_overrides_are_above_variants() -> None:
    made = net().variant("wide").override({"width": 2})
    assert blocks(made)["stem"].width == 2 and blocks(made)["stage1.block1"].width == 4
    assert blocks(net().override({"width": 2}).variant("wide"))["stem"].width == 2


def test_later_overrides_are_above_earlier_ones() -> None:
    assert blocks(net().override({"width": 2}).override({"width": 8}))["stem"].width == 8


@pytest.mark.parametrize(
    ("key", "value", "call", "field", "expected"),
    [
        ("stage1.depth", 3, "stage1.block3", "width", 8),
        ("stage1.hidden", 5, "stage1.block1", "hidden", 5),
        ("stage1.hidden", 5, "stage1.block2", "hidden", 3),
        ("stage1.block1.hidden", 5, "stage1.block1", "hidden", 5),
        ("stage1.block2.hidden", None, "stage1.block2", "hidden", None),
        ("stage1.*.hidden", 5, "stage1.block2", "hidden", 5),
        ("stage*.norm", "group", "stage1.block1", "norm", "group"),
        ("*.block1.hidden", 7, "stage1.block1", "hidden", 7),
        ("nodes.stem.width", 5, "stem", "width", 5),
        ("stem.width", "$(width + 1)", "stem", "width", 5),
        ("params.width", 6, "stem", "width", 6),
        ("stage1.stride", 2, "stage1.block2", "stride", 1),
    ],
)
def test_fields(key: str, value: Any, call: str, field: str, expected: Any) -> None:
    assert getattr(blocks(net().override({key: value}))[call], field) == expected


def test_a_field_of_a_field() -> None:
    made = net().override({"stage1.shortcut.spatial": "avg", "stage1.block2.shortcut.norm": "group"})
    one, two = (blocks(made)[f"stage1.block{i}"].shortcut for i in (1, 2))
    assert (one.spatial, one.norm) == ("avg", "none") and (two.spatial, two.norm) == ("avg", "group")


def test_a_part_of_a_block() -> None:
    made = net().override({"stage1.block1.conv2.bias": True})
    biased = {call.name for call in made.plan.calls if getattr(call.op, "bias", False) and call.op.kind == "conv2d"}
    # The convolution of the shortcut has a bias since no norm follows it.
    assert biased == {"stage1.block1.conv2", "stage1.block1.shortcut.conv"}


def test_a_part_of_a_written_block() -> None:
    text = """name: n
input: {channels: 3, height: 8, width: 8}
blocks: {cell: {params: {w: 4}, nodes: {x: {block: basic, width: $w, depth: 2}}}}
nodes: {a: {block: cell, depth: 2}}
"""
    made = hrg.loads(text).override(
        {"a.block1.x.block2.hidden": 7, "a.block2.w": 6, "a.block1.x.block1.conv1.bias": True}
    )
    calls = {call.name: call for call in made.plan.calls}
    assert calls["a.block1.x.block2.conv1"].shape.channels == 7
    assert calls["a.block2.x.block1.conv1"].shape.channels == 6
    assert getattr(calls["a.block1.x.block1.conv1"].op, "bias", None) is True


def test_input_skips_and_name() -> None:
    made = net().override({"input.height": 7, "skips.edges": "in", "skips.merge": "mean", "name": "other"})
    assert made.plan.inputs["input"].sizes == (3, 7, 8) and made.plan.name == "other"
    assert [edge.merge for edge in made.plan.edges if edge.family == "skip"] == ["mean"]


def test_edges() -> None:
    assert net().with_edges("none").plan.digest() == net().variant("none").plan.digest()
    assert net().variant("none").with_edges(["in", "out"]).plan.digest() == net().plan.digest()
    groups = BASE.replace("skips: {levels", "skips: {one: {levels").replace("edges: full}", "edges: full}}")
    made = net(groups.replace("  none: {edges: none}\n", ""))
    assert made.with_edges("none", "one").cost() == net().with_edges("none").cost()


def test_overrides_know_their_text() -> None:
    source = Source("command line", "stage1.depth=x")
    with pytest.raises(
        SpecError, match=r"^command line:1:14: nodes\.stage1\.depth: expected a whole number, got 'x'\."
    ):
        _ = net().override({"stage1.depth": "x"}, source).plan


def test_all_wrong_overrides_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        _ = net().override({"widht": 3, "stage9.depth": 2, "stage1.": 3, "width": 8}).plan
    assert len(caught.value.problems) == 3


# -------------------------------------------------------------------------------------------------------- extends


def test_a_file_that_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "net.yaml").write_text(
        "name: net\nextends: ../base.yaml\nparams: {width: 6}\nnodes: {stage1: {depth: 1}, stage1.block2: null}\n"
        "variants: {narrow: {params: {width: 2}}}\n"
    )
    made = hrg.load(tmp_path / "more" / "net.yaml")
    assert made.name == "net" and made.variants == ("none", "wide", "bare", "narrow")
    assert set(blocks(made)) == {"stem", "stage1.block1", "head"}
    assert blocks(made)["stem"].width == 6 and blocks(made.variant("narrow"))["stem"].width == 2
    # A variant of the base is above the file that extends it.
    assert blocks(made.variant("wide").override({"stem.norm": "none"}))["stem"].width == 6


def test_extending_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text("name: b\nextends: a.yaml\nparams: {width: 6}\n")
    (tmp_path / "c.json").write_text('{"name": "c", "extends": "b.yaml", "nodes": {"stem": {"norm": "none"}}}')
    made = hrg.load(tmp_path / "c.json")
    assert (blocks(made)["stem"].width, blocks(made)["stem"].norm) == (6, "none")


def test_extending_what_ships() -> None:
    made = hrg.loads("name: mine\nextends: hiresnet18\nparams: {block: plain}\nskips: {edges: none}\n")
    assert made.cost().parameters == 265_050


def test_a_file_beside_the_spec_comes_before_one_that_ships(tmp_path: Path) -> None:
    (tmp_path / "hiresnet18").write_text(BASE)
    (tmp_path / "net.yaml").write_text("name: net\nextends: hiresnet18\n")
    assert hrg.load(tmp_path / "net.yaml").plan.digest() == net().plan.digest()


def test_an_extension_holds_the_changes_of_the_variant(tmp_path: Path) -> None:
    variant = "variants:\n  small: {name: other, nodes: {stage1: {width: 3, shortcut: null}}}\n"
    (tmp_path / "base.yaml").write_text(BASE.replace("variants:\n", variant))
    for name in ("small", "none", "wide", "bare"):
        changed = hrg.load(tmp_path / "base.yaml").variant(name).override({"stage1.hidden": 5})
        extension = changed.as_extension("changed", "base.yaml")
        (tmp_path / "changed.yaml").write_text(to_yaml(extension))
        found = hrg.load(tmp_path / "changed.yaml")
        assert found.plan.digest() == changed.plan.digest() and found.name == "changed"
    assert extension["skips"] is None


def test_an_extension_holds_the_overrides_alone() -> None:
    changed = net().override({"stage1.block1.hidden": 5, "width": 6})
    extension = changed.as_extension("changed", "base.yaml")
    assert extension == {
        "name": "changed",
        "extends": "base.yaml",
        "nodes": {"stage1.block1": {"hidden": 5}},
        "params": {"width": 6},
    }


# ----------------------------------------------------------------------------------------------------------- dumps


def test_dumps_keep_templates_and_apply_patches() -> None:
    text = net().variant("wide").override({"stage1.depth": 3}).to_yaml()
    assert "$width" in text and "$(2 * width)" in text and "depth: 3" in text
    again = hrg.loads(text)
    assert again.tree["params"]["width"] == 6
    assert again.plan.digest() == net().variant("wide").override({"stage1.depth": 3}).plan.digest()


def test_yaml_and_json_say_the_same() -> None:
    assert parse_document(net().to_json(), "net.json").tree == parse_document(net().to_yaml(), "net.yaml").tree


def test_the_key_schema_is_for_editors(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(net().to_json().replace("{", '{"$schema": "hrg.schema.json", ', 1))
    assert hrg.load(path).plan.digest() == net().plan.digest()
    assert read_document(path).name == "base"


# ------------------------------------------------------------------------------------- errors of changes

CLASH = "skips: {merge: multiply, projection: {channels: none}}"


def advice(made: hrg.Architecture) -> list[str]:
    return [f"{problem.position}: {problem.advice}" for problem in made.problems]


def test_an_error_of_a_variant_names_it() -> None:
    text = BASE + f"  bad: {{{CLASH}}}\n  worse: {{nodes: {{stem: {{width: 0}}}}}}\n"
    assert net(text).problems == ()
    hint = "Set 'projection: {channels: conv1x1}'."
    assert advice(net(text).variant("bad")) == [
        f"base.yaml:10:40: {hint} Caused by the variant 'bad' at base.yaml:17:9."
    ]
    with pytest.raises(SpecError, match="Caused by the variant 'bad'"):
        net(text).validate()
    # What is located in the variant needs no more, and what the spec has without it is not of the variant.
    assert not any("variant" in text for text in advice(net(text).variant("worse")))
    wrong = text.replace("skips: {levels", "skips: {merge: multiply, projection: {channels: none}, levels")
    assert advice(net(wrong)) == advice(net(wrong).variant("wide")) != []


def test_an_entry_without_a_block_may_be_a_misspelt_patch() -> None:
    for name, hint in (("stmm", "Or did you mean the node 'stem'?"), ("stage2", ""), ("other", "")):
        made = net(BASE.replace("  head:", f"  {name}: {{width: 3}}\n  head:"))
        found = [(problem.path, problem.message, problem.hint) for problem in made.problems]
        assert (f"nodes.{name}.block", "the key 'block' is missing.", hint) in found
    (found,) = net(BASE.replace("stem: {block: conv,", "stem: {blok: conv,")).problems
    assert found.hint == "Did you mean 'block' instead of 'blok'?"


def test_an_error_of_a_file_that_extends_another_names_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "far.yaml").write_text(f"extends: base.yaml\nname: far\n{CLASH}\n")
    (tmp_path / "farther.yaml").write_text("extends: far.yaml\nname: farther\nvariants: {same: {}}\n")
    (tmp_path / "less.yaml").write_text("extends: base.yaml\nname: less\nnodes: {stage1: null, stage1.block2: null}\n")
    for file, variant in (("far", None), ("farther", None), ("farther", "same"), ("far", "wide")):
        (found,) = advice(hrg.load(tmp_path / f"{file}.yaml").variant(variant))
        assert "base.yaml:10:40" in found
        assert found.endswith(f"Caused by the spec 'far' at {tmp_path / 'far.yaml'}:3:9.")
    # What deletes something has no position of its own left.
    for found in advice(hrg.load(tmp_path / "less.yaml")):
        assert found.endswith(f"Caused by the spec 'less' at {tmp_path / 'less.yaml'}:2:7.")


PATTERNS = """name: net_$(w * 2)
params: {w: 4}
input: {channels: 3, height: 8, width: 8}
nodes:
  stem: {block: conv, width: $w}
  stage1: {block: basic, width: $w, depth: 2}
  stage2: {block: basic, width: $w, depth: 2}
  e: {block: conv, width: $w}
  stage*: {norm: group}
  stage1.block1.conv1: {bias: true}
flow: stem -> stage1 -> stage2 -> e
variants: {v: {nodes: {s*: {norm: none}}}, part: {nodes: {"*1": {norm: none}}}}
"""


def test_a_later_pattern_overrides_an_earlier_one_that_it_covers() -> None:
    net = hrg.loads(PATTERNS)
    assert any(call.op.kind == "group_norm" for call in net.plan.calls)
    for changed in (net.variant("v"), net.override({"s*.norm": "none"})):
        assert not any(call.op.kind == "group_norm" for call in changed.plan.calls)
    with pytest.raises(SpecError, match=r"both set 'norm' of 'stage1'"):  # of which none contains the other
        _ = net.variant("part").plan


def test_an_address_of_the_file_can_be_changed_on_the_command_line() -> None:
    net = hrg.loads(PATTERNS)
    changed = net.override({"stage1.block1.conv1.bias": False})
    assert changed.cost().parameters == net.cost().parameters - 4


def test_a_name_with_a_template_has_one_value() -> None:
    net = hrg.loads(PATTERNS)
    assert net.name == net.plan.name == "net_8" and net.override({"w": 8}).name == "net_16"
    assert hrg.loads(PATTERNS.replace("$(w * 2)", "$(nope)")).name == "net_$(nope)"


GROUPED = """name: n
input: {channels: 3, height: 8, width: 8}
nodes: {stem: {block: conv, width: 4}, s1: {block: basic, width: 4, depth: 2}, s2: {block: basic, width: 4, depth: 2}}
flow: stem -> s1 -> s2
skips: {long: {levels: [stem, stages], edges: full}, near: {levels: [stem, blocks], edges: p1, slot: input}}
"""


def test_a_patch_of_a_group_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It would be the network without the change, under the label of the change."""
    patch = "skips: {lon: {edges: none}}"
    with pytest.raises(SpecError, match=r"skips.lon: the skips have no group 'lon'. Did you mean 'long'\?"):
        _ = hrg.loads(f"{GROUPED}variants: {{v: {{{patch}}}}}\n").variant("v").plan
    (tmp_path / "base.yaml").write_text(GROUPED)
    (tmp_path / "child.yaml").write_text(f"name: child\nextends: base.yaml\n{patch}\n")
    with pytest.raises(SpecError, match=r"child.yaml:3:9: skips.lon: the skips have no group 'lon'"):
        hrg.load(tmp_path / "child.yaml")
    added = "skips: {more: {edges: stem>s2, slot: input}}"
    plan = hrg.loads(f"{GROUPED}variants: {{v: {{{added}}}}}\n").variant("v").plan
    assert "edges.more.stem__s2" in {edge.name for edge in plan.edges}


def test_a_node_in_the_place_of_a_key_of_a_variant_is_explained() -> None:
    for patch, hint in {
        "s1: {width: 8}": "nodes: {s1: {...}}",
        "s1.width: 8": "nodes: {s1: {width: ...}}",
        '"s*.width": 8': "nodes: {s*: {width: ...}}",
    }.items():
        with pytest.raises(SpecError) as caught:
            hrg.loads(f"{GROUPED}variants: {{v: {{{patch}}}}}\n").validate()
        assert hint in caught.value.problems[0].hint
