"""Attention among tokens, and the learned tokens and positions of transformers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Layer,
    Op,
    Pair,
    SavedValues,
    Saves,
    Signature,
    Tensor,
    pair,
    require_grid,
    require_tokens,
    size_label,
)
from hiresnet_graph.shapes import Shape, Tokens

_INIT_STD = 0.02
"""Standard deviation of learned tokens, positions and position biases at the start (Dosovitskiy et al. 2021)."""
_ATTENTION = Signature("input heads")
_WINDOW = Signature("heads grid window shift")
_CLASS_TOKEN = Signature("channels", count=1)
_POSITIONS = Signature(
    "length channels",
    skipped=0,
    prefix=0,
    grid=None,
    size=None,
    antialias=True,
    align_corners=False,
)


@OPS.register
class DotProductAttention(Op):
    """Multi-head attention softmax(q k^T / sqrt(d)) v of queries, keys and values side by side in the features.

    With `window`, each token attends to the tokens of its window of the grid alone; with `shift`, the windows are moved
    by that many rows and columns, around the border, and tokens of opposite borders do not attend to each other.
    The block `attention` has the linear maps before and after it.

    Attributes:
        heads: Number of heads; it divides the features of the queries.
        window: Height and width of the windows (default: all tokens attend to all).
        shift: Rows and columns by which the windows are shifted; 0 along an axis with one window.
        relative_positions: Whether each head learns a bias for each offset within a window.

    Source: Vaswani et al. 2017, arXiv:1706.03762; windows: Liu et al. 2021 (Swin), arXiv:2103.14030.
    """

    kind: ClassVar[str] = "dot_product_attention"
    parameter_group: ClassVar[str] = "positions"
    is_low_precision: ClassVar[bool] = True
    examples = (
        {"heads": 2},
        {"heads": 1, "window": [2, 3], "shift": 1},
        {"heads": 2, "window": 2, "shift": 1, "relative_positions": True},
    )
    part: ClassVar[str] = "product"
    counts_activations: ClassVar[bool] = True
    heads: Count
    window: Pair | None = None
    shift: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    relative_positions: bool = False

    def shape(self, *inputs: Shape) -> Tokens:
        """The same tokens with a third of the features."""
        x = require_tokens("Attention", inputs[0])
        if x.channels % 3:
            raise ShapeError(
                f"Attention requires queries, keys and values side by side, not {x.channels} features.",
                "Use the block 'attention', which computes them.",
            )
        width = x.channels // 3
        if width % self.heads:
            fits = [heads for heads in range(1, min(width, 64) + 1) if width % heads == 0]
            raise ShapeError(
                f"{self.heads} heads do not divide the width {width} of the tokens.",
                f"Set 'heads' to one of {', '.join(map(str, fits))}; or the width to a multiple of {self.heads}.",
            )
        if self.window is None and (self.shift or self.relative_positions):
            raise ShapeError("'shift' and 'relative_positions' require a 'window'.", "Set 'window', or remove them.")
        if self.window is not None:
            self.windows(x)
        return x.with_channels(width)

    def windows(self, shape: Shape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Grid, window and shift."""
        _, grid = require_grid("Attention in windows", shape)
        window = pair(self.window or 1)
        if grid[0] % window[0] or grid[1] % window[1]:
            raise ShapeError(
                f"A grid of {size_label(grid)} does not consist of windows of {size_label(window)}.",
                "Place 'fit_grid' before it, or change 'window' or the size of the input.",
            )
        shift = tuple(0 if size <= inner else self.shift % inner for size, inner in zip(grid, window, strict=True))
        return grid, window, (shift[0], shift[1])

    def canonical(self, *inputs: Shape) -> Self:
        """Without the shift of a single window."""
        is_idle = self.shift > 0 and self.windows(inputs[0])[2] == (0, 0)
        return self.changed({"shift": 0}) if is_idle else self

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """A bias for each offset and head, if positions are relative."""
        if not self.relative_positions:
            return ()
        height, width = pair(self.window or 1)
        return (Tensor("weight", ((2 * height - 1) * (2 * width - 1), self.heads), "normal", value=_INIT_STD),)

    def macs(self, *inputs: Shape) -> int:
        """Both products: two multiply-adds for each feature and each pair of tokens that may see each other."""
        x = self.shape(*inputs)
        height, width = (x.length, 1) if self.window is None else pair(self.window)
        return 2 * x.elements * height * width

    def layer(self, *inputs: Shape) -> Layer | None:
        """`hiresnet_graph.ops.layers.WindowAttention`, if positions are relative."""
        if not self.relative_positions:
            return None
        args = (self.heads, *self.windows(inputs[0]))
        return Layer("hiresnet_graph.ops.layers.WindowAttention", args, signature=_WINDOW)

    def saved(self, *inputs: Shape) -> SavedValues:
        """Operand, result, and a number for each query; within windows, copies in the order of the windows.

        With relative positions, whose bias has a gradient, torch computes the products one by one on CPUs.
        """
        x = self.shape(*inputs)
        if self.window is None:
            return SavedValues((0,), result=True, size_bytes=4 * x.length * self.heads)
        if not self.relative_positions:
            return SavedValues(elements=4 * x.elements, size_bytes=4 * x.length * self.heads)
        height, width = pair(self.window)
        return SavedValues(elements=5 * x.elements + x.length * height * width * self.heads)

    def apply(self, *inputs: Shape) -> Apply | None:
        """`hiresnet_graph.ops.layers.attention` or `window_attention`."""
        if self.relative_positions:
            return None
        if self.window is None:
            return Apply("hiresnet_graph.ops.layers.attention", (Arg(0), self.heads), signature=_ATTENTION)
        return Apply("hiresnet_graph.ops.layers.window_attention", (Arg(0), self.heads, *self.windows(inputs[0])))

    def label(self, *, brief: bool = False) -> str:
        """Heads and window."""
        window = "" if self.window is None else f"{size_label(self.window)} window, "
        return f"attention ({window}{self.heads} heads)"


