"""Operations without weights that change height and width: pooling, subsampling, resizing, flattening."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Op,
    PaddingPair,
    Pair,
    SavedValues,
    Saves,
    Signature,
    compact,
    pair,
    require_map,
    size_label,
    stride_label,
)
from hiresnet_graph.shapes import Map, Shape, Vector

_POOL = Signature(
    "input kernel_size",
    roles={"kernel_size": "pool_size", "stride": "pool_stride", "padding": "pool_padding"},
    stride=None,
    padding=0,
    ceil_mode=False,
)
_AVG_POOL = Signature(
    "input kernel_size",
    roles={"kernel_size": "pool_size", "stride": "pool_stride", "padding": "pool_padding"},
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
)
_ADAPTIVE_POOL = Signature("input size")


class Pool(Op):
    """A sliding window over a feature map; the default stride is the kernel size.

    Attributes:
        ceil_mode: Round height and width up instead of down.
    """

    part: ClassVar[str] = "pool"
    channelwise: ClassVar[bool] = True
    keeps_precision: ClassVar[bool] = True
    counts_activations: ClassVar[bool] = True
    kernel_size: Pair
    stride: Pair | None = None
    padding: PaddingPair = 0
    ceil_mode: bool = False

    def _stride(self) -> tuple[int, int]:
        return pair(self.kernel_size if self.stride is None else self.stride)

    def canonical(self, *inputs: Shape) -> Self:
        """Without a stride that is the kernel size."""
        return self.changed({"stride": None}) if self._stride() == pair(self.kernel_size) else self

    def shape(self, *inputs: Shape) -> Map:
        """Height and width: (size + 2 padding - kernel) / stride + 1, rounded down, or up with `ceil_mode`.

        With `ceil_mode`, windows that would start in the right padding are omitted, as in torch.
        """
        x = require_map("Pooling", inputs[0])
        sizes = []
        for size, kernel, stride, padding in zip(
            x.spatial, pair(self.kernel_size), self._stride(), pair(self.padding), strict=True
        ):
            if 2 * padding > kernel:
                raise ShapeError(f"Padding {padding} is more than half of the kernel {kernel}.", "Use less padding.")
            span = size + 2 * padding - kernel
            out = (span + (stride - 1 if self.ceil_mode else 0)) // stride + 1
            if self.ceil_mode and (out - 1) * stride >= size + padding:
                out -= 1
            if out < 1 or (span < 0 and not self.ceil_mode):
                raise ShapeError(
                    f"A {kernel}-wide window does not fit into {x}.", "Use a larger input or a smaller window."
                )
            sizes.append(out)
        return Map(x.channels, *sizes)

    def _geometry(self) -> dict[str, object]:
        stride = None if self._stride() == pair(self.kernel_size) else compact(self._stride())
        return {"stride": stride, "padding": compact(self.padding), "ceil_mode": self.ceil_mode}

    def label(self, *, brief: bool = False) -> str:
        """Window and kind."""
        return self.short_name if brief else f"{size_label(self.kernel_size)} {self.short_name}"


@OPS.register
class MaxPool(Pool):
    """The maximum of each window."""

    kind: ClassVar[str] = "max_pool"
    examples = ({"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "ceil_mode": True})
    short_name: ClassVar[str] = "max pool"

    def saved(self, *inputs: Shape) -> SavedValues:
        """The operand, and the position of each maximum."""
        return SavedValues((0,), size_bytes=8 * self.shape(*inputs).elements)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.max_pool2d`."""
        kwargs = _POOL.kwargs(**self._geometry())
        return Apply("torch.nn.functional.max_pool2d", (Arg(0), compact(self.kernel_size)), kwargs, _POOL)


