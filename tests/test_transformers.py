"""Transformers and ConvNeXt against torchvision and timm: counts, outputs and gradients with the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vision_transformer import interpolate_embeddings

import hiresnet_graph as hrg
from tests import foreign_weights as weights

TIMM = {"vit_tiny": "vit_tiny_patch16_224", "vit_small": "vit_small_patch16_224", "mixer_s16": "mixer_s16_224"}
COUNTS = {"vit_tiny": 5_717_416, "vit_small": 22_050_664, "mixer_s16": 18_528_264}


@pytest.mark.parametrize("name", TIMM)
def test_parameters_of_timm(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(TIMM[name])
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name] == hrg.load(name).cost().parameters


def small_vit(size: int) -> nn.Module:
    return torchvision.models.VisionTransformer(size, 8, 2, 3, 24, 96, num_classes=5)


def timm_vit(size: int) -> nn.Module:
    fields: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5, "dynamic_img_size": True}
    return timm.models.VisionTransformer(32, 8, **fields)


def small_swin(size: int) -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 32, [2, 2, 6, 2], [1, 2, 4, 8], [4, 4], num_classes=5)


def small_convnext(size: int) -> nn.Module:
    setting = [CNBlockConfig(8 * 2**i, 16 * 2**i if i < 3 else None, depth) for i, depth in enumerate((3, 3, 9, 3))]
    return torchvision.models.ConvNeXt(setting, layer_scale=0.5, num_classes=5)


def small_mixer(size: int) -> nn.Module:
    return timm.models.MlpMixer(num_classes=5, img_size=size, patch_size=8, num_blocks=2, embed_dim=24)


VIT = {"width": 24, "depth": 2, "classes": 5, "patches.patch": 8, "positions.grid": [4, 4]}
TORCHVISION_RESIZING = {"positions.antialias": False, "positions.align_corners": True}
LAYER_SCALES = {f"stage{i}.layer_scale": 0.5 for i in (1, 2, 3, 4)}
Network = tuple[str, Callable[[int], nn.Module], Callable[..., dict[str, torch.Tensor]], dict[str, Any]]
SMALL: dict[str, Network] = {
    "vit": ("vit_tiny", small_vit, weights.torchvision_vit, VIT | TORCHVISION_RESIZING),
    "timm_vit": ("vit_tiny", timm_vit, weights.timm_vit, VIT),
    "swin": ("swin_tiny", small_swin, weights.torchvision_swin, {"width": 32, "window": 4, "classes": 5}),
    "convnext": ("convnext_tiny", small_convnext, weights.torchvision_convnext, {"width": 8, "classes": 5}),
    "mixer": ("mixer_s16", small_mixer, weights.timm_mixer, {"width": 24, "depth": 2, "patch": 8, "classes": 5}),
}


def pair(name: str, size: int, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A network of another library with random tensors, and ours with the same."""
    spec, make, rename, changes = SMALL[name]
    torch.manual_seed(3)
    theirs = make(size).to(dtype).eval()
    ours = hrg.load(spec).override({**changes, "input.height": size, "input.width": size}).build().to(dtype).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
        state = rename(theirs.state_dict())
        if "vit" in name and state["positions.weight"].shape != ours.positions.weight.shape:
            original = torch.randn_like(ours.positions.weight)
            enlarged = interpolate_embeddings(size, 8, {"encoder.pos_embedding": original[None].clone()})
            theirs.encoder.pos_embedding.copy_(enlarged["encoder.pos_embedding"])
            state["positions.weight"] = original
        ours.load_state_dict(state)
    return theirs, ours


CASES = [
    *((name, size, dtype) for name in SMALL for size in (32, 48) for dtype in (torch.float32, torch.float64)),
]


@pytest.mark.parametrize(("name", "size", "dtype"), [case for case in CASES if case[:2] != ("mixer", 48)])
def test_outputs_and_gradients_are_those_of_the_original(name: str, size: int, dtype: torch.dtype) -> None:
    """ConvNeXt to the bit; attention within rounding, since kernels and the order of products differ."""
    theirs, ours = pair(name, size, dtype)
    x = torch.randn(2, 3, size, size, dtype=dtype)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, found = theirs(x1), ours(x2)
    # timm interpolates in float32, whatever the type of the positions.
    is_rounded = name == "timm_vit" and size != 32
    limit = 1e-5 if dtype == torch.float32 else 1e-6 if is_rounded else 1e-12
    if name == "convnext":
        assert torch.equal(found, expected)
    assert relative(found, expected) < limit
    expected.square().sum().backward()
    found.square().sum().backward()
    assert relative(x2.grad, x1.grad) < 10 * limit
    assert relative(ours.head.linear.weight.grad, list(theirs.parameters())[-2].grad) < limit
    first = next(p for n, p in theirs.named_parameters() if p.dim() == 4)
    conv = (ours.stem if name == "convnext" else ours.patches).conv
    assert relative(conv.weight.grad, first.grad) < 10 * limit


