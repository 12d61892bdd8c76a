"""Hints hold: what they suggest is accepted, and what they name exists."""

import itertools
import re
import unicodedata

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.cli.arguments import apply_change
from hiresnet_graph.errors import SpecError, UsageError, did_you_mean
from hiresnet_graph.projections import StandardProjection
from hiresnet_graph.projections.standard import Spatial, fitting
from hiresnet_graph.shapes import Map

BASE = """
name: net
params: {width: 8}
input: {channels: 3, height: 16, width: 16}
nodes:
  a: {block: conv, width: $width}
  b: {block: basic, width: $width, depth: 2}
  head: {block: classifier, classes: 2}
flow: a -> b -> head
"""


def problems(text: str) -> list[tuple[str, str, str]]:
    """Path, message and hint of each error."""
    try:
        hrg.loads(text).validate()
    except SpecError as error:
        return [(problem.path, problem.message, problem.hint) for problem in error.problems]
    return []


def hint(old: str, new: str) -> str:
    """The hint of the one error of the base with a change."""
    ((_, _, found),) = problems(BASE.replace(old, new))
    return found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("conv, width", "conv, out_channels", "width"),
        ("conv, width", "conv, filters", "width"),
        ("conv, width", "conv, channels", "width"),
        ("conv, width", "conv, kernel: 3, width", "kernel_size"),
        ("conv, width", "conv, ksize: 3, width", "kernel_size"),
        ("conv, width", "Conv, width", "conv"),
        ("conv, width", "Convolution, width", "conv"),
        ("conv, width", "conv, act: relu, width", "activation"),
        ("conv, width", "conv, activation: ReLU, width", "relu"),
        ("conv, width", "conv, activation: swish, width", "silu"),
        ("conv, width", "conv, norm: BatchNorm, width", "batch"),
        ("conv, width", "conv, norm: bn, width", "batch"),
        ("basic, width", "residual, width", "basic"),
        ("basic, width", "basic, downsample: standard, width", "shortcut"),
        ("depth: 2", "repeats: 2", "depth"),
        ("classifier", "fc", "classifier"),
        ("classes: 2", "num_classes: 2", "classes"),
        ("{block: basic, width: $width, depth: 2}", "channel_attention", "squeeze_excite"),
        ("nodes:", "layers:", "nodes"),
        ("params:", "parameters:", "params"),
        ("flow:", "connections: []\nflow:", "edges"),
        ("flow:", "skip_connections: {}\nflow:", "skips"),
        ("flow:", "skips: {levels: [a, b], edges: full, merge: sum}\nflow:", "add"),
        ("flow:", "skips: {levels: [a, b], edges: full, merge: Concatenate}\nflow:", "concat"),
        ("flow:", "edges: [{source: a, to: b}]\nflow:", "from"),
    ],
)
def test_words_of_other_libraries(old: str, new: str, expected: str) -> None:
    assert f"Did you mean '{expected}'?" in [found for *_, found in problems(BASE.replace(old, new))]


def test_values_of_other_forms() -> None:
    assert hint("{channels: 3, height: 16, width: 16}", "[3, 16, 16]") == (
        "Write '{channels: 3, height: 16, width: 16}'."
    )
    assert hint("width: $width}", "width: $(width * 0.75)}") == "Write 6, or in a template 'round(...)' or '//'."
    assert hint("conv, width", "conv, in_channels: 3, width").startswith("Leave it out")
    gate = "edges: [{from: a, to: head, gate: true, slot: output}]\nflow:"
    assert hint("flow:", gate).startswith("A gate is the name of a node")


def test_a_name_in_another_unicode_form() -> None:
    composed = unicodedata.normalize("NFC", "cafe\u0301")
    assert did_you_mean(unicodedata.normalize("NFD", composed), [composed]) == (
        f"'{composed}' is written with other characters that look the same (Unicode NFC, NFD): copy it."
    )


def test_hints_on_unknown_names_in_templates() -> None:
    assert hint("conv, width: $width", "conv, width: $w") == "Known: width."
    assert (
        hint("conv, width: $width", "conv, width: $i") == "'i' has a value in the fields of a node with 'depth' only."
    )
    assert (
        hint("conv, width: $width", "conv, width: $in_width") == "'in_width' has a value in an entry of 'blocks' only."
    )
    many = ", ".join(f"param{i:02}: 1" for i in range(30))
    assert hint("params: {width: 8}", f"params: {{width: $zz, {many}}}").endswith("param11, ...")
    without = BASE.replace("params: {width: 8}", "").replace("$width", "8").replace("classes: 2", "classes: $w")
    ((_, _, found),) = problems(without)
    assert found == "A template uses names from 'params', and there are none here."


SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 20)


@pytest.mark.parametrize("spatial", Spatial.__args__)
@pytest.mark.parametrize("channels", ["conv1x1", "pad", "slice", "none"])
def test_the_projection_of_a_hint_maps_the_shapes(spatial: str, channels: str) -> None:
    given = {"spatial": spatial, "channels": channels}
    projection = StandardProjection.model_validate(given)
    for before, after in itertools.product(SIZES, SIZES[::2]):
        source, target = Map(4, before, before), Map(6, after, after)
        found = fitting(source, target, projection)
        if match := re.fullmatch(r"Set 'projection: \{(.*)\}'\.", found):
            assert projects(source, target, given | dict(pair.split(": ") for pair in match[1].split(", ")))
        else:
            assert found == "" and projects(source, target, given)


