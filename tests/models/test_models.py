"""Models with the names and the meaning of timm's, compared with timm's own."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.lower.interpreter import Interpreter
from hiresnet_graph.models import FeatureModel, ImageModel

SMALL: dict[str, Any] = {"width": 4}

NESTED = """\
name: net
input: {channels: 1, height: 8, width: 8}
blocks:
  two:
    nodes: {first: {block: conv, width: 4}, second: {block: conv, width: 4}}
    flow: first -> second
nodes: {a: two, head: {block: classifier, classes: 3}}
flow: a -> head
"""


def images(channels: int = 3, size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def model(name: str = "hiresnet18@full", **options: Any) -> ImageModel:
    found = hrg.create_model(name, **{**SMALL, **options})
    assert isinstance(found, ImageModel)
    return found.eval()


@pytest.fixture(scope="module")
def pair() -> tuple[ImageModel, nn.Module]:
    ours = hrg.create_model("resnet18", num_classes=7)
    assert isinstance(ours, ImageModel)
    return ours.eval(), timm.create_model("resnet18", num_classes=7).eval()


def test_features_are_described_as_in_timm(pair: tuple[ImageModel, Any]) -> None:
    ours, theirs = pair
    for key in ("num_chs", "reduction"):
        assert [info[key] for info in ours.feature_info] == [info[key] for info in theirs.feature_info]
    assert ours.feature_info.module_name() == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert (ours.num_features, ours.num_classes) == (theirs.num_features, theirs.num_classes)
    shapes = [tuple(net.forward_features(images(size=64)).shape) for net in pair]
    assert shapes[0] == shapes[1] == (2, 512, 2, 2)


def test_the_head_follows_the_features_as_in_timm(pair: tuple[ImageModel, Any]) -> None:
    ours, theirs = pair
    features = ours.forward_features(images(size=64))
    assert torch.equal(ours.forward_head(features), ours(images(size=64)))
    pooled = ours.forward_head(features, pre_logits=True)
    assert torch.equal(pooled, theirs.forward_head(features, pre_logits=True))
    assert torch.equal(ours.get_classifier()(pooled), ours(images(size=64)))


@pytest.mark.parametrize("indices", [None, (1, 2), (0, -1)])
def test_feature_maps_have_the_shapes_of_timm(indices: tuple[int, ...] | None) -> None:
    options = {} if indices is None else {"out_indices": indices}
    ours = hrg.create_model("resnet18", features_only=True, **options)
    theirs = timm.create_model("resnet18", features_only=True, **options)
    assert isinstance(ours, FeatureModel)
    assert [value.shape for value in ours(images(size=64))] == [value.shape for value in theirs(images(size=64))]
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    assert not any(name.startswith("head") for name in ours.state_dict())
    whole = dict(hrg.load("resnet18").build().named_parameters())
    assert all(torch.equal(value, whole[name]) for name, value in ours.named_parameters())


def test_reset_classifier() -> None:
    net = model()
    pooled = net.forward_head(net.forward_features(images()), pre_logits=True)
    net.reset_classifier(3)
    assert net.num_classes == 3
    assert net(images()).shape == (2, 3)
    assert torch.equal(net.get_classifier()(pooled), net(images()))
    expected = hrg.load("hiresnet18").variant("full").override({**SMALL, "head.classes": 3}).build()
    assert torch.equal(net.get_classifier().weight, expected.get_parameter("head.linear.weight"))
    net.reset_classifier(0)
    assert net.num_classes == 0
    assert torch.equal(net(images()), pooled)


def test_no_classes_give_pooled_features() -> None:
    assert model(num_classes=0)(images()).shape == (2, 16)
    assert timm.create_model("resnet18", num_classes=0)(images()).shape == (2, 512)


def test_the_first_convolution_is_adapted_as_in_timm(tmp_path: Path) -> None:
    from timm.models import adapt_input_conv

    trained = model(seed=3)
    trained.save_pretrained(tmp_path)
    for channels in (1, 2, 4, 6):
        net = hrg.create_model(tmp_path, pretrained=True, in_chans=channels)
        expected = adapt_input_conv(channels, trained.state_dict()["stem.conv.weight"])
        torch.testing.assert_close(net.state_dict()["stem.conv.weight"], expected)
        assert torch.equal(
            net.state_dict()["stage1.block1.conv1.weight"], trained.state_dict()["stage1.block1.conv1.weight"]
        )


def test_weights_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    trained = model(seed=3)
    folder = trained.save_pretrained(tmp_path / "saved")
    loaded = hrg.create_model(folder, pretrained=True).eval()
    assert torch.equal(loaded(images()), trained(images()))
    assert not torch.equal(
        hrg.create_model(folder).eval()(images()), trained(images())
    )  # pretrained is False, as in timm
    file = folder / "model.safetensors"
    assert torch.equal(model(pretrained=file)(images()), trained(images()))
    other = model(pretrained=file, num_classes=4)
    assert other(images()).shape == (2, 4)
    assert torch.equal(other.forward_features(images()), trained.forward_features(images()))
    with pytest.raises(RunError, match=r"belong to another network: 'stem\.conv\.weight' is"):
        model(pretrained=file, width=8)
    with pytest.raises(UsageError, match="'resnet18' is shipped without weights"):
        hrg.create_model("resnet18", pretrained=True)


def test_values_inside_by_node_and_step() -> None:
    net = model("blt", size=16)
    x = images(size=16)
    plan, values = net.plan, {}
    values = Interpreter(plan, net).run({"input": x})
    records = {record.name: dict(record.at_steps) for record in plan.nodes}
    found = net.features(x, ["V1@0", "V4@3", "IT", "head", "edges.V1__V2@2", "V2.norm@1"])
    assert torch.equal(found["V1@0"], values[records["V1"][0]])
    assert torch.equal(found["V4@3"], values[records["V4"][3]])
    assert torch.equal(found["IT"], values[records["IT"][5]])
    assert torch.equal(found["head"], net(x))
    assert torch.equal(found["edges.V1__V2@2"], values["edges.V1__V2.conv.step2"])
    assert torch.equal(found["V2.norm@1"], values["V2.norm.step1"])
    # The input is the same at each step, so that its edge is computed once; it arrives at each.
    assert torch.equal(net.features(x, "edges.input__V1@3")["edges.input__V1@3"], values["edges.input__V1.conv.step0"])
    with pytest.raises(UsageError, match=r"'V1.norm' has no value at step 9"):
        net.features(x, ["V1.norm@9"])
    with pytest.raises(UsageError, match=r"'V4' has no value at step 9: it has one at steps 0 to 5\."):
        net.features(x, ["V4@9"])
    with pytest.raises(UsageError, match=r"has no node 'V44'\. Did you mean 'V4'\?"):
        net.features(x, ["V44"])


def test_values_of_stages_blocks_and_projections() -> None:
    net = model()
    values = Interpreter(net.plan, net).run({"input": images()})
    found = net.features(images(), ["stage2", "stage2.block3", "edges.stem__stage3", "stage1.block1.conv1", "stem"])
    assert torch.equal(found["stage2"], values["stage2.block3.output.add"])
    assert torch.equal(found["stage2.block3"], found["stage2"])
    assert torch.equal(found["edges.stem__stage3"], values["edges.stem__stage3.norm"])
    assert torch.equal(found["stage1.block1.conv1"], values["stage1.block1.conv1"])
    with pytest.raises(UsageError, match="'stem' has no value at step 1: the network has no time steps"):
        net.features(images(), ["stem@1"])


def test_modules_inside_blocks_have_the_value_that_they_return() -> None:
    net = hrg.create_model(hrg.loads(NESTED)).eval()
    returned: list[torch.Tensor] = []
    net.get_submodule("a.first").register_forward_hook(lambda module, inputs, output: returned.append(output))
    found = net.features(torch.rand(2, 1, 8, 8), ["a.first", "a.first.norm", "a"])
    assert torch.equal(found["a.first"], torch.relu(found["a.first.norm"]))
    assert not returned or torch.equal(returned[0], found["a.first"])
    with pytest.raises(UsageError, match=r"'net' has no node 'a\.firs'\. Did you mean"):
        net.features(torch.rand(2, 1, 8, 8), ["a.firs"])


def test_features_use_the_layers_and_modes_of_the_model() -> None:
    net = model()
    before = net.features(images(), ["stem"])["stem"]
    net.train()
    net.get_submodule("stem").eval()
    assert torch.equal(net.features(images(), ["stem"])["stem"], before)
    assert net.get_submodule("stage1.block1.norm1").training
    net.set_submodule("stem.norm", nn.Identity())
    expected = torch.relu(net.get_submodule("stem.conv")(images()))
    assert torch.equal(net.features(images(), ["stem"])["stem"], expected)
    loss = net.features(images(), ["stage1"])["stage1"].sum()
    loss.backward()
    assert net.get_parameter("stem.conv.weight").grad is not None
    assert net.get_parameter("head.linear.weight").grad is None


@pytest.mark.parametrize(("name", "options"), [("hiresnet18@full", {}), ("blt", {"size": 16})])
def test_models_are_copied_pickled_and_compiled(name: str, options: dict[str, Any]) -> None:
    net = model(name, **options)
    x = images(size=options.get("size", 32))
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), expected)
        assert list(other.state_dict()) == list(net.state_dict())
        tap = "stage1" if name != "blt" else "V4@2"
        assert torch.equal(other.features(x, [tap])[tap], net.features(x, [tap])[tap])
        with torch.no_grad():
            next(other.parameters()).mul_(2)
        assert torch.equal(net(x), expected)
        assert not torch.equal(other(x), expected)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(x), expected)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)


def test_a_model_in_time_has_its_network() -> None:
    net = model("blt", size=16)
    assert torch.equal(net.network.at(steps=6)(images(size=16)), net(images(size=16)))


def test_list_models() -> None:
    assert hrg.list_models("resnet1*") == ["resnet101", "resnet110", "resnet18"]
    assert "hiresnet18@full" in hrg.list_models("hiresnet18@*", variants=True)
    assert hrg.list_models(["unet", "vgg*"]) == ["unet", "vgg16"]
    assert len(hrg.list_models()) > 25


def test_wrong_arguments() -> None:
    with pytest.raises(UsageError, match=r"there are no features 9\. Choose from 0"):
        hrg.create_model("resnet18", features_only=True, out_indices=(9,))
    with pytest.raises(UsageError, match="features_only=True"):
        hrg.create_model("resnet18", out_indices=(0,))
    with pytest.raises(UsageError, match="'unet' does not end with a classifier"):
        hrg.create_model("unet", num_classes=3)


def test_nodes_may_be_called_like_methods(tmp_path: Path) -> None:
    nodes = ["features", "arch", "network", "feature_info", "forward_head"]
    lines = ["name: a", "input: {channels: 1, height: 8, width: 8}", "nodes:"]
    lines += [f"  {name}: {{block: conv, width: 2}}" for name in nodes]
    lines += ["  plan: {block: classifier, classes: 3}", f"flow: {' -> '.join([*nodes, 'plan'])}"]
    arch = hrg.loads("\n".join(lines))
    net, x = hrg.create_model(arch).eval(), torch.rand(2, 1, 8, 8)
    assert isinstance(net, ImageModel) and net.state_dict().keys() == arch.build().state_dict().keys()
    fired: list[str] = []
    hooks = []
    for name in [*nodes, "plan"]:
        hooks.append(net.get_submodule(name).register_forward_hook(lambda *_, name=name: fired.append(name)))
        assert net.get_submodule(name) is getattr(net.network, name)
    assert torch.equal(net(x), arch.build().eval()(x)) and fired == [*nodes, "plan"]
    for hook in hooks:
        hook.remove()
    assert torch.equal(net.forward_head(net.forward_features(x)), net(x))
    assert list(net.features(x, ["features", "arch"])) == ["features", "arch"]
    assert net.get_parameter("features.conv.weight") is net.network.features.conv.weight
    net.set_submodule("features.conv", torch.nn.Conv2d(1, 2, 3, padding=1))
    net.reset_classifier(5)
    assert copy.deepcopy(net)(x).shape == (2, 5) and torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
    maps = hrg.create_model(arch, features_only=True)
    assert [tuple(value.shape) for value in maps(x)] == [(2, 2, 8, 8)]


def test_models_of_the_hub(tmp_path: Path) -> None:
    """Offline: a folder, and what would be uploaded."""
    from hiresnet_graph.models.hub import HubModel

    trained = HubModel.of(model(seed=3)).eval()
    trained.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert "library_name: hiresnet_graph" in (tmp_path / "saved" / "README.md").read_text()
    loaded = HubModel.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(loaded(images()), trained(images())) and loaded.arch.plan.digest() == trained.arch.plan.digest()
    loaded.save_pretrained(tmp_path / "again")
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("saved", "again"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert HubModel.from_pretrained(tmp_path / "saved", num_classes=4)(images()).shape == (2, 4)
    assert torch.equal(hrg.from_pretrained(tmp_path / "saved")(images()), trained(images()))
    with pytest.raises(RunError, match=r"config\.json: cannot be read"):
        HubModel.from_pretrained(tmp_path)


def test_a_model_keeps_the_preprocessing_of_its_run(tmp_path: Path) -> None:
    from hiresnet_graph.train.record import Preprocessing

    net = model()
    about = Preprocessing(shape=(3, 32, 32), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    net.meta["preprocessing"] = about
    net.save_pretrained(tmp_path / "saved")
    loaded = hrg.create_model(tmp_path / "saved")
    assert loaded.meta["preprocessing"] == about
    assert hrg.create_model(tmp_path / "saved", in_chans=1).meta.get("preprocessing") is None
    loaded.save_pretrained(tmp_path / "again")
    assert hrg.from_pretrained(tmp_path / "again").meta["preprocessing"] == about
