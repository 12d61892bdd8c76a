"""Blocks of recurrent graphs: `state` holds a value; `brc2` and `brd2` are transitions between states."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import field_validator

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import Count, size_label, transposed_geometry
from hiresnet_graph.shapes import Map, Shape, shape_of
from hiresnet_graph.wire import ActivationName, NormName, Wire

Size = tuple[int, int]
"""Height and width."""


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
        shape_of(value)
        return value

    @property
    def declared(self) -> Shape:
        """The declared shape."""
        return shape_of(self.shape)

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
        size = (target or source).spatial
        out = self._first(x.norm(self.norm, name="norm1").activation(self.activation), hidden, source.spatial, size)
        out = self._second(out.norm(self.norm, name="norm2").activation(self.activation), width, size)
        if not self.identity:
            return out
        if out.shape != source:
            raise ShapeError(
                f"'identity: true' cannot add the source ({source}) to {out.shape}.", "Remove 'identity' here."
            )
        return out.add(x)

    def _wrong_direction(self, source: Size, size: Size, verb: str, other: str) -> ShapeError:
        """The error for a target that is larger, or smaller, than this block can reach; `other` is its counterpart."""
        signs = {(after > before) - (after < before) for before, after in zip(source, size, strict=True)}
        hint = "Choose sizes of the states that grow or shrink along both axes."
        hint = hint if {1, -1} <= signs else f"Use '{other}' there."
        return ShapeError(f"'{self.kind}' cannot {verb} {size_label(source)} to {size_label(size)}.", hint)

    @property
    def _bias(self) -> bool:
        return self.norm == "none"

    def _conv(self, x: Wire, width: int, name: str, stride: tuple[int, int] = (1, 1)) -> Wire:
        return x.conv2d(width, self.kernel_size, stride=stride, bias=self._bias, name=name)

    @abstractmethod
    def _first(self, x: Wire, width: int, source: Size, size: Size) -> Wire:
        """The first convolution, which changes height and width from `source` to `size`."""

    def _second(self, x: Wire, width: int, size: Size) -> Wire:
        """The second convolution, which keeps height and width."""
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

    def _first(self, x: Wire, width: int, source: Size, size: Size) -> Wire:
        if source == size:
            return self._conv(x, width, "conv1")
        if size[0] > source[0] or size[1] > source[1]:
            raise self._wrong_direction(source, size, "enlarge", "brd2")
        if self.spatial == "stride":
            stride = -(-source[0] // size[0]), -(-source[1] // size[1])
            method, out = "stride", self._conv(x, width, "conv1", stride)
        else:
            pool = x.max_pool if self.spatial == "max" else x.avg_pool
            pooled = pool((source[0] // size[0], source[1] // size[1]), name="pool")
            method, out = "pooling with kernel = stride", self._conv(pooled, width, "conv1")
        if out.shape.spatial != size:
            raise ShapeError(
                f"no {method} maps {size_label(source)} to {size_label(size)}.",
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

    def _first(self, x: Wire, width: int, source: Size, size: Size) -> Wire:
        if size[0] < source[0] or size[1] < source[1]:
            raise self._wrong_direction(source, size, "shrink", "brc2")
        if self.spatial == "deconv":
            return self._deconv(x, width, source, size, "conv1")
        x = x if source == size else x.resize(size, mode=self.spatial, name="resize")
        return self._conv(x, width, "conv1")

    def _second(self, x: Wire, width: int, size: Size) -> Wire:
        if self.spatial == "deconv":
            return self._deconv(x, width, size, size, "conv2")
        return super()._second(x, width, size)

    def _deconv(self, x: Wire, width: int, source: Size, size: Size, name: str) -> Wire:
        """A transposed convolution to exactly this size; the kernel is at least as wide as the stride."""
        geometry = transposed_geometry(source, size, self.kernel_size)
        if geometry is None:
            raise ShapeError(
                f"no transposed convolution maps {size_label(source)} to {size_label(size)}.",
                "Set 'spatial: bilinear' or 'nearest'.",
            )
        return x.conv_transpose2d(width, bias=self._bias, name=name, **geometry._asdict())
