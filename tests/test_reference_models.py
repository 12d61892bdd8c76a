"""Outputs and gradients against networks that others wrote: torchvision's and pytorchcv's, with copied weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

import hiresnet_graph as hrg

TORCHVISION = (
    "resnet18",
    pytest.param("resnet34", marks=pytest.mark.slow),
    "resnet50",
    pytest.param("resnet101", marks=pytest.mark.slow),
    "resnext50_32x4d",
    pytest.param("wide_resnet50_2", marks=pytest.mark.slow),
    pytest.param("vgg16", marks=pytest.mark.slow),
    "densenet121",
)


def copied(ours: nn.Module, theirs: nn.Module, rename: Callable[[str], str] | None = None) -> None:
    """Copy all tensors; by order, or by name where `rename` gives our name of theirs."""
    mine, other = ours.state_dict(), theirs.state_dict()
    assert len(mine) == len(other)
    pairs = zip(mine, other, strict=True) if rename is None else ((rename(name), name) for name in other)
    done = set()
    with torch.no_grad():
        for my_name, other_name in pairs:
            assert mine[my_name].shape == other[other_name].shape, (my_name, other_name)
            mine[my_name].copy_(other[other_name])
            done.add(my_name)
    assert done == set(mine)


def assert_equal_runs(
    ours: nn.Module,
    theirs: nn.Module,
    size: int,
    order: Callable[[str], str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Equal bits of outputs, train mode and eval mode, and of running statistics; gradients equal to 1e-6 relative.

    A value that several calls read gets its gradients summed in the order in which autograd reaches them, so single
    tensors may differ by more than the whole: in float32 all gradients are compared as one vector.
    """
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size)).to(dtype)
    for training in (True, False):
        for module in (ours, theirs):
            module.train(training)
            module.zero_grad()
        with torch.set_grad_enabled(training):
            torch.manual_seed(1)
            mine = ours(x)
            torch.manual_seed(1)
            other = theirs(x)
        assert torch.isfinite(mine).all()
        assert torch.equal(mine, other), (size, training)
        if not training:
            continue
        mine.square().sum().backward()
        other.square().sum().backward()
        grads = dict(ours.named_parameters())
        pairs = (
            zip(ours.parameters(), theirs.parameters(), strict=True)
            if order is None
            else ((grads[order(name)], parameter) for name, parameter in theirs.named_parameters())
        )
        squares = torch.zeros(2, dtype=torch.float64)
        for mine_p, other_p in pairs:
            assert mine_p.grad is not None and other_p.grad is not None
            squares[0] += (mine_p.grad - other_p.grad).double().square().sum()
            squares[1] += other_p.grad.double().square().sum()
            if x.dtype == torch.float64:
                assert (mine_p.grad - other_p.grad).norm() <= 1e-12 * other_p.grad.norm()
        assert squares[1] > 0
        assert squares[0].sqrt() <= 1e-6 * squares[1].sqrt()
    if order is None:
        for mine_b, other_b in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert torch.equal(mine_b, other_b)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None)
    ours = hrg.load(name).build()
    copied(ours, theirs)
    assert_equal_runs(ours, theirs, 224)
    assert_equal_runs(ours, theirs, 225)


def ror_name(name: str) -> str:
    """Our name of a tensor of pytorchcv's RoR-3-56."""
    name = name.replace("features.init_block.", "stem.").replace("output.", "head.")
    name = name.replace("features.body.shortcut.", "edges.stem__stage3.")
    for stage, source in ((1, "stem"), (2, "pool1"), (3, "pool2")):
        name = name.replace(f"features.body.stages.stage{stage}.shortcut.", f"edges.{source}__stage{stage}.")
    name = re.sub(r"features\.body\.stages\.stage(\d)\.units\.unit(\d+)\.", r"stage\1.block\2.", name)
    name = re.sub(r"body\.conv(\d)\.conv\.", r"conv\1.", name)
    name = re.sub(r"body\.conv(\d)\.bn\.", r"norm\1.", name)
    return name.replace("identity_conv.", "shortcut.").replace(".bn.", ".norm.")


@pytest.mark.parametrize(
    ("name", "theirs_name", "rename"),
    [("ror3_56", "ror3_56_cifar10", ror_name), ("densenet40", "densenet40_k12_cifar10", None)],
)
def test_pytorchcv(name: str, theirs_name: str, rename: Callable[[str], str] | None) -> None:
    from pytorchcv.model_provider import get_model

    theirs = get_model(theirs_name)
    ours = hrg.load(name).build()
    copied(ours, theirs, rename)
    assert_equal_runs(ours, theirs, 32, rename)
    assert_equal_runs(ours.double(), theirs.double(), 32, rename, torch.float64)


def test_pytorchcv_at_an_odd_size() -> None:
    """DenseNet-40 at 33; pytorchcv's RoR-3-56 does not take odd sizes (its strides round up, its pooling down)."""
    from pytorchcv.model_provider import get_model

    theirs = get_model("densenet40_k12_cifar10")
    ours = hrg.load("densenet40").override({"input.height": 33, "input.width": 33}).build()
    copied(ours, theirs)
    assert_equal_runs(ours, theirs, 33)


