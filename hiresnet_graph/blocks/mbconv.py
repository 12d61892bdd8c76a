"""Blocks of mobile networks: `mbconv` and `squeeze_excite`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block, identity_if_same
from hiresnet_graph.ops import Count
from hiresnet_graph.wire import ActivationName, Wire


def squeeze_excite(x: Wire, hidden: int, activation: ActivationName, gate: ActivationName = "sigmoid") -> Wire:
    """The value with each channel weighted by a small network of the channel means."""
    weight = x.adaptive_avg_pool(1).conv2d(hidden, 1, bias=True, name="reduce").activation(activation)
    return x.multiply(weight.conv2d(x.channels, 1, bias=True, name="expand").activation(gate))


@BLOCKS.register
class SqueezeExciteBlock(Block):
    """Squeeze-and-excitation: each channel is weighted by sigmoid(W2 act(W1 mean)).

    Attributes:
        reduction: The hidden channels are the channels divided by this, at least 1.
        hidden: Hidden channels (default: as `reduction` gives them).
        gate: The function in place of the sigmoid.

    Source: Hu et al. 2018, arXiv:1709.01507.
    """

    kind: ClassVar[str] = "squeeze_excite"
    examples = ({"reduction": 2, "activation": "silu"}, {"hidden": 3, "gate": "hardsigmoid"}, {})
    reduction: Count = 16
    hidden: Count | None = None
    activation: ActivationName = "relu"
    gate: ActivationName = "sigmoid"

    def expand(self, x: Wire) -> Wire:
        """global pool - 1x1 conv - activation - 1x1 conv - sigmoid - product."""
        return squeeze_excite(x, self.hidden or max(1, x.channels // self.reduction), self.activation, self.gate)


@BLOCKS.register
class MBConvBlock(Block):
    """An inverted residual: 1x1 convolution, depthwise convolution, optional squeeze-excite, 1x1 convolution.

    The input is added if its shape equals that of the output.

    Attributes:
        expansion: Ratio of inner channels to input channels; 1 omits the first convolution.
        squeeze: Ratio of the hidden channels of squeeze-excite to input channels; 0 for no squeeze-excite.
        drop_path: Probability of stochastic depth, where the input is added.

    Source: Sandler et al. 2018 (MobileNetV2), arXiv:1801.04381; Tan & Le 2019 for `squeeze` and `drop_path`,
    arXiv:1905.11946.
    """

    kind: ClassVar[str] = "mbconv"
    examples = (
        {"width": 4, "squeeze": 0.5},
        {"width": 8, "stride": 2, "kernel_size": 5},
        {"width": 8, "expansion": 1, "drop_path": 0.2},
    )
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")
    width: Count
    expansion: Annotated[float, Field(gt=0, le=64)] = 6
    kernel_size: Count = 3
    stride: Count = 1
    squeeze: Annotated[float, Field(ge=0, le=1)] = 0
    activation: ActivationName = "relu6"
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0

    def expand(self, x: Wire) -> Wire:
        """(expand - ) depthwise ( - squeeze-excite) - project ( - drop path + input)."""
        inner = max(1, round(x.channels * self.expansion))
        out = x
        if inner != x.channels:
            out = out.conv2d(inner, 1, name="expand").batch_norm("norm1").activation(self.activation)
        out = out.conv2d(inner, self.kernel_size, stride=self.stride, groups=inner, name="depthwise")
        out = out.batch_norm("norm2").activation(self.activation)
        if self.squeeze:
            hidden = max(1, round(x.channels * self.squeeze))
            out = squeeze_excite(out.within("squeeze"), hidden, self.activation)
            out = out.rescoped(x)
        out = out.conv2d(self.width, 1, name="project").batch_norm("norm3")
        if out.shape != x.shape:
            return out.join("residual")
        out = out.drop_path(self.drop_path)
        return out.join("residual", x.shortcut(out, identity_if_same))
