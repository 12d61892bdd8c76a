"""Every registered kind passes the checks of `hiresnet_graph.testing`. A new kind needs examples, and no new test."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.lower import Recurrent
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS, StandardProjection
from hiresnet_graph.registry import Registry
from hiresnet_graph.testing import check_kind
from tests.kinds import SHAPES, accepted, network_of

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
    if registry not in (BLOCKS, OPS):
        check_kind(value, SHAPES[0])
        return
    for shape in accepted({"block": name, **example}):
        check_kind(value, shape)


COUNTED = [
    *({"block": name, **example} for name in (*BLOCKS, *OPS) for example in REGISTERED[name].examples),
    {"block": "conv2d", "width": 12, "kernel_size": [1, 3], "stride": [2, 1], "groups": 4, "bias": False},
    {"block": "conv_transpose2d", "width": 12, "kernel_size": [2, 3], "stride": [1, 2], "groups": 4},
]


@pytest.mark.parametrize("fields", COUNTED, ids=str)
def test_multiply_adds_are_those_that_torch_counts(fields: dict[str, Any]) -> None:
    """With groups, strides, and kernels that are not square. torch counts two operations for each.

    Of the kernels for attention on a CPU, it counts those of the products alone.
    """
    for shape in accepted(fields):
        net = network_of(fields, shape)
        module = net.build().eval()
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
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
