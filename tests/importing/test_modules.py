"""Modules of users that are unusual: shared weights, inputs by name, parts without gradients, sizes of the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.importing import from_module
from tests.importing.written import IMAGE, Written, check_equal, refused


class Difference(nn.Module):
    """Two inputs that are no equals, and an optional one between them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, a: torch.Tensor, mask: torch.Tensor | None = None, *, b: torch.Tensor) -> torch.Tensor:
        return self.linear(a) - b if mask is None else mask


def test_inputs_belong_to_arguments_by_name() -> None:
    module = Difference()
    imported = from_module(module, input={"b": (6,), "a": (6,)})
    assert list(imported.network.plan.inputs) == ["a", "b"]
    a, b = torch.rand(2, 4, 6)
    torch.testing.assert_close(imported.build()(a, b), module(a, b=b))
    assert "Difference has no input 'c'. Its inputs are 'a', 'mask', 'b'." in refused(module, {"a": (6,), "c": (6,)})
    assert "requires the input 'b'" in refused(module, {"a": (6,), "mask": (6,)})


def test_an_input_that_is_not_used() -> None:
    class First(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return F.relu(a)

    assert "its result does not depend on the input 'b'" in refused(First(), {"a": (6,), "b": (6,)})
    assert "computes nothing" in refused(nn.Identity())


def test_a_number_that_is_the_size_of_the_batch() -> None:
    module = Written(lambda own, x: own.conv(x) / len(x), conv=nn.Conv2d(3, 4, 3))
    assert "Does its code compute with the size of the batch?" in refused(module)


class Straight(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def _backbone(own: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = own.conv(x)
    return F.relu(x)


@pytest.mark.parametrize("function", [_backbone, lambda own, x: Straight.apply(own.conv(x))])
def test_gradients_that_are_stopped_or_replaced(function: Callable[..., Any]) -> None:
    module = Written(function, conv=nn.Conv2d(3, 4, 3))
    message = refused(module)
    assert "stops or replaces gradients" in message and "test_modules.py:" in message
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_precision_that_the_code_chooses() -> None:
    def mixed(own: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = own.conv(x)
        return F.relu(x.float())

    def exact(own: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            x = own.conv(x)
        return F.relu(x)

    message = refused(Written(mixed, conv=nn.Conv2d(3, 4, 3)))
    assert "chooses the precision of its layers, by torch.autocast" in message and "test_modules.py:" in message
    with torch.autocast("cpu", enabled=False):  # of the caller
        (note,) = check_equal(Written(exact, conv=nn.Conv2d(3, 4, 3)), IMAGE).notes
    line = exact.__code__.co_firstlineno + 2
    assert f"within torch.autocast at {__file__}:{line}, which" in note


def test_what_the_original_does_not_train_is_noted() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.bias.requires_grad_(False)  # type: ignore[union-attr]
    module = Written(lambda own, x: own.conv(x * own.scale), conv=conv, scale=torch.tensor(0.5))
    (note,) = check_equal(module, IMAGE).notes
    assert "the original does not train 'scale', 'conv'" in note and "freeze=[scale]" in note
    assert not conv.bias.requires_grad and conv.weight.requires_grad  # type: ignore[union-attr]


def test_several_names_of_one_layer() -> None:
    module = Written(lambda own, x: own.second(F.relu(own.first(x))), first=nn.Conv2d(3, 3, 3, padding=1))
    module.second = module.first
    imported = check_equal(module, IMAGE)
    assert imported.notes == () and imported.left_out == ("second.bias", "second.weight")
    assert set(imported.names.values()) == {"first.weight", "first.bias"}


def test_layers_that_share_one_of_their_tensors() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    module[2].weight = module[0].weight
    assert "'0.weight' is shared between" in refused(module, (6,))


def test_weights_that_are_converted_to_the_type_that_they_have() -> None:
    module = Written(lambda own, x: F.conv2d(x, own.weight.to(x.dtype)), weight=nn.Parameter(torch.rand(4, 3, 3, 3)))
    check_equal(module, IMAGE)


def test_results_that_are_returned_twice() -> None:
    def function(own: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = own.conv(x)
        return y, y, F.relu(y)

    imported = from_module(Written(function, conv=nn.Conv2d(3, 4, 3)), input=IMAGE)
    assert imported.notes == ("the results 'output1' and 'output2' are equal: the spec has one output",)


def test_a_state_dict_with_more_than_tensors() -> None:
    class Versioned(nn.Conv2d):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

        def set_extra_state(self, state: Any) -> None:
            assert state == {"version": 1}

    check_equal(Versioned(3, 4, 3), IMAGE)


def test_a_cumulative_average_is_named() -> None:
    message = refused(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None)))
    assert "first '1.running_mean'" in message and "momentum=None" in message


def _broken() -> nn.Module:
    """A convolution with a weight that is no number."""
    conv = nn.Conv2d(3, 4, 3)
    nn.init.constant_(conv.weight, float("nan"))
    return conv


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 3)), "its part '0' is a LazyConv2d, whose sizes are still open. Call"),
        (Written(lambda own, x: F.dropout(x, 0.5)), "Pass 'training=self.training'"),
        (Written(lambda own, x: F.dropout(x, 0.5, False)), "use nn.Dropout, or 'F.dropout(x, p, self.training)'"),
        (_broken(), "not finite"),
    ],
)
def test_remedies(module: nn.Module, message: str) -> None:
    assert message in refused(module)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_part_that_is_torchscript() -> None:
    module = nn.Sequential(nn.ReLU(), torch.jit.script(nn.Conv2d(3, 4, 3)))
    assert "its part '1' is a TorchScript module" in refused(module)


