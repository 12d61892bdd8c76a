"""Convolutions, transposed convolutions and linear maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Count,
    Layer,
    Op,
    PaddingPair,
    Pair,
    Remark,
    Signature,
    Tensor,
    Weight,
    compact,
    pair,
    require_map,
    size_label,
    stride_label,
)
from hiresnet_graph.shapes import Map, Shape

if TYPE_CHECKING:
    import torch

_CHANNELS = {"in_channels": "channels", "out_channels": "channels"}
_CONV = Signature(
    "in_channels out_channels kernel_size",
    roles=_CHANNELS,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    bias=True,
)
_CONV_TRANSPOSE = Signature(
    "in_channels out_channels kernel_size",
    roles=_CHANNELS,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    bias=True,
)
_LINEAR = Signature(
    "in_features out_features", roles={"in_features": "channels", "out_features": "channels"}, bias=True
)


def _bias(width: int, fan_in: int, present: bool) -> tuple[Tensor, ...]:
    return (Tensor("bias", (width,), "linear_uniform", fan=fan_in),) if present else ()


def _shifted(tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The bias, which may be missing, after a channel map."""
    return shift if "bias" not in tensors else tensors["bias"] * factor + shift


def _absorbed(
    tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Weights whose first axis is the output's, and bias, after a channel map."""
    weight = tensors["weight"]
    factors = factor.reshape(-1, *(1 for _ in weight.shape[1:]))
    return {"weight": weight * factors, "bias": _shifted(tensors, factor, shift)}


def _check_groups(op: str, groups: int, width_in: int, width_out: int) -> None:
    if width_in % groups or width_out % groups:
        raise ShapeError(
            f"{op} in {groups} groups requires multiples of {groups} channels, not {width_in} in and {width_out} out.",
            f"Change 'groups', or the widths to multiples of {groups}.",
        )


@OPS.register
class Conv2d(Op):
    """A 2-d convolution.

    The default `padding` is half of the (dilated) kernel: at stride 1, an odd kernel keeps height and width.
    """

    kind: ClassVar[str] = "conv2d"
    is_low_precision: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    absorbs_maps: ClassVar[bool] = True
    examples = (
        {"width": 6, "kernel_size": [3, 1], "groups": 2, "dilation": 2},
        {"width": 4, "kernel_size": 2, "stride": 2, "padding": 0, "dilation": 2, "bias": False},
    )
    part: ClassVar[str] = "conv"
    overwritable: ClassVar[bool] = True
    counts_activations: ClassVar[bool] = True
    width: Count
    kernel_size: Pair = 3
    stride: Pair = 1
    padding: PaddingPair | None = None
    dilation: Pair = 1
    groups: Count = 1
    bias: bool = True

    def _padding(self) -> tuple[int, int]:
        return self._half() if self.padding is None else pair(self.padding)

    def _half(self) -> tuple[int, int]:
        (kh, kw), (dh, dw) = pair(self.kernel_size), pair(self.dilation)
        return dh * (kh - 1) // 2, dw * (kw - 1) // 2

    def canonical(self, *inputs: Shape) -> Self:
        """Without a padding that is half of the kernel, and without the dilation of a kernel of one pixel."""
        changes: dict[str, object] = {"padding": None} if self._padding() == self._half() else {}
        if pair(self.kernel_size) == (1, 1) and self.dilation != 1:
            changes["dilation"] = 1
        return self.changed(changes) if changes else self

    def shape(self, *inputs: Shape) -> Map:
        """Height and width: floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1."""
        x = require_map("A convolution", inputs[0])
        _check_groups("A convolution", self.groups, x.channels, self.width)
        sizes = []
        for size, kernel, stride, padding, dilation in zip(
            x.spatial, pair(self.kernel_size), pair(self.stride), self._padding(), pair(self.dilation), strict=True
        ):
            out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            if out < 1:
                raise ShapeError(
                    f"A {kernel}-wide kernel (dilation {dilation}, padding {padding}) does not fit into {x}.",
                    "Use a larger input, a smaller kernel or more padding.",
                )
            sizes.append(out)
        return Map(self.width, *sizes)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """`weight` [width, channels / groups, kernel, kernel] and `bias` [width]."""
        kernel = pair(self.kernel_size)
        inner = inputs[0].channels // self.groups
        weight = Tensor("weight", (self.width, inner, *kernel), "he_normal")
        return (weight, *_bias(self.width, inner * math.prod(kernel), self.bias))

    def macs(self, *inputs: Shape) -> int:
        """Output elements x kernel area x input channels of a group."""
        return self.shape(*inputs).elements * math.prod(pair(self.kernel_size)) * (inputs[0].channels // self.groups)

    def backward_workspace(self, *inputs: Shape) -> int:
        """oneDNN copies the weights twice into its own layout, unless the kernel has one pixel."""
        return 0 if pair(self.kernel_size) == (1, 1) else 2 * self.tensors(*inputs)[0].elements

    def _geometry(self) -> dict[str, object]:
        return {
            "stride": compact(self.stride),
            "padding": compact(self._padding()),
            "dilation": compact(self.dilation),
            "groups": self.groups,
        }

    def remark(self, *inputs: Shape) -> Remark | None:
        """Default padding of a convolution with kernel = stride, as of patches: it shifts the windows."""
        kernel, stride, padding = pair(self.kernel_size), pair(self.stride), self._padding()
        shifts = any(p and k == s for k, s, p in zip(kernel, stride, padding, strict=True))
        if self.padding is not None or not shifts:
            return None
        chosen = compact(padding)
        return Remark(
            f"a convolution with a kernel of {size_label(kernel)} and a stride of {size_label(stride)} has a padding "
            f"of {size_label(padding)} by default: its windows are shifted by as many pixels, and contain a border of "
            "zeros.",
            "Set {fields} for windows that begin at the border, or "
            f"'padding: {chosen if isinstance(chosen, int) else list(chosen)}' to keep these.",
            "padding: 0",
        )

    def trains_in_channels_last(self, *inputs: Shape) -> bool:
        """False for a strided 1x1 convolution of 2 to 7 channels.

        oneDNN's kernel for AVX2 writes whole vectors of 8 channels, past the end of the gradient of the input: the
        process crashes some time later (torch 2.14.1, seen with `MALLOC_CHECK_=3`).
        """
        return pair(self.kernel_size) != (1, 1) or pair(self.stride) == (1, 1) or inputs[0].channels not in range(2, 8)

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.Conv2d`."""
        args = (inputs[0].channels, self.width, compact(self.kernel_size))
        return Layer("torch.nn.Conv2d", args, _CONV.kwargs(**self._geometry(), bias=self.bias), _CONV)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.conv2d`, for another call of the same weights with a different stride or padding."""
        weights = (Weight("weight"), Weight("bias")) if self.bias else (Weight("weight"),)
        return Apply("torch.nn.functional.conv2d", (Arg(0), *weights), _CONV.kwargs(**self._geometry()))

    def absorb(
        self, tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The filter of each channel times its factor; the bias likewise, plus the shift."""
        return _absorbed(tensors, factor, shift)

    def label(self, *, brief: bool = False) -> str:
        """Kernel, stride and groups."""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{size_label(self.kernel_size)} conv{stride_label(self.stride)}{groups}"


@OPS.register
class ConvTranspose2d(Op):
    """A transposed convolution; with kernel = stride, it multiplies height and width by `stride`.

    Attributes:
        stride: Distance in pixels between the windows of the output.
        padding: Number of rows and columns removed at each border of the output.
        output_padding: Number of rows and columns added at the end of the output.
    """

    kind: ClassVar[str] = "conv_transpose2d"
    is_low_precision: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    absorbs_maps: ClassVar[bool] = True
    examples = (
        {"width": 6, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"width": 4, "kernel_size": 3, "groups": 2},
        {"width": 4},
    )
    part: ClassVar[str] = "deconv"
    overwritable: ClassVar[bool] = True
    counts_activations: ClassVar[bool] = True
    width: Count
    kernel_size: Pair = 2
    stride: Pair = 2
    padding: PaddingPair = 0
    output_padding: PaddingPair = 0
    groups: Count = 1
    bias: bool = True

    def shape(self, *inputs: Shape) -> Map:
        """Height and width: (size - 1) stride - 2 padding + kernel + output padding."""
        x = require_map("A transposed convolution", inputs[0])
        _check_groups("A transposed convolution", self.groups, x.channels, self.width)
        sizes = []
        for size, kernel, stride, padding, extra in zip(
            x.spatial,
            pair(self.kernel_size),
            pair(self.stride),
            pair(self.padding),
            pair(self.output_padding),
            strict=True,
        ):
            if extra >= stride:
                raise ShapeError(f"'output_padding' {extra} must be smaller than the stride {stride}.")
            out = (size - 1) * stride - 2 * padding + kernel + extra
            if out < 1:
                raise ShapeError(f"Padding {padding} removes all of {x}.", "Use less padding.")
            sizes.append(out)
        return Map(self.width, *sizes)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """`weight` [channels, width / groups, kernel, kernel] and `bias` [width]."""
        kernel, inner = pair(self.kernel_size), self.width // self.groups
        weight = Tensor("weight", (inputs[0].channels, inner, *kernel), "he_normal")
        return (weight, *_bias(self.width, inner * math.prod(kernel), self.bias))

    def macs(self, *inputs: Shape) -> int:
        """Input elements x kernel area x output channels of a group."""
        return inputs[0].elements * math.prod(pair(self.kernel_size)) * (self.width // self.groups)

    def backward_workspace(self, *inputs: Shape) -> int:
        """oneDNN copies the weights twice into its own layout, unless the kernel has one pixel."""
        return 0 if pair(self.kernel_size) == (1, 1) else 2 * self.tensors(*inputs)[0].elements

    def _geometry(self) -> dict[str, object]:
        return {
            "stride": compact(self.stride),
            "padding": compact(self.padding),
            "output_padding": compact(self.output_padding),
            "groups": self.groups,
        }

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.ConvTranspose2d`."""
        args = (inputs[0].channels, self.width, compact(self.kernel_size))
        kwargs = _CONV_TRANSPOSE.kwargs(**self._geometry(), bias=self.bias)
        return Layer("torch.nn.ConvTranspose2d", args, kwargs, _CONV_TRANSPOSE)

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.conv_transpose2d`, for another call of the same weights with a different stride."""
        weights = (Weight("weight"), Weight("bias")) if self.bias else (Weight("weight"),)
        kwargs = _CONV_TRANSPOSE.kwargs(**self._geometry())
        return Apply("torch.nn.functional.conv_transpose2d", (Arg(0), *weights), kwargs)

    def absorb(
        self, tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The filter of each channel times its factor; the bias likewise, plus the shift."""
        weight = tensors["weight"]
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        factors = factor.reshape(self.groups, 1, -1, 1, 1)
        return {"weight": (grouped * factors).reshape(weight.shape), "bias": _shifted(tensors, factor, shift)}

    def label(self, *, brief: bool = False) -> str:
        """Kernel and stride."""
        return f"{size_label(self.kernel_size)} deconv{stride_label(self.stride)}"


class TransposedGeometry(NamedTuple):
    """The fields of a transposed convolution, each for height and width."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]


def transposed_geometry(
    source: tuple[int, int], target: tuple[int, int], kernel_size: int | None = None
) -> TransposedGeometry | None:
    """The transposed convolution from one height and width to exactly another; None if there is none.

    Args:
        kernel_size: Smallest kernel; None for kernel = stride.
    """
    axes = []
    for before, after in zip(source, target, strict=True):
        stride = -(-after // before)
        kernel = max(kernel_size or 1, stride)
        excess = (before - 1) * stride + kernel - after  # without padding, at least 0; padding removes it
        padding = -(-excess // 2)
        extra = 2 * padding - excess
        # Without overlap, an excess of a whole kernel would leave the input at the border unread.
        if (excess if kernel_size is None else padding) >= kernel or extra >= stride:
            return None
        axes.append((kernel, stride, padding, extra))
    return TransposedGeometry(*zip(*axes, strict=True))


@OPS.register
class Linear(Op):
    """A linear map of the features."""

    kind: ClassVar[str] = "linear"
    is_low_precision: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    absorbs_maps: ClassVar[bool] = True
    examples = ({"width": 5},)
    overwritable: ClassVar[bool] = True
    counts_activations: ClassVar[bool] = True
    classes_field: ClassVar[str] = "width"
    width: Count
    bias: bool = True

    def shape(self, *inputs: Shape) -> Shape:
        """`width` features."""
        if inputs[0].trailing:
            raise ShapeError(
                f"A linear map requires a vector, not {inputs[0].describe()}.",
                "Place 'flatten' or a global pooling before it.",
            )
        return inputs[0].with_channels(self.width)

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """`weight` [width, features] and `bias` [width]."""
        features = inputs[0].channels
        weight = Tensor("weight", (self.width, features), "linear_uniform", fan=features)
        return (weight, *_bias(self.width, features, self.bias))

    def macs(self, *inputs: Shape) -> int:
        """Input elements x features out."""
        return inputs[0].elements * self.width

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.Linear`."""
        return Layer("torch.nn.Linear", (inputs[0].channels, self.width), _LINEAR.kwargs(bias=self.bias), _LINEAR)

    def absorb(
        self, tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The weights of each feature times its factor; the bias likewise, plus the shift."""
        return _absorbed(tensors, factor, shift)
