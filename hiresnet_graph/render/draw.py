"""Diagrams as files: SVG, PDF and PNG, which Graphviz draws, and DOT, its input.

The program `dot` is used if it is on PATH, otherwise the Graphviz in pygraphviz. DOT files require neither.
"""

from __future__ import annotations

import contextlib
import html
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from hiresnet_graph.errors import HrgError, MissingToolError, UsageError, did_you_mean
from hiresnet_graph.files import check_output, write_atomic
from hiresnet_graph.formats import one_line
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.dot import to_dot
from hiresnet_graph.render.layout.layout import Direction
from hiresnet_graph.render.scene.make import make_scene
from hiresnet_graph.render.scene.scene import Level, Scene

FORMATS = ("svg", "pdf", "png", "dot")
"""Supported suffixes."""
_MAX_BOXES = 2000
"""More boxes than this take minutes to draw, and are unreadable."""

_TIMEOUT_S = 300
_PNG_DPI = 220
_PNG_MAX_PIXELS = 20_000
"""A wider or taller picture is scaled down, as no program shows it."""
_INSTALL = "Install it with 'pip install pygraphviz', or with 'apt install graphviz' (macOS: 'brew install graphviz')."


def render(
    plan: Plan,
    path: str | Path,
    *,
    level: Level = "blocks",
    direction: Direction = "LR",
    title: str | None = None,
    unrolled: bool = False,
) -> Path:
    """Write the diagram of a network to a file, in the format given by its suffix.

    Args:
        path: Ends in .svg, .pdf, .png or .dot. An existing file is replaced atomically.
        level: `stages` has a box for each stage, as for a paper; `blocks` one for each block; `ops` one for each call.
        direction: `LR` for left to right, `TB` for top to bottom.
        title: Name of the network in the caption (default: the name of the plan).
        unrolled: Draw each step of a network with `time`, in a column of its own (with `TB`, a row).

    Returns:
        The path of the file.

    Raises:
        UsageError: The suffix, the level or the direction is unknown, the file cannot be written, there is nothing to
            unroll, or the picture is too large to draw.
        MissingToolError: Graphviz is not installed.
    """
    target = Path(path).expanduser()
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        found = f"'{target.suffix}' is not a diagram format" if target.suffix else f"'{target}' has no suffix"
        raise UsageError(f"{found}; the suffix must be one of {known}. {_closest(kind)}".strip())
    check_output(target)
    text = _dot_text(make_scene(plan, level=level, title=title, unrolled=unrolled), direction, drawn=kind != "dot")
    data = text.encode() if kind == "dot" else _draw(text, kind)
    if kind == "svg":
        name = title if title is not None else plan.name
        data = b'<?xml version="1.0" encoding="UTF-8"?>\n' + _standalone(data, name).encode()
    write_atomic(target, data, UsageError)
    return target


def to_svg(
    plan: Plan,
    *,
    level: Level = "blocks",
    direction: Direction = "LR",
    title: str | None = None,
    unrolled: bool = False,
) -> str:
    """The diagram of a network as an `<svg>` element, for notebooks and web pages.

    Raises:
        UsageError: The level or the direction is unknown, there is nothing to unroll, or the picture is too large to
            draw.
        MissingToolError: Graphviz is not installed.
    """
    text = _dot_text(make_scene(plan, level=level, title=title, unrolled=unrolled), direction, drawn=True)
    return _standalone(_draw(text, "svg"), title if title is not None else plan.name)


def layout_engine() -> str:
    """The name, version and path of the Graphviz in use.

    Raises:
        MissingToolError: Graphviz is not installed.
    """
    program = shutil.which("dot")
    if program is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=20, check=True)
            version = re.search(r"\d+(\.\d+)+", done.stderr + done.stdout)
            return f"Graphviz {version[0] if version else '(unknown version)'} ({program})"
    bundled = _pygraphviz()
    return f"Graphviz {bundled.__graphviz_version__} (in pygraphviz {bundled.__version__})"


def _closest(kind: str) -> str:
    hint = did_you_mean(kind, FORMATS) if kind else ""
    return hint if hint.startswith("Did") else ""