@OPS.register
class AvgPool(Pool):
    """The mean of each window.

    Attributes:
        count_include_pad: Whether the zeros of the padding count as values of the window.
    """

    kind: ClassVar[str] = "avg_pool"
    is_affine: ClassVar[bool] = True
    examples = (
        {"kernel_size": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
    )
    short_name: ClassVar[str] = "avg pool"
    count_include_pad: bool = True

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.avg_pool2d`."""
        kwargs = _AVG_POOL.kwargs(**self._geometry(), count_include_pad=self.count_include_pad)
        return Apply("torch.nn.functional.avg_pool2d", (Arg(0), compact(self.kernel_size)), kwargs, _AVG_POOL)


@OPS.register
class AdaptiveAvgPool(Op):
    """Means over windows that give exactly `size` outputs; size 1 is global average pooling."""

    kind: ClassVar[str] = "adaptive_avg_pool"
    keeps_precision: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    examples = ({"size": [2, 3]}, {"size": 2})
    part: ClassVar[str] = "pool"
    channelwise: ClassVar[bool] = True
    size: Pair = 1

    def shape(self, *inputs: Shape) -> Map:
        """Height and width as requested."""
        return Map(require_map("Pooling", inputs[0]).channels, *pair(self.size))

    def saved(self, *inputs: Shape) -> SavedValues:
        """Nothing for the global mean, otherwise the operand."""
        return SavedValues() if self.size == 1 else SavedValues(operands=(0,))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.adaptive_avg_pool2d`."""
        return Apply("torch.nn.functional.adaptive_avg_pool2d", (Arg(0), compact(self.size)), signature=_ADAPTIVE_POOL)

    def label(self, *, brief: bool = False) -> str:
        """The output size."""
        return "global avg pool" if self.size == 1 else f"avg pool to {size_label(self.size)}"


@OPS.register
class Subsample(Op):
    """Every `stride`-th row and column (He et al. 2016, shortcut option A).

    Attributes:
        start: The first row and column.
    """

    kind: ClassVar[str] = "subsample"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    examples = ({"stride": [2, 1]}, {"stride": 2, "start": 1})
    channelwise: ClassVar[bool] = True
    stride: Pair = 2
    start: PaddingPair = 0

    def shape(self, *inputs: Shape) -> Map:
        """Height and width after the first row and column, divided by the stride, rounded up."""
        x = require_map("Subsampling", inputs[0])
        sizes = []
        for size, start, stride in zip(x.spatial, pair(self.start), pair(self.stride), strict=True):
            if start >= size:
                raise ShapeError(f"Row or column {start} is out of range for {x}.", f"Use a 'start' below {size}.")
            sizes.append(-(-(size - start) // stride))
        return Map(x.channels, *sizes)

    def apply(self, *inputs: Shape) -> Apply:
        """A slice with steps."""
        every = slice(None)
        rows, columns = (
            slice(start or None, None, stride)
            for start, stride in zip(pair(self.start), pair(self.stride), strict=True)
        )
        return Apply("operator.getitem", (Arg(0), (every, every, rows, columns)))

    def label(self, *, brief: bool = False) -> str:
        """The stride."""
        return f"subsample{stride_label(self.stride)}"


@OPS.register
class Resize(Op):
    """Interpolation of height and width by the factor `scale`, or to `size`.

    Attributes:
        mode: The nearest pixel, or bilinear interpolation.
        scale: Factor of height and width.
    """

    kind: ClassVar[str] = "resize"
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    examples = ({"size": [5, 12], "mode": "bilinear"}, {"scale": 2})
    mode: Literal["nearest", "bilinear"] = "nearest"
    scale: Count | None = None
    size: Pair | None = None

    def shape(self, *inputs: Shape) -> Map:
        """Height and width as requested."""
        x = require_map("Resizing", inputs[0])
        if (self.scale is None) == (self.size is None):
            raise ShapeError("Resizing requires either 'scale' or 'size'.", "Set one of them.")
        if self.size is not None:
            return Map(x.channels, *pair(self.size))
        assert self.scale is not None
        return Map(x.channels, x.height * self.scale, x.width * self.scale)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.interpolate`, without aligned corners."""
        target = {"scale_factor": self.scale} if self.scale is not None else {"size": compact(self.size or 1)}
        return Apply("torch.nn.functional.interpolate", (Arg(0),), {**target, "mode": self.mode})

    def label(self, *, brief: bool = False) -> str:
        """The mode."""
        return f"{self.mode} resize"


@OPS.register
class Flatten(Op):
    """All elements as one vector."""

    kind: ClassVar[str] = "flatten"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_view: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Vector:
        """One feature per element."""
        return Vector(inputs[0].elements)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.flatten` from axis 1 on."""
        return Apply("torch.flatten", (Arg(0), 1))
