"""Convolutional blocks without a shortcut: `conv` and `separable_conv`."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.ops import Count, PaddingPair, Pair
from hiresnet_graph.wire import ActivationName, NormName, Wire


@BLOCKS.register
class ConvBlock(Block):
    """A convolution, a norm and an activation; odd kernels keep height and width at stride 1.

    Attributes:
        bias: Whether the convolution has a bias (default: only without norm).
    """

    kind: ClassVar[str] = "conv"
    examples = (
        {"width": 6, "kernel_size": 5, "stride": 2, "norm": "group", "activation": "gelu"},
        {"width": 4, "kernel_size": [1, 3], "norm": "none"},
        {"width": 8, "groups": 8},
    )
    width: Count
    kernel_size: Pair = 3
    stride: Pair = 1
    padding: PaddingPair | None = None
    dilation: Pair = 1
    groups: Count = 1
    bias: bool | None = None
    norm: NormName = "batch"
    activation: ActivationName = "relu"

    def expand(self, x: Wire) -> Wire:
        """conv - norm - activation."""
        x = x.conv2d(
            self.width,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.norm == "none" if self.bias is None else self.bias,
            name="conv",
        )
        return x.norm(self.norm, name="norm").activation(self.activation)


@BLOCKS.register
class SeparableConvBlock(Block):
    """A depthwise convolution and a 1x1 convolution, each with norm and activation.

    Source: Howard et al. 2017 (MobileNet), arXiv:1704.04861.
    """

    kind: ClassVar[str] = "separable_conv"
    examples = ({"width": 6, "stride": 2}, {"width": 12, "norm": "none"})
    width: Count
    kernel_size: Pair = 3
    stride: Pair = 1
    norm: NormName = "batch"
    activation: ActivationName = "relu"

    def expand(self, x: Wire) -> Wire:
        """depthwise conv - norm - activation - 1x1 conv - norm - activation."""
        bias = self.norm == "none"
        x = x.conv2d(x.channels, self.kernel_size, stride=self.stride, groups=x.channels, bias=bias, name="depthwise")
        x = x.norm(self.norm, name="norm1").activation(self.activation)
        x = x.conv2d(self.width, 1, bias=bias, name="pointwise")
        return x.norm(self.norm, name="norm2").activation(self.activation)
