"""Operations of convolutional networks that others wrote, compared with the layers of torch and torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.shufflenetv2 import channel_shuffle
from torchvision.ops import StochasticDepth

from hiresnet_graph import lower
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Map, Shape, Vector
from tests.stack.test_lowering import plan_of

MAP, VECTOR = Map(12, 7, 5), Vector(6)
FUNCTIONS: list[tuple[str, dict[str, Any], Any]] = [
    ("layer_norm2d", {"eps": 1e-6}, LayerNorm2d(12, eps=1e-6)),
    ("local_response_norm", {"size": 4, "alpha": 0.3, "k": 2.0}, nn.LocalResponseNorm(4, alpha=0.3, k=2.0)),
    (
        "avg_pool",
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ),
    ("channel_shuffle", {"groups": 3}, lambda x: channel_shuffle(x, 3)),
    ("pad", {"padding": (0, 1, 0, 2)}, nn.ZeroPad2d((0, 2, 0, 1))),
    ("pad", {"padding": (2, 1), "mode": "reflect"}, nn.ReflectionPad2d((1, 1, 2, 2))),
    ("pad", {"padding": 3, "mode": "replicate"}, nn.ReplicationPad2d(3)),
    ("pad_channels", {"width": 17, "side": "end"}, lambda x: torch.cat([x, torch.zeros(len(x), 5, 7, 5)], 1)),
    ("subsample", {"stride": 2, "start": (1, 0)}, lambda x: x[:, :, 1::2, ::2]),
    ("hardsigmoid", {}, nn.Hardsigmoid()),
    ("hardswish", {}, nn.Hardswish()),
    ("mish", {}, nn.Mish()),
    ("elu", {"alpha": 0.4}, nn.ELU(0.4)),
    ("abs", {}, torch.abs),
    ("prelu", {"per_channel": True}, nn.PReLU(12)),
    ("gelu_tanh", {}, nn.GELU(approximate="tanh")),
    ("constant", {"value": 2.5}, lambda x: torch.full_like(x, 2.5)),
]


def module_of(kind: str, fields: dict[str, Any], shape: Shape = MAP) -> torch.nn.Module:
    return lower.build(plan_of(OPS.get(kind)(**fields), (shape,)))


@pytest.mark.parametrize(("kind", "fields", "expected"), FUNCTIONS, ids=[kind for kind, _, _ in FUNCTIONS])
def test_an_operation_gives_the_bits_of_the_original(kind: str, fields: dict[str, Any], expected: Any) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(4, *MAP)
    assert torch.equal(module_of(kind, fields)(x), expected(x))


@pytest.mark.parametrize(
    ("kind", "layer"), [("drop_path", StochasticDepth(0.4, "row")), ("dropout2d", nn.Dropout2d(0.4))]
)
def test_random_operations_draw_the_numbers_of_the_original(kind: str, layer: nn.Module) -> None:
    module, x = module_of(kind, {"p": 0.4}), torch.randn(40, *MAP)
    torch.manual_seed(7)
    expected = layer.train()(x)
    torch.manual_seed(7)
    found = module.train()(x)
    assert torch.equal(found, expected)
    dropped = (found.flatten(1) == 0).all(1) if kind == "drop_path" else (found.flatten(2) == 0).all(2)
    assert 0.25 < dropped.float().mean() < 0.55
    assert torch.equal(module.eval()(x), x)


def test_a_layer_scale_starts_at_its_initial_value_and_multiplies_channels() -> None:
    module, x = module_of("layer_scale", {"init": 0.25}), torch.randn(2, *MAP)
    assert torch.equal(module(x), 0.25 * x)
    with torch.no_grad():
        module.y.weight.copy_(torch.arange(12.0))
    assert torch.equal(module(x), torch.arange(12.0)[:, None, None] * x)


def test_a_vector_is_padded() -> None:
    x = torch.randn(2, 6)
    assert torch.equal(module_of("pad_channels", {"width": 9}, VECTOR)(x), functional.pad(x, (1, 2)))


def test_a_learned_constant_is_the_same_for_all_samples_and_learns() -> None:
    module = module_of("constant", {"sizes": [3, 2, 2], "value": 0.5, "learned": True})
    y = module(torch.randn(5, *MAP))
    assert y.shape == (5, 3, 2, 2) and bool((y == 0.5).all())
    y.sum().backward()
    assert torch.equal(module.y.weight.grad, torch.full((3, 2, 2), 5.0))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("channel_shuffle", {"groups": 5}, "requires a multiple of 5 channels, not 12"),
        ("subsample", {"start": (0, 5)}, "Row or column 5 is out of range"),
        ("pad", {"padding": 5, "mode": "reflect"}, "mirror image"),
        ("pad_channels", {"width": 3}, "cannot reduce 12 channels"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        plan_of(OPS.get(kind)(**fields), (MAP,))
