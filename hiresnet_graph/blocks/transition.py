"""Blocks of recurrent graphs: `state` holds a value; `brc2` and `brd2` are transitions between states."""

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
    """A value of a declared shape at which edges merge; it computes nothing.

    Attributes:
        shape: [channels, height, width], or [features].
    """

    kind: ClassVar[str] = "state"
    examples = ({"shape": [8, 7, 9]},)
    shape: tuple[Count, ...]

    @field_validator("shape")
    @classmethod
    def _check(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (1, 3):
            raise ValueError(f"a shape is [channels, height, width] or [features], not {len(value)} numbers.")
        return value

    @property
    def declared(self) -> Shape:
        """The declared shape."""
        return Vector(*self.shape) if len(self.shape) == 1 else Map(*self.shape)

    def expand(self, x: Wire) -> Wire:
        """The value itself."""
        if x.shape != self.declared:
            raise ShapeError(
                f"the state has shape {self.declared}, but its input has {x.shape}.",
                "Change its 'shape', or set a 'projection' or a block on the edge.",
            )
        return x


class TransitionBlock(Block):
    """Norm, activation and convolution, twice; the first convolution changes the size.

    Attributes:
        width: Output channels (default: those of the edge's target; on a node, those of its input).
        hidden: Channels between the convolutions (default: the mean of input and output channels, rounded down).
        identity: Add the input to the result.

    Source: Liao & Poggio 2016, arXiv:1604.03640, for the transition functions; the change of size is our choice.
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

    def expand_to(self, x: Wire, target: Shape | None) -> Wire:
        """The same, to the height, width and channels of the target."""
        source = x.shape
        if not isinstance(source, Map) or not isinstance(target, Map | None):
            raise ShapeError(f"'{self.kind}' connects feature maps.", "Use 'linear' for vectors.")
        width = self.width or (target.channels if target else source.channels)
        hidden = self.hidden or (source.channels + width) // 2
        size = (target.height, target.width) if target else (source.height, source.width)
        out = self._first(x.norm(self.norm, name="norm1").activation(self.activation), hidden, size)
        out = self._second(out.norm(self.norm, name="norm2").activation(self.activation), width)
        if not self.identity:
            return out
        if out.shape != source:
            raise ShapeError(
                f"'identity: true' cannot add the source ({source}) to {out.shape}.", "Remove 'identity' here."
            )
        return out.add(x)

    def _wrong_direction(self, source: Map, size: tuple[int, int], verb: str, other: str, fits: bool) -> ShapeError:
        hint = f"Use '{other}' there." if fits else "Choose sizes of the states that grow or shrink along both axes."
        return ShapeError(f"'{self.kind}' cannot {verb} {source.height}x{source.width} to {size[0]}x{size[1]}.", hint)

    @property
    def _bias(self) -> bool:
        return self.norm == "none"

    def _conv(self, x: Wire, width: int, name: str, stride: tuple[int, int] = (1, 1)) -> Wire:
        return x.conv2d(width, self.kernel_size, stride=stride, bias=self._bias, name=name)

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        """The first convolution, which changes height and width to `size`."""
        raise NotImplementedError

    def _second(self, x: Wire, width: int) -> Wire:
        return self._conv(x, width, "conv2")


@BLOCKS.register
class BRC2Block(TransitionBlock):
    """Batch norm, ReLU and 3x3 convolution, twice; height and width shrink to those of the target, or stay.

    Attributes:
        spatial: How height and width shrink: by the stride of the first convolution, or by pooling before it.
    """

    kind: ClassVar[str] = "brc2"
    examples = (
        {"width": 6, "hidden": 5, "norm": "group"},
        {"identity": True},
        {"width": 12, "norm": "none", "activation": "gelu"},
    )
    spatial: Literal["stride", "avg", "max"] = "stride"

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        source = x.shape
        assert isinstance(source, Map)
        if source[1:] == size:
            return self._conv(x, width, "conv1")
        if size[0] > source.height or size[1] > source.width:
            raise self._wrong_direction(
                source, size, "enlarge", "brd2", size[0] >= source.height and size[1] >= source.width
            )
        if self.spatial != "stride":
            window = (source.height // size[0], source.width // size[1])
            pool = x.max_pool if self.spatial == "max" else x.avg_pool
            out = pool(window, name="pool")
            return self._checked(self._conv(out, width, "conv1"), source, size, "pooling with kernel = stride")
        strides = [-(-before // after) for before, after in zip(source[1:], size, strict=True)]
        return self._checked(self._conv(x, width, "conv1", (strides[0], strides[1])), source, size, "stride")

    def _checked(self, out: Wire, source: Map, size: tuple[int, int], method: str) -> Wire:
        if out.shape[1:] != size:
            raise ShapeError(
                f"no {method} maps {source.height}x{source.width} to {size[0]}x{size[1]}.",
                "Choose sizes of the states that are multiples of each other, or set a 'projection' with "
                "'spatial: adaptive' and a block that keeps the size on the edge.",
            )
        return out


@BLOCKS.register
class BRD2Block(TransitionBlock):
    """Batch norm, ReLU and 3x3 transposed convolution, twice; height and width grow to those of the target.

    Attributes:
        spatial: How height and width grow: by the stride of the first transposed convolution (`deconv`); or by
            interpolation before it, and both convolutions are ordinary ones.
    """

    kind: ClassVar[str] = "brd2"
    examples = (
        {"width": 6, "spatial": "bilinear"},
        {"width": 8, "hidden": 3, "spatial": "nearest", "norm": "group"},
        {"width": 12, "kernel_size": 5, "norm": "none"},
    )
    spatial: Literal["deconv", "nearest", "bilinear"] = "deconv"

    def _first(self, x: Wire, width: int, size: tuple[int, int]) -> Wire:
        source = x.shape
        assert isinstance(source, Map)
        if size[0] < source.height or size[1] < source.width:
            raise self._wrong_direction(
                source, size, "shrink", "brc2", size[0] <= source.height and size[1] <= source.width
            )
        if self.spatial == "nearest" or self.spatial == "bilinear":
            x = x if source[1:] == size else x.resize(size, mode=self.spatial, name="resize")
            return self._conv(x, width, "conv1")
        return self._deconv(x, width, size, "conv1")

    def _second(self, x: Wire, width: int) -> Wire:
        source = x.shape
        assert isinstance(source, Map)
        if self.spatial != "deconv":
            return super()._second(x, width)
        return self._deconv(x, width, (source.height, source.width), "conv2")

    def _deconv(self, x: Wire, width: int, size: tuple[int, int], name: str) -> Wire:
        """A transposed convolution to exactly this size; the kernel is at least as wide as the stride."""
        source = x.shape
        assert isinstance(source, Map)
        kernels, strides, paddings, extras = [], [], [], []
        for before, after in zip(source[1:], size, strict=True):
            stride = -(-after // before)
            kernel = max(self.kernel_size, stride)
            # Without padding, the output has (size - 1) * stride + kernel rows; padding removes the excess.
            over = (before - 1) * stride + kernel - after
            padding = max(0, -(-over // 2))
            extra = 2 * padding - over
            if extra >= stride > 1 or (stride == 1 and extra > 0) or padding >= kernel:
                raise ShapeError(
                    f"no transposed convolution maps {source.height}x{source.width} to {size[0]}x{size[1]}.",
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
