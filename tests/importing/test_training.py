"""Training of imported networks: where it starts, and that it is that of the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

from hiresnet_graph.importing import from_module
from hiresnet_graph.importing import gradients as gradients_module
from hiresnet_graph.importing.sources import read_source
from tests.importing.written import IMAGE, Written, check_equal, refused


def factors(start: float, *, slope: float = 0.1, scale: float = 10.0) -> nn.Module:
    """A module with learned factors: of channels, a slope, and a single one."""
    return Written(
        lambda own, x: own.prelu(own.conv(x) * own.gamma) * own.alpha,
        conv=nn.Conv2d(3, 8, 3),
        gamma=nn.Parameter(torch.full((8, 1, 1), float(start))),
        prelu=nn.PReLU(init=slope),
        alpha=nn.Parameter(torch.tensor(float(scale))),
    )


def test_learned_factors_start_as_in_the_original() -> None:
    imported = from_module(factors(1), input=IMAGE)
    assert "layer_scale: {block: layer_scale, init: 1.0}" in imported.text
    assert "prelu: {block: prelu, init: 0.1}" in imported.text and "scale: {block: scale, init: 10.0}" in imported.text
    assert imported.notes == ()
    fresh = {imported.names[name]: value for name, value in imported.network.build().state_dict().items()}
    assert [round(float(fresh[name].unique()), 6) for name in ("gamma", "prelu.weight", "alpha")] == [1, 0.1, 10]
    default = from_module(factors(1e-6, slope=0.25, scale=1), input=IMAGE)
    assert "init" not in default.text and default.notes == ()


def test_factors_of_blocks_are_a_param() -> None:
    class Branch(nn.Module):
        def __init__(self, start: float) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.mix = nn.Conv2d(3, 3, 1)
            self.gamma = nn.Parameter(torch.full((3, 1, 1), start))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.gamma * self.mix(torch.relu(self.conv(x)))

    text = from_module(nn.Sequential(Branch(0.1), Branch(0.1), Branch(0.2)), input=IMAGE).text
    assert "layer_scale: {block: layer_scale, init: $init}" in text
    assert "n0: {block: branch, init: 0.1, depth: 2}" in text and "n2: {block: branch, init: 0.2}" in text


def test_trained_factors_are_no_starting_values() -> None:
    module = factors(1)
    with torch.no_grad():
        module.gamma.uniform_()  # type: ignore[operator,union-attr]
        module.alpha.fill_(2**-0.5)  # type: ignore[operator,union-attr]
    imported = from_module(module, input=IMAGE)
    assert "layer_scale: layer_scale" in imported.text and "scale: scale" in imported.text
    (note,) = imported.notes
    assert note.startswith("without '--weights', training starts 'alpha' at 1 (in the original at 0.70710677).")


def test_starting_values_without_a_field_are_noted() -> None:
    def make() -> nn.Sequential:
        norms = [nn.BatchNorm2d(4) for _ in range(2)]
        return nn.Sequential(nn.Conv2d(3, 4, 3), norms[0], nn.ReLU(), nn.Conv2d(4, 4, 3), norms[1], nn.Conv2d(4, 4, 1))

    assert from_module(make(), input=IMAGE).notes == ()
    module = make()
    nn.init.zeros_(module[1].weight)
    nn.init.zeros_(module[4].weight)
    nn.init.constant_(module[4].bias, 0.5)
    nn.init.zeros_(module[5].weight)
    (note,) = from_module(module, input=IMAGE).notes
    assert note == (
        "without '--weights', training starts '1.weight' and 1 more at 1 (in the original at 0); '4.bias' at 0 (in the "
        "original at 0.5); '5.weight' at random (in the original at 0). A spec has no field for it"
    )


def drop_path(x: torch.Tensor, training: bool) -> torch.Tensor:
    """Stochastic depth as in old code, which rounds random numbers."""
    if not training:
        return x
    return x / 0.8 * torch.floor(0.8 + torch.rand(len(x), 1, 1, 1))


def branch(start: float, drop: Callable[[torch.Tensor, bool], torch.Tensor]) -> nn.Module:
    """A residual branch that ends with a norm and stochastic depth."""
    norm = nn.BatchNorm2d(3)
    nn.init.constant_(norm.weight, start)
    return Written(
        lambda own, x: F.relu(x + drop(own.norm(own.conv(x)), own.training)),
        conv=nn.Conv2d(3, 3, 3, padding=1),
        norm=norm,
    )


@pytest.mark.parametrize("start", [0.0, 1.0, 1e-6])
def test_scales_of_zero_hide_nothing_before_them(start: float) -> None:
    module = branch(start, drop_path)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    message = refused(module)
    assert "other outputs in training mode" in message
    assert ("random numbers in place of the zeros of 'norm.weight'" in message) == (start < 1)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    imported = from_module(branch(start, lambda x, training: x), input=IMAGE)
    assert imported.comparison == (0, 0, 0, "")
    assert all(
        torch.equal(before[name].sum(), imported.weights[new].sum())
        for new, name in imported.names.items()
        if name == "norm.weight"
    )


class Auxiliary(nn.Module):
    """A second result in training mode, with dropout of its own.

    Args:
        drop: Dropout of the main result.
        path: Stochastic depth of the main result.
    """

    def __init__(self, drop: Callable[[torch.Tensor, bool], torch.Tensor], path: nn.Module) -> None:
        super().__init__()
        self.stem, self.conv, self.path = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), path
        self.head, self.side, self.drop = nn.Linear(4, 5), nn.Linear(4, 5), drop

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        out = self.head(self.drop(F.relu(x + self.path(self.conv(x))).mean((2, 3)), self.training))
        if self.training:
            return out, self.side(F.dropout(x.mean((2, 3)), 0.5))
        return out


class OwnPath(nn.Module):
    """Stochastic depth by a mask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8) / 0.8 if self.training else x


