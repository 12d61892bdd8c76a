"""HiResNet-18 and a vision transformer with all skips as one would write them by hand in torch, for `step`.

HiResNet-18 is the network of Lopez and Triesch (ESANN 2025) with all hierarchical residuals: the stem and every stage
feed every later stage, through average pooling, a 1x1 convolution and batch norm where shapes differ.
"""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        out: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.shortcut is None else self.shortcut(x)
        out = self.relu(out)
        return out


class Stage(nn.Sequential):
    """Blocks of one width; the first one may shrink the image."""

    def __init__(self, channels: int, width: int, depth: int, stride: int, shortcut: nn.Module) -> None:
        first = BasicBlock(channels, width, stride, shortcut)
        super().__init__(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


class Projection(nn.Sequential):
    """A skip between stages of different shape."""

    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__(nn.AvgPool2d(factor), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


def downsample(channels: int, width: int) -> nn.Sequential:
    """The shortcut of a block that halves height and width."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))


class HiResNet18(nn.Module):
    """x [B, channels, 32, 32] -> logits [B, classes]."""

    def __init__(self, width: int = 16, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        w1, w2, w3 = width, 2 * width, 4 * width
        self.conv = nn.Conv2d(channels, w1, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(w1)
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = Stage(w1, w1, 2, 1, nn.BatchNorm2d(w1))
        self.stage2 = Stage(w1, w2, 3, 2, downsample(w1, w2))
        self.stage3 = Stage(w2, w3, 3, 2, downsample(w2, w3))
        self.skip12 = Projection(w1, w2, 2)
        self.skip02 = Projection(w1, w2, 2)
        self.skip23 = Projection(w2, w3, 2)
        self.skip13 = Projection(w1, w3, 4)
        self.skip03 = Projection(w1, w3, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w3, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x0 = self.relu(self.bn(self.conv(x)))
        x1 = self.stage1(x0) + x0
        x2 = self.stage2(x1) + self.skip12(x1) + self.skip02(x0)
        x3 = self.stage3(x2) + self.skip23(x2) + self.skip13(x1) + self.skip03(x0)
        logits: torch.Tensor = self.fc(torch.flatten(self.pool(x3), 1))
        return logits


class EncoderBlock(nn.Module):
    """A block of a vision transformer, with its norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, tokens, width]; the output has the same shape."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.projection(attention)
        out: torch.Tensor = x + self.linear2(nn.functional.gelu(self.linear1(self.norm2(x))))
        return out


class HiResViT(nn.Module):
    """x [B, 3, 32, 32] -> logits [B, classes]; each block also adds the values of all levels before its input."""

    def __init__(self, width: int = 192, heads: int = 3, depth: int = 12, patch: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, width))
        self.positions = nn.Parameter(torch.zeros(1 + (32 // patch) ** 2, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1) + self.positions
        levels = [tokens]
        for block in self.blocks:
            value = block(levels[-1])
            for level in reversed(levels):
                value = value + level
            levels.append(value)
        logits: torch.Tensor = self.head(self.norm(levels[-1])[:, 0])
        return logits
