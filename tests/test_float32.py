"""Numbers that float32 cannot represent are refused in every field, at their position."""

from __future__ import annotations

import math
from typing import ClassVar, get_args

import pytest
from pydantic import BaseModel, ValidationError

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.data import DATASETS
from hiresnet_graph.errors import UsageError
from hiresnet_graph.float32 import LARGEST, SMALLEST, Float32Model
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.spec import model
from hiresnet_graph.sweep.search_settings import ValueRange
from hiresnet_graph.train import Recipe
from hiresnet_graph.train.recipe import make_recipe

KINDS = [registry.get(name) for registry in (OPS, BLOCKS, MERGES, PROJECTIONS, DATASETS) for name in registry]
SPECS = [cls for cls in vars(model).values() if isinstance(cls, type) and issubclass(cls, model.Model)]
BAD = [1e39, -1e39, 1e-50, -1e-40, math.inf, -math.inf, math.nan]


def _holds_float(annotation: object) -> bool:
    return annotation is float or any(map(_holds_float, get_args(annotation)))


FIELDS = [
    (cls, name)
    for cls in (*KINDS, *SPECS, Recipe, ValueRange)
    for name, field in cls.model_fields.items()
    if _holds_float(field.annotation)
]


def test_there_are_fields_of_every_family() -> None:
    names = {f"{cls.__name__}.{name}" for cls, name in FIELDS}
    assert {"BatchNorm.eps", "Dropout.p", "MBConvBlock.expansion", "TimeSpec.norm_scale", "Recipe.lr"} <= names


@pytest.mark.parametrize("number", BAD)
@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_every_field_refuses_such_a_number(cls: type[BaseModel], field: str, number: float) -> None:
    for value in (number, [number, 1.0]):
        with pytest.raises(ValidationError) as error:
            cls.model_validate({field: value})
        assert field in {detail["loc"][0] for detail in error.value.errors()}


@pytest.mark.parametrize(
    ("cls", "field"),
    [
        (cls, name)
        for cls, name in FIELDS
        if cls.model_fields[name].annotation in (float, float | None) and not getattr(cls, "takes_texts", False)
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_true_and_texts_are_no_numbers(cls: type[BaseModel], field: str) -> None:
    for value in (True, "0.5"):
        with pytest.raises(ValidationError) as error:
            cls.model_validate({field: value})
        assert field in {detail["loc"][0] for detail in error.value.errors()}


def test_numbers_at_the_limits_are_valid() -> None:
    class Own(Float32Model):
        name: ClassVar[str] = "own"
        factor: float
        many: tuple[float, ...] = ()

    assert Own(factor=LARGEST, many=(0.0, -SMALLEST, SMALLEST)).factor == LARGEST
    with pytest.raises(ValidationError, match="many"):
        Own(factor=1.0, many=(1.0, 1e-39))
    with pytest.raises(ValidationError, match="factor"):
        Own(factor=10**39)


SPEC = """\
name: n
input: {channels: 2, height: 8, width: 8}
nodes:
  a: {block: batch_norm, eps: 1e-50}
  head: {block: classifier, classes: 10}
flow: a -> head
edges: [{from: a, to: a, delay: 1}]
time: {steps: 2, norm_scale: $(1e38 * 10)}
"""


def test_the_message_has_the_position() -> None:
    with pytest.raises(hrg.SpecError) as error:
        hrg.loads(SPEC, "n.yaml").validate()
    only = "expected a number that float32 can represent (0, or from 1.2e-38 to 3.4e+38 in size), got"
    assert [str(problem) for problem in error.value.problems] == [
        f"n.yaml:4:31: nodes.a.eps: {only} 1e-50.",
        f"n.yaml:8:30: time.norm_scale: {only} 1e+39.",
    ]
    with pytest.raises(UsageError, match=r"recipe\.loss_steps: expected .* a list of weights \(0 to 1e\+30"):
        make_recipe({"loss_steps": [1e308, 1e308]})