def test_masks_of_auxiliary_results_are_no_masks_of_the_main_one() -> None:
    imported = from_module(Auxiliary(lambda x, on: F.dropout(x, 0.5, on), StochasticDepth(0.2, "row")), input=IMAGE)
    assert imported.comparison == (0, 0, 2, "")
    assert "dropout: 0.5" in imported.text and "drop_path, p: 0.2" in imported.text
    message = refused(Auxiliary(lambda x, on: F.dropout(x, 0.5) if on else x, StochasticDepth(0.2, "row")))
    assert "other random masks in training mode: 1 instead of 2" in message and "use nn.Dropout" in message
    message = refused(Auxiliary(lambda x, on: x, OwnPath()))
    assert "0 instead of 1" in message and "use torchvision.ops.StochasticDepth(p, 'row') or timm" in message


def stopped(own: Any, x: torch.Tensor) -> torch.Tensor:
    """Features that do not train what is before them."""
    x = F.relu(own.conv(x))
    return own.last(x.detach() if own.training else x)


def fails(module: nn.Module, inputs: Any, outputs: Any) -> None:
    raise RuntimeError("no backward pass here")


def test_gradients_that_training_mode_stops() -> None:
    module = Written(stopped, conv=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3))
    message = refused(module)
    assert "other gradients in training mode: of 'conv.weight' and 1 more" in message
    assert "'detach()', '.data' or a hook" in message and "'freeze' in the recipe" in message


def test_gradients_that_a_hook_changes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    check_equal(module, IMAGE)
    module[2].register_full_backward_hook(lambda own, inputs, outputs: tuple(0.1 * one for one in inputs))
    assert "other gradients in training mode: of '0.weight' and 1 more" in refused(module)


def test_gradients_that_take_much_memory_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients_module, "_LARGEST_BYTES", 100)
    imported = from_module(Written(stopped, conv=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3)), input=IMAGE)
    assert str(imported.comparison).endswith("; gradients were not compared: the backward pass takes more than 100 B")


def test_gradients_of_a_backward_pass_that_fails_are_not_compared() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    module[0].register_full_backward_hook(fails)
    imported = from_module(module, input=IMAGE)
    assert imported.comparison.without_gradients == "the backward pass fails (no backward pass here)"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda own, x: own.conv(x) * own.gamma.detach(), "'detach' of the parameter 'gamma', which stops its"),
        (lambda own, x: own.conv(x) * own.gamma.data, "'data' of the parameter 'gamma'"),
        (lambda own, x: own.conv(x) * own.gamma.detach().view(1, 4, 1, 1), "'detach' of the parameter 'gamma'"),
        (lambda own, x: F.conv2d(x, own.conv.weight.detach()), "'detach' of the parameter 'conv.weight'"),
    ],
)
def test_parameters_without_gradients(function: Callable[..., Any], message: str) -> None:
    parts = {"conv": nn.Conv2d(3, 4, 3), "gamma": nn.Parameter(torch.rand(4, 1, 1))}
    error = refused(Written(function, **parts))
    assert message in error and "test_training.py:" in error


def test_a_buffer_without_gradients_has_none_to_stop() -> None:
    parts = {"conv": nn.Conv2d(3, 4, 3), "scale": torch.rand(4, 1, 1)}
    (note,) = check_equal(Written(lambda own, x: own.conv(x) * own.scale.detach(), **parts), IMAGE).notes
    assert "does not train 'layer_scale'" in note


def test_a_program_that_stops_gradients(tmp_path: Path) -> None:
    module = Written(lambda own, x: own.last(own.conv(x).detach()), conv=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3))
    program = torch.export.export(module.eval(), (torch.rand(2, *IMAGE),))
    torch.export.save(program, tmp_path / "net.pt2")
    assert "'detach', which stops gradients" in refused(read_source(str(tmp_path / "net.pt2")).module)


def test_sizes_that_hold_for_one_batch() -> None:
    message = refused(Written(lambda own, x: own.conv(x.view(2, 3, 8, 8)), conv=nn.Conv2d(3, 4, 3)))
    assert "fails in evaluation mode on a batch of 3 in float64" in message and "'x.view(len(x), -1)', not" in message
