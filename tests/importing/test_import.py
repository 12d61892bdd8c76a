"""Importing modules: equal outputs, specs that a person would have written, and all that cannot be expressed."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path

import pytest
import safetensors
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.errors import UnsupportedNetwork, UsageError
from hiresnet_graph.importing import from_module
from hiresnet_graph.importing.primitives import FUNCTIONS
from hiresnet_graph.plan import Plan
from tests.importing import networks

HAND_WRITTEN = """\
name: HandWritten
input: {channels: 3, height: 8, width: 8}
blocks:
  residual:
    params: {width: null}
    nodes:
      reduce: {block: conv, width: $width, kernel_size: 1, activation: elu}
      expand: {block: conv2d, width: 8}
      add: identity
    flow: [input -> reduce -> expand -> add, input -> add]
nodes:
  stem: {block: conv, width: 8, norm: none}
  blocks_0: {block: residual, width: 4, depth: 2}
  blocks_2: {block: residual, width: 6}
  shared: {block: conv2d, width: 8, weights: shared_weights}
  relu: relu
  shared2: {block: conv2d, width: 8, weights: shared_weights}
  concat: {block: identity, merge: concat}
  slice_channels: {block: slice_channels, width: 8}
  slice_channels2: {block: slice_channels, width: 8, start: 8}
  sigmoid: sigmoid
  pool: {block: pool, pool: avg, merge: multiply}
  head: {block: classifier, classes: 5, dropout: 0.25}
flow:
  - stem -> blocks_0 -> blocks_2 -> shared -> concat -> slice_channels -> pool -> head
  - blocks_2 -> relu -> shared2 -> concat -> slice_channels2 -> sigmoid -> pool
"""


def trained(module: nn.Module) -> nn.Module:
    """The module with random weights and statistics everywhere, so that nothing is zero or one."""
    generator = torch.Generator().manual_seed(1)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return module


def is_equal(original: nn.Module, imported: nn.Module, *shapes: tuple[int, ...], training: bool = False) -> bool:
    """Whether both compute the same of other numbers than those of the comparison."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.rand(3, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    pair = [copy.deepcopy(one).double().train(training) for one in (original, imported)]
    with torch.no_grad():
        one, other = (network(*inputs) for network in pair)
    return bool(torch.equal(one, other))


def computed(plan: Plan) -> list[tuple[str, str, int]]:
    """Kinds, shapes and multiply-adds of the calls of a plan, in any order and without names."""
    return sorted((call.op.kind, str(call.shape), call.op.macs(*call.input_shapes)) for call in plan.calls)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_the_shipped_specs_of_torchvision_networks_are_found_again(name: str) -> None:
    shipped = hrg.load(name).override({"input.height": 32, "input.width": 32})
    module = torchvision.models.get_model(name)
    imported = from_module(module, input=(3, 32, 32))
    assert computed(imported.network.plan) == computed(shipped.plan)
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    assert len(imported.text.splitlines()) <= 30


def test_a_resnet_is_as_short_as_one_that_a_person_writes() -> None:
    imported = from_module(torchvision.models.resnet18(num_classes=10), input=(3, 32, 32), name="resnet18")
    assert (
        imported.text
        == inspect.cleandoc("""
        name: resnet18
        input: {channels: 3, height: 32, width: 32}
        nodes:
          conv1: {block: conv, width: 64, kernel_size: 7, stride: 2}
          maxpool: {block: pool, kernel_size: 3, stride: 2, padding: 1}
          layer1: {block: basic, width: 64, depth: 2}
          layer2: {block: basic, width: 128, stride: 2, depth: 2}
          layer3: {block: basic, width: 256, stride: 2, depth: 2}
          layer4: {block: basic, width: 512, stride: 2, depth: 2}
          fc: {block: classifier, classes: 10}
        flow: conv1 -> maxpool -> layer1 -> layer2 -> layer3 -> layer4 -> fc
    """)
        + "\n"
    )
    assert imported.names["layer2.block1.shortcut.conv.weight"] == "layer2.0.downsample.0.weight"
    assert imported.comparison[:2] == (0, 0)