def _dot_text(scene: Scene, direction: Direction, *, drawn: bool) -> str:
    directions = get_args(Direction)
    if direction not in directions:
        raise UsageError(f"there is no direction '{direction}'. Known: {', '.join(directions)}.")
    if drawn and len(scene.boxes) > _MAX_BOXES:
        raise UsageError(
            f"the diagram of '{scene.title}' would have {len(scene.boxes):,} boxes, more than {_MAX_BOXES:,}. "
            + ('Use level="stages" or fewer steps' if scene.unrolled else 'Use level="stages"')
            + ", or write a .dot file."
        )
    return to_dot(scene, direction=direction)


# Graphviz


def _draw(text: str, kind: str) -> bytes:
    """The picture of DOT text, by `dot`; if that fails (it may lack a plug-in), by the Graphviz in pygraphviz."""
    program = shutil.which("dot")
    if program is None:
        return _without_date(_draw_by_pygraphviz(text, kind), kind)
    settings = [f"-G{name}={value}" for name, value in _settings(kind).items()]
    try:
        return _without_date(_run([program, f"-T{kind}", *settings], f"'{program}'", text, kind), kind)
    except UsageError as error:
        try:
            return _without_date(_draw_by_pygraphviz(text, kind), kind)
        except HrgError:
            raise error from None


def _settings(kind: str) -> dict[str, str]:
    return {"dpi": str(_PNG_DPI), "size": f"{_PNG_MAX_PIXELS / _PNG_DPI:.2f}"} if kind == "png" else {}


def _pygraphviz() -> Any:
    try:
        import pygraphviz
    except ImportError as error:
        raise MissingToolError(f"diagrams require Graphviz, which is not installed ({error}). {_INSTALL}") from None
    return pygraphviz


_DRAW_PROGRAM = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
graph.graph_attr.update(setting.split("=") for setting in sys.argv[2:])
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog=graph.graph_attr["layout"]))
"""


def _draw_by_pygraphviz(text: str, kind: str) -> bytes:
    """Draw in a separate process, so that neither the output nor a crash of the C library affects this one."""
    _pygraphviz()
    settings = [f"{name}={value}" for name, value in _settings(kind).items()]
    command = [sys.executable, "-P", "-c", _DRAW_PROGRAM, kind, *settings]
    return _run(command, "the Graphviz in pygraphviz", text, kind)


def _run(command: Sequence[str], program: str, text: str, kind: str) -> bytes:
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False, timeout=_TIMEOUT_S)
    except OSError as error:
        raise UsageError(f"{program} cannot be started: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f'{program} did not finish in {_TIMEOUT_S} s. Use level="stages", or write a .dot file.'
        ) from None
    if done.returncode or not done.stdout:
        errors = done.stderr.decode(errors="replace").splitlines()
        last = [line for line in errors if line and "Fontconfig" not in line][-1:]
        reason = last[0] if last else f"exit code {done.returncode}"
        raise UsageError(f"{program} cannot draw this as {kind}: {reason}.")
    return done.stdout


def _without_date(data: bytes, kind: str) -> bytes:
    """The picture without its date of creation, so that equal networks have equal files."""
    if kind != "pdf":
        return data
    return re.sub(rb"(/CreationDate \(D:)\d{14}", rb"\g<1>20000101000000", data)


def _standalone(data: bytes, title: str) -> str:
    """An `<svg>` element without external references, with its title first, for screen readers."""
    text = data.decode()
    start = text.index("<svg")
    end = text.index(">", start)
    opening, rest = text[start:end], text[end + 1 :]
    clean = one_line(title) or "network"
    rest = re.sub(
        r'<g id="[^"]*" class="[a-z]+ centred">.*?</g>\n</g>', lambda found: _centred(found[0]), rest, flags=re.S
    )
    return f'{opening} role="img">\n<title>{html.escape(clean)}</title>{rest}'


def _centred(group: str) -> str:
    """A box with centred text in any font: Graphviz sets the left end of a line for the font that it has."""
    outline = re.search(r'<(?:path|polygon) [^>]*(?:d|points)="([^"]*)"', group)
    if outline is None:
        return group
    xs = [float(x) for x in re.findall(r"(-?\d+(?:\.\d+)?),", outline[1])]
    middle = f"{(min(xs) + max(xs)) / 2:.2f}"
    return re.sub(r'text-anchor="start" x="[^"]*"', f'text-anchor="middle" x="{middle}"', group)
