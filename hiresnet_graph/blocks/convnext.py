"""The block of a ConvNeXt, `convnext`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.blocks.base import BLOCKS, Block, identity_if_same
from hiresnet_graph.blocks.transformer import Probability, mlp
from hiresnet_graph.ops import Count, Factor, Pair, require_map
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, Wire


@BLOCKS.register
class ConvNeXtBlock(Block):
    """A depthwise convolution, then a norm and two linear maps of each pixel, and the sum with the input.

    Attributes:
        hidden: Channels between the linear maps (default: 4 times the width).
        layer_scale: Initial value of a learned factor for each channel; null for none.
        drop_path: Probability that the branch is dropped for a sample (stochastic depth).

    Source: Liu et al. 2022, arXiv:2201.03545.
    """

    kind: ClassVar[str] = "convnext"
    examples = ({"hidden": 5, "drop_path": 0.1}, {"kernel_size": 3, "layer_scale": None})
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    kernel_size: Pair = 7
    hidden: Count | None = None
    activation: ActivationName = "gelu"
    layer_scale: Factor | None = 1e-6
    drop_path: Probability = 0

    def hidden_channels(self, shape: Shape) -> int:
        """Features between the two linear maps."""
        return self.hidden or 4 * shape.channels

    def expand(self, x: Wire) -> Wire:
        """depthwise conv - norm - linear1 - activation - linear2 - (layer scale -) (+ input, + edges)."""
        width = require_map("'convnext'", x.shape).channels
        out = x.conv2d(width, self.kernel_size, groups=width, bias=True, name="conv").to_tokens(name="tokens")
        out = mlp(out.norm("layer", name="norm"), self.hidden_channels(x.shape), self.activation)
        out = out.to_map(name="map").layer_scale(self.layer_scale).drop_path(self.drop_path)
        return out.join("residual", x.shortcut(out, identity_if_same))