CIFAR_BLOCKS = {
    "preresnet20_cifar10": (
        272_282,
        """
        name: preresnet20
        input: {channels: 3, height: 32, width: 32}
        nodes:
          stem: {block: conv2d, width: 16, bias: false}
          stage1: {block: preact_basic, width: 16, depth: 3}
          stage2: {block: preact_basic, width: 32, depth: 3, stride: 2}
          stage3: {block: preact_basic, width: 64, depth: 3, stride: 2}
          norm: batch_norm
          relu: relu
          head: {block: classifier, classes: 10}
        flow: stem -> stage1 -> stage2 -> stage3 -> norm -> relu -> head
        """,
    ),
    "resnext29_32x4d_cifar10": (
        4_775_754,
        """
        name: resnext29
        input: {channels: 3, height: 32, width: 32}
        nodes:
          stem: {block: conv, width: 64}
          stage1: {block: resnext_bottleneck, width: 256, depth: 3}
          stage2: {block: resnext_bottleneck, width: 512, depth: 3, stride: 2}
          stage3: {block: resnext_bottleneck, width: 1024, depth: 3, stride: 2}
          head: {block: classifier, classes: 10}
        flow: stem -> stage1 -> stage2 -> stage3 -> head
        """,
    ),
}


@pytest.mark.parametrize("theirs_name", CIFAR_BLOCKS)
def test_other_blocks_against_pytorchcv(theirs_name: str) -> None:
    """Counts and outputs; their average pooling has a kernel, so outputs agree to rounding alone."""
    from pytorchcv.model_provider import get_model

    parameters, text = CIFAR_BLOCKS[theirs_name]
    theirs, net = get_model(theirs_name), hrg.loads(text)
    assert net.cost().parameters == parameters == sum(p.numel() for p in theirs.parameters())
    ours = net.build()
    copied(ours, theirs)
    x = torch.randn(4, 3, 32, 32)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-4, atol=1e-5)


def test_squeeze_excite_against_pytorchcv() -> None:
    from pytorchcv.model_provider import get_model

    text = """
    name: seresnet20
    input: {channels: 3, height: 32, width: 32}
    blocks:
      se_basic:
        params: {width: , stride: 1}
        nodes:
          conv1: {block: conv, width: $width, stride: $stride}
          conv2: {block: conv, width: $width, activation: none}
          se: {block: squeeze_excite, reduction: 16}
          out: relu
        flow: input -> conv1 -> conv2 -> se -> out
        edges:
          - {from: input, to: out, projection: {spatial: stride}}
    nodes:
      stem: {block: conv, width: 16}
      stage1: {block: se_basic, width: 16, depth: 3}
      stage2: {block: se_basic, width: 32, depth: 3, stride: 2}
      stage3: {block: se_basic, width: 64, depth: 3, stride: 2}
      head: {block: classifier, classes: 10}
    flow: stem -> stage1 -> stage2 -> stage3 -> head
    """
    theirs, net = get_model("seresnet20_cifar10"), hrg.loads(text)
    assert net.cost().parameters == 274_847 == sum(p.numel() for p in theirs.parameters())
    ours = net.build()

    def rename(name: str) -> str:
        name = name.replace("features.init_block.", "stem.").replace("output.", "head.linear.")
        name = re.sub(r"features\.stage(\d)\.unit(\d)\.", r"stage\1.block\2.", name)
        name = re.sub(r"body\.conv(\d)\.(conv|bn)\.", r"conv\1.\2.", name)
        name = name.replace("se.conv1.", "se.reduce.").replace("se.conv2.", "se.expand.")
        return name.replace("identity_conv.", "edges.input__out.").replace(".bn.", ".norm.")

    copied(ours, theirs, rename)
    x = torch.randn(4, 3, 32, 32)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-4, atol=1e-5)


def test_mobilenet_v2_counts() -> None:
    """torchvision's mobilenet_v2: 3,504,872 parameters; outputs with copied weights."""
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    stages = "\n".join(
        f"  stage{i}: {{block: mbconv, expansion: {t}, width: {c}, depth: {n}, stride: {s}}}"
        for i, (t, c, n, s) in enumerate(rows, 1)
    )
    text = (
        "name: mobilenet_v2\ninput: {channels: 3, height: 64, width: 64}\nnodes:\n"
        "  stem: {block: conv, width: 32, stride: 2, activation: relu6}\n"
        f"{stages}\n"
        "  last: {block: conv, width: 1280, kernel_size: 1, activation: relu6}\n"
        "  head: {block: classifier, classes: 1000, dropout: 0.2}\n"
        f"flow: stem -> {' -> '.join(f'stage{i}' for i in range(1, 8))} -> last -> head\n"
    )
    net = hrg.loads(text)
    theirs = torchvision.models.mobilenet_v2(weights=None)
    assert net.cost().parameters == 3_504_872
    ours = net.build()
    copied(ours, theirs)
    assert_equal_runs(ours, theirs, 64)
