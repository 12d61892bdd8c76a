"""Operations between feature maps, tokens and vectors, and on the order of tokens; none has weights."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Op,
    Pair,
    Saves,
    pair,
    require_grid,
    require_map,
    require_tokens,
    size_label,
)
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector

_EVERY = slice(None)


def _rows(start: int | None, stop: int | None) -> Any:
    return Apply("operator.getitem", (Arg(0), (_EVERY, slice(start, stop))))


@OPS.register
class ToTokens(Op):
    """A feature map as tokens: one for each pixel, row by row."""

    kind: ClassVar[str] = "to_tokens"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Tokens:
        """Height times width tokens, with the channels as features."""
        x = require_map("'to_tokens'", inputs[0])
        return Tokens(x.height * x.width, x.channels, x.spatial)

    def apply(self, *inputs: Shape) -> Apply:
        """The spatial axes as one, before the channels."""
        return Apply("torch.transpose", (Apply("torch.flatten", (Arg(0), 2)), 1, 2))


@OPS.register
class ToMap(Op):
    """Tokens of a grid as a feature map; or a vector as one of 1x1 size, for example to weight channels.

    Attributes:
        size: Height and width, of a vector alone; it then has this many values for each channel, as in generators.
    """

    kind: ClassVar[str] = "to_map"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    size: Pair | None = None

    def shape(self, *inputs: Shape) -> Map:
        """Height and width of the grid, or `size`."""
        if isinstance(inputs[0], Vector) and inputs[0].steps is None:
            height, width = pair(1 if self.size is None else self.size)
            if inputs[0].channels % (height * width):
                raise ShapeError(
                    f"A map of {height}x{width} requires a multiple of {height * width} values, not {inputs[0]}.",
                    "Change 'size'.",
                )
            return Map(inputs[0].channels // (height * width), height, width)
        if self.size is not None:
            raise ShapeError(f"The 'size' of 'to_map' is for vectors, not {inputs[0].describe()}.", "Remove it.")
        if isinstance(inputs[0], Map):
            raise ShapeError(f"'to_map' requires tokens or a vector, not {inputs[0].describe()}.", "Remove it.")
        x, grid = require_grid("'to_map'", inputs[0])
        return Map(x.channels, *grid)

    def apply(self, *inputs: Shape) -> Apply:
        """The tokens in rows, after the features; or two axes more at the end."""
        x = inputs[0]
        if self.size is not None:
            return Apply("torch.unflatten", (Arg(0), 1, tuple(self.shape(x))))
        if isinstance(x, Tokens):
            return Apply("torch.unflatten", (Apply("torch.transpose", (Arg(0), 1, 2)), 2, x.grid))
        return Apply("operator.getitem", (Arg(0), (_EVERY, _EVERY, None, None)))


@OPS.register
class DropPrefix(Op):
    """The tokens of the grid, without class and register tokens."""

    kind: ClassVar[str] = "drop_prefix"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Tokens:
        """As many tokens as the grid has."""
        x = require_tokens("'drop_prefix'", inputs[0])
        if x.length == x.prefix:
            raise ShapeError(f"'drop_prefix' would leave nothing of {x.describe()}.", "Remove it.")
        return Tokens(x.length - x.prefix, x.channels, x.grid)

    def apply(self, *inputs: Shape) -> Apply:
        """A slice."""
        assert isinstance(inputs[0], Tokens)
        return _rows(inputs[0].prefix, None)  # type: ignore[no-any-return]


@OPS.register
class PadPrefix(Op):
    """Tokens before all others: zeros, or the mean of all.

    Attributes:
        count: Number of new tokens.
        fill: The values of the new tokens: zeros, or the mean of all tokens.
    """

    kind: ClassVar[str] = "pad_prefix"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"count": 2, "fill": "mean"}, {})
    count: Count = 1
    fill: Literal["zeros", "mean"] = "zeros"

    def shape(self, *inputs: Shape) -> Tokens:
        """`count` more tokens."""
        x = require_tokens("'pad_prefix'", inputs[0])
        return Tokens(x.length + self.count, x.channels, x.grid, x.prefix + self.count)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad`, or `torch.cat` with the mean."""
        if self.fill == "zeros":
            return Apply("torch.nn.functional.pad", (Arg(0), (0, 0, self.count, 0)))
        mean = Apply("torch.mean", (Arg(0), 1, True))
        return Apply("torch.cat", ([*[mean] * self.count, Arg(0)],), {"dim": 1})


