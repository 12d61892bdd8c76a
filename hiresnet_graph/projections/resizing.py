"""Changes of height and width: the spatial part of projections."""

from __future__ import annotations

from typing import Literal

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import size_label, transposed_geometry
from hiresnet_graph.wire import Wire

Size = tuple[int, int]
"""Height and width."""
Spatial = Literal["avg", "max", "stride", "adaptive", "nearest", "bilinear", "deconv"]
_UP = ("nearest", "bilinear", "deconv")


def enlarges(source: Size, target: Size) -> bool:
    """Whether the target is larger.

    Raises:
        ShapeError: It is larger along one axis and smaller along the other.
    """
    is_larger = any(after > before for before, after in zip(source, target, strict=True))
    if is_larger and any(after < before for before, after in zip(source, target, strict=True)):
        raise ShapeError("no projection enlarges one axis and shrinks the other.", "Change the nodes.")
    return is_larger


def strides(source: Size, target: Size) -> Size:
    """Strides that take every n-th pixel, sizes rounded up.

    Raises:
        ShapeError: There are none.
    """
    stride = -(-source[0] // target[0]), -(-source[1] // target[1])
    for step, before, after in zip(stride, source, target, strict=True):
        if -(-before // step) != after:
            raise ShapeError(f"no stride maps size {before} to {after}.")
    return stride


def shrink(x: Wire, target: Size, spatial: Spatial) -> Wire:
    """A feature map of the target's height and width, which are not larger.

    Raises:
        ShapeError: This kind of change cannot reach them.
    """
    source = (x.shape.spatial[0], x.shape.spatial[1])
    if source == target:
        return x
    if spatial == "adaptive":
        return x.adaptive_avg_pool(target, name="pool")
    if spatial == "stride":
        return x.subsample(strides(source, target), name="subsample")
    if spatial in _UP:
        raise ShapeError(f"'spatial: {spatial}' enlarges, but the target is smaller.")
    for up in (False, True):
        kernel = _ratio(source[0], target[0], up), _ratio(source[1], target[1], up)
        if all(kernel):
            pool = x.max_pool if spatial == "max" else x.avg_pool
            return pool(kernel, ceil_mode=up, name="pool")
    raise ShapeError(f"no pooling with kernel = stride maps {size_label(source)} to {size_label(target)}.")


def enlarge(x: Wire, target: Size, spatial: Spatial) -> Wire:
    """A feature map of the target's height and width, which are not smaller.

    Raises:
        ShapeError: This kind of change cannot reach them.
    """
    source = (x.shape.spatial[0], x.shape.spatial[1])
    if spatial == "nearest" or spatial == "bilinear":
        return x.resize(target, mode=spatial, name="resize")
    if spatial == "deconv":
        geometry = transposed_geometry(source, target)
        if geometry is None:
            raise ShapeError(f"no transposed convolution maps {size_label(source)} to {size_label(target)}.")
        return x.conv_transpose2d(x.channels, name="deconv", **geometry._asdict())
    raise ShapeError(f"'spatial: {spatial}' shrinks, but the target is larger.")


def fitting_spatial(source: Size, target: Size, given: Spatial | None) -> str:
    """A value of `spatial` that maps a height and width to others: the given one, if it does; empty for none."""
    up = [after > before for before, after in zip(source, target, strict=True)]
    down = [after < before for before, after in zip(source, target, strict=True)]
    if any(up) and any(down):
        return ""
    own = given or ""
    if any(up):
        fits = own in ("nearest", "bilinear") or (own == "deconv" and transposed_geometry(source, target) is not None)
        return own if fits else "nearest"
    pools = any(all(map(_ratio, source, target, (ceil, ceil))) for ceil in (False, True))
    takes = all(-(-before // -(-before // after)) == after for before, after in zip(source, target, strict=True))
    fits = {"avg": pools, "max": pools, "stride": takes, "adaptive": True}.get(own, not any(down))
    return own if own and fits else "avg" if pools else "adaptive"


def _ratio(size: int, target: int, up: bool) -> int:
    """The kernel of a pooling from `size` to `target`, sizes rounded up or down; 0 if there is none."""
    for step in (size // target, size // target + 1):
        if (-(-size // step) if up else size // step) == target:
            return step
    return 0