def projects(source: Map, target: Map, fields: dict[str, str]) -> bool:
    """Whether a projection maps one shape to the other."""
    text = f"""
name: n
input: {{channels: {source.channels}, height: {source.height}, width: {source.width}}}
nodes:
  a: identity
  b: {{block: state, shape: {list(target)}}}
flow: a
edges: [{{from: a, to: b, projection: {{{", ".join(f"{k}: {v}" for k, v in fields.items())}}}}}]
outputs: b
time: {{steps: 1}}
"""
    return hrg.loads(text).plan is not None


def test_the_hint_on_a_shortcut_names_its_key_and_works() -> None:
    text = BASE.replace("head:", "b.block1.conv1: {kernel_size: 4}\n  head:")
    ((_, _, found),) = problems(text)
    assert found == "Set 'shortcut: {spatial: adaptive}'."
    assert not problems(text.replace("depth: 2", "depth: 2, shortcut: {spatial: adaptive}"))


def test_the_hint_on_an_edge_without_projection_works() -> None:
    text = BASE.replace("flow:", "edges: [{from: input, to: head}]\nflow: input ->")
    ((_, _, found),) = problems(text)
    match = re.match(r"Set 'projection: (\{.*\})' on the edge, or change the nodes\.", found)
    assert match and not problems(text.replace("to: head", f"to: head, projection: {match[1]}"))


def test_a_pattern_lists_the_parts_of_the_blocks_that_it_selects() -> None:
    text = BASE.replace("a: {block: conv", "bb: {block: conv").replace("a ->", "bb ->")
    found = hint_of(text.replace("head: {", "b*.block*.nrm: {width: 3}\n  head: {"))
    assert found.endswith("'b.block1' has the parts conv1, conv2, norm1, norm2, relu, relu2, residual.add.")


def hint_of(text: str) -> str:
    """The hint of the one error of a text."""
    ((_, _, found),) = problems(text)
    return found


def test_weights_of_parts_have_names() -> None:
    ((path, message, found),) = problems(BASE.replace("head: {", "b.block*.conv2: {weights: shared}\n  head: {"))
    assert (path, message) == (
        "nodes.b.block*.conv2.weights",
        "the weights of a part of a block require a name.",
    )
    assert found.endswith("set 'weights: shared' for it.")
    ((path, message, _),) = problems(BASE.replace("head: {", "b.block1.conv2: {depth: 2}\n  head: {"))
    assert (path, message) == ("nodes.b.block1.conv2.depth", "'depth' is a key of nodes, not of their parts.")


def test_a_cycle_may_be_run_in_time() -> None:
    text = BASE.replace("flow:", "edges: [{from: b, to: a, slot: output}]\nflow:")
    ((_, _, found),) = problems(text)
    assert found.endswith("or add 'time: {steps: 5}', and give it 'delay: 1'.")
    assert not problems(text.replace("slot: output", "slot: output, delay: 1") + "time: {steps: 5}\n")


@pytest.mark.parametrize("edges", ["a->b", "a,b", "a>>b", "a", "nosuch"])
def test_hints_on_edge_sets_name_no_absent_node(edges: str) -> None:
    found = hint("flow:", f"skips: {{edges: '{edges}'}}\nflow:")
    assert "stage" not in found and "stem" not in found


def test_a_word_that_is_a_param_is_no_variant() -> None:
    network = hrg.loads(BASE + "variants: {wide: {params: {width: 16}}}\n")
    for word, suggestion in (
        ("width", "Write 'width=VALUE'."),
        ("wdth", "'width=VALUE'?"),
        ("wid", "'--variant wide'?"),
    ):
        with pytest.raises(UsageError, match=re.escape(suggestion)):
            apply_change(network, word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stagetwo", "Did you mean 'stage1', 'stage2' or 'stage3'?"),  # and 'stage4', which is as close
        ("stag1", "Did you mean 'stage1'?"),
        ("Stage-3", "Did you mean 'stage3'?"),
        ("ztem", "Did you mean 'stem'?"),
        ("out", "Known: head, stage1, stage2, stage3, stage4, stem."),
    ],
)
def test_names_that_are_equally_close_are_all_named(word: str, expected: str) -> None:
    assert did_you_mean(word, ["stem", "stage1", "stage2", "stage3", "stage4", "head"]) == expected


def test_yes_is_not_spelt_like_no() -> None:
    assert "Did you mean 'none'" not in hint("conv, width: $width}", "conv, width: $width, norm: on}")


@pytest.mark.parametrize("value", ["on", "'no'", "1", "'true'"])
def test_true_and_false_have_one_spelling(value: str) -> None:
    ((_, message, _),) = problems(BASE.replace("conv, width: $width}", f"conv, width: $width, bias: {value}}}"))
    assert message.startswith("expected true or false")


def test_an_anchor_is_not_called_a_text_without_quotes() -> None:
    ((_, message, found),) = problems(BASE.replace("input: {", "input: &i {"))
    assert "an anchor of YAML" in message and found.startswith("To use a value twice, write a param")


def test_the_spellings_of_true_in_yaml_1_1_are_explained() -> None:
    for value, word in {"on": "true", "'No'": "false", "'yes'": "true"}.items():
        found = hint("conv, width: $width}", f"conv, width: $width, bias: {value}}}")
        assert found.startswith(f"Write {word}: in YAML 1.2, ")
