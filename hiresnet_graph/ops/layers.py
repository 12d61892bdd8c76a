"""Layers that torch lacks. `emit` copies their source, so each must stand alone with `torch` and `nn` imported."""

from __future__ import annotations

import torch
from torch import nn


class Scale(nn.Module):
    """A learned factor: w x, or sigmoid(w) x."""

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()) if sigmoid else torch.ones(()))
        self.sigmoid = sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, kept."""
        return x * (torch.sigmoid(self.weight) if self.sigmoid else self.weight)
