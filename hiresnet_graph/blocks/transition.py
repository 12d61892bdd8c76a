"""Blocks of recurrent graphs: `state` holds a value, `brc2` and `brd2` lead from one state to another."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import field_validator

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import Count
from hiresnet_graph.shapes import Map, Shape, Vector
from hiresnet_graph.wire import ActivationName, NormName, Wire


@BLOCKS.register
class StateBlock(Block):
    """A place of a declared shape where values merge, and from which others start: no computation of its own.

    Attributes:
        shape: [channels, height, width], or [features].
    """

    kind: ClassVar[str] = "state"
    shape: tuple[Count, ...]

    @field_validator("shape")
    @classmethod
    def _check(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (1, 3):
            raise ValueError(f"a shape is [channels, height, width] or [features], this has {len(value)} numbers.")
        return value

    @property
    def declared(self) -> Shape:
        """The declared shape."""
        return Vector(*self.shape) if len(self.shape) == 1 else Map(*self.shape)

    def expand(self, x: Wire) -> Wire:
        """The value itself."""
        if x.shape != self.declared:
            raise ShapeError(
                f"the state has the shape {self.declared}, but {x.shape} arrives.",
                "Change its 'shape', or give the edge a 'projection' or a block.",
            )
        return x


class TransitionBlock(Block):
    """Norm, activation and convolution, twice; the first one changes the size.

    Attributes:
        width: Output channels; those of the edge's target unless given (on a node: those of its input).
        hidden: Channels between the convolutions; the mean of input and output unless given, rounded down.
        identity: The input is added to the result.

    Source: Liao & Poggio 2016, arXiv:1604.03640 (the transition functions); how sizes change is chosen by us.
    """

    width: Count | None = None
    hidden: Count | None = None
    kernel_size: Count = 3
    norm: NormName = "batch"
    activation: ActivationName = "relu"
    identity: bool = False

    def expand(self, x: Wire) -> Wire:
        """norm1 - activation - conv1 - norm2 - activation - conv2 (+ the input)."""
        return self.expand_to(x, None)

    def expand_to(self, x: Wire, want: Shape | None) -> Wire:
        """The same to the size and the channels that are wanted."""
        have = x.shape
        if not isinstance(have, Map) or not isinstance(want, Map | None):
            raise ShapeError(f"'{self.kind}' leads from feature map to feature map.", "Use 'linear' for vectors.")
        width = self.width or (want.channels if want else have.channels)
        hidden = self.hidden or (have.channels + width) // 2
        size = (want.height, want.width) if want else (have.height, have.width)
        out = self._first(x.norm(self.norm, name="norm1").activation(self.activation), hidden, size)
        out = self._second(out.norm(self.norm, name="norm2").activation(self.activation), width)
        if not self.identity:
            return out
        if out.shape != have:
            raise ShapeError(
                f"'identity: true' adds the source, which is {have}, to {out.shape}.", "Leave 'identity' out here."
            )
        return out.add(x)

    def _other_way(self, have: Map, size: tuple[int, int], what: str, other: str, fits: bool) -> ShapeError:
        hint = f"Use '{other}' there." if fits else "Give the states sizes that grow or shrink in both directions."
        return ShapeError(f"'{self.kind}' cannot {what} {have.height}x{have.width} to {size[0]}x{size[1]}.", hint)

    @property
    def _bias(self) -> bool:
        return self.norm == "none"

    def _conv(self, x: Wire, width: int, name: str, stride: tuple[int, int] = (1, 1)) -> Wire:
        return x.conv2d(width, self.kernel_size, stride=stride, bias=self._bias, name=name)

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        """The first convolution, which brings height and width to `size`."""
        raise NotImplementedError

    def _second(self, x: Wire, width: int) -> Wire:
        return self._conv(x, width, "conv2")


@BLOCKS.register
class BRC2Block(TransitionBlock):
    """Batch norm, ReLU and 3x3 convolution, twice; height and width stay or shrink to the target's.

    Attributes:
        spatial: How they shrink: by the stride of the first convolution, or by pooling before it.
    """

    kind: ClassVar[str] = "brc2"
    spatial: Literal["stride", "avg", "max"] = "stride"

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        have = x.shape
        assert isinstance(have, Map)
        if have[1:] == size:
            return self._conv(x, width, "conv1")
        if size[0] > have.height or size[1] > have.width:
            raise self._other_way(have, size, "enlarge", "brd2", size[0] >= have.height and size[1] >= have.width)
        if self.spatial != "stride":
            window = (have.height // size[0], have.width // size[1])
            pool = x.max_pool if self.spatial == "max" else x.avg_pool
            out = pool(window, name="pool")
            return self._reached(self._conv(out, width, "conv1"), have, size, "pooling with kernel = stride")
        strides = [-(-source // target) for source, target in zip(have[1:], size, strict=True)]
        return self._reached(self._conv(x, width, "conv1", (strides[0], strides[1])), have, size, "stride")

    def _reached(self, out: Wire, have: Map, size: tuple[int, int], means: str) -> Wire:
        if out.shape[1:] != size:
            raise ShapeError(
                f"no {means} takes {have.height}x{have.width} to {size[0]}x{size[1]}.",
                "Give the states sizes that are multiples of each other, or the edge a 'projection' with "
                "'spatial: adaptive' and a block without a change of size.",
            )
        return out


@BLOCKS.register
class BRD2Block(TransitionBlock):
    """Batch norm, ReLU and 3x3 transposed convolution ("deconvolution"), twice; height and width grow to the target's.

    Attributes:
        spatial: How they grow: by the stride of the first transposed convolution; or by interpolation before it, and
            then both are plain convolutions.
    """

    kind: ClassVar[str] = "brd2"
    spatial: Literal["deconv", "nearest", "bilinear"] = "deconv"

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        have = x.shape
        assert isinstance(have, Map)
        if size[0] < have.height or size[1] < have.width:
            raise self._other_way(have, size, "shrink", "brc2", size[0] <= have.height and size[1] <= have.width)
        if self.spatial == "nearest" or self.spatial == "bilinear":
            x = x if have[1:] == size else x.resize(size, mode=self.spatial, name="resize")
            return self._conv(x, width, "conv1")
        return self._deconv(x, width, size, "conv1")

    def _second(self, x: Wire, width: int) -> Wire:
        have = x.shape
        assert isinstance(have, Map)
        if self.spatial != "deconv":
            return super()._second(x, width)
        return self._deconv(x, width, (have.height, have.width), "conv2")

    def _deconv(self, x: Wire, width: int, size: tuple[int, int], name: str) -> Wire:
        """A transposed convolution to exactly this size; where the stride exceeds the kernel, the kernel is as wide."""
        have = x.shape
        assert isinstance(have, Map)
        kernels, strides, paddings, extras = [], [], [], []
        for source, target in zip(have[1:], size, strict=True):
            stride = -(-target // source)
            kernel = max(self.kernel_size, stride)
            # source * stride - stride + kernel is what comes out without padding; as much as is too much is cut off.
            over = (source - 1) * stride + kernel - target
            padding = max(0, -(-over // 2))
            extra = 2 * padding - over
            if extra >= stride > 1 or (stride == 1 and extra > 0) or padding >= kernel:
                raise ShapeError(
                    f"no transposed convolution takes {have.height}x{have.width} to {size[0]}x{size[1]}.",
                    "Set 'spatial: bilinear' or 'nearest'.",
                )
            kernels.append(kernel)
            strides.append(stride)
            paddings.append(padding)
            extras.append(extra)
        return x.conv_transpose2d(
            width,
            (kernels[0], kernels[1]),
            stride=(strides[0], strides[1]),
            padding=(paddings[0], paddings[1]),
            output_padding=(extras[0], extras[1]),
            bias=self._bias,
            name=name,
        )
