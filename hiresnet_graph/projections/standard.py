"""The projection `standard`: height and width, channels and norm, between feature maps and tokens."""

from __future__ import annotations

from typing import ClassVar, Literal

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import CopyPrefix, DropPrefix, PadPrefix
from hiresnet_graph.projections.base import PROJECTIONS, Projection
from hiresnet_graph.projections.resizing import Size, Spatial, enlarge, enlarges, fitting_spatial, shrink, strides
from hiresnet_graph.shapes import Map, Shape, Tokens
from hiresnet_graph.wire import NormName, Wire


@PROJECTIONS.register
class StandardProjection(Projection):
    """A change of height and width, of the channels, and a norm; by default the projection of HiResNet.

    Between tokens, height and width are those of their grid. Between a feature map and tokens, pixels become tokens, or
    tokens pixels, and the parts are those of the target.

    Attributes:
        spatial: How height and width change. Down: `avg` and `max` pool with kernel = stride = the ratio of the sizes,
            `stride` takes every n-th pixel (with `conv1x1`: one convolution with that stride), `adaptive` pools to any
            size. Up: `nearest`, `bilinear`, `deconv`.
        channels: How the number of channels changes: `conv1x1`, `pad` (zeros before and after), `pad_end` (zeros
            after), `slice`, or `none`. Of tokens, `conv1x1` is a linear map of the features, where their number
            changes.
        norm: The norm at the end (default: `batch`, of tokens `layer`).
        bias: Whether the 1x1 convolution or linear map has a bias (default: only without norm).
        prefix: What becomes of class and register tokens. `keep`: they stay, if the target has as many, otherwise they
            are dropped. `drop`: they are dropped. In place of missing ones are zeros, with `mean` the mean of all
            tokens.
        when: `mismatch` keeps a value that has the target shape unchanged; `always` projects it, too.

    Source: López & Triesch 2025 (avg, conv1x1, batch); He et al. 2016 for options A and B of ResNet's shortcut. The
    parts for tokens are our choice.
    """

    kind: ClassVar[str] = "standard"
    spatial: Spatial = "avg"
    channels: Literal["conv1x1", "pad", "pad_end", "slice", "none"] = "conv1x1"
    norm: NormName | None = None
    bias: bool | None = None
    prefix: Literal["keep", "drop", "mean"] = "keep"
    when: Literal["mismatch", "always"] = "mismatch"

    def describe(self, target: Shape | None = None) -> str:
        """Its parts, like `avg, conv1x1, batch`."""
        is_tokens = isinstance(target, Tokens)
        channels = "linear" if is_tokens and self.channels == "conv1x1" else self.channels
        parts = [part for part in (self.spatial, channels, self._norm(is_tokens)) if part != "none"]
        return ", ".join(parts) + (" (always)" if self.when == "always" else "")

    def _norm(self, is_tokens: bool) -> NormName:
        return self.norm or ("layer" if is_tokens else "batch")

    def project(self, x: Wire, target: Shape) -> Wire:
        """Down: size - channels - norm. Up: channels - norm - size."""
        if x.shape == target and self.when == "mismatch":
            return x
        source = x.shape
        try:
            if isinstance(source, Tokens) and isinstance(target, Map):
                x = (x.apply(DropPrefix(), name="drop_prefix") if source.prefix else x).to_map()
                return x if x.shape == target and self.when == "mismatch" else self._to_map(x, target)
            if isinstance(target, Tokens) and isinstance(source, Map | Tokens):
                return self._to_tokens(x, target)
            if isinstance(source, Map) and isinstance(target, Map):
                return self._to_map(x, target)
        except ShapeError as error:
            raise ShapeError(error.message, fitting(source, target, self) or error.hint) from None
        if source.kind == target.kind:
            raise ShapeError("there is no standard projection of vectors.", "Use a 'linear' block on the edge.")
        one, two = ("tokens" if isinstance(shape, Tokens) else shape.noun for shape in (source, target))
        raise ShapeError(f"no projection maps between {one} and {two}.", _vector_hint(source))

    # ---------------------------------------------------------------------------------------------------- feature maps

    def _to_map(self, x: Wire, target: Map) -> Wire:
        """A feature map, projected to another."""
        size = _size(x.shape)
        assert size is not None
        norm = self._norm(is_tokens=False)
        if enlarges(size, target.spatial):
            return enlarge(self._refit(x, target.channels).norm(norm, name="norm"), target.spatial, self.spatial)
        if self.spatial == "stride" and self.channels == "conv1x1":
            x = self._conv(x, target.channels, stride=strides(size, target.spatial))
        else:
            x = self._refit(shrink(x, target.spatial, self.spatial), target.channels)
        return x.norm(norm, name="norm")

    def _conv(self, x: Wire, channels: int, stride: Size = (1, 1)) -> Wire:
        bias = self._norm(is_tokens=False) == "none" if self.bias is None else self.bias
        return x.conv2d(channels, 1, stride=stride, bias=bias, name="conv")

    def _refit(self, x: Wire, channels: int) -> Wire:
        return self._conv(x, channels) if self.channels == "conv1x1" else self._copied(x, channels)

    def _copied(self, x: Wire, channels: int) -> Wire:
        """Another number of channels, without weights."""
        if x.channels == channels:
            return x
        if self.channels == "pad" or self.channels == "pad_end":
            return x.pad_channels(channels, "both" if self.channels == "pad" else "end", name="pad")
        if self.channels == "slice":
            return x.slice_channels(channels, name="slice")
        raise ShapeError("'channels: none' cannot change the number of channels.")

    # ---------------------------------------------------------------------------------------------------------- tokens

    def _to_tokens(self, x: Wire, target: Tokens) -> Wire:
        """Tokens or a feature map, projected to tokens."""
        source, own = x.shape, x.shape.prefix if isinstance(x.shape, Tokens) else 0
        size = _size(source)
        is_resized = size != target.grid
        if is_resized and (size is None or target.grid is None):
            raise ShapeError("tokens of an unknown grid cannot be resized.", "Give the input a 'grid'.")
        if size is None and isinstance(source, Tokens) and source.length - own != target.length - target.prefix:
            raise ShapeError("tokens of an unknown grid cannot be resized.", "Give the input a 'grid'.")
        keeps = self.prefix == "keep" and own == target.prefix
        up = is_resized and size is not None and target.grid is not None and enlarges(size, target.grid)
        changes = is_resized or source.channels != target.channels or self.when == "always"
        if own and not keeps:
            x = x.apply(DropPrefix(), name="drop_prefix")
        if up:
            x = self._features(x if isinstance(x.shape, Tokens) else x.to_tokens(), target)
        x = self._resized(x, target.grid) if is_resized and target.grid is not None else x
        x = x if isinstance(x.shape, Tokens) else x.to_tokens()
        if changes and not up:
            x = self._features(x, target)
        if target.prefix and not keeps:
            fill: Literal["zeros", "mean"] = "mean" if self.prefix == "mean" else "zeros"
            x = x.apply(PadPrefix(count=target.prefix, fill=fill), name="prefix")
        return x

    def _features(self, x: Wire, target: Tokens) -> Wire:
        """Tokens of the target's width, after the norm."""
        norm = self._norm(is_tokens=True)
        if self.channels != "conv1x1":
            x = self._copied(x, target.channels)
        elif x.channels != target.channels or self.when == "always":
            x = x.linear(target.channels, bias=norm == "none" if self.bias is None else self.bias, name="linear")
        return x.norm(norm, name="norm")

    def _resized(self, x: Wire, grid: Size) -> Wire:
        """Tokens of another grid, after those of the prefix."""
        whole = x
        if isinstance(x.shape, Tokens):
            x = (x.apply(DropPrefix(), name="drop_prefix") if x.shape.prefix else x).to_map()
        size = _size(x.shape)
        assert size is not None
        change = enlarge if enlarges(size, grid) else shrink
        x = change(x, grid, self.spatial).to_tokens()
        has_prefix = isinstance(whole.shape, Tokens) and whole.shape.prefix
        return x.apply(CopyPrefix(), whole, name="prefix") if has_prefix else x


