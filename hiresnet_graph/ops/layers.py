"""Layers that torch lacks. `emit` copies their source, so each may only use `torch` and `nn`."""

from __future__ import annotations

import torch
from torch import nn


class Scale(nn.Module):
    """A learned factor: w x, or sigmoid(w) x."""

    def __init__(self, init: float = 1.0, sigmoid: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), init))
        self.sigmoid = sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape; the output has the same."""
        return x * (torch.sigmoid(self.weight) if self.sigmoid else self.weight)


class Affine(nn.Module):
    """A learned scale and shift of each channel (axis 1), followed by `axes` axes."""

    def __init__(self, channels: int, scale: float = 1.0, axes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.sizes = (channels, *[1] * axes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, channels, ...]; the output has the same shape."""
        return torch.addcmul(self.bias.view(self.sizes), x, self.weight.view(self.sizes))


def zeros(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Zeros [B, *sizes] for `x` [B, ...]."""
    return x.new_zeros((x.shape[0], *sizes))
