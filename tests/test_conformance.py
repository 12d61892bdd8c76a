"""Every registered kind keeps its promises. A new kind needs no new test: it is found in its registry."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.lower import Recurrent, interpret
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS, StandardProjection
from hiresnet_graph.registry import Registry

BLOCK_FIELDS: dict[str, dict[str, object]] = {
    "basic": {"width": 6, "stride": 2},
    "bottleneck": {"width": 8, "stride": 2},
    "brc2": {"width": 6, "hidden": 5, "norm": "group"},
    "brd2": {"width": 6, "spatial": "bilinear"},
    "classifier": {"classes": 5, "dropout": 0.1},
    "conv": {"width": 6, "kernel_size": 5, "stride": 2, "norm": "group", "activation": "gelu"},
    "dense_layer": {"growth": 3, "dropout": 0.1},
    "identity": {},
    "mbconv": {"width": 4, "squeeze": 0.5},
    "plain": {"width": 6, "hidden": 5},
    "pool": {"pool": "max", "kernel_size": 3, "padding": 1, "stride": 2},
    "preact_basic": {"width": 6, "stride": 2},
    "preact_bottleneck": {"width": 8},
    "resnext": {"width": 8, "stride": 2},
    "resnext_bottleneck": {"width": 64},
    "separable_conv": {"width": 6, "stride": 2},
    "squeeze_excite": {"reduction": 2},
    "state": {"shape": [4, 7, 9]},
    "upsample": {"mode": "bilinear"},
}
OP_FIELDS: dict[str, dict[str, object]] = {
    "adaptive_avg_pool": {"size": [2, 3]},
    "affine": {"scale": 0.1},
    "avg_pool": {"kernel_size": 2, "ceil_mode": True},
    "batch_norm": {"affine": False},
    "conv2d": {"width": 6, "kernel_size": [3, 1], "groups": 2, "dilation": 2},
    "conv_transpose2d": {"width": 6, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "linear": {"width": 5},
    "max_pool": {"kernel_size": 3, "stride": 2},
    "pad_channels": {"width": 7},
    "resize": {"size": [5, 11], "mode": "bilinear"},
    "slice_channels": {"width": 2, "start": 1},
}
ON_VECTORS = {"linear", "to_map"}


def one_node(kind: str, fields: dict[str, object]) -> hrg.Architecture:
    """A network of this block alone, behind a flattening if it wants vectors."""
    nodes: dict[str, object] = {"flat": {"block": "flatten"}} if kind in ON_VECTORS else {}
    nodes["it"] = {"block": kind, **fields}
    return hrg.from_dict(
        {
            "name": "one",
            "input": {"channels": 4, "height": 7, "width": 9},
            "nodes": nodes,
            "flow": " -> ".join(nodes) if len(nodes) > 1 else "input -> it",
        }
    )


def assert_runs(net: hrg.Architecture) -> None:
    """Real shapes and parameter counts are those that the rules say; interpreter and module agree to the bit."""
    plan, x = net.plan, torch.randn(3, 4, 7, 9)
    module = net.build()
    calls = {call.name: call for call in plan.calls}
    for training in (True, False):
        module.train(training)
        torch.manual_seed(0)
        expected = interpret(plan, module, x)
        torch.manual_seed(0)
        out = module(x)
        assert torch.equal(out, expected)
        (value,) = plan.outputs.values()
        assert out.shape == (3, *(calls[value].shape if value in calls else plan.inputs[value]))
    assert sum(p.numel() for p in module.parameters()) == net.cost().parameters
    assert sum(b.numel() for b in module.buffers()) == net.cost().buffers
    assert set(module.state_dict()) == set(plan.tensors())


@pytest.mark.parametrize("kind", list(BLOCKS))
def test_block(kind: str) -> None:
    assert kind in BLOCK_FIELDS, "give the new block an example here"
    assert_runs(one_node(kind, BLOCK_FIELDS[kind]))


@pytest.mark.parametrize("kind", list(OPS))
def test_operation_as_a_block(kind: str) -> None:
    assert_runs(one_node(kind, OP_FIELDS.get(kind, {})))


@pytest.mark.parametrize("kind", list(MERGES))
def test_merge(kind: str) -> None:
    """Two skips into one block, with projections where the merge wants another shape."""
    net = hrg.from_dict(
        {
            "name": "merged",
            "input": {"channels": 4, "height": 7, "width": 9},
            "nodes": {
                "a": {"block": "conv", "width": 4},
                "b": {"block": "conv", "width": 6, "stride": 2},
                "c": {"block": "conv", "width": 6},
            },
            "flow": "a -> b -> c",
            "skips": {"edges": ["a>c", "b>c"], "merge": kind, "slot": "output"},
        }
    )
    assert_runs(net)
    merges = {edge.merge for edge in net.plan.edges if edge.slot == "output"}
    assert merges == {kind}


@pytest.mark.parametrize("kind", list(PROJECTIONS))
def test_projection(kind: str) -> None:
    same = {"block": "conv", "width": 4}
    other = same if kind == "identity" else {"block": "conv", "width": 6, "stride": 2}
    net = hrg.from_dict(
        {
            "name": "projected",
            "input": {"channels": 4, "height": 7, "width": 9},
            "nodes": {"a": same, "b": other},
            "flow": "a -> b",
            "skips": {"edges": "a>b", "projection": kind},
        }
    )
    assert_runs(net)


@pytest.mark.parametrize("registry", [BLOCKS, OPS, MERGES, PROJECTIONS], ids=lambda registry: registry.family)
def test_every_kind_is_documented_and_survives_json(registry: Registry[hrg.Kind]) -> None:
    examples = {**BLOCK_FIELDS, **OP_FIELDS}
    for name in registry:
        kind = registry.get(name)
        doc = inspect.getdoc(kind)
        assert doc and doc.split("\n")[0].endswith("."), name
        assert kind.__module__.startswith("hiresnet_graph.")
        value = kind.model_validate(json.loads(json.dumps(examples.get(name, {}))))
        again = kind.model_validate(value.model_dump(mode="json", exclude_defaults=True))
        assert again == value, name


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
