"""Blocks of windowed transformers: `swin` and `patch_merging`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block, identity_if_same
from hiresnet_graph.blocks.transformer import Probability, mlp, self_attention
from hiresnet_graph.ops import Count, DotProductAttention, FitGrid, MergePatches, Pair, pair, require_grid
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, Wire


def fitted(x: Wire, size: tuple[int, int], name: str) -> Wire:
    """Tokens with zeros after the last rows and columns, or fewer of these, so that the grid has a size."""
    _, grid = require_grid("A grid", x.shape)
    return x if grid == size else x.apply(FitGrid(grid=size), name=name)


def padded(x: Wire, size: tuple[int, int], name: str = "pad") -> Wire:
    """Tokens with zeros after the last rows and columns, so that the grid is a multiple of a size."""
    _, grid = require_grid("A grid in windows", x.shape)
    return fitted(x, (-(-grid[0] // size[0]) * size[0], -(-grid[1] // size[1]) * size[1]), name)


@BLOCKS.register
class SwinBlock(Block):
    """A transformer block whose tokens attend to those in the same window of the grid, with a bias for each offset.

    A grid that is not a multiple of the window is padded with zeros, as in torchvision. Edges into `residual` arrive at
    the second sum.

    Attributes:
        heads: Number of heads; it divides the width of the tokens.
        window: Height and width of the windows.
        shift: Rows and columns by which the windows are shifted; half of the window in every second block.
        hidden: Features between the two linear maps (default: 4 times the width).
        qkv_bias: Whether the linear map to queries, keys and values has a bias.
        drop_path: Probability that a branch is dropped for a sample (stochastic depth).

    Source: Liu et al. 2021, arXiv:2103.14030.
    """

    kind: ClassVar[str] = "swin"
    examples = ({"heads": 3, "window": 2, "shift": 1, "drop_path": 0.1}, {"heads": 2, "window": 5, "hidden": 7})
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    heads: Count
    window: Pair = 7
    shift: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    hidden: Count | None = None
    qkv_bias: bool = True
    activation: ActivationName = "gelu"
    drop_path: Probability = 0

    def hidden_channels(self, shape: Shape) -> int:
        """Features between the two linear maps."""
        return self.hidden or 4 * shape.channels

    def expand(self, x: Wire) -> Wire:
        """norm1 - attention in windows - (+ input) - norm2 - two linear maps - (+ the sum, + edges)."""
        _, grid = require_grid("'swin'", x.shape)
        product = DotProductAttention(heads=self.heads, window=self.window, shift=self.shift, relative_positions=True)
        out = padded(x.norm("layer", name="norm1"), pair(self.window))
        out = fitted(self_attention(out, product, qkv_bias=self.qkv_bias), grid, "crop")
        middle = out.drop_path(self.drop_path).add(x)
        out = mlp(middle.norm("layer", name="norm2"), self.hidden_channels(x.shape), self.activation)
        out = out.drop_path(self.drop_path)
        return out.join("residual", middle.shortcut(out, identity_if_same))


@BLOCKS.register
class PatchMergingBlock(Block):
    """Half the height and width of a grid: each 2x2 neighbours become one token, after norm and linear map.

    Attributes:
        width: Features of a token (default: twice those of the input).

    Source: Liu et al. 2021 (Swin), arXiv:2103.14030.
    """

    kind: ClassVar[str] = "patch_merging"
    examples = ({"width": 5}, {})
    width: Count | None = None

    def expand(self, x: Wire) -> Wire:
        """merge_patches - norm - linear without bias."""
        width = self.width or 2 * x.channels
        x = padded(x, (2, 2)).apply(MergePatches(), name="merge").norm("layer", name="norm")
        return x.linear(width, bias=False)
