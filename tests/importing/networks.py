"""Modules as users write them, for tests of importing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Norms without activation on the shortcut, and a sum in place."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.expand = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.expand(F.elu(self.norm(self.reduce(x))))
        y += x
        return y


class HandWritten(nn.Module):
    """What users write: loops, conditions on shapes, views, functions, layers that are used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList([Residual(8, hidden) for hidden in (4, 4, 6)])
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if x.shape[1] == 8:
            for block in self.blocks:
                x = block(x)
        x = torch.cat([self.shared(x), self.shared(F.relu(x))], dim=1)
        left, right = x.chunk(2, dim=1)
        x = F.avg_pool2d(left * torch.sigmoid(right), 2)
        return self.head(F.dropout(x.mean((2, 3)), 0.25, self.training))


class Recurrent(nn.Module):
    """One convolution for three steps, each with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for norm in self.norms:
            x = F.relu(norm(self.conv(x)) + x)
        return x


class Attention(nn.Module):
    """As in many tutorials: products of matrices, queries, keys and values apart or as parts of one map."""

    def __init__(self, width: int, heads: int, *, together: bool) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.maps = nn.ModuleList([nn.Linear(width, size) for size in ([3 * width] if together else 3 * [width])])
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.maps[0](x).chunk(3, dim=-1) if len(self.maps) == 1 else [part(x) for part in self.maps]
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class TokenNet(nn.Module):
    """Two layers of attention on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.apart, self.together = Attention(8, 2, together=False), Attention(8, 4, together=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.apart(x)
        x = x + self.together(x)
        return self.head(x.mean(1))


class Generator(nn.Module):
    """A vector becomes a map; learned slopes, norms of channels, and the largest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.net = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.PReLU(), nn.InstanceNorm2d(8, affine=True), nn.Dropout2d(0.2)
        )
        self.gate, self.slope = nn.Linear(8, 8), nn.PReLU(8)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.net(self.first(z).view(-1, 8, 2, 2))
        gate = torch.sigmoid(self.gate(x.amax((2, 3)))).view(-1, 8, 1, 1)
        x = self.slope(x * gate.expand_as(x))
        return torch.abs(x - F.adaptive_max_pool2d(x, 1).expand_as(x))


class Undecided(nn.Module):
    """Four things without a form in a spec, for which there is a remedy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 2, 2))
        self.norm = nn.InstanceNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x)[0]
        return F.log_softmax(x.mean(1), dim=1)


class SharedParts(nn.Module):
    """A convolution that is called twice, and once more as a part of a residual block."""

    class Block(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv1, self.norm1 = conv, nn.BatchNorm2d(4)
            self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.block = SharedParts.Block(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(torch.tanh(self.conv(torch.tanh(self.conv(x)))))


class TiedBlocks(nn.Module):
    """Residual blocks with the same two convolutions, and norms of their own.

    Args:
        elsewhere: Whether the first convolution is called once more, outside of the blocks.
    """

    class Block(nn.Module):
        def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
            super().__init__()
            self.first, self.second = first, second
            self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + self.norm2(self.second(F.relu(self.norm1(self.first(x))))))

    def __init__(self, *, elsewhere: bool = False) -> None:
        super().__init__()
        convs = [nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2)]
        self.conv = convs[0] if elsewhere else nn.Identity()
        self.area = nn.Sequential(*(self.Block(*convs) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.area(torch.tanh(self.conv(x)))
        return y


class TwoHeads(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3)
        self.gate = nn.Linear(6, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: torch.Tensor, context: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.trunk(image) * self.gate(context)[:, :, None, None]
        return {"map": self.head(x), "features": x.mean((2, 3))}


class Unsupported(nn.Module):
    """Two operations without a form in a spec, the second after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.fft.fft2(x).real
        return self.conv(x).cumsum(dim=-1)


class DataDependent(nn.Module):
    """A branch that depends on the data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) if x.sum() > 0 else F.gelu(x)


class Stateful(nn.Module):
    """A counter, a moving average in a buffer and one outside of the state_dict."""

    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3))
        self.last: torch.Tensor | None = None
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.average.mul_(0.9)
        self.last = F.relu(x)
        return self.last


class NoisyTraining(nn.Module):
    """More than masks in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return F.relu(self.last(2 * y if self.training else y))


def hostile() -> nn.Module:
    """Names that are no names of a spec."""
    net = nn.Sequential()
    for name in ("train step", "input", "класс", "a__b", "x" * 100_000, "type", "0"):
        net.add_module(f"{name}_", nn.Conv2d(3, 3, 1))
        net.add_module(name.replace(" ", "-") if not hasattr(net, name) else f"{name} ", nn.ReLU())
    return net