def _vector_hint(source: Shape) -> str:
    """What to do about an edge between a vector and another kind of value."""
    if isinstance(source, Tokens):
        return "Set 'block: token_mean' on the edge, or end it before the pooling."
    if isinstance(source, Map):
        return "End the edge before the flattening, or flatten its source."
    return "Start the edge before the flattening or pooling."


def _size(shape: Shape) -> Size | None:
    """Height and width of a feature map, or of the grid of tokens; None if there are none."""
    if isinstance(shape, Tokens):
        return shape.grid
    return shape.spatial if isinstance(shape, Map) else None


def fitting(source: Shape, target: Shape, given: StandardProjection | None = None) -> str:
    """A hint with the fields of a projection that maps one shape to another; empty if there is none.

    Args:
        given: A projection that does not; fields of it that fit are left out.
    """
    before, after = _size(source), _size(target)
    if before is None or after is None:
        return ""
    spatial, channels = fitting_spatial(before, after, None if given is None else given.spatial), "conv1x1"
    if not spatial:
        return ""
    if given is not None:
        fewer = target.channels < source.channels
        keeps = {"pad": not fewer, "pad_end": not fewer, "slice": fewer or target.channels == source.channels}
        channels = given.channels if keeps.get(given.channels, target.channels == source.channels) else channels
    fields = {"spatial": spatial, "channels": channels}
    shown = [f"{key}: {value}" for key, value in fields.items() if given is None or getattr(given, key) != value]
    norm = "layer" if isinstance(target, Tokens) else "batch"
    shown += [f"norm: {norm}"] if given is None else []
    return f"Set 'projection: {{{', '.join(shown)}}}'." if shown else ""
