"""Blocks that change height and width, `pool` and `upsample`; and `identity`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.ops import Count, PaddingPair, Pair, require_map
from hiresnet_graph.wire import Wire


@BLOCKS.register
class IdentityBlock(Block):
    """The identity, for example to merge edges."""

    kind: ClassVar[str] = "identity"

    def expand(self, x: Wire) -> Wire:
        """The value itself."""
        return x


@BLOCKS.register
class PoolBlock(Block):
    """Pooling: the maximum or mean of each window; with `adaptive`, means over windows that give `size` outputs.

    Attributes:
        pool: The maximum (`max`) or the mean (`avg`) of each window, or means over windows that give `size` outputs.
        stride: Default: 1 with padding (which keeps height and width), otherwise the kernel size.
        ceil_mode: Round height and width up instead of down.
        count_include_pad: Whether the zeros of the padding count in means.
        size: Height and width of the output of `adaptive`.
    """

    kind: ClassVar[str] = "pool"
    examples = (
        {"pool": "max", "kernel_size": 3, "padding": 1, "stride": 2},
        {"pool": "avg", "kernel_size": 3, "ceil_mode": True},
        {"pool": "avg", "kernel_size": 3, "padding": 1, "count_include_pad": False},
        {"pool": "adaptive", "size": [3, 2]},
        {},
    )
    pool: Literal["max", "avg", "adaptive"] = "max"
    kernel_size: Pair = 2
    stride: Pair | None = None
    padding: PaddingPair = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    size: Pair | None = None

    @model_validator(mode="after")
    def _check(self) -> PoolBlock:
        if (self.pool == "adaptive") != (self.size is not None):
            raise ValueError("'pool: adaptive' requires 'size', and 'size' requires 'pool: adaptive'.")
        if self.pool == "adaptive" and self.model_fields_set - {"pool", "size"}:
            raise ValueError("'pool: adaptive' has no other field than 'size'.")
        if self.pool == "max" and not self.count_include_pad:
            raise ValueError("'count_include_pad' requires 'pool: avg'; a maximum does not depend on the padding.")
        return self

    def expand(self, x: Wire) -> Wire:
        """One pooling operation."""
        if self.size is not None:
            return x.adaptive_avg_pool(self.size, name="pool")
        stride = self.stride if self.stride is not None or self.padding in (0, (0, 0)) else 1
        if self.pool == "max":
            return x.max_pool(
                self.kernel_size, stride=stride, padding=self.padding, ceil_mode=self.ceil_mode, name="pool"
            )
        return x.avg_pool(
            self.kernel_size,
            stride=stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            name="pool",
        )


@BLOCKS.register
class UpsampleBlock(Block):
    """Multiplies height and width by `scale`, by interpolation or by a transposed convolution (`deconv`).

    Attributes:
        mode: Interpolation (`nearest`, `bilinear`), or a transposed convolution (`deconv`).
        scale: Factor of height and width.
        width: Output channels of a transposed convolution (default: those of the input).
    """

    kind: ClassVar[str] = "upsample"
    examples = ({"mode": "bilinear", "scale": 3}, {"mode": "deconv", "width": 4}, {})
    mode: Literal["nearest", "bilinear", "deconv"] = "nearest"
    scale: Count = 2
    width: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> UpsampleBlock:
        if self.width is not None and self.mode != "deconv":
            raise ValueError("'width' requires 'mode: deconv'; interpolation keeps the channels.")
        return self

    def expand(self, x: Wire) -> Wire:
        """One operation."""
        if self.mode == "deconv":
            return x.conv_transpose2d(self.width or x.channels, self.scale, stride=self.scale, name="deconv")
        shape = require_map("'upsample'", x.shape)
        return x.resize((shape.height * self.scale, shape.width * self.scale), mode=self.mode, name="resize")
