"""Norms of shapes whose statistics have one value, or whose features are not on axis 1; compared with torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph import lower
from hiresnet_graph.errors import ShapeError, SpecError
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Map, Shape, Vector
from tests.stack.test_lowering import Tokens, plan_of

SHAPES = [Map(1, 1, 1), Map(6, 1, 1), Map(6, 1, 2), Map(32, 1, 1), Map(3, 1, 1), Vector(1), Vector(6), Vector(3)]
NORMS: list[tuple[str, dict[str, Any]]] = [
    ("group_norm", {}),
    ("group_norm", {"groups": 1}),
    ("group_norm", {"groups": 3}),
    ("layer_norm", {}),
]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize(("kind", "fields"), NORMS)
def test_a_norm_is_refused_if_its_output_cannot_depend_on_the_input(
    kind: str, fields: dict[str, Any], shape: Shape
) -> None:
    op = OPS.get(kind)(**fields)
    if shape.channels % fields.get("groups", 1):
        return
    try:
        plan = plan_of(op, (shape,))
    except ShapeError as error:
        assert "the output would be the same for every input" in error.message
        layer = op.layer(shape)
        module = getattr(torch.nn, layer.target.rpartition(".")[2])(*layer.args, **layer.kwargs)
        assert module(torch.randn(5, *shape)).abs().max() < 1e-3
    else:
        y_B = lower.build(plan)(torch.randn(5, *shape)).detach()
        assert bool((y_B.flatten(1).std(0) > 1e-3).any())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_the_smallest_batch_of_a_batch_norm_is_that_of_torch(shape: Shape, batch: int) -> None:
    op = OPS.get("batch_norm")()
    module = lower.build(plan_of(op, (shape,))).train()
    if op.smallest_batch(shape) <= batch:
        assert module(torch.randn(batch, *shape)).shape == (batch, *shape)
    else:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(torch.randn(batch, *shape))


@pytest.mark.parametrize("kind", ["batch_norm", "group_norm", "layer_norm", "affine"])
@pytest.mark.parametrize("shape", [Tokens(5, 6), Map(6, 2, 2, steps=3), Vector(6, steps=3)], ids=repr)
def test_a_norm_of_another_feature_axis_is_refused_or_right(kind: str, shape: Shape) -> None:
    op = OPS.get(kind)()
    try:
        plan = plan_of(op, (shape,))
    except ShapeError as error:
        assert kind != "affine" and f"on axis 1, after the batch; {shape.describe()} has" in error.message
    else:
        assert kind == "affine" or (kind == "layer_norm" and not shape.trailing)
        assert lower.build(plan)(torch.randn(4, *shape)).shape == (4, *shape)


def test_the_position_of_a_norm_of_single_values() -> None:
    text = """
input: {channels: 3, height: 2, width: 2}
name: gn
nodes:
  c: {block: conv, width: 16, stride: 2, norm: group}
  head: {block: classifier, classes: 3}
flow: c -> head
"""
    with pytest.raises(SpecError) as error:
        hrg.loads(text, "gn.yaml").validate()
    (problem,) = error.value.problems
    assert str(problem) == (
        "gn.yaml:5:6: nodes.c: 'c': Group norm in 16 groups of a feature map of 16x1x1 has one value in each group. It "
        "equals its mean, so that the output would be the same for every input. Use a layer norm ('norm: layer'), no "
        "norm ('norm: none') or fewer 'groups' of the norm; or keep a larger height and width."
    )
    hrg.loads(text.replace("norm: group}", "norm: layer}")).validate()
    hrg.loads(text.replace("  head", "  c.norm: {groups: 4}\n  head")).validate()
    (warning,) = hrg.loads(text.replace("norm: group", "norm: batch"), "bn.yaml").warnings
    assert str(warning).startswith("bn.yaml:5:6: nodes.c: 'c.norm': the statistics of a batch norm of a feature map of")


def test_norms_of_a_single_value_advise_no_other_norm_that_is_refused_too() -> None:
    for kind in ("group_norm", "layer_norm"):
        with pytest.raises(ShapeError) as error:
            OPS.get(kind)().shape(Map(1, 1, 1))
        assert "norm: none" in error.value.hint and "norm: layer" not in error.value.hint
