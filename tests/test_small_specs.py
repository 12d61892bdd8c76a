"""Shipped transformers, and residual networks with hierarchical skips, at small width: all forms agree; skips that are
dropped or begin at 0 change nothing else."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.testing import check_network

IMAGE = {"input.height": 32, "input.width": 32}
VIT = {"width": 24, "depth": 2, "classes": 5, "patches.patch": 8, "positions.grid": [4, 4], **IMAGE}
SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny": VIT,
    "vit_small": VIT,
    "vit_base": {**VIT, "heads": 12},
    "hiresvit_tiny": {"width": 24, "depth": 3, "size": 16},
    "hireshybrid_tiny": {"width": 6, "depth": 2, "size": 16},
    "swin_tiny": {"width": 32, "window": 2, "classes": 5, **IMAGE},
    "convnext_tiny": {"width": 8, "classes": 5, "stage3.depth": 2, **IMAGE},
    "mixer_s16": {"width": 24, "depth": 2, "patch": 8, "classes": 5, **IMAGE},
    "hiresnet50": {"width": 8, "depths": [1, 1, 1, 1], "classes": 5, **IMAGE},
    "hiresnet101": {"width": 8, "depths": [1, 1, 2, 1], "classes": 5, **IMAGE},
    "hiresnet56": {"width": 4, "n": 1},
    "hiresnet110": {"width": 4, "n": 2},
}
"""Spec -> changes that make it small."""
QUICK = ("hiresvit_tiny", "hireshybrid_tiny")
SKIPS = {"hiresvit_tiny": "full", "hireshybrid_tiny": "blocks_full", "hiresnet50": "blocks_full", "hiresnet56": "full"}


def small(name: str, variant: str | None = None) -> hrg.Architecture:
    """A shipped spec at small width."""
    network = hrg.load(name)
    return (network.variant(variant) if variant else network).override(SMALL[name])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_rules_module_source_and_stacked_program_agree(name: str) -> None:
    check_network(small(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_exported_programs_agree(name: str, tmp_path: Path) -> None:
    """`torch.export` and `torch.compile` as one graph to the bit; ONNX, computed by its runtime, within rounding."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = small(name)
    module = network.build(seed=3).eval()
    x = torch.randn(2, *network.plan.inputs["input"])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = module(x)
        program = torch.export.load(network.export(tmp_path / "model.pt2", seed=3)).module()
        assert torch.equal(program(x), expected)
        session = runtime.InferenceSession(network.export(tmp_path / "model.onnx", seed=3))
        (found,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5 * float(expected.abs().max()), rtol=0)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)


@pytest.mark.parametrize("name", SKIPS)
def test_dropping_an_edge_leaves_every_other_initial_weight_as_it_was(name: str) -> None:
    full = small(name, "full")
    skips = [edge.name.removeprefix("edges.") for edge in full.plan.edges if edge.family == "skip"]
    dropped = random.Random(name).choice(skips)
    edge = dropped.replace("__", ">").replace("encoder_", "encoder.")
    one, two = full.build(4).state_dict(), full.with_edges(f"full - {edge}").build(4).state_dict()
    assert all(torch.equal(value, one[tensor]) for tensor, value in two.items())
    assert all(tensor.startswith(f"edges.{dropped}.") for tensor in set(one) - set(two))
    assert len(full.with_edges(f"full - {edge}").plan.edges) == len(full.plan.edges) - 1


@pytest.mark.parametrize(("name", "variant"), SKIPS.items())
def test_skips_that_begin_at_0_leave_the_outputs_of_a_trained_network_as_they_were(name: str, variant: str) -> None:
    trained = small(name, "none").build(1)
    generator = torch.Generator().manual_seed(0)
    for value in (*trained.parameters(), *trained.buffers()):
        if value.is_floating_point():
            value.data.add_(0.1 * torch.rand(value.shape, generator=generator))
    skipped = small(name, variant).override({"skips.scale": {"learned": True, "init": 0}}).build(2)
    missing, unexpected = skipped.load_state_dict(trained.state_dict(), strict=False)
    assert missing and not unexpected and all(tensor.startswith("edges.") for tensor in missing)
    x = torch.randn(3, *small(name).plan.inputs["input"], generator=generator)
    with torch.no_grad():
        for mode in (False, True):
            assert torch.equal(skipped.train(mode)(x), trained.train(mode)(x))
