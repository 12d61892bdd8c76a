"""Entries of `blocks`, checked without a use."""

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError

FRAME = """
name: definitions
input: {channels: 3, height: 8, width: 8}
nodes: {stem: {block: conv, width: 4}, head: {block: classifier, classes: 3}USE}
flow: stem -> head
blocks:
"""


def errors(blocks: str, use: str = "") -> list[str]:
    """Path and message of each error."""
    try:
        hrg.loads(FRAME.replace("USE", use) + blocks).validate()
    except SpecError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


LIBRARY = """
  library:
    params: {width: , how: , kind: conv, k: $(2 * width), groups: 2}
    nodes:
      a: {block: $kind, width: $width, kernel_size: $k}
      b: {block: conv, width: $(width // in_width), groups: $groups}
      c: {block: basic, width: $width, depth: $groups, shortcut: {spatial: $how}}
    flow: a -> b -> c
    skips: {levels: [a, c], edges: full, slot: input}
"""


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("", ""), []),
        (("flow: a -> b", "flow: a -> q"), ["flow: there is no node 'q'."]),
        (("groups: 2}", "groups: }"), []),
        (("groups: 2}\n    nodes:", "groups: }\n    nodes:\n      c.block3: {width: 4}"), []),
        (("    nodes:", "    nodes:\n      c.block3: {width: 4}"), ["nodes.c.block3: 'c.block3' patches nothing"]),
        (("block: conv, width: $(", "block: nonsense, width: $("), ["nodes.b.block: there is no block 'nonsense'."]),
        (("groups: $groups}", "grups: 1}"), ["nodes.b.grups: unknown key 'grups'."]),
        (("{spatial: $how}", "{spatial: $how, norm: btch}"), ["nodes.c.shortcut.norm: expected 'batch'"]),
        (("$(2 * width)", "$(2 * wdth)"), ["params.k: there is no name 'wdth' here."]),
        (("width // in_width", "wdth // in_width"), ["nodes.b.width: there is no name 'wdth' here."]),
        (("edges: full", "edges: fll"), ["skips.edges: there is no set 'fll'."]),
        (("skips:", "skps:"), ["skps: unknown key 'skps'."]),
    ],
)
def test_what_does_not_depend_on_a_use_is_checked(change: tuple[str, str], found: list[str]) -> None:
    got = errors(LIBRARY.replace(*change) if change[0] else LIBRARY)
    assert len(got) == len(found)
    assert all(a.startswith(f"blocks.library.{b}") for a, b in zip(got, found, strict=True))


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ("  preset: {block: basic, hidden: 8}\n", []),  # `width` may be given by the node
        ("  preset: {block: basic, hiden: 8, norm: 3}\n", ["preset.hiden: unknown key", "preset.norm: expected"]),
        ("  alias: basc\n", ["alias: there is no block 'basc'."]),
        ("  alias: {block: basc}\n", ["alias.block: there is no block 'basc'."]),
        ("  loop: loop\n", ["loop: the definition is circular: loop -> loop."]),
        (
            "  one: {nodes: {a: nonsense, b: rubbish}, flow: a -> b}\n",
            ["one.nodes.a.block: there", "one.nodes.b.block: there"],
        ),
        ("  one: {nodes: {a: relu, b: relu}, flow: a -> q}\n", ["one.flow: there is no node 'q'."]),
        (
            "  one: {nodes: {a: relu, b: relu}, flow: [a, b]}\n",
            ["one.flow: a list holds chains, and none of these has a '->'."],
        ),
        ("  one: {nodes: {a: relu, b: relu}, flow: a}\n", ["one.nodes.b: no path leads from the input to 'b'."]),
        (
            "  one: {nodes: {a: relu, b: relu, c: relu}, flow: [a -> b, a -> c]}\n",
            ["one.nodes.b: there are 2 ends: b, c."],
        ),
        (
            "  one: {nodes: {a: relu, b: relu}, flow: a -> b, edges: [{from: b, to: a}]}\n",
            ["one.edges[0]: the cycle a -> b -> a has total delay 0."],
        ),
        ("  one: {nodes: {a: {block: two, width: 3}}}\n  two: {nodes: {a: relu}}\n", ["one.nodes.a.width: unknown"]),
        ("  one: {nodes: {a: conv}}\n", ["one.nodes.a.width: the key 'width' is missing."]),
        ("  one: {params: {k: 0}, nodes: {a: {block: conv, width: $k}}}\n", ["one.nodes.a.width: expected a number"]),
        ("  one: {nodes: {a: {block: conv, widht: 3}}}\n", ["one.nodes.a.widht: unknown key 'widht'."]),
    ],
)
def test_an_unused_entry_is_checked(blocks: str, found: list[str]) -> None:
    got = errors(blocks)
    assert len(got) == len(found)
    assert all(a.startswith(f"blocks.{b}") for a, b in zip(got, found, strict=True))


def test_the_params_of_a_used_entry_are_unknown() -> None:
    blocks = "  one: {params: {k: 0}, nodes: {a: {block: conv, width: $k}}}\n"
    assert errors(blocks) and not errors(blocks, use=", x: {block: one, k: 4}").count("blocks")


def test_errors_of_used_entries_are_reported_with_those_of_the_file() -> None:
    blocks = "  one: {nodes: {a: nonsense}}\n  two: {nodes: {a: {block: conv, width: 2, grups: 1}}}\n"
    found = errors(blocks, use=", x: one, y: two, z: {block: conv, width: 0}")
    assert [error.split(":")[0] for error in found] == [
        "nodes.z.width",
        "blocks.one.nodes.a.block",
        "blocks.two.nodes.a.grups",
    ]


@pytest.mark.parametrize("name", ["i", "in_width", "block", "depth", "weights", "per_step", "merge"])
def test_a_param_that_no_node_could_set_or_no_template_read(name: str) -> None:
    (found,) = errors(f"  own: {{params: {{{name}: 2}}, nodes: {{c: {{block: conv2d, width: 4}}}}, flow: c}}")
    assert found.startswith(f"blocks.own.params.{name}: ") and f"'{name}' is" in found


def test_a_param_called_as_the_index_of_a_block() -> None:
    with pytest.raises(SpecError, match="'i' is the index of the block"):
        hrg.loads("params: {i: 3}" + FRAME.replace("USE", "").replace("blocks:", "")).validate()