@pytest.mark.parametrize(
    ("name", "lines", "contains"),
    [
        ("mobilenet_v2", 20, "features_2: {block: mbconv, width: 24, stride: 2, depth: 2}"),
        ("mobilenet_v3_small", 50, "block_2: {block: squeeze_excite, hidden: $hidden, gate: hardsigmoid}"),
        ("shufflenet_v2_x0_5", 45, "channel_shuffle: {block: channel_shuffle, merge: concat}"),
        ("squeezenet1_1", 30, "expand3x3: {block: conv, width: $(4 * width), norm: none}"),
        ("regnet_y_400mf", 25, "- {from: input, to: activation, projection: {spatial: stride}}"),
        ("mnasnet0_5", 20, "norms: {momentum: 0.0003}"),
    ],
)
def test_torchvision_networks(name: str, lines: int, contains: str) -> None:
    module = trained(torchvision.models.get_model(name, num_classes=7))
    imported = from_module(module, input=(3, 64, 64), name=name)
    assert imported.comparison.evaluation == 0
    assert imported.comparison.training < 1e-12
    assert is_equal(module.eval(), imported.build(), (3, 64, 64))
    assert len(imported.text.splitlines()) <= lines
    assert contains in imported.text


def test_drop_paths_of_a_stage_are_one_template() -> None:
    imported = from_module(torchvision.models.efficientnet_b0(num_classes=3), input=(3, 32, 32))
    assert "drop_path: $(0.0625 + 0.0125 * i)" in imported.text
    assert len(imported.text.splitlines()) <= 80
    assert imported.comparison.masks == 10


def test_a_vision_transformer() -> None:
    module = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5)
    imported = from_module(trained(module), input=(3, 32, 32))
    assert (
        imported.text
        == inspect.cleandoc("""
        name: VisionTransformer
        input: {channels: 3, height: 32, width: 32}
        norms: {eps: 1e-06}
        nodes:
          conv_proj: {block: patch_embed, width: 16, patch: 8}
          class_token: class_token
          position_embedding: {block: position_embedding, grid: [4, 4]}
          layers: {block: encoder, heads: 2, hidden: 24, depth: 2}
          heads: {block: token_head, classes: 5}
        flow: conv_proj -> class_token -> position_embedding -> layers -> heads
    """)
        + "\n"
    )
    assert imported.comparison.evaluation < 1e-12
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())


def test_windows_that_are_shifted() -> None:
    module = torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 4], [3, 3], num_classes=5)
    imported = from_module(trained(module), input=(3, 32, 32))
    assert "features_1: {block: swin, heads: 2, window: 3, shift: $(1 * (i % 2)), drop_path: $(" in imported.text
    assert imported.comparison.evaluation < 1e-12 and imported.notes == ()


@pytest.mark.parametrize(
    ("name", "contains"),
    [
        ("mixer_s32_224", "{block: mixer"),
        ("vit_tiny_patch16_224", "encoder: {block: encoder, heads: 3}"),
        ("convnext_atto", "stages_2_blocks: {block: conv_next_block, depth: 6}"),
        ("resnet10t", "layer2: {block: basic, width: 128, stride: 2, shortcut: {spatial: avg}}"),
        ("tf_efficientnet_lite0", "{block: pad, padding: [0, 1, 0, 1]}"),
    ],
)
def test_networks_of_timm(name: str, contains: str) -> None:
    small = {"embed_dim": 48, "num_heads": 3, "depth": 1, "img_size": 32} if "vit" in name else {}
    small = {"img_size": 64} if "mixer" in name else small
    module = timm.create_model(name, num_classes=3, **small)
    size = small.get("img_size", 64)
    imported = from_module(module, input=(3, size, size))
    assert max(imported.comparison[:2]) < 1e-12
    assert contains in imported.text, imported.text


def test_code_of_a_user() -> None:
    module = trained(networks.HandWritten())
    imported = from_module(module, input=(3, 8, 8))
    assert imported.text == HAND_WRITTEN
    module.eval()
    assert is_equal(module, imported.build(), (3, 8, 8))
    assert imported.names["shared_weights.weight"] == "shared.weight"
    assert sum(1 for name in imported.weights if "shared" in name) == 2, "one set of weights for both calls"
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    assert not module.training and module.stem[0].weight.grad is None


def test_attention_that_is_written_as_products() -> None:
    module = trained(networks.TokenNet())
    imported = from_module(module, input=(3, 6, 6))
    assert imported.comparison.evaluation < 1e-14 and imported.comparison.training < 1e-14
    products = [call for call in imported.network.plan.calls if call.op.kind == "dot_product_attention"]
    assert [call.op.model_dump()["heads"] for call in products] == [2, 4]
    assert imported.text.count("merge: concat") == 1  # the queries, keys and values that are maps of their own
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    x = torch.rand(3, 3, 6, 6)
    assert torch.allclose(imported.build()(x), module.eval()(x), atol=1e-6)