@OPS.register
class ClassToken(Op):
    """Learned tokens before all others: a class token, or also registers (Darcet et al. 2024).

    Attributes:
        count: Number of tokens.

    Source: Dosovitskiy et al. 2021 (ViT), arXiv:2010.11929.
    """

    kind: ClassVar[str] = "class_token"
    parameter_group: ClassVar[str] = "tokens"
    shares_gradient: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"count": 3}, {})
    short_name: ClassVar[str] = "class token"
    count: Count = 1

    def shape(self, *inputs: Shape) -> Tokens:
        """`count` more tokens."""
        x = require_tokens("A class token", inputs[0])
        return Tokens(x.length + self.count, x.channels, x.grid, x.prefix + self.count)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """`weight` [count, features]."""
        return (Tensor("weight", (self.count, inputs[0].channels), "normal", value=_INIT_STD),)

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.ClassTokens`."""
        kwargs = _CLASS_TOKEN.kwargs(count=self.count)
        return Layer("hiresnet_graph.ops.layers.ClassTokens", (inputs[0].channels,), kwargs, _CLASS_TOKEN)


@OPS.register
class PositionEmbedding(Op):
    """Positions added to tokens: learned, or sines and cosines of several wavelengths.

    Attributes:
        encoding: `learned`, or `sincos` without weights: a quarter of the features each for the sine and cosine of row
            and column.
        grid: Height and width for which positions are learned (default: those of the tokens). If the tokens have
            another grid, the positions are interpolated bicubically, so that weights fit images of other sizes.
        prefix: Whether class and register tokens have a position.
        antialias, align_corners: How positions are interpolated; by default as in timm. torchvision's
            `interpolate_embeddings` has the opposite of both.

    Source: Dosovitskiy et al. 2021 (ViT), arXiv:2010.11929; sincos: Vaswani et al. 2017, arXiv:1706.03762.
    """

    kind: ClassVar[str] = "position_embedding"
    parameter_group: ClassVar[str] = "positions"
    shares_gradient: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = (
        {"grid": [2, 3]},
        {"encoding": "sincos"},
        {"grid": [5, 2], "antialias": False, "align_corners": True},
        {},
    )
    part: ClassVar[str] = "positions"
    short_name: ClassVar[str] = "positions"
    encoding: Literal["learned", "sincos"] = "learned"
    grid: tuple[Count, Count] | None = None
    prefix: bool = True
    antialias: bool = True
    align_corners: bool = False

    def shape(self, *inputs: Shape) -> Tokens:
        """Same as the input."""
        x = require_tokens("A position embedding", inputs[0])
        if self.grid is not None:
            require_grid("A position embedding with 'grid'", x, prefix=True)
        if self.encoding == "sincos" and x.channels % (2 if x.grid is None else 4):
            raise ShapeError(
                f"Sines and cosines of {'positions' if x.grid is None else 'rows and columns'} require a multiple of "
                f"{2 if x.grid is None else 4} features, not {x.channels}.",
                "Change the width, or use 'encoding: learned'.",
            )
        return x

    def _learned_prefix(self, x: Tokens) -> int:
        return x.prefix if self.prefix else 0

    def _length(self, x: Tokens) -> int:
        """Number of learned positions."""
        own = x.length - x.prefix if self.grid is None else self.grid[0] * self.grid[1]
        return own + self._learned_prefix(x)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """`weight` [positions, features], if they are learned."""
        if self.encoding == "sincos":
            return ()
        x = require_tokens("A position embedding", inputs[0])
        return (Tensor("weight", (self._length(x), x.channels), "normal", value=_INIT_STD),)

    def layer(self, *inputs: Shape) -> Layer | None:
        """`hiresnet_graph.ops.layers.Positions`, if they are learned."""
        if self.encoding == "sincos":
            return None
        x = require_tokens("A position embedding", inputs[0])
        resizes = self.grid is not None and self.grid != x.grid
        kwargs = {
            "skipped": x.prefix - self._learned_prefix(x),
            **({"prefix": self._learned_prefix(x), "grid": self.grid, "size": x.grid} if resizes else {}),
            **({"antialias": self.antialias, "align_corners": self.align_corners} if resizes else {}),
        }
        kwargs = {name: value for name, value in kwargs.items() if value != _POSITIONS.keywords[name]}
        return Layer("hiresnet_graph.ops.layers.Positions", (self._length(x), x.channels), kwargs, _POSITIONS)

    def apply(self, *inputs: Shape) -> Apply | None:
        """The sum with `hiresnet_graph.ops.layers.sincos_positions`, if they are not learned."""
        if self.encoding == "learned":
            return None
        x = require_tokens("A position embedding", inputs[0])
        grid = x.grid or (x.length - x.prefix,)
        positions = Apply("hiresnet_graph.ops.layers.sincos_positions", (Arg(0), x.channels, x.prefix, *grid))
        return Apply("operator.add", (Arg(0), positions))