def relative(found: Any, expected: Any) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "make", "rename", "size", "changes"),
    [
        ("vit_base", torchvision.models.vit_b_16, weights.torchvision_vit, 224, {}),
        ("swin_tiny", torchvision.models.swin_t, weights.torchvision_swin, 224, {}),
        ("swin_tiny", torchvision.models.swin_t, weights.torchvision_swin, 160, {}),
        ("convnext_tiny", torchvision.models.convnext_tiny, weights.torchvision_convnext, 224, {}),
        ("convnext_tiny", torchvision.models.convnext_tiny, weights.torchvision_convnext, 160, {}),
        ("mixer_s16", partial(timm.create_model, "mixer_s16_224"), weights.timm_mixer, 224, {}),
        *(
            (name, partial(timm.create_model, TIMM[name], dynamic_img_size=True), weights.timm_vit, size, {})
            for name, size in (("vit_tiny", 224), ("vit_tiny", 160), ("vit_small", 224), ("vit_small", 160))
        ),
    ],
)
def test_published_networks_have_the_outputs_of_the_original(
    name: str, make: Any, rename: Any, size: int, changes: dict[str, Any], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    theirs = make().to(dtype).eval()
    ours = hrg.load(name).override({**changes, "input.height": size, "input.width": size}).build().to(dtype).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.01 * torch.randn_like(p))
    ours.load_state_dict(rename(theirs.state_dict()))
    x = torch.randn(1, 3, size, size, dtype=dtype)
    expected, found = theirs(x), ours(x)
    if name.startswith("convnext"):
        assert torch.equal(found, expected)
    is_rounded = name in ("vit_tiny", "vit_small") and size != 224  # see above
    limit = 1e-5 if dtype == torch.float32 else 1e-6 if is_rounded else 1e-12
    assert relative(found, expected) < limit
    expected.square().sum().backward()
    found.square().sum().backward()
    gradients = rename({n: p.grad for n, p in theirs.named_parameters()})
    for tensor, p in ours.named_parameters():
        assert p.grad is not None
        assert relative(p.grad, gradients[tensor]) < 100 * limit, tensor


def test_sines_and_cosines_are_those_of_timm() -> None:
    from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed

    spec = {"name": "n", "input": {"channels": 8, "grid": [3, 5], "prefix": 1}, "flow": "input -> p"}
    net = hrg.from_dict({**spec, "nodes": {"p": {"block": "position_embedding", "encoding": "sincos"}}})
    found = net.build()(torch.zeros(1, 16, 8))[0]
    assert not found[0].any()
    angles = [found[1:, k : k + 4] for k in (0, 4)]
    rates = [1.0, 1 / math.sqrt(10000)]
    for axis, (part, size) in enumerate(zip(angles, (5, 3), strict=True)):
        position = torch.arange(15) // 5 if axis == 0 else torch.arange(15) % 5
        expected = torch.stack([f(position * r) for f in (torch.sin, torch.cos) for r in rates], 1)
        assert torch.allclose(part, expected, atol=1e-6), size
    theirs = build_sincos2d_pos_embed([3, 5], 8, interleave_sin_cos=False)
    assert sorted(map(tuple, theirs.t().round(decimals=4).tolist())) == sorted(
        map(tuple, found[1:].t().round(decimals=4).tolist())
    )


@pytest.mark.parametrize("window", [5, 20])
def test_windows_are_the_same_at_low_precision(window: int) -> None:
    """Positions within windows are whole numbers, which 16 bits could not tell apart from 256 on."""
    nodes = {"a": {"block": "swin", "heads": 2, "window": window, "shift": 2}}
    spec = {"name": "n", "input": {"channels": 8, "grid": [40, 40]}, "nodes": nodes, "flow": "input -> a"}
    module, x = hrg.from_dict(spec).build(), torch.randn(1, 1600, 8)
    with torch.no_grad():
        module.a.attention.product.weight.mul_(100)
        expected = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert relative(module(x).float(), expected) < 0.02
        assert relative(module.bfloat16()(x.bfloat16()).float(), expected) < 0.05
