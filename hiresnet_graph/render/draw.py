"""Diagrams as files: SVG, PDF and PNG by Graphviz, and its input as DOT.

The program `dot` is used if it is on PATH, or else the Graphviz that comes with pygraphviz. Where neither is there, DOT
files can still be written.
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
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.dot import to_dot
from hiresnet_graph.render.geometry import Direction
from hiresnet_graph.render.scene import Level, Scene, make_scene

FORMATS = ("svg", "pdf", "png", "dot")
"""Suffixes of the files that can be written."""
MOST_BOXES = 2000
"""More boxes than this would take minutes, and nobody could read them."""

_PATIENCE_S = 300
_PNG_DPI = 220
_PNG_WIDEST = 20_000
"""Pixels; a larger picture is scaled down, as no program shows it."""
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
    """Write the diagram of a network to a file; its suffix says which format.

    Args:
        path: Ends in .svg, .pdf, .png or .dot. A file that is there is replaced, at once and whole.
        level: `stages` has a box for each stage, as for a paper; `blocks` one for each block; `ops` one for each call.
        direction: `LR` runs from left to right, `TB` from top to bottom.
        title: What the network is called below the picture; the name of the plan unless told.
        unrolled: Draw a network with `time` step by step, a column for each (with `TB`, a row).

    Returns:
        The path of the file.

    Raises:
        UsageError: The suffix, the level or the direction is not known, the file cannot be written, there is nothing
            to unroll, or the picture is too large to draw.
        MissingToolError: There is no Graphviz.
    """
    target = Path(path).expanduser()
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        found = f"'{target.suffix}' is no format of diagrams" if target.suffix else f"'{target}' has no suffix"
        raise UsageError(f"{found}; the suffix must be one of {known}. {_closest(kind)}".strip())
    check_output(target)
    text = _dot(make_scene(plan, level=level, title=title, unrolled=unrolled), direction, drawn=kind != "dot")
    data = text.encode() if kind == "dot" else _painted(text, kind)
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
        UsageError: The level or the direction is not known, there is nothing to unroll, or the picture would be too
            large to draw.
        MissingToolError: There is no Graphviz.
    """
    text = _dot(make_scene(plan, level=level, title=title, unrolled=unrolled), direction, drawn=True)
    return _standalone(_painted(text, "svg"), title if title is not None else plan.name)


def layout_engine() -> str:
    """What draws the diagrams: its name, version and place.

    Raises:
        MissingToolError: There is no Graphviz.
    """
    program = shutil.which("dot")
    if program is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=20, check=True)
            version = re.search(r"\d+(\.\d+)+", said.stderr + said.stdout)
            return f"Graphviz {version[0] if version else '(unknown version)'} ({program})"
    bundled = _pygraphviz()
    return f"Graphviz {bundled.__graphviz_version__} (in pygraphviz {bundled.__version__})"


def _closest(kind: str) -> str:
    hint = did_you_mean(kind, FORMATS) if kind else ""
    return hint if hint.startswith("Did") else ""


def _dot(scene: Scene, direction: Direction, *, drawn: bool) -> str:
    directions = get_args(Direction)
    if direction not in directions:
        raise UsageError(f"there is no direction '{direction}'. Known: {', '.join(directions)}.")
    if drawn and len(scene.boxes) > MOST_BOXES:
        raise UsageError(
            f"the diagram of '{scene.title}' would have {len(scene.boxes):,} boxes, more than {MOST_BOXES:,}. "
            + ('Use level="stages" or fewer steps' if scene.unrolled else 'Use level="stages"')
            + ", or write a .dot file."
        )
    return to_dot(scene, direction=direction)


# Graphviz


def _painted(text: str, kind: str) -> bytes:
    """The picture of DOT text. A `dot` that cannot (it may lack a plug-in) gives way to the Graphviz of pygraphviz."""
    program = shutil.which("dot")
    if program is None:
        return _tidied(_by_pygraphviz(text, kind), kind)
    settings = [f"-G{name}={value}" for name, value in _settings(kind).items()]
    try:
        return _tidied(_output_of([program, f"-T{kind}", *settings], f"'{program}'", text, kind), kind)
    except UsageError as error:
        try:
            return _tidied(_by_pygraphviz(text, kind), kind)
        except HrgError:
            raise error from None


def _settings(kind: str) -> dict[str, str]:
    return {"dpi": str(_PNG_DPI), "size": f"{_PNG_WIDEST / _PNG_DPI:.2f}"} if kind == "png" else {}


def _pygraphviz() -> Any:
    try:
        import pygraphviz
    except ImportError as error:
        raise MissingToolError(f"diagrams need Graphviz, and there is none ({error}). {_INSTALL}") from None
    return pygraphviz


_PAINTER = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
graph.graph_attr.update(setting.split("=") for setting in sys.argv[2:])
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog=graph.graph_attr["layout"]))
"""


def _by_pygraphviz(text: str, kind: str) -> bytes:
    """In a process of its own: what a C library prints stays out of the way, and if it crashes it does so alone."""
    _pygraphviz()
    settings = [f"{name}={value}" for name, value in _settings(kind).items()]
    command = [sys.executable, "-P", "-c", _PAINTER, kind, *settings]
    return _output_of(command, "the Graphviz of pygraphviz", text, kind)


def _output_of(command: Sequence[str], who: str, text: str, kind: str) -> bytes:
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False, timeout=_PATIENCE_S)
    except OSError as error:
        raise UsageError(f"{who} cannot be started: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f'{who} found no layout in {_PATIENCE_S} s. Use level="stages", or write a .dot file.'
        ) from None
    if done.returncode or not done.stdout:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line and "Fontconfig" not in line]
        raise UsageError(f"{who} cannot draw this as {kind}: {said[-1] if said else f'exit code {done.returncode}'}.")
    return done.stdout


def _tidied(data: bytes, kind: str) -> bytes:
    """The picture without the time at which it was made: equal networks have equal files."""
    if kind != "pdf":
        return data
    return re.sub(rb"(/CreationDate \(D:)\d{14}", rb"\g<1>20000101000000", data)


def _standalone(data: bytes, title: str) -> str:
    """An `<svg>` element that refers to nothing outside, with its title first, where readers of screens look for it."""
    text = data.decode()
    start = text.index("<svg")
    end = text.index(">", start)
    opening, rest = text[start:end], text[end + 1 :]
    clean = "".join(c if c.isprintable() else " " for c in title) or "network"
    rest = re.sub(
        r'<g id="[^"]*" class="[a-z]+ centred">.*?</g>\n</g>', lambda found: _centred(found[0]), rest, flags=re.S
    )
    return f'{opening} role="img">\n<title>{html.escape(clean)}</title>{rest}'


def _centred(group: str) -> str:
    """A box with its text in the middle, whichever font is at hand: Graphviz fixes where a line begins."""
    outline = re.search(r'<(?:path|polygon) [^>]*(?:d|points)="([^"]*)"', group)
    if outline is None:
        return group
    xs = [float(x) for x in re.findall(r"(-?\d+(?:\.\d+)?),", outline[1])]
    middle = f"{(min(xs) + max(xs)) / 2:.2f}"
    return re.sub(r'text-anchor="start" x="[^"]*"', f'text-anchor="middle" x="{middle}"', group)
