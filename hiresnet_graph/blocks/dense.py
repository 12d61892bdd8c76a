"""The layer of a densely connected network, `dense_layer`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.ops import Count
from hiresnet_graph.wire import Wire


@BLOCKS.register
class DenseLayerBlock(Block):
    """`growth` new channels, computed from the input and concatenated to it.

    Attributes:
        growth: Number of new channels.
        bottleneck: Channels of the 1x1 convolution before the 3x3, in multiples of `growth`; 0 omits it.
        dropout: Dropout probability of the new channels.

    Source: Huang et al. 2017, arXiv:1608.06993.
    """

    kind: ClassVar[str] = "dense_layer"
    examples = ({"growth": 3, "dropout": 0.1}, {"growth": 4, "bottleneck": 0})
    growth: Count
    bottleneck: Annotated[int, Field(ge=0, le=1000, strict=True)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0

    def expand(self, x: Wire) -> Wire:
        """norm - relu - (1x1 conv - norm - relu -) 3x3 conv (- dropout) - concatenation to the input."""
        new = x.batch_norm("norm1").relu()
        if self.bottleneck:
            new = new.conv2d(self.bottleneck * self.growth, 1, name="conv1").batch_norm("norm2").relu()
            new = new.conv2d(self.growth, 3, name="conv2")
        else:
            new = new.conv2d(self.growth, 3, name="conv1")
        return x.concat(new.dropout(self.dropout))
