"""The projection `standard`: height and width, channels and norm."""

from __future__ import annotations

from typing import ClassVar, Literal

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import size_label, transposed_geometry
from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.shapes import Map, Shape
from hiresnet_graph.wire import NormName, Wire

Size = tuple[int, int]
"""Height and width."""
Spatial = Literal["avg", "max", "stride", "adaptive", "nearest", "bilinear", "deconv"]
_UP = ("nearest", "bilinear", "deconv")


def _ratio(size: int, target: int, up: bool) -> int:
    """The kernel of a pooling from `size` to `target`, sizes rounded up or down; 0 if there is none."""
    for step in (size // target, size // target + 1):
        if (-(-size // step) if up else size // step) == target:
            return step
    return 0


@PROJECTIONS.register
class StandardProjection(Projection):
    """A change of height and width, a 1x1 convolution and a norm; by default the projection of HiResNet.

    Attributes:
        spatial: How height and width change. Down: `avg` and `max` pool with kernel = stride = the ratio of the sizes,
            `stride` takes every n-th pixel (with `conv1x1`: one convolution with that stride), `adaptive` pools to any
            size. Up: `nearest`, `bilinear`, `deconv`.
        channels: How the number of channels changes: `conv1x1`, `pad` (zeros before and after), `pad_end` (zeros
            after), `slice`, or `none`.
        norm: The norm at the end.
        bias: Whether the 1x1 convolution has a bias (default: only without norm).
        when: `mismatch` keeps a value that has the target shape unchanged; `always` projects it, too.

    Source: López & Triesch 2025 (avg, conv1x1, batch); He et al. 2016 for options A and B of ResNet's shortcut.
    """

    kind: ClassVar[str] = "standard"
    spatial: Spatial = "avg"
    channels: Literal["conv1x1", "pad", "pad_end", "slice", "none"] = "conv1x1"
    norm: NormName = "batch"
    bias: bool | None = None
    when: Literal["mismatch", "always"] = "mismatch"

    def describe(self) -> str:
        """Its parts, like `avg, conv1x1, batch`."""
        parts = [part for part in (self.spatial, self.channels, self.norm) if part != "none"]
        return ", ".join(parts) + (" (always)" if self.when == "always" else "")

    def project(self, x: Wire, target: Shape) -> Wire:
        """Down: size - channels - norm. Up: channels - norm - size."""
        if x.shape == target and self.when == "mismatch":
            return x
        try:
            return self._projected(x, target)
        except ShapeError as error:
            raise ShapeError(error.message, fitting(x.shape, target, self) or error.hint) from None

    def _projected(self, x: Wire, target: Shape) -> Wire:
        source = x.shape
        if not isinstance(source, Map) or not isinstance(target, Map):
            if source.kind == target.kind:
                raise ShapeError("there is no standard projection of vectors.", "Use a 'linear' block on the edge.")
            raise ShapeError(
                "no projection maps between a feature map and a vector.",
                "End the edge before the flattening, or flatten its source.",
            )
        if target.height > source.height or target.width > source.width:
            if target.height < source.height or target.width < source.width:
                raise ShapeError("no projection enlarges one axis and shrinks the other.", "Change the nodes.")
            x = self._refit(x, target.channels).norm(self.norm, name="norm")
            return self._enlarge(x, source.spatial, target.spatial)
        if self.spatial == "stride" and self.channels == "conv1x1":
            x = self._conv(x, target.channels, stride=self._stride(source.spatial, target.spatial))
        else:
            x = self._refit(self._shrink(x, source.spatial, target.spatial), target.channels)
        return x.norm(self.norm, name="norm")

    def _conv(self, x: Wire, channels: int, stride: tuple[int, int] = (1, 1)) -> Wire:
        bias = self.norm == "none" if self.bias is None else self.bias
        return x.conv2d(channels, 1, stride=stride, bias=bias, name="conv")

    def _refit(self, x: Wire, channels: int) -> Wire:
        if self.channels == "conv1x1":
            return self._conv(x, channels)
        if x.channels == channels:
            return x
        if self.channels == "pad" or self.channels == "pad_end":
            return x.pad_channels(channels, "both" if self.channels == "pad" else "end", name="pad")
        if self.channels == "slice":
            return x.slice_channels(channels, name="slice")
        raise ShapeError("'channels: none' cannot change the number of channels.")

    def _stride(self, source: Size, target: Size) -> Size:
        """Strides that take every n-th pixel, sizes rounded up."""
        stride = -(-source[0] // target[0]), -(-source[1] // target[1])
        for step, before, after in zip(stride, source, target, strict=True):
            if -(-before // step) != after:
                raise ShapeError(f"no stride maps size {before} to {after}.")
        return stride

    def _shrink(self, x: Wire, source: Size, target: Size) -> Wire:
        if source == target:
            return x
        if self.spatial == "adaptive":
            return x.adaptive_avg_pool(target, name="pool")
        if self.spatial == "stride":
            return x.subsample(self._stride(source, target), name="subsample")
        if self.spatial in _UP:
            raise ShapeError(f"'spatial: {self.spatial}' enlarges, but the target is smaller.")
        pool = x.max_pool if self.spatial == "max" else x.avg_pool
        for up in (False, True):
            kernel = _ratio(source[0], target[0], up), _ratio(source[1], target[1], up)
            if all(kernel):
                return pool(kernel, ceil_mode=up, name="pool")
        raise ShapeError(f"no pooling with kernel = stride maps {size_label(source)} to {size_label(target)}.")

    def _enlarge(self, x: Wire, source: Size, target: Size) -> Wire:
        if self.spatial == "nearest" or self.spatial == "bilinear":
            return x.resize(target, mode=self.spatial, name="resize")
        if self.spatial == "deconv":
            geometry = transposed_geometry(source, target)
            if geometry is None:
                raise ShapeError(f"no transposed convolution maps {size_label(source)} to {size_label(target)}.")
            return x.conv_transpose2d(x.channels, name="deconv", **geometry._asdict())
        raise ShapeError(f"'spatial: {self.spatial}' shrinks, but the target is larger.")


def fitting(source: Shape, target: Shape, given: StandardProjection | None = None) -> str:
    """A hint with the fields of a projection that maps one shape to another; empty if there is none.

    Args:
        given: A projection that does not; fields of it that fit are left out.
    """
    if not isinstance(source, Map) or not isinstance(target, Map):
        return ""
    spatial, channels = _fitting_spatial(source.spatial, target.spatial, given), "conv1x1"
    if not spatial:
        return ""
    if given is not None:
        fewer = target.channels < source.channels
        keeps = {"pad": not fewer, "pad_end": not fewer, "slice": fewer or target.channels == source.channels}
        channels = given.channels if keeps.get(given.channels, target.channels == source.channels) else channels
    fields = {"spatial": spatial, "channels": channels}
    shown = [f"{key}: {value}" for key, value in fields.items() if given is None or getattr(given, key) != value]
    shown += ["norm: batch"] if given is None else []
    return f"Set 'projection: {{{', '.join(shown)}}}'." if shown else ""


def _fitting_spatial(source: Size, target: Size, given: StandardProjection | None) -> str:
    """A value of `spatial` that maps a height and width to others: the given one, if it does; empty for none."""
    up = [after > before for before, after in zip(source, target, strict=True)]
    down = [after < before for before, after in zip(source, target, strict=True)]
    if any(up) and any(down):
        return ""
    own = "" if given is None else given.spatial
    if any(up):
        fits = own in ("nearest", "bilinear") or (own == "deconv" and transposed_geometry(source, target) is not None)
        return own if fits else "nearest"
    pools = any(all(map(_ratio, source, target, (ceil, ceil))) for ceil in (False, True))
    strides = all(-(-before // -(-before // after)) == after for before, after in zip(source, target, strict=True))
    fits = {"avg": pools, "max": pools, "stride": strides, "adaptive": True}.get(own, not any(down))
    return own if own and fits else "avg" if pools else "adaptive"
