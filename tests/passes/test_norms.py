"""`norms`: fields of all norms of a file in one place; and names of the weights of parts of blocks."""

from __future__ import annotations

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError

TEXT = """
name: net
params: {eps: 0.001}
input: {channels: 3, height: 8, width: 8}
norms: {eps: $eps, momentum: 0.01}
blocks:
  cell:
    nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4, norm: layer}}
    flow: a -> b
nodes:
  stem: {block: conv, width: 4}
  own: cell
  stage1: {block: basic, width: 4, depth: 2}
  stage1.block2.norm1: {eps: 0.1}
flow: stem -> own -> stage1
"""


def norms(net: hrg.Architecture) -> dict[str, tuple[float, float | None]]:
    return {
        call.name: (call.op.eps, getattr(call.op, "momentum", None)) for call in net.plan.calls if call.op.normalizes
    }


def test_all_norms_have_the_fields_of_the_file_unless_they_set_them() -> None:
    found = norms(hrg.loads(TEXT))
    assert found["stem.norm"] == found["own.a.norm"] == found["stage1.block1.norm2"] == (0.001, 0.01)
    assert found["own.b.norm"] == (0.001, None)
    assert found["stage1.block2.norm1"] == (0.1, 0.01)
    assert hrg.loads(TEXT).build().stem.norm.eps == 0.001


def test_they_can_be_changed_and_removed() -> None:
    assert norms(hrg.loads(TEXT).override({"norms.eps": 0.5}))["stem.norm"] == (0.5, 0.01)
    plain = hrg.loads(TEXT.replace("norms: {eps: $eps, momentum: 0.01}\n", ""))
    assert norms(plain)["stem.norm"] == (1e-5, 0.1)
    same = hrg.loads(TEXT.replace("momentum: 0.01", "momentum: 0.1").replace("eps: 0.001", "eps: 0.00001"))
    assert same.plan.digest() == plain.plan.digest()


@pytest.mark.parametrize(("text", "message"), [("epsilon: 1", "unknown key 'epsilon'"), ("eps: 2", "less than 1")])
def test_wrong_fields_are_errors(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        hrg.loads(TEXT.replace("eps: $eps", text)).plan  # noqa: B018
    assert raised.value.problems[0].path.startswith("norms")


SHARED = """
name: net
input: {channels: 4, height: 8, width: 8}
blocks:
  cell:
    nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}}
    flow: a -> b
nodes:
  stage1: {block: basic, width: 4, depth: 2}
  stage1.block*.conv2: {weights: second}
  own: cell
  own.b.conv: {weights: second}
  other: {block: basic, width: 4, norm: none}
flow: stage1 -> own -> other
"""


def test_weights_of_parts_are_shared_by_name() -> None:
    net = hrg.loads(SHARED)
    users = [call.name for call in net.plan.calls if call.weights == "second"]
    assert users == ["stage1.block1.conv2", "stage1.block2.conv2", "own.b.conv"]
    assert not net.warnings
    module = net.build()
    assert "second.weight" in module.state_dict() and "stage1.block1.conv2.weight" not in module.state_dict()
    apart = hrg.loads("\n".join(line for line in SHARED.splitlines() if "second" not in line))
    assert apart.cost().parameters - net.cost().parameters == 2 * 4 * 4 * 9


def test_a_node_inside_a_block_can_share_its_weights() -> None:
    net = hrg.loads(SHARED.replace("own.b.conv: {weights: second}", "own.b: {weights: both}\n  own.a: {weights: both}"))
    assert [call.name for call in net.plan.calls if call.weights == "both.conv"] == ["own.a.conv", "own.b.conv"]


def test_a_name_with_one_user_is_a_warning() -> None:
    net = hrg.loads(SHARED.replace("own.b.conv: {weights: second}", "own.b.conv: {weights: alone}"))
    (warning,) = net.warnings
    assert "no other node or edge has the weights 'alone'" in warning.message


def test_unequal_shapes_are_an_error() -> None:
    with pytest.raises(SpecError, match="second"):
        hrg.loads(SHARED.replace("stage1.block*.conv2: {", "stage1.block1.conv2: {kernel_size: 1, ")).plan  # noqa: B018


PATCHED = """
name: net
input: {channels: 4, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, c: {block: conv, width: 4}}
flow: input -> a -> b -> c
edges: [{from: a, to: c, scale: 0.5}, {from: input, to: c}]
variants:
  none: {edges: []}
  changed: {edges: [{from: a, to: c, scale: 0.25}]}
"""


def test_a_patch_replaces_and_removes_unnamed_edges() -> None:
    net = hrg.loads(PATCHED)
    edges = {name: net.variant(name).graph.edges for name in (None, "none", "changed")}
    scales = {
        name: {edge.source: getattr(edge.scale, "factor", None) for edge in found if edge.family == "edge"}
        for name, found in edges.items()
    }
    assert scales == {None: {"a": 0.5, "input": None}, "none": {}, "changed": {"a": 0.25, "input": None}}