def test_a_generator() -> None:
    module = trained(networks.Generator())
    imported = from_module(module, input=(6,))
    assert imported.comparison.evaluation < 1e-14 and imported.comparison.training < 1e-12
    assert imported.comparison.masks == 1
    z = torch.rand(3, 6)
    assert torch.allclose(imported.build()(z), module.eval()(z), atol=1e-6)
    for line in (
        "{block: to_map, size: 2}",
        "slope: {block: prelu, per_channel: true",
        "{block: group_norm, groups: 8}",
        "abs: abs",
    ):
        assert line in imported.text, imported.text


def test_norms_that_differ_from_the_others_keep_their_fields() -> None:
    rare = [nn.BatchNorm2d(3, eps=1e-3, momentum=0.01) for _ in range(3)]
    module = trained(nn.Sequential(*rare, nn.BatchNorm2d(3)))
    imported = from_module(module, input=(3, 4, 4))
    assert "norms: {eps: 0.001, momentum: 0.01}" in imported.text
    assert "{block: batch_norm, eps: 1e-05, momentum: 0.1}" in imported.text


def test_remedies() -> None:
    with pytest.raises(UnsupportedNetwork) as caught:
        from_module(networks.Undecided(), input=(3, 8, 8))
    for part in ("remove_parametrizations(layer, 'weight')", "Build it with affine=True", "Set its probability to 0"):
        assert part in str(caught.value)
    with pytest.raises(UnsupportedNetwork, match="If it is the last operation, remove it"):
        from_module(nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(dim=1)), input=(3,))
    with pytest.raises(UsageError, match=r"TwoHeads requires 2 inputs: 'image', 'context'.*--input context=SHAPE"):
        from_module(networks.TwoHeads(), input=(3, 9, 7))


def test_weights_of_several_steps_are_shared() -> None:
    module = trained(networks.Recurrent())
    imported = from_module(module, input=(3, 6, 6))
    assert imported.text.count("weights: conv_conv_weights") == 3
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    assert is_equal(module.eval(), imported.build(), (3, 6, 6))


def test_weights_of_nodes_and_of_parts_of_blocks_are_shared() -> None:
    module = trained(networks.SharedParts())
    imported = from_module(module, input=(4, 6, 6))
    assert "block: basic" in imported.text and imported.text.count("weights: conv_conv_weights") == 3, imported.text
    assert set(imported.names) == set(imported.weights)
    assert is_equal(module.eval(), imported.build(), (4, 6, 6))


def test_blocks_with_the_same_weights_and_their_own_norms_are_a_tied_stage() -> None:
    module = trained(networks.TiedBlocks())
    imported = from_module(module, input=(4, 6, 6))
    assert "area: {block: basic, width: 4, depth: 3, weights: shared}" in imported.text
    assert imported.names["area.conv1.weight"] == "area.0.first.weight"
    assert imported.names["area.block3.norm2.weight"] == "area.2.norm2.weight"
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    assert is_equal(module.eval(), imported.build(), (4, 6, 6))


def test_blocks_whose_weights_are_used_elsewhere_are_no_tied_stage() -> None:
    module = trained(networks.TiedBlocks(elsewhere=True))
    imported = from_module(module, input=(4, 6, 6))
    assert "depth" not in imported.text and imported.text.count("weights: conv_conv_weights") == 4
    assert is_equal(module.eval(), imported.build(), (4, 6, 6))


def test_the_module_stays_as_it_is() -> None:
    module = networks.HandWritten()
    module.stem.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    from_module(module, input=(3, 8, 8))
    assert module.training and not module.stem.training
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not module._forward_hooks and not module.stem._forward_pre_hooks


def test_several_inputs_and_outputs() -> None:
    module = networks.TwoHeads().eval()
    imported = from_module(module, input={"image": (3, 9, 7), "context": (6,)})
    image, context = torch.rand(2, 3, 9, 7), torch.rand(2, 6)
    with torch.no_grad():
        expected, found = module(image, context), imported.build()(image, context)
    for one, other in zip(expected.values(), found.values(), strict=True):
        assert torch.equal(one, other)


