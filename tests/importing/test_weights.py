"""Files of weights of torchvision and timm, for the networks that were imported from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.analysis.sources import network_with_weights
from hiresnet_graph.cli.app import app
from hiresnet_graph.errors import RunError
from hiresnet_graph.importing import from_module
from hiresnet_graph.lower.weight_files import maps_beside, read_weights
from hiresnet_graph.lower.weights import load_weights
from hiresnet_graph.train.initial_weights import initial_weights

SHAPE = (3, 32, 32)


def original(library: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if library == "timm":
        return timm.create_model("resnet10t", num_classes=10).eval()
    return torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval()


@pytest.fixture(scope="module", params=["torchvision", "timm"])
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """The spec of a network, with the weights of its import beside it, and the same network with other weights."""
    folder = tmp_path_factory.mktemp(request.param)
    from_module(original(request.param, 0), input=SHAPE).save(folder / "net.yaml", folder / "net.safetensors")
    other = original(request.param, 1)
    torch.save({f"module.{name}": value for name, value in other.state_dict().items()}, folder / "other.pth")
    return folder, other


def test_tensors_of_the_library_are_found(imported: tuple[Path, nn.Module]) -> None:
    folder, other = imported
    network = hrg.load(folder / "net.yaml")
    module = network.build().eval()
    (note,) = load_weights(module, folder / "other.pth", specs=network.files)
    assert note == (
        f"Renamed {len(other.state_dict())} tensors of {folder / 'other.pth'} by the map of the import in "
        f"{folder / 'net.safetensors'}."
    )
    images = torch.rand(2, *SHAPE)
    assert torch.equal(module(images), other(images))
    assert torch.equal(
        hrg.create_model(folder / "net.yaml", pretrained=folder / "other.pth").eval()(images), other(images)
    )


@pytest.mark.parametrize("imported", ["timm"], indirect=True)
def test_tensors_that_the_import_never_saw_belong_to_another_network(
    imported: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    folder, other = imported
    larger = {**other.state_dict(), "layer4.1.conv1.weight": torch.zeros(3)}
    torch.save(larger, tmp_path / "larger.pth")
    expected = "belong to another network: 'layer4.1.conv1.weight' is not in the network"
    with pytest.raises(RunError, match=expected):
        hrg.create_model(folder / "net.yaml", pretrained=tmp_path / "larger.pth")
    module, specs = hrg.load(folder / "net.yaml").build(), [folder / "net.yaml"]
    with pytest.raises(RunError, match=expected):
        load_weights(module, tmp_path / "larger.pth", specs=specs)
    _, unused = load_weights(module, tmp_path / "larger.pth", specs=specs, reinit=True)
    assert unused.endswith("has 'layer4.1.conv1.weight', which the network lacks: not used.")


def test_tensors_that_the_import_left_out_are_left_out(tmp_path: Path) -> None:
    module = torchvision.models.googlenet(aux_logits=True, num_classes=4, init_weights=False).eval()
    imported = from_module(module, input=(3, 32, 32))
    assert {name.split(".")[0] for name in imported.left_out} == {"aux1", "aux2"}
    imported.save(tmp_path / "net.yaml", tmp_path / "net.safetensors")
    torch.save(module.state_dict(), tmp_path / "own.pth")
    again = hrg.create_model(tmp_path / "net.yaml", pretrained=tmp_path / "own.pth")
    assert all(torch.equal(value, imported.weights[name]) for name, value in again.state_dict().items())


def test_a_run_finds_them_again_and_has_the_key_of_the_imported_weights(imported: tuple[Path, nn.Module]) -> None:
    folder, _ = imported
    network = hrg.load(folder / "net.yaml")
    weights, _ = initial_weights(folder / "other.pth", network.files)
    fit = weights.fit(network.plan)
    assert not fit.drawn and not fit.unused
    save_file({name: value.contiguous() for name, value in fit.tensors.items()}, folder / "same.safetensors")
    assert initial_weights(folder / "same.safetensors", network.files)[0].digest == weights.digest


@pytest.mark.parametrize("imported", ["timm"], indirect=True)
def test_commands(imported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, other = imported
    given = [str(folder / "net.yaml"), "--weights", str(folder / "other.pth")]
    images = torch.rand(2, *SHAPE)
    done = CliRunner().invoke(app, ["compile", *given, "-o", str(tmp_path / "net.pt2")])
    assert done.exit_code == 0 and "by the map of the import" in done.stderr, done.output
    assert torch.allclose(torch.export.load(tmp_path / "net.pt2").module()(images), other(images), atol=1e-6)
    notes: list[str] = []
    network_with_weights(hrg.load(given[0]), folder / "other.pth", message=notes.append)
    study = tmp_path / "study.yaml"
    study.write_text(f"network: {given[0]}\nvariants: {{a: {{}}}}\nweights: {folder / 'other.pth'}\nseeds: 1\n")
    done = CliRunner().invoke(app, ["ablate", str(study), "--dry-run", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output


def test_without_a_map_the_names_are_those_of_another_network(imported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, _ = imported
    spec = tmp_path / "net.yaml"
    spec.write_text((folder / "net.yaml").read_text())
    (tmp_path / "net.safetensors").write_bytes(b"not a file of tensors")
    assert maps_beside([spec]) == (tmp_path / "net.safetensors",)
    file = read_weights(folder / "other.pth", maps=maps_beside([spec]))
    assert file.map is None and all(name.startswith("module.") for name in file.tensors)
    with pytest.raises(RunError, match="belong to another network"):
        load_weights(hrg.load(spec).build(), folder / "other.pth", specs=[spec])
