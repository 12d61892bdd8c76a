"""Long skips of modules, as the key `skips` of their specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from torch import nn
from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.importing import Imported, from_module
from hiresnet_graph.importing import lifting as lifting_module
from tests.importing import long_skips
from tests.importing.round_trips import likeness

SHAPE = (3, 16, 16)
SMALL = {"input.height": 16, "input.width": 16, "params.width": 4}
BLOCKS = {**SMALL, "skips.levels": ["stem", "blocks"]}
VARIANTS = [
    *(("hiresnet18", variant, SMALL) for variant in ("original", "full", "in", "out", "p1", "p2", "p3")),
    *(("hiresnet18", variant, {**SMALL, "params.block": "plain"}) for variant in ("full", "in", "p2")),
    ("hiresnet18", "full", {**SMALL, "params.block": "resnext"}),
    ("hiresnet18", "full", {**SMALL, "params.block": "preact_basic"}),
    ("hiresnet18", "full", {**SMALL, "skips.slot": "residual"}),
    ("hiresnet18", "p1", {**SMALL, "params.block": "plain", "skips.slot": "residual"}),
    ("hiresnet18", "p2", {**SMALL, "skips.slot": "input"}),
    ("hiresnet18", "full", BLOCKS),
    ("hiresnet18", "p1", BLOCKS),
    ("hiresnet18", "full", {**BLOCKS, "params.block": "plain", "skips.levels": ["stem", "stage2.block*", "stage3"]}),
    ("hiresnet18", "full", {**SMALL, "skips.projection": {"spatial": "max", "when": "always"}}),
    ("hiresnet18", "full", {**SMALL, "skips.projection": {"spatial": "stride", "norm": "none", "bias": False}}),
    ("hiresnet18", "full", {**SMALL, "skips.projection": {"spatial": "adaptive", "norm": "layer2d"}}),
    ("hiresnet18", "full", {**SMALL, "skips.projection": {"channels": "pad_end", "norm": "none"}}),
    ("hiresnet18", "full", {**SMALL, "skips.scale": "learned"}),
    ("hiresnet18", "full", {**SMALL, "skips.scale": {"learned": True, "init": 0.0}}),
    ("hiresnet18", "full", {**SMALL, "skips.scale": 0.5}),
    ("hiresnet56", "blocks_full", {**SMALL, "params.n": 2}),
    ("hiresvit_tiny", "p2", {"params.depth": 3, "params.width": 12}),
    ("hireshybrid_tiny", "blocks_full", {"params.depth": 2, "params.width": 12}),
]
RESNET = {
    "layer1": {"block": "basic", "width": 4, "depth": 2},
    "layer2": {"block": "basic", "width": 8, "stride": 2, "depth": 2},
    "layer3": {"block": "basic", "width": 16, "stride": 2, "depth": 2},
}


def imported_from(module: nn.Module) -> tuple[Imported, dict[str, Any]]:
    """The import of a module with random statistics, and its nodes and skips, without stem and head."""
    torch.manual_seed(0)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    imported = from_module(module.eval(), input=SHAPE)
    images = torch.rand(2, *SHAPE)
    torch.testing.assert_close(imported.build()(images), module(images))
    spec = yaml.safe_load(imported.text)
    nodes = {name: fields for name, fields in spec["nodes"].items() if name not in ("entry", "fc", "conv")}
    return imported, {"nodes": nodes, "skips": spec.get("skips")}


@pytest.mark.parametrize(("name", "variant", "changes"), VARIANTS)
def test_skips_of_a_spec_are_found_again(name: str, variant: str, changes: dict[str, Any]) -> None:
    network = hrg.load(name).variant(variant).override(changes)
    assert likeness(network) == "digest"


def test_skips_to_the_output_of_a_stage() -> None:
    imported, spec = imported_from(long_skips.Stages())
    assert spec == {"nodes": RESNET, "skips": {"edges": ["layer2>layer3", "layer1>layer3"]}}
    assert imported.comparison.training == 0
    assert imported.left_out == () and imported.notes == ()
    assert imported.names["edges.layer1__layer3.conv.weight"] == "skip13.1.weight"
    assert imported.names["edges.layer2__layer3.norm.running_mean"] == "skip23.2.running_mean"


def test_skips_are_added_in_the_order_of_the_original() -> None:
    imported, spec = imported_from(long_skips.FarthestFirst())
    assert spec["nodes"] == RESNET
    assert spec["skips"] == {
        "edges": ["layer1>layer3", "layer2>layer3"],
        "merge": {"kind": "add", "order": ["layer1", "layer2"]},
    }
    assert imported.comparison[:2] == (0, 0)


def test_skips_of_two_kinds_are_two_groups() -> None:
    imported, spec = imported_from(long_skips.TwoKinds())
    assert spec["nodes"] == RESNET
    assert spec["skips"] == {
        "stride": {"edges": ["layer2>layer3"], "projection": {"spatial": "stride"}},
        "avg": {"edges": ["layer1>layer3"], "scale": "learned"},
    }
    assert imported.names["edges.avg.layer1__layer3.scale.weight"] == "factor"


def test_skips_inside_blocks() -> None:
    _, spec = imported_from(long_skips.InsideBlocks())
    assert spec["nodes"] == {
        "high": {"block": "basic", "width": 4, "depth": 2},
        "low": {"block": "basic", "width": 8, "stride": 2, "depth": 2},
    }
    assert spec["skips"] == {
        "edges": ["conv>high", "conv>low"],
        "slot": "residual",
        "projection": {"spatial": "stride"},
    }


@pytest.mark.parametrize(
    ("at_input", "skips"), [(False, {"edges": "full"}), (True, {"edges": "full - p1", "slot": "input"})]
)
def test_skips_from_every_level(at_input: bool, skips: dict[str, str]) -> None:
    _, spec = imported_from(long_skips.EveryLevel(at_input=at_input))
    assert spec["nodes"] == {"basic": {"block": "basic", "width": 4, "depth": 3}}
    assert spec["skips"] == {"levels": ["entry", "blocks"], **skips}


def test_what_no_projection_computes_stays_nodes() -> None:
    _, spec = imported_from(long_skips.Activated())
    assert spec["skips"] is None
    assert {name: spec["nodes"][name] for name in RESNET} == RESNET
    assert spec["nodes"]["skip13_1"] == {"block": "conv", "width": 16, "kernel_size": 1}


def test_a_sum_that_stays_a_node_is_the_source_of_skips() -> None:
    imported, spec = imported_from(long_skips.FromSum())
    assert spec["nodes"] == {
        **RESNET,
        "skip12": {"block": "conv", "width": 8, "kernel_size": 1, "stride": 2, "activation": "none"},
        "relu": "relu",
        "add": "identity",
    }
    assert spec["skips"] == {"edges": ["add>layer3"]}
    assert imported.comparison[:2] == (0, 0)


def test_a_sum_beside_its_first_term_is_no_value_of_a_stage() -> None:
    _, spec = imported_from(long_skips.Both())
    assert {name: spec["nodes"][name] for name in RESNET} == RESNET
    assert spec["skips"] is None and spec["nodes"]["add"] == "identity"


def test_shortcuts_of_blocks_are_no_skips() -> None:
    _, spec = imported_from(long_skips.OwnShortcuts())
    assert spec["skips"] is None


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "vision transformer"])
def test_torchvision_networks_have_no_long_skips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(lifting_module, "_with_skips", lambda *args: found.append(args))
    if name == "vision transformer":
        module: nn.Module = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32)
    else:
        module = torchvision.models.get_model(name, num_classes=3)
    from_module(module, input=(3, 32, 32))
    assert found == []


def test_a_wrong_edge_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting_module, "computes", lambda *_: False)
    _, spec = imported_from(long_skips.Stages())
    assert spec["skips"] is None and len(spec["nodes"]) > len(RESNET)


def test_subsets_of_imported_skips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from_module(long_skips.Stages().eval(), input=SHAPE).save(tmp_path / "net.yaml")
    command = ["ablate", str(tmp_path / "net.yaml"), "--subsets", "all", "--dry-run", "--no-calibrate"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "4 variants x 5 seeds, 4 different networks" in result.output
    assert all(edge in result.output for edge in ("none", "layer1>layer3", "layer2>layer3", "all"))


def test_weights_of_skips_by_their_original_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from_module(long_skips.Stages().eval(), input=SHAPE).save(tmp_path / "net.yaml", tmp_path / "net.safetensors")
    other = long_skips.Stages().eval()
    torch.save(other.state_dict(), tmp_path / "other.pth")
    module = hrg.create_model(tmp_path / "net.yaml", pretrained=tmp_path / "other.pth").eval()
    images = torch.rand(2, *SHAPE)
    assert torch.equal(module(images), other(images))


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("sums_all", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_sums_of_all_values_before(depth: int, sums_all: bool, is_residual: bool) -> None:
    """A sum may be of skips alone, which another one adds: (a + b) + c."""
    torch.manual_seed(0)
    module = long_skips.Summed(depth, sums_all, is_residual).eval()
    imported = from_module(module, input=SHAPE)
    images = torch.rand(2, *SHAPE)
    assert torch.allclose(imported.build()(images), module(images), atol=1e-6)
    if depth > 2:
        assert len(imported.network.plan.edges) >= depth - 1
