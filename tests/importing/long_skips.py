"""Residual networks with long skips as users write them, under names of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block, which may add a skip before its last activation."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.c2, self.n2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.down = projection(width_in, width, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        y = self.n2(self.c2(F.relu(self.n1(self.c1(x))))) + self.down(x)
        return F.relu(y if skip is None else y + skip)


def projection(width_in: int, width: int, stride: int = 1, pool: int = 1) -> nn.Sequential:
    pools = [nn.AvgPool2d(pool)] if pool > 1 else []
    return nn.Sequential(*pools, nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def stage(width_in: int, width: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(Block(width_in, width, stride), Block(width, width))


class Stages(nn.Module):
    """A stem and three stages; `join` is the value of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1, self.layer2, self.layer3 = stage(4, 4, 1), stage(4, 8), stage(8, 16)
        self.skip13 = projection(4, 16, pool=4)
        self.skip23 = projection(8, 16, pool=2)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.layer1(self.entry(x))
        x2 = self.layer2(x1)
        return self.fc(self.join(x1, x2, self.layer3(x2)).mean((2, 3)))

    def join(self, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor) -> torch.Tensor:
        return self.skip23(x2) + x3 + self.skip13(x1)


class FarthestFirst(Stages):
    """The skips are added in an order that is not the usual one of a spec."""

    def join(self, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor) -> torch.Tensor:
        return x3 + self.skip13(x1) + self.skip23(x2)


class TwoKinds(Stages):
    """Skips with different projections, one with a learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.skip23 = projection(8, 16, stride=2)
        self.factor = nn.Parameter(torch.tensor(0.5))

    def join(self, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor) -> torch.Tensor:
        return x3 + self.skip23(x2) + self.factor * self.skip13(x1)


class Activated(Stages):
    """A skip with an activation, which no projection has, and the value of a stage beside its sum."""

    def join(self, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor) -> torch.Tensor:
        return x3 + F.relu(self.skip13(x1)) + torch.tanh(self.skip23(x2))


class FromSum(Stages):
    """A skip from a sum that no projection makes."""

    def __init__(self) -> None:
        super().__init__()
        self.skip12 = projection(4, 8, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.layer1(self.entry(x))
        x2 = self.layer2(x1) + F.relu(self.skip12(x1))
        return self.fc((self.layer3(x2) + self.skip23(x2)).mean((2, 3)))


class Both(Stages):
    """The value of the last stage is used with a skip and without."""

    def join(self, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor) -> torch.Tensor:
        return (x3 + self.skip13(x1)) * torch.tanh(x3)


class InsideBlocks(nn.Module):
    """Skips that blocks add before their last activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.high, self.low = nn.ModuleList(stage(4, 4, 1)), nn.ModuleList(stage(4, 8))
        self.side = projection(4, 8, stride=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = F.relu(self.norm(self.conv(x)))
        x = self.high[1](self.high[0](first), first)
        x = self.low[1](self.low[0](x), self.side(first))
        return self.fc(x.mean((2, 3)))


class EveryLevel(nn.Module):
    """Each block gets the values of all blocks before it: after its own function, or at its input."""

    def __init__(self, *, at_input: bool) -> None:
        super().__init__()
        self.at_input = at_input
        self.entry = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.ModuleList([Block(4, 4) for _ in range(3)])
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.entry(x)]
        for block in self.blocks:
            *earlier, latest = levels
            if self.at_input:
                levels.append(block(_total(latest, earlier)))
            else:
                levels.append(_total(block(latest), levels))
        return self.fc(levels[-1].mean((2, 3)))


def _total(value: torch.Tensor, levels: list[torch.Tensor]) -> torch.Tensor:
    for level in reversed(levels):
        value = value + level
    return value


class OwnShortcuts(nn.Module):
    """Shortcuts of blocks of other forms: over two layers without a module, and over four in one."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = x + self.layers(x)
            return y

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.one, self.two = (nn.Conv2d(width, 4, 3, padding=1) for width in (3, 4, 4))
        self.deep = nn.Sequential(self.Deep(), self.Deep())
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.entry(x))
        x = x + F.relu(self.two(F.relu(self.one(x))))
        return self.fc(self.deep(x).mean((2, 3)))


class Summed(nn.Module):
    """Each block reads the sum of all values before it, from the first to the last, as `sum(values)` adds them.

    Args:
        sums_all: The classifier reads the sum of all, too.
        is_residual: Blocks add their own input.
    """

    def __init__(self, depth: int, sums_all: bool, is_residual: bool) -> None:
        super().__init__()
        self.retina = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth))
        self.fc = nn.Linear(4, 10)
        self.sums_all, self.is_residual = sums_all, is_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [F.relu(self.retina(x))]
        for block in self.blocks:
            x = sum(values[1:], values[0])
            values.append(F.relu(block(x)) + x if self.is_residual else F.relu(block(x)))
        return self.fc((sum(values[1:], values[0]) if self.sums_all else values[-1]).mean((2, 3)))
