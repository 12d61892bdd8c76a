"""Blocks of vision transformers: `patch_embed`, `attention`, `encoder` and `token_head`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block, identity_if_same
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import (
    Count,
    DotProductAttention,
    Factor,
    Pair,
    SelectToken,
    TokenMean,
    pair,
    require_map,
    require_tokens,
    size_label,
)
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, NormName, Wire

Probability = Annotated[float, Field(ge=0, lt=1)]


def mlp(x: Wire, hidden: int, activation: ActivationName, dropout: float = 0) -> Wire:
    """Two linear maps with an activation between them; the width is that of the input."""
    width = x.channels
    x = x.linear(hidden, name="linear1").activation(activation).dropout(dropout)
    return x.linear(width, name="linear2").dropout(dropout)


def self_attention(x: Wire, product: DotProductAttention, *, qkv_bias: bool = True) -> Wire:
    """A linear map to queries, keys and values, their attention, and a linear map."""
    width = require_tokens("Attention", x.shape).channels
    inner = x.within("attention")
    out = inner.linear(3 * width, bias=qkv_bias, name="qkv").apply(product).linear(width, name="projection")
    return out.rescoped(x)


@BLOCKS.register
class PatchEmbedBlock(Block):
    """Patches of an image as tokens: a convolution with kernel = stride and without padding, row by row.

    Attributes:
        width: Features of a token.
        patch: Height and width of a patch, in pixels; they divide those of the image.
        norm: The norm after the convolution.

    Source: Dosovitskiy et al. 2021 (ViT), arXiv:2010.11929.
    """

    kind: ClassVar[str] = "patch_embed"
    examples = ({"width": 6, "patch": [7, 3]}, {"width": 10, "patch": 1, "norm": "layer"})
    width: Count
    patch: Pair = 16
    norm: NormName = "none"

    def expand(self, x: Wire) -> Wire:
        """conv - tokens (- norm)."""
        shape, (height, width) = require_map("'patch_embed'", x.shape), pair(self.patch)
        if shape.height % height or shape.width % width:
            raise ShapeError(
                f"an image of {size_label(shape.spatial)} does not consist of patches of {size_label(self.patch)}.",
                "Change 'patch', or the height and width of the input to multiples of it.",
            )
        x = x.conv2d(self.width, self.patch, stride=self.patch, padding=0, bias=True, name="conv")
        return x.to_tokens(name="tokens").norm(self.norm, name="norm")


@BLOCKS.register
class AttentionBlock(Block):
    """Multi-head self-attention of tokens, with the linear maps before and after it.

    Attributes:
        heads: Number of heads; it divides the width of the tokens.
        qkv_bias: Whether the linear map to queries, keys and values has a bias.
        window, shift, relative_positions: As of `dot_product_attention`.

    Source: Vaswani et al. 2017, arXiv:1706.03762.
    """

    kind: ClassVar[str] = "attention"
    examples = ({"heads": 3, "qkv_bias": False}, {"heads": 2, "window": 2, "shift": 1, "relative_positions": True})
    heads: Count
    qkv_bias: bool = True
    window: Pair | None = None
    shift: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    relative_positions: bool = False

    def expand(self, x: Wire) -> Wire:
        """qkv - product - projection."""
        product = DotProductAttention(
            heads=self.heads, window=self.window, shift=self.shift, relative_positions=self.relative_positions
        )
        return self_attention(x, product, qkv_bias=self.qkv_bias)


@BLOCKS.register
class EncoderBlock(Block):
    """A block of a transformer: attention and two linear maps of each token, each with a norm and a sum.

    Edges into `residual` arrive at the second sum.

    Attributes:
        heads: Number of heads; it divides the width of the tokens.
        hidden: Features between the two linear maps (default: 4 times the width).
        norm_first: Whether the norms are at the start of the branches, as in ViT, or after the sums.
        qkv_bias: Whether the linear map to queries, keys and values has a bias.
        dropout: Dropout after the attention, and after both linear maps.
        drop_path: Probability that a branch is dropped for a sample (stochastic depth).
        layer_scale: Initial value of a learned factor for each feature at the end of the branches (default: none).

    Source: Dosovitskiy et al. 2021 (ViT), arXiv:2010.11929; Vaswani et al. 2017 for norms after the sums.
    """

    kind: ClassVar[str] = "encoder"
    examples = (
        {"heads": 3, "hidden": 10, "dropout": 0.1, "drop_path": 0.1, "layer_scale": 0.1},
        {"heads": 2, "norm_first": False, "qkv_bias": False, "activation": "relu"},
    )
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    heads: Count
    hidden: Count | None = None
    norm_first: bool = True
    qkv_bias: bool = True
    activation: ActivationName = "gelu"
    dropout: Probability = 0
    drop_path: Probability = 0
    layer_scale: Factor | None = None

    def hidden_channels(self, shape: Shape) -> int:
        """Features between the two linear maps."""
        return self.hidden or 4 * shape.channels

    def _end(self, x: Wire, number: int) -> Wire:
        return x.layer_scale(self.layer_scale, name=f"layer_scale{number}").drop_path(self.drop_path)

    def expand(self, x: Wire) -> Wire:
        """norm1 - attention - (+ input) - norm2 - linear1 - activation - linear2 - (+ the sum, + edges)."""
        out = x.norm("layer", name="norm1") if self.norm_first else x
        out = self_attention(out, DotProductAttention(heads=self.heads), qkv_bias=self.qkv_bias).dropout(self.dropout)
        middle = self._end(out, 1).add(x)
        middle = middle if self.norm_first else middle.norm("layer", name="norm1")
        out = middle.norm("layer", name="norm2") if self.norm_first else middle
        out = self._end(mlp(out, self.hidden_channels(x.shape), self.activation, self.dropout), 2)
        out = out.join("residual", middle.shortcut(out, identity_if_same))
        return out if self.norm_first else out.norm("layer", name="norm2")


@BLOCKS.register
class TokenHeadBlock(Block):
    """Norm, the class token or the mean of the other tokens, and a linear map with bias to `classes` logits.

    Attributes:
        pool: `class` reads the first token, `mean` the mean of all tokens of the grid.
        dropout: Dropout probability before the linear map.
    """

    kind: ClassVar[str] = "token_head"
    examples = ({"classes": 3}, {"classes": 5, "pool": "mean", "norm": "none", "dropout": 0.1})
    classes_field: ClassVar[str] = "classes"
    classes: Count
    pool: Literal["class", "mean"] = "class"
    norm: NormName = "layer"
    dropout: Probability = 0

    def expand(self, x: Wire) -> Wire:
        """norm - pool - (dropout -) linear."""
        require_tokens("'token_head'", x.shape)
        x = x.norm(self.norm, name="norm")
        x = x.apply(SelectToken() if self.pool == "class" else TokenMean(), name="pool")
        return x.dropout(self.dropout).linear(self.classes)
