"""Layers of operations in the tests, in a file of their own, as `emit` reads it."""

from __future__ import annotations

import math
from math import pi as HALF_TURN

import torch
from torch import nn

OFFSET = 0.5


def shifted(x: torch.Tensor) -> torch.Tensor:
    return x + OFFSET * math.sin(HALF_TURN / 2)


class Base(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return shifted(x) * self.weight.view(-1, 1, 1)


class Derived(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(x)


class WithBuffer(Derived):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("mask", torch.ones(channels))


class WithHiddenBuffer(Derived):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("mask", torch.ones(channels), persistent=False)


class WithParameter(Derived):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.inner = nn.Linear(2, 2, bias=False)


class WithAttribute(Derived):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.table = torch.arange(3)


class OfAnotherShape(Derived):
    def __init__(self, channels: int) -> None:
        super().__init__(channels + 1)


class WithoutWeight(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class WeightAsBuffer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
