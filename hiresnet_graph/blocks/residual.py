"""Post-activation residual blocks, and the plain block, which has no shortcut."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.blocks.base import BLOCKS, Block, Shortcut
from hiresnet_graph.ops import Count
from hiresnet_graph.projections import StandardProjection
from hiresnet_graph.registry import Examples
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, NormName, Wire


class ResidualBlock(Block):
    """The common fields of residual blocks.

    Class attributes:
        hidden_divisor: The default of `hidden` is `width` divided by this.

    Attributes:
        width: Output channels.
        hidden: Inner channels (default: see each kind).
        groups: Groups of the 3x3 convolutions.
        stride: Stride of the first 3x3 convolution and of the shortcut.
        shortcut: The projection of the block's own shortcut.
    """

    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    hidden_divisor: ClassVar[int] = 1
    width: Count
    hidden: Count | None = None
    groups: Count = 1
    stride: Count = 1
    norm: NormName = "batch"
    activation: ActivationName = "relu"
    shortcut: Shortcut = StandardProjection(spatial="stride")

    @property
    def inner_width(self) -> int:
        """Inner channels."""
        return self.hidden or max(1, self.width // self.hidden_divisor)

    def hidden_channels(self, shape: Shape) -> int:
        """Inner channels."""
        return self.inner_width

    @property
    def hidden_step(self) -> int:
        """The groups of the 3x3 convolutions."""
        return self.groups

    @property
    def _bias(self) -> bool:
        return self.norm == "none"

    def _two_convs(self, x: Wire) -> Wire:
        x = x.conv2d(self.inner_width, 3, stride=self.stride, groups=self.groups, bias=self._bias, name="conv1")
        x = x.norm(self.norm, name="norm1").activation(self.activation)
        x = x.conv2d(self.width, 3, groups=self.groups, bias=self._bias, name="conv2")
        return x.norm(self.norm, name="norm2")

    def _three_convs(self, x: Wire) -> Wire:
        hidden = self.inner_width
        x = x.conv2d(hidden, 1, bias=self._bias, name="conv1")
        x = x.norm(self.norm, name="norm1").activation(self.activation)
        x = x.conv2d(hidden, 3, stride=self.stride, groups=self.groups, bias=self._bias, name="conv2")
        x = x.norm(self.norm, name="norm2").activation(self.activation)
        x = x.conv2d(self.width, 1, bias=self._bias, name="conv3")
        return x.norm(self.norm, name="norm3")


@BLOCKS.register
class PlainBlock(ResidualBlock):
    """Two 3x3 convolutions as in `basic`, without the shortcut (`shortcut` is accepted and ignored).

    Source: He et al. 2016, arXiv:1512.03385 (the plain networks).
    """

    kind: ClassVar[str] = "plain"
    examples = ({"width": 6, "hidden": 5}, {"width": 8, "norm": "layer", "activation": "leaky_relu"})

    def expand(self, x: Wire) -> Wire:
        """conv1 - norm1 - activation - conv2 - norm2 - (edges into `residual`) - activation."""
        return self._two_convs(x).join("residual").activation(self.activation)


@BLOCKS.register
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut; `hidden` defaults to `width`.

    Source: He et al. 2016, arXiv:1512.03385.
    """

    kind: ClassVar[str] = "basic"
    examples: ClassVar[Examples] = (
        {"width": 6, "stride": 2},
        {"width": 8},
        {"width": 8, "shortcut": {"channels": "pad", "norm": "none"}, "norm": "group"},
    )

    def expand(self, x: Wire) -> Wire:
        """conv1 - norm1 - activation - conv2 - norm2 - (+ shortcut, + edges into `residual`) - activation."""
        out = self._two_convs(x)
        return out.join("residual", x.shortcut(out, self.shortcut.project)).activation(self.activation)


@BLOCKS.register
class ResNeXtBlock(BasicBlock):
    """A basic block with grouped 3x3 convolutions (default: 4 groups).

    Source: the cardinality 4 of López & Triesch 2025; grouped residual blocks: Xie et al. 2017, arXiv:1611.05431.
    """

    kind: ClassVar[str] = "resnext"
    examples = ({"width": 8, "stride": 2}, {"width": 8})
    groups: Count = 4


@BLOCKS.register
class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; `hidden` defaults to `width` / 4.

    The 3x3 convolution has the stride, as in torchvision ("ResNet v1.5").
    Source: He et al. 2016, arXiv:1512.03385.
    """

    kind: ClassVar[str] = "bottleneck"
    hidden_divisor: ClassVar[int] = 4
    examples: ClassVar[Examples] = ({"width": 8, "stride": 2}, {"width": 16, "stride": 2, "hidden": 3})

    def expand(self, x: Wire) -> Wire:
        """Three convolutions with norms - (+ shortcut, + edges into `residual`) - activation."""
        out = self._three_convs(x)
        return out.join("residual", x.shortcut(out, self.shortcut.project)).activation(self.activation)


@BLOCKS.register
class ResNeXtBottleneckBlock(BottleneckBlock):
    """A bottleneck with a grouped 3x3 convolution (default: 32 groups); `hidden` defaults to `width` / 2.

    Source: Xie et al. 2017, arXiv:1611.05431 (32x4d at the widths of ResNet-50).
    """

    kind: ClassVar[str] = "resnext_bottleneck"
    hidden_divisor: ClassVar[int] = 2
    examples = ({"width": 64}, {"width": 8, "groups": 4}, {"width": 16, "stride": 2, "groups": 2})
    groups: Count = 32
