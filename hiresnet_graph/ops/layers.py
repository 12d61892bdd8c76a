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


class ClassTokens(nn.Module):
    """Learned tokens [count, channels] before all others."""

    def __init__(self, channels: int, count: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, tokens, channels]; gives [B, count + tokens, channels]."""
        return torch.cat([self.weight.expand(x.shape[0], -1, -1), x], dim=1)


class Positions(nn.Module):
    """Learned positions [length, channels], added to all tokens but the first `skipped`.

    With `grid`, they are those of `prefix` tokens and of a grid of this size, and are resized to a grid of `size`.
    """

    def __init__(
        self,
        length: int,
        channels: int,
        skipped: int = 0,
        prefix: int = 0,
        grid: tuple[int, int] | None = None,
        size: tuple[int, int] | None = None,
        antialias: bool = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(length, channels))
        self.skipped, self.prefix, self.grid, self.size = skipped, prefix, grid, size
        self.antialias, self.align_corners = antialias, align_corners

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, tokens, channels]; the output has the same shape."""
        positions: torch.Tensor = self.weight
        if self.grid is not None and self.size is not None:
            first, rest = positions[: self.prefix], positions[self.prefix :]
            plane = rest.view(*self.grid, -1).permute(2, 0, 1)[None]
            plane = nn.functional.interpolate(
                plane, self.size, mode="bicubic", antialias=self.antialias, align_corners=self.align_corners
            )
            positions = torch.cat([first, plane[0].flatten(1).t()])
        if self.skipped:
            positions = nn.functional.pad(positions, (0, 0, self.skipped, 0))
        return x + positions


class WindowAttention(nn.Module):
    """Attention in windows of a grid, with a learned bias [offsets, heads] of each head for each offset in a window."""

    def __init__(
        self, heads: int, grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.heads, self.grid, self.window, self.shift = heads, grid, window, shift
        self.weight = nn.Parameter(torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1), heads))

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """[B, tokens, 3 * channels]; gives [B, tokens, channels]."""
        bias = window_bias(self.weight, self.window)
        return window_attention(qkv, self.heads, self.grid, self.window, self.shift, bias)


def attention(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention of queries, keys and values [B, tokens, 3 * channels]; gives [B, tokens, channels]."""
    q, k, v = qkv.reshape(qkv.shape[0], qkv.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def window_bias(offsets: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """The biases of all pairs of tokens in a window [heads, N, N], from those of their offsets [offsets, heads]."""
    rows, columns = grid_positions(offsets, *window)
    down = rows[:, None] - rows[None, :] + window[0] - 1
    right = columns[:, None] - columns[None, :] + window[1] - 1
    pairs = down * (2 * window[1] - 1) + right
    return nn.functional.embedding(pairs, offsets).permute(2, 0, 1)


def window_attention(
    qkv: torch.Tensor,
    heads: int,
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multi-head attention within the windows of a grid, shifted by rows and columns around the border.

    `qkv` [B, tokens, 3 * channels] gives [B, tokens, channels]; `bias` [heads, window tokens, window tokens].
    """
    (height, width), (rows, columns) = grid, window
    down, across = height // rows, width // columns
    is_shifted = shift[0] > 0 or shift[1] > 0
    batch = qkv.shape[0]
    x = qkv.reshape(batch, height, width, -1)
    if is_shifted:
        x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
    x = x.reshape(batch, down, rows, across, columns, 3, heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = x.reshape(3, batch, down * across * heads, rows * columns, -1).unbind(0)
    mask = None if bias is None else bias
    if is_shifted:
        mask = shift_mask(qkv, grid, window, shift) + (0 if bias is None else bias)
    if mask is not None:
        mask = mask.expand(down * across, heads, -1, -1).flatten(0, 1)[None]
    y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    y = y.reshape(batch, down, across, heads, rows, columns, -1).permute(0, 1, 4, 2, 5, 3, 6)
    # A copy in any case: torch.onnx cannot reshape what was a view while it was traced, as that of a single window.
    y = y.clone(memory_format=torch.contiguous_format).reshape(batch, height, width, -1)
    if is_shifted:
        y = torch.roll(y, shift, (1, 2))
    return y.flatten(1, 2)


def shift_mask(x: torch.Tensor, grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> torch.Tensor:
    """-100 between tokens of a shifted window that come from opposite borders, else 0: [windows, 1, N, N]."""
    areas = []
    for position, size, inner, step in zip(grid_positions(x, *grid), grid, window, shift, strict=True):
        areas.append((position >= size - inner).long() + (position >= size - step).long())
    area = (3 * areas[0] + areas[1]).view(grid[0] // window[0], window[0], grid[1] // window[1], window[1])
    area = area.transpose(1, 2).flatten(2).flatten(0, 1)
    mask: torch.Tensor = -100 * (area[:, None, :, None] != area[:, None, None, :]).to(x.dtype)
    return mask


def grid_positions(x: torch.Tensor, *grid: int) -> list[torch.Tensor]:
    """The position of each token of a grid along each axis, on the device of `x`: 0, 1, ..."""
    positions = []
    for i, size in enumerate(grid):
        sizes = [size if k == i else 1 for k in range(len(grid))]
        positions.append((x.new_ones(size, dtype=torch.int64).cumsum(0) - 1).view(sizes).expand(grid).flatten())
    return positions


def sincos_positions(x: torch.Tensor, channels: int, prefix: int, *grid: int) -> torch.Tensor:
    """Sines and cosines of the positions on a grid [prefix + tokens, channels], with zeros for the prefix."""
    waves = channels // (2 * len(grid))
    rates = torch.pow(10000.0, -grid_positions(x, waves)[0].to(x.dtype) / waves)
    angles = [position.to(x.dtype)[:, None] * rates for position in grid_positions(x, *grid)]
    waves_NC = torch.cat([wave for angle in angles for wave in (torch.sin(angle), torch.cos(angle))], dim=1)
    return nn.functional.pad(waves_NC, (0, 0, prefix, 0))


def merge_patches(x: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """Tokens [B, tokens, channels] of patches of `size` as one token each, on a grid of `grid` patches."""
    x = x.reshape(x.shape[0], grid[0], size[0], grid[1], size[1], -1)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)


def constant(x: torch.Tensor, value: float, *sizes: int) -> torch.Tensor:
    """`value` everywhere [B, *sizes] for `x` [B, ...]."""
    return x.new_full((x.shape[0], *sizes), value)


def zeros(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Zeros [B, *sizes] for `x` [B, ...]."""
    return x.new_zeros((x.shape[0], *sizes))