def test_everything_that_cannot_be_expressed_is_listed_with_its_place() -> None:
    with pytest.raises(UnsupportedNetwork) as caught:
        from_module(networks.Unsupported(), input=(3, 8, 8))
    lines, first = inspect.getsourcelines(networks.Unsupported.forward)
    message = str(caught.value)
    assert "'fft_fft2'" in message and f"networks.py:{first + 1}" in message
    assert "'cumsum'" in message and f"networks.py:{first + 2}" in message
    assert len(lines) == 3


def test_control_flow_that_depends_on_data() -> None:
    with pytest.raises(UnsupportedNetwork, match=r"control flow depends on the data.*networks\.py:\d+"):
        from_module(networks.DataDependent(), input=(3, 4, 4))


def test_hidden_state() -> None:
    with pytest.raises(UnsupportedNetwork) as caught:
        from_module(networks.Stateful(), input=(3, 4, 4))
    for part in ("'mul_' changes 'average'", "attribute 'last' of Stateful changes", "'calls' of Stateful changes"):
        assert part in str(caught.value)


def test_a_difference_in_training_mode_is_found() -> None:
    with pytest.raises(UnsupportedNetwork, match=r"other outputs in training mode: .*, first at the output of 'last'"):
        from_module(networks.NoisyTraining(), input=(3, 8, 8))


def test_a_wrong_translation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "relu", FUNCTIONS["silu"])
    with pytest.raises(UnsupportedNetwork, match="other outputs in evaluation mode"):
        from_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input=(3, 8, 8))


def test_modules_of_training_mode_alone_are_named() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.side = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            x = self.conv(x)
            return (x, self.side(x)) if self.training else x

    imported = from_module(Auxiliary(), input=(3, 8, 8))
    assert imported.notes == ("left out: 'side' (2 tensors), not used in evaluation mode",)


def test_hostile_names() -> None:
    module = networks.hostile()
    imported = from_module(module, input=(3, 4, 4))
    assert is_equal(module.eval(), imported.build(), (3, 4, 4))
    assert set(imported.names.values()) == set(module.state_dict())


def test_a_name_of_a_megabyte() -> None:
    name = "x" * 1_000_000
    module = nn.Sequential()
    module.add_module(name, nn.Conv2d(3, 3, 1))
    imported = from_module(module, input=(3, 4, 4))
    assert len(imported.text) < 1000 and imported.names[f"{'x' * 60}.weight"] == f"{name}.weight"
    module.add_module(f"{name}y", networks.Unsupported())
    with pytest.raises(UnsupportedNetwork) as caught:
        from_module(module, input=(3, 4, 4))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.Linear(3, 4), (5, 3), "images"),
        (nn.Conv2d(3, 4, 3), (4, 8, 8), "does not accept an input of 4x8x8: RuntimeError"),
        (nn.Conv2d(3, 4, 3), (8, 9), r"input of 8x9: RuntimeError.* An image has channels, too, like '3x8x9'\."),
        (nn.Conv2d(3, 4, 3), (0, 8), "must be a shape"),
        (nn.LSTM(3, 4), (3,), "lstm"),
        ("resnet18", (3,), "requires a torch.nn.Module, not a str"),
    ],
)
def test_bad_input(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises((UsageError, UnsupportedNetwork), match=message):
        from_module(module, input=shape)


@pytest.mark.parametrize("error", [RuntimeError("m" * 10_000_000), SystemExit(3)])
def test_an_error_of_the_module_is_one_line(error: BaseException) -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    with pytest.raises(UsageError, match="Failing does not accept an input of 3x4x4") as caught:
        from_module(Failing(), input=(3, 4, 4))
    assert len(str(caught.value)) < 1000


def test_weights_lie_at_their_addresses(tmp_path: Path) -> None:
    imported = from_module(trained(networks.HandWritten()), input=(3, 8, 8), source="a test")
    imported.save(tmp_path / "net.yaml", tmp_path / "net.safetensors")
    module = hrg.load(tmp_path / "net.yaml").build()
    module.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert is_equal(imported.build(), module.eval(), (3, 8, 8))
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == imported.names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (nn.ReLU(), "from_module"),
        (3, "not a int"),
        ("net.onnx", "hrg import net.onnx"),
        ("net.pt2", "hrg import net.pt2"),
        ("net.graphml", "hrg import net.graphml"),
        ("model.pt", "--weights"),
        ("folder/nets.py", "hrg import python:nets:FUNCTION"),
        ("torchvision:resnet18", "hrg import torchvision:resnet18"),
    ],
)
def test_load_names_the_command_that_takes_networks_of_others(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hrg.load(spec)
