"""The block of an MLP-Mixer, `mixer`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.blocks.base import BLOCKS, Block, identity_if_same
from hiresnet_graph.blocks.transformer import Probability, mlp
from hiresnet_graph.ops import Count, TransposeTokens, require_tokens
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, Wire


@BLOCKS.register
class MixerBlock(Block):
    """Two linear maps along the tokens, then two along the features, each with a norm before and a sum after.

    Edges into `residual` arrive at the second sum.

    Attributes:
        tokens_hidden: Tokens between the first two linear maps (default: half the features).
        hidden: Features between the other two (default: 4 times the features).
        drop_path: Probability that a branch is dropped for a sample (stochastic depth).

    Source: Tolstikhin et al. 2021, arXiv:2105.01601.
    """

    kind: ClassVar[str] = "mixer"
    examples = ({"tokens_hidden": 5, "hidden": 7, "drop_path": 0.1}, {})
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    tokens_hidden: Count | None = None
    hidden: Count | None = None
    activation: ActivationName = "gelu"
    drop_path: Probability = 0

    def hidden_channels(self, shape: Shape) -> int:
        """Features between the two linear maps."""
        return self.hidden or 4 * shape.channels

    def expand(self, x: Wire) -> Wire:
        """norm1 - two linear maps of tokens - (+ input) - norm2 - two of features - (+ the sum, + edges)."""
        shape = require_tokens("'mixer'", x.shape)
        out = x.norm("layer", name="norm1").apply(TransposeTokens(), name="transpose").within("tokens")
        out = mlp(out, self.tokens_hidden or max(1, shape.channels // 2), self.activation).rescoped(x)
        out = out.apply(TransposeTokens(grid=shape.grid), name="transpose").drop_path(self.drop_path)
        middle = out.add(x)
        out = mlp(middle.norm("layer", name="norm2"), self.hidden_channels(shape), self.activation)
        out = out.drop_path(self.drop_path)
        return out.join("residual", middle.shortcut(out, identity_if_same))
