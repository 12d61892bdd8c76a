"""Blocks that change height and width: `pool` and `upsample`; and `identity`, which changes nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import Count, Padding, Pair
from hiresnet_graph.shapes import Map
from hiresnet_graph.wire import Wire


@BLOCKS.register
class IdentityBlock(Block):
    """Its input: a place where edges merge."""

    kind: ClassVar[str] = "identity"

    def expand(self, x: Wire) -> Wire:
        """The value itself."""
        return x


@BLOCKS.register
class PoolBlock(Block):
    """Pooling: the maximum or the mean of each window; or means over exactly `size` windows with `adaptive`.

    Attributes:
        stride: Without it, 1 where there is padding (height and width are kept), otherwise the kernel size.
    """

    kind: ClassVar[str] = "pool"
    pool: Literal["max", "avg", "adaptive"] = "max"
    kernel_size: Pair = 2
    stride: Pair | None = None
    padding: Padding | tuple[Padding, Padding] = 0
    ceil_mode: bool = False
    size: Pair | None = None

    @model_validator(mode="after")
    def _check(self) -> PoolBlock:
        if (self.pool == "adaptive") != (self.size is not None):
            raise ValueError("'size' goes with 'pool: adaptive', and 'adaptive' needs it.")
        if self.pool == "adaptive" and self.model_fields_set & {"kernel_size", "stride", "padding", "ceil_mode"}:
            raise ValueError("'pool: adaptive' takes 'size' alone.")
        return self

    def expand(self, x: Wire) -> Wire:
        """One pooling operation."""
        if self.size is not None:
            return x.adaptive_avg_pool(self.size, name="pool")
        pool = x.max_pool if self.pool == "max" else x.avg_pool
        stride = self.stride if self.stride is not None or self.padding in (0, (0, 0)) else 1
        return pool(self.kernel_size, stride=stride, padding=self.padding, ceil_mode=self.ceil_mode, name="pool")


@BLOCKS.register
class UpsampleBlock(Block):
    """Height and width times `scale`: by interpolation, or by a transposed convolution (`deconv`) to `width` channels.

    Without `width`, a transposed convolution keeps the number of channels.
    """

    kind: ClassVar[str] = "upsample"
    mode: Literal["nearest", "bilinear", "deconv"] = "nearest"
    scale: Count = 2
    width: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> UpsampleBlock:
        if self.width is not None and self.mode != "deconv":
            raise ValueError("'width' goes with 'mode: deconv'; interpolation keeps the channels.")
        return self

    def expand(self, x: Wire) -> Wire:
        """One operation."""
        if self.mode == "deconv":
            return x.conv_transpose2d(self.width or x.channels, self.scale, stride=self.scale, name="deconv")
        if not isinstance(x.shape, Map):
            raise ShapeError(f"'upsample' wants a feature map, but gets a vector of {x.shape}.", "Put it earlier.")
        return x.resize((x.shape.height * self.scale, x.shape.width * self.scale), mode=self.mode, name="resize")
