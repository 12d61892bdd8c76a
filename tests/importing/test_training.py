"""Training of imported networks: where it starts, and that it is that of the original."""

from __future__ import annotations

import torch
from torch import nn

from hiresnet_graph.importing import from_module
from tests.importing.written import IMAGE, Written


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