def _class_token(own: Any, x: torch.Tensor) -> torch.Tensor:
    tokens = own.patches(x).flatten(2).mT
    return own.head(torch.cat([own.token.repeat(len(x), 1, 1), tokens], dim=1)[:, 0])


@pytest.mark.parametrize(
    "function",
    [
        lambda own, x: own.conv(x) * own.scale,
        lambda own, x: x + own.conv(x).mean(axis=(2, 3), keepdims=True),
        lambda own, x: x.permute(dims=(0, 2, 3, 1)).mean(axis=(1, 2)),
        lambda own, x: own.conv(x)[..., ::2, ::2],
        lambda own, x: F.interpolate(x, scale_factor=0.6),
        lambda own, x: F.interpolate(x, scale_factor=1.6, mode="bilinear", recompute_scale_factor=True),
        _class_token,
    ],
)
def test_what_users_write(function: Callable[..., Any]) -> None:
    layers = {"conv": nn.Conv2d(3, 3, 1), "patches": nn.Conv2d(3, 4, 4, 4), "head": nn.Linear(4, 2)}
    tensors = {"scale": nn.Parameter(torch.full((1,), 0.3)), "token": nn.Parameter(torch.rand(1, 1, 4))}
    check_equal(Written(function, **layers, **tensors), (3, 7, 7))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: y * y,
        lambda x, y: y + y,
        lambda x, y: torch.cat([y, x, y], 1),
        lambda x, y: (x + y) + x,
        lambda x, y: F.relu(x + y + y),
        lambda x, y: x * x,
    ],
)
def test_values_that_are_used_twice_by_one_operation(function: Callable[..., Any]) -> None:
    module = Written(lambda own, x: function(x, own.conv(x)), conv=nn.Conv2d(3, 3, 3, padding=1))
    assert check_equal(module, IMAGE).comparison.evaluation < 1e-12


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda own, x: F.interpolate(x, scale_factor=1.6, mode="bilinear"), "or 'recompute_scale_factor=True': in "),
        (lambda own, x: F.layer_norm(x.mean((2, 3)), (3,)), "Build it with both; scales of 1 and shifts of 0 change"),
        (lambda own, x: F.group_norm(x, 3), "Build it with affine=True"),
        (lambda own, x: F.batch_norm(x, None, None, training=True), "Build it with track_running_stats=True"),
        (lambda own, x: F.relu(x.data), "'data', which stops gradients"),
        (lambda own, x: x[:, :, ::2, 1:-1], "'[:, :, ::2, 1:-1]' of a tensor of [2, 3, 7, 7]"),
        (
            lambda own, x: x.mean((2, 3)) * x.mean((2, 3))[:, :1],
            "the product of [2, 3] and [2, 1], whose",
        ),
        (lambda own, x: x * torch.arange(7.0), "numbers outside of its state_dict"),
    ],
)
def test_operations_that_no_spec_can_express(function: Callable[..., Any], message: str) -> None:
    assert message in refused(Written(function), (3, 7, 7))


def test_a_pruned_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    prune.l1_unstructured(module[0], "weight", 0.5)
    assert "torch.nn.utils.prune.remove(layer, 'weight')" in refused(module)
    prune.remove(module[0], "weight")
    check_equal(module, IMAGE)


def test_a_module_that_changes_its_input_in_place() -> None:
    module = Written(lambda own, x: own.conv(x.mul_(3)), conv=nn.Conv2d(3, 4, 3))
    batch = torch.rand(2, *IMAGE)
    before = batch.clone()
    built = from_module(module, input=batch).build()
    assert torch.equal(batch, before)
    torch.testing.assert_close(built(batch), module(before))


class TokenAttention(nn.Module):
    """Attention of patches to patches.

    Args:
        result: Which function of its two results is returned.
    """

    def __init__(self, result: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2, batch_first=True)
        self.result = result

    def forward(self, x: torch.Tensor) -> Any:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.result(*self.attention(tokens, tokens, tokens))


def test_weights_of_attention_are_no_result() -> None:
    check_equal(TokenAttention(lambda y, weights: y.mean(1)), IMAGE)
    message = refused(TokenAttention(lambda y, weights: (y.mean(1), weights)))
    assert "its result 'output2' is the weights of attention, which a spec can neither use nor return" in message
    message = refused(TokenAttention(lambda y, weights: torch.relu(weights)))
    assert "the weights of attention, which a spec can neither use nor return" in message and "depend" not in message
    assert "test_modules.py:" in message


def test_a_stored_feature_is_named_with_its_class() -> None:
    def store(own: Any, x: torch.Tensor) -> torch.Tensor:
        own.feature = own.conv(x)
        return torch.relu(own.feature)

    message = refused(Written(store, conv=nn.Conv2d(3, 4, 3)))
    assert "the attribute 'feature' of Written changes. Return the value, or take it with a forward hook" in message
    assert "in Written.forward" in message
    message = refused(nn.Sequential(Written(store, conv=nn.Conv2d(3, 4, 3))))
    assert "in '0' at Written.forward" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_of_numbers_is_kept(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype).eval()
    images = torch.rand(2, *IMAGE).to(dtype)
    found = from_module(module, input=IMAGE).build()(images)
    assert found.dtype == dtype and torch.equal(found, module(images))


def test_a_module_without_values_and_an_input_without_sizes_are_refused() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(UsageError, match=r"its part '0' is on the device 'meta', which has shapes without values"):
        hrg.from_module(module, input=(3, 8, 8))
    with pytest.raises(UsageError, match=r"must be a shape like \(3, 224, 224\), not 3"):
        hrg.from_module(nn.Conv2d(3, 4, 3), input=3)  # type: ignore[arg-type]