class CopyPrefix(Op):
    """The class and register tokens of the second value before the tokens of the first; a part of projections."""

    kind: ClassVar[str] = "copy_prefix"
    shares_gradient: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    arity: ClassVar[int | None] = 2

    def shape(self, *inputs: Shape) -> Tokens:
        """The tokens of both."""
        x, source = (require_tokens("'copy_prefix'", shape) for shape in inputs)
        if x.channels != source.channels:
            raise ShapeError(f"'copy_prefix' requires equal features, not {x} and {source}.")
        return Tokens(x.length + source.prefix, x.channels, x.grid, x.prefix + source.prefix)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.cat`."""
        assert isinstance(inputs[1], Tokens)
        own = Apply("operator.getitem", (Arg(1), (_EVERY, slice(None, inputs[1].prefix))))
        return Apply("torch.cat", ([own, Arg(0)],), {"dim": 1})


@OPS.register
class SelectToken(Op):
    """One token as a vector; by default the class token, which is the first.

    Attributes:
        index: Position of the token, from 0.
    """

    kind: ClassVar[str] = "select_token"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    examples = ({"index": 2}, {})
    index: int = 0

    def shape(self, *inputs: Shape) -> Vector:
        """The features of a token."""
        x = require_tokens("'select_token'", inputs[0])
        if not 0 <= self.index < x.length:
            raise ShapeError(f"Token {self.index} is out of range for {x.describe()}.", f"Use 0 to {x.length - 1}.")
        return Vector(x.channels)

    def apply(self, *inputs: Shape) -> Apply:
        """`x[:, index]`."""
        return Apply("operator.getitem", (Arg(0), (_EVERY, self.index)))


@OPS.register
class TokenMean(Op):
    """The mean of all tokens of the grid as a vector, without class and register tokens."""

    kind: ClassVar[str] = "token_mean"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    short_name: ClassVar[str] = "token mean"

    def shape(self, *inputs: Shape) -> Vector:
        """The features of a token."""
        x = require_tokens("'token_mean'", inputs[0])
        if x.length == x.prefix:
            raise ShapeError(f"'token_mean' requires tokens of a grid, not {x.describe()}.", "Use 'select_token'.")
        return Vector(x.channels)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.mean` along the tokens."""
        assert isinstance(inputs[0], Tokens)
        return Apply("torch.mean", (_rows(inputs[0].prefix, None) if inputs[0].prefix else Arg(0), 1))


@OPS.register
class TransposeTokens(Op):
    """Tokens and features exchanged, so that a linear map mixes the tokens (Tolstikhin et al. 2021, MLP-Mixer).

    Attributes:
        grid: Height and width of the new tokens, if they are those of a grid.
    """

    kind: ClassVar[str] = "transpose_tokens"
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    short_name: ClassVar[str] = "transpose"
    grid: tuple[Count, Count] | None = None

    def shape(self, *inputs: Shape) -> Tokens:
        """One token for each feature."""
        x = require_tokens("'transpose_tokens'", inputs[0])
        if self.grid is not None and self.grid[0] * self.grid[1] != x.channels:
            raise ShapeError(
                f"{x.channels} features are no grid of {size_label(self.grid)}.", "Change 'grid', or leave it out."
            )
        return Tokens(x.channels, x.length, self.grid)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.transpose`."""
        return Apply("torch.transpose", (Arg(0), 1, 2))


@OPS.register
class MergePatches(Op):
    """Tokens of `size` x `size` neighbours as one token with the features of all (Liu et al. 2021, Swin).

    The features are those of the columns of the patch, from left to right, as in torchvision.

    Attributes:
        size: Height and width of a patch, in tokens.
    """

    kind: ClassVar[str] = "merge_patches"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    size: Pair = 2

    def shape(self, *inputs: Shape) -> Tokens:
        """The grid divided by the size; as many times the features as a patch has tokens."""
        x, grid = require_grid("'merge_patches'", inputs[0])
        height, width = pair(self.size)
        if grid[0] % height or grid[1] % width:
            raise ShapeError(
                f"A grid of {size_label(grid)} does not consist of patches of {size_label(self.size)}.",
                "Place 'fit_grid' before it, or change the size of the input.",
            )
        grid = grid[0] // height, grid[1] // width
        return Tokens(grid[0] * grid[1], x.channels * height * width, grid)

    def apply(self, *inputs: Shape) -> Apply:
        """`hiresnet_graph.ops.layers.merge_patches`."""
        grid = self.shape(*inputs).grid
        return Apply("hiresnet_graph.ops.layers.merge_patches", (Arg(0), grid, pair(self.size)))


@OPS.register
class FitGrid(Op):
    """Zero tokens after the last row and column up to a grid; or fewer rows and columns.

    Attributes:
        grid: Height and width.
    """

    kind: ClassVar[str] = "fit_grid"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    examples = ({"grid": [4, 3]}, {"grid": [5, 6]})
    short_name: ClassVar[str] = "fit grid"
    grid: tuple[Count, Count]

    def shape(self, *inputs: Shape) -> Tokens:
        """The grid as given."""
        x, _ = require_grid("'fit_grid'", inputs[0])
        return Tokens(self.grid[0] * self.grid[1], x.channels, self.grid)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad` of the rows and columns."""
        _, grid = require_grid("'fit_grid'", inputs[0])
        padding = (0, 0, 0, self.grid[1] - grid[1], 0, self.grid[0] - grid[0])
        rows = Apply("torch.nn.functional.pad", (Apply("torch.unflatten", (Arg(0), 1, grid)), padding))
        return Apply("torch.flatten", (rows, 1, 2))
