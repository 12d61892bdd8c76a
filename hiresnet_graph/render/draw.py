"""Diagrams as files, in the format given by the suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.figure_style import POINTS_PER_CM
from hiresnet_graph.files import check_output, write_atomic
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.make import make_picture
from hiresnet_graph.render.picture.picture import Picture
from hiresnet_graph.render.picture.sheet import make_sheet
from hiresnet_graph.render.scene.difference import difference_scene
from hiresnet_graph.render.scene.make import make_scene
from hiresnet_graph.render.scene.scene import Scene
from hiresnet_graph.render.writers.dot import scene_graph
from hiresnet_graph.render.writers.html import to_html
from hiresnet_graph.render.writers.mermaid import to_mermaid
from hiresnet_graph.render.writers.svg import to_svg_text
from hiresnet_graph.render.writers.tikz import to_tikz

if TYPE_CHECKING:
    import graphviz

_MAX_BOXES = 2000
"""More boxes than this take minutes to draw, and are unreadable."""
_MIN_SCALE = 0.55
"""A picture that would have to be smaller than this, with titles of 6 points, is wrapped into rows."""
_PNG_DPI = 220
_PNG_MAX_PIXELS = 20_000
"""A wider or taller picture is scaled down, as no program shows it."""


def _svg(picture: Picture) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + to_svg_text(picture).encode()


def _pdf(picture: Picture) -> bytes:
    import vl_convert

    return vl_convert.svg_to_pdf(_in_pixels(to_svg_text(picture)))


def _png(picture: Picture) -> bytes:
    import vl_convert

    longest = max(picture.page.width, picture.page.height) * picture.scale
    scale = min(_PNG_DPI / 72, _PNG_MAX_PIXELS / longest)
    return vl_convert.svg_to_png(_in_pixels(to_svg_text(picture)), scale=scale)


def _in_pixels(svg: str) -> str:
    """The SVG with one pixel for a point: the converter takes a pixel for a point of paper."""
    opening, rest = svg.split(">", 1)
    return opening.replace('pt"', '"') + ">" + rest


def _tikz(picture: Picture) -> bytes:
    return to_tikz(picture).encode()


def _html(picture: Picture) -> bytes:
    return to_html(picture).encode()


_PICTURES: Mapping[str, Callable[[Picture], bytes]] = {
    "svg": _svg,
    "pdf": _pdf,
    "png": _png,
    "tex": _tikz,
    "html": _html,
}


def _dot(scene: Scene, options: RenderOptions) -> str:
    return str(scene_graph(scene, options).source)


_TEXTS: Mapping[str, Callable[[Scene, RenderOptions], str]] = {"dot": _dot, "mmd": to_mermaid}
FORMATS = (*_PICTURES, *_TEXTS)
"""Supported suffixes."""


def render(plan: Plan, path: str | Path, options: RenderOptions | None = None, *, title: str | None = None) -> Path:
    """Write the diagram of a network to a file, in the format given by its suffix.

    Args:
        path: Ends in one of `FORMATS`. An existing file is replaced atomically.
        title: Name of the network in the caption (default: the name of the plan).

    Returns:
        The path of the file.

    Raises:
        UsageError: The suffix is unknown, the file cannot be written, there is nothing to unroll, or the picture is too
            large to draw.
    """
    target, kind = _target(path)
    options = options or RenderOptions()
    return _write(_scene(plan, options, title), target, kind, options)


def render_difference(
    before: tuple[str, Plan], after: tuple[str, Plan], path: str | Path, options: RenderOptions | None = None
) -> Path:
    """Write one diagram of two networks, each with its name: what the second adds, removes and changes.

    Raises:
        UsageError: As for `render`.
    """
    target, kind = _target(path)
    options = options or RenderOptions()
    first, second = (_scene(plan, options, title) for title, plan in (before, after))
    return _write(difference_scene(first, second), target, kind, options)


def render_sheet(
    plans: Sequence[tuple[str, Plan]],
    path: str | Path,
    options: RenderOptions | None = None,
    *,
    title: str = "",
    columns: int | None = None,
) -> Path:
    """Write one picture of several networks, each below its name.

    Args:
        title: Name of the picture (default: that of the first network).
        columns: Number of networks side by side; with a width, a network that would be too small is wrapped into rows.
            Default: a sheet with about the proportions of a page.

    Raises:
        UsageError: There is no network, `columns` is below 1, the suffix is not that of a picture, or as for `render`.
    """
    target, kind = _target(path)
    if kind not in _PICTURES:
        known = ", ".join(f".{name}" for name in _PICTURES)
        raise UsageError(f"a sheet of several networks is a picture; the suffix must be one of {known}, not .{kind}.")
    if not plans:
        raise UsageError("a sheet needs at least one network.")
    if columns is not None and columns < 1:
        raise UsageError(f"a sheet needs at least one column, not {columns}.")
    options = options or RenderOptions()
    one = replace(options, width=str(options.width_cm / columns) if columns and options.width_cm else "")
    pictures = [(name, _picture(_scene(plan, one, name), one)) for name, plan in plans]
    write_atomic(target, _PICTURES[kind](make_sheet(pictures, title or plans[0][0], options, columns)), UsageError)
    return target


def _target(path: str | Path) -> tuple[Path, str]:
    """The file and its format."""
    target = Path(path).expanduser()
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        found = f"'{target.suffix}' is not a diagram format" if target.suffix else f"'{target}' has no suffix"
        raise UsageError(f"{found}; the suffix must be one of {known}. {_closest(kind)}".strip())
    check_output(target)
    return target, kind


def _write(scene: Scene, target: Path, kind: str, options: RenderOptions) -> Path:
    data = _TEXTS[kind](scene, options).encode() if kind in _TEXTS else _PICTURES[kind](_picture(scene, options))
    write_atomic(target, data, UsageError)
    return target


def to_graphviz(plan: Plan, options: RenderOptions | None = None, *, title: str | None = None) -> graphviz.Digraph:
    """The diagram as a graph of the package graphviz, to be changed, or drawn by an installed Graphviz.

    Raises:
        UsageError: There is nothing to unroll.
    """
    options = options or RenderOptions()
    return scene_graph(_scene(plan, options, title), options)


def to_svg(plan: Plan, options: RenderOptions | None = None, *, title: str | None = None) -> str:
    """The diagram of a network as an `<svg>` element, for notebooks and web pages.

    Raises:
        UsageError: There is nothing to unroll, or the picture is too large to draw.
    """
    options = options or RenderOptions()
    return to_svg_text(_picture(_scene(plan, options, title), options))


def _closest(kind: str) -> str:
    hint = did_you_mean(f".{kind}", [f".{name}" for name in FORMATS]) if kind else ""
    return hint if hint.startswith("Did") else ""


def _scene(plan: Plan, options: RenderOptions, title: str | None) -> Scene:
    return make_scene(
        plan,
        level=options.level,
        title=title,
        unrolled=options.unrolled,
        counts=options.counts,
        footer=options.footer,
    )


def _picture(scene: Scene, options: RenderOptions) -> Picture:
    if len(scene.boxes) > _MAX_BOXES:
        raise UsageError(
            f"the diagram of '{scene.title}' would have {len(scene.boxes):,} boxes, more than {_MAX_BOXES:,}. "
            + ('Use level="stages" or fewer steps' if scene.unrolled else 'Use level="stages"')
            + ", or write a .dot or .mmd file."
        )
    width = None if options.width_cm is None else options.width_cm * POINTS_PER_CM / _MIN_SCALE
    return make_picture(scene, make_layout(scene, options.direction, width), options)
