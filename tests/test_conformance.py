"""Every registered kind passes the checks of `hiresnet_graph.testing`. A new kind needs examples, and no new test."""

from __future__ import annotations

import json

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.lower import Recurrent
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS, StandardProjection
from hiresnet_graph.registry import Registry
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.testing import check_kind

VECTOR_ONLY = {"linear", "to_map"}
EXAMPLES = [
    pytest.param(registry, name, i, id=f"{registry.family}-{name}-{i}")
    for registry in (BLOCKS, OPS, MERGES, PROJECTIONS)
    for name in registry
    for i in range(len(registry.get(name).examples))
]


@pytest.mark.parametrize(("registry", "name", "i"), EXAMPLES)
def test_an_example_conforms(registry: Registry[hrg.Kind], name: str, i: int) -> None:
    kind = registry.get(name)
    assert kind.__module__.startswith("hiresnet_graph.")
    example = kind.examples[i]
    value = kind.model_validate(json.loads(json.dumps(example)))
    assert value.model_fields_set == set(example)
    check_kind(value, Vector(8) if name in VECTOR_ONLY else Map(8, 7, 9))


def test_a_name_is_registered_once() -> None:
    class Other(StandardProjection):
        """Something else."""

        kind = "standard"

    with pytest.raises(hrg.HrgError, match="'standard' is taken by hiresnet_graph"):
        PROJECTIONS.register(Other)
    assert PROJECTIONS.get("standard") is StandardProjection


def test_names_that_torch_modules_have_are_refused() -> None:
    from hiresnet_graph.passes.names import _MODULE_WORDS

    module = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    words = {word for word in {*dir(torch.nn.Module), *dir(module), *dir(Recurrent)} if word[0].isalpha()}
    assert words <= _MODULE_WORDS
