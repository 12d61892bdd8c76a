"""Pre-activation residual blocks: norm and activation precede each convolution."""

from __future__ import annotations

from typing import ClassVar

from hiresnet_graph.blocks.base import BLOCKS, PreactShortcut
from hiresnet_graph.blocks.residual import ResidualBlock
from hiresnet_graph.projections import StandardProjection
from hiresnet_graph.wire import Wire


class PreactBlock(ResidualBlock):
    """A pre-activation block; a shortcut with a projection starts after the first activation."""

    shortcut: PreactShortcut = StandardProjection(spatial="stride", norm="none", bias=False)

    def _close(self, x: Wire, active: Wire, out: Wire) -> Wire:
        projects = out.shape != x.shape or getattr(self.shortcut, "when", "mismatch") == "always"
        return out.join("residual", (active if projects else x).shortcut(out, self.shortcut.project))


@BLOCKS.register
class PreactBasicBlock(PreactBlock):
    """Norm, activation and 3x3 convolution, twice; and a shortcut.

    A shortcut with a projection starts after the first activation, another one at the input, as in their code.
    Source: He et al. 2016, arXiv:1603.05027.
    """

    kind: ClassVar[str] = "preact_basic"
    examples = ({"width": 6, "stride": 2}, {"width": 8})

    def expand(self, x: Wire) -> Wire:
        """norm1 - activation - conv1 - norm2 - activation - conv2 - (+ shortcut, + edges into `residual`)."""
        active = x.norm(self.norm, name="norm1").activation(self.activation)
        out = active.conv2d(self.inner_width, 3, stride=self.stride, groups=self.groups, bias=self._bias, name="conv1")
        out = out.norm(self.norm, name="norm2").activation(self.activation)
        out = out.conv2d(self.width, 3, groups=self.groups, bias=self._bias, name="conv2")
        return self._close(x, active, out)


@BLOCKS.register
class PreactBottleneckBlock(PreactBlock):
    """Norm, activation and convolution, three times (1x1, 3x3, 1x1); and a shortcut. `hidden` defaults to `width` / 4.

    A shortcut with a projection starts after the first activation, another one at the input, as in their code.
    Source: He et al. 2016, arXiv:1603.05027; the stride is that of the 3x3 convolution.
    """

    kind: ClassVar[str] = "preact_bottleneck"
    hidden_divisor: ClassVar[int] = 4
    examples = ({"width": 8}, {"width": 12, "stride": 2})

    def expand(self, x: Wire) -> Wire:
        """Three pre-activated convolutions - (+ shortcut, + edges into `residual`)."""
        hidden = self.inner_width
        active = x.norm(self.norm, name="norm1").activation(self.activation)
        out = active.conv2d(hidden, 1, bias=self._bias, name="conv1")
        out = out.norm(self.norm, name="norm2").activation(self.activation)
        out = out.conv2d(hidden, 3, stride=self.stride, groups=self.groups, bias=self._bias, name="conv2")
        out = out.norm(self.norm, name="norm3").activation(self.activation)
        out = out.conv2d(self.width, 1, bias=self._bias, name="conv3")
        return self._close(x, active, out)
