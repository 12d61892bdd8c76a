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


class LayerScale(nn.Module):
    """A learned factor for each channel (axis 1), followed by `axes` axes."""

    def __init__(self, channels: int, init: float = 1e-6, axes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), init))
        self.sizes = (channels, *[1] * axes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, channels, ...]; the output has the same shape."""
        return x * self.weight.view(self.sizes)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels (axis 1) of each pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, channels, height, width]; the output has the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """In training mode, zeros in place of whole samples with probability p, the others divided by 1 - p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape; the output has the same."""
        if not self.training or self.p == 0:
            return x
        kept = x.new_empty((x.shape[0], *[1] * (x.dim() - 1))).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)


class Constant(nn.Module):
    """A learned value [*sizes], the same for every sample."""

    def __init__(self, sizes: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(sizes, value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, ...], of which only B counts; gives [B, *sizes]."""
        return self.weight.repeat(x.shape[0], *[1] * self.weight.dim())


def constant(x: torch.Tensor, value: float, *sizes: int) -> torch.Tensor:
    """`value` everywhere [B, *sizes] for `x` [B, ...]."""
    return x.new_full((x.shape[0], *sizes), value)


def zeros(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Zeros [B, *sizes] for `x` [B, ...]."""
    return x.new_zeros((x.shape[0], *sizes))
