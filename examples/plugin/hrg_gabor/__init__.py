"""A stem modelled on primary visual cortex: wide convolution, rectification, pooling."""

from typing import ClassVar

from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.ops import Count
from hiresnet_graph.wire import Wire


@BLOCKS.register
class GaborStem(Block):
    """A large convolution whose filters may become Gabor-like, norm, rectification and max pooling."""

    kind: ClassVar[str] = "gabor"
    width: Count
    kernel_size: Count = 15

    def expand(self, x: Wire) -> Wire:
        """conv - norm - relu - pool."""
        x = x.conv2d(self.width, self.kernel_size, name="conv").batch_norm("norm").relu()
        return x.max_pool(3, stride=2, padding=1)
