"""Every registered kind passes the checks of `hiresnet_graph.testing`. A new kind needs examples, and no new test."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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
REGISTERED = {name: registry.get(name) for registry in (BLOCKS, OPS) for name in registry}
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


def network_of(fields: dict[str, Any], height: int = 7) -> hrg.Architecture:
    shape = {"channels": 8, **({"height": height, "width": height + 2} if height else {})}
    return hrg.from_dict({"name": "net", "input": shape, "nodes": {"node": fields}, "flow": "input -> node"})


COUNTED = [
    *({"block": name, **example} for name in (*BLOCKS, *OPS) for example in REGISTERED[name].examples),
    {"block": "conv2d", "width": 12, "kernel_size": [1, 3], "stride": [2, 1], "groups": 4, "bias": False},
    {"block": "conv_transpose2d", "width": 12, "kernel_size": [2, 3], "stride": [1, 2], "groups": 4},
]


@pytest.mark.parametrize("fields", COUNTED, ids=str)
def test_multiply_adds_are_those_that_torch_counts(fields: dict[str, Any]) -> None:
    """With groups, strides, and kernels that are not square. torch counts two operations for each."""
    net = network_of(fields, 0 if fields["block"] in VECTOR_ONLY else 7)
    module = net.build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.zeros(3, *shape) for shape in net.plan.inputs.values()))
    assert counter.get_total_flops() == 2 * 3 * net.cost().macs


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
