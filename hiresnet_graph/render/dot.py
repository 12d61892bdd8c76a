"""A scene as DOT text with the positions from `layout`, which Graphviz only draws."""

from __future__ import annotations

import html
from collections.abc import Iterable

import graphviz  # type: ignore[import-untyped]

from hiresnet_graph.formats import one_line
from hiresnet_graph.graph import Family
from hiresnet_graph.render.layout.geometry import HEAD, LABEL, LINE, NOTE, TITLE
from hiresnet_graph.render.layout.layout import Direction, Layout
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Heading, Scene

FONT = "Helvetica,Arial,sans-serif"
INK, SOFT, FAINT = "#1a1a1a", "#5a5a5a", "#8c8c8c"

_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which are distinguishable with any colour vision (without black and yellow)."""
_HUES_OF_TEXT = ("#005A8C", "#A84900", "#00694D", "#96487A", "#8A5F00", "#1E6C9C")
"""The same, dark enough for text."""
_HEADING_COLORS: dict[Heading, tuple[str, str]] = {
    "lateral": ("#009E73", "#00694D"),
    "feedback": ("#D55E00", "#A84900"),
    "silent": (FAINT, SOFT),
}
"""Colour of the line and of the text of arrows that do not lead forwards."""
_FILL = {
    "input": "#ececec",
    "block": "#ffffff",
    "stage": "#e6eef7",
    "fold": "#f4f4f4",
    "op": "#ffffff",
    "zeros": "#f4f4f4",
}


def to_dot(scene: Scene, *, direction: Direction = "LR") -> str:
    """The scene in the DOT language. Equal scenes give equal text.

    The text has all positions, so that every version of Graphviz draws the same picture.
    """
    layout = make_layout(scene, direction)
    graph = graphviz.Digraph(_identifier(one_line(scene.title)) or "network", encoding="utf-8")
    graph.attr("graph", **_graph(scene, layout))
    graph.attr("node", shape="box", style="rounded,filled", fontname=FONT, fontsize=_number(LINE), penwidth="1")
    graph.attr("edge", fontname=FONT, fontsize=_number(LABEL), arrowsize=_number(HEAD / 10), color=INK)
    for group in scene.groups:
        with graph.subgraph(name=f"cluster_{_identifier(group.name)}") as inner:
            inner.attr("graph", **_group(group, layout))
            for box in scene.boxes:
                if box.group == group.name:
                    inner.node(_identifier(box.name), **_box(box, layout))
    for box in scene.boxes:
        if not box.group:
            graph.node(_identifier(box.name), **_box(box, layout))
    for arrow in scene.arrows:
        attributes = _arrow(arrow, scene, layout)
        graph.edge(_identifier(arrow.source), _identifier(arrow.target), **attributes)
    return str(graph.source)


# text


def _identifier(name: str) -> str:
    """A name without characters that have a meaning in DOT or are invisible: these are written like %3A."""
    return "".join(f"%{ord(c):02X}" if c in ':\\"<>%' or not c.isprintable() else c for c in name)


def _text(text: str) -> str:
    """Text for an HTML-like label."""
    return html.escape(one_line(text))


def _plain(lines: Iterable[str]) -> str:
    """Lines of plain text, each centred."""
    text: str = graphviz.nohtml("\\n".join(graphviz.escape(one_line(line)) for line in lines))
    return text


def _lines(lines: list[str]) -> str:
    """Lines of HTML-like text, each centred, with some space between them."""
    rows = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{rows}</table>>'


def _sized(text: str, size: float, color: str = INK, *, bold: bool = False) -> str:
    inner = f"<b>{_text(text)}</b>" if bold else _text(text)
    return f'<font point-size="{_number(size)}" color="{color}">{inner}</font>'


def _tooltip(text: str) -> str:
    tooltip: str = graphviz.nohtml("\n".join(graphviz.escape(one_line(line)) for line in text.split("\n")))
    return tooltip


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


# attributes


def _graph(scene: Scene, layout: Layout) -> dict[str, str]:
    page = layout.page
    return {
        # Plain text and not HTML-like: Graphviz then leaves it to the reader's font where a line begins.
        "label": _plain(scene.caption),
        "fontcolor": SOFT,
        "fontname": FONT,
        "fontsize": _number(LABEL),
        "bgcolor": "white",
        "outputorder": "edgesfirst",
        "layout": "nop2",
        "bb": ",".join(map(_number, (page.left, page.low, page.right, page.high))),
        "lp": _point(layout.caption),
        "pad": "0.14",
        "notranslate": "true",
    }


def _point(point: tuple[float, float]) -> str:
    return f"{_number(point[0])},{_number(point[1])}"


def _group(group: Group, layout: Layout) -> dict[str, str]:
    lines = [_sized(group.title, LINE, INK, bold=True)]
    if group.note:
        lines.append(_sized(group.note, NOTE, SOFT))
    attributes = {
        "label": _lines(lines),
        "tooltip": _tooltip(group.name),
        "style": "rounded,filled",
        "color": "#b9c6d6",
        "fillcolor": "#f1f5fa",
        "fontname": FONT,
    }
    if group.family is not None:
        attributes |= {"color": "#c9c9c9", "fillcolor": "#fafafa"}
    rect = layout.groups[group.name]
    attributes["bb"] = ",".join(map(_number, (rect.left, rect.low, rect.right, rect.high)))
    attributes["lp"] = _point(layout.headers[group.name])
    if abs(layout.headers[group.name].x - rect.centre.x) < 0.1:
        attributes["class"] = "centred"
    return attributes


def _box(box: Box, layout: Layout) -> dict[str, str]:
    small = box.role == "op"
    lines = [_sized(box.title, LINE if small else TITLE, INK, bold=True)]
    lines += [_sized(line, NOTE if small else LINE, SOFT if small else INK) for line in box.lines]
    lines += [_sized(note, NOTE, SOFT) for note in box.notes]
    attributes = {
        "label": _lines(lines),
        "tooltip": _tooltip(box.tooltip),
        "id": f"node.{_identifier(box.name)}",
        "class": "centred",
        "fillcolor": _FILL[box.role],
        "color": "#4a4a4a",
        "margin": "0.08,0.04",
    }
    if box.role in ("fold", "zeros"):
        attributes["style"] = "rounded,filled,dashed"
    if box.output:
        attributes["penwidth"] = "2"
    rect = layout.boxes[box.name]
    attributes["pos"] = _point(rect.centre)
    attributes["width"] = f"{rect.width / 72:.4f}"
    attributes["height"] = f"{rect.height / 72:.4f}"
    return attributes


def _stroke(arrow: Arrow, scene: Scene) -> dict[str, str]:
    color, text, width, style = _family(arrow.family, arrow.hue)
    if arrow.heading != "forward" and arrow.family not in ("shortcut", "gate"):
        color, text = _HEADING_COLORS[arrow.heading]
    if arrow.delay and not scene.unrolled:  # unrolled, time is a direction of the page
        style = "dashed"
    return {"color": color, "fontcolor": text, "penwidth": width, "style": style}


def _family(family: Family, hue: int) -> tuple[str, str, str, str]:
    """Colour, colour of the text, width and style."""
    if family == "skip":
        i = (max(1, hue) - 1) % len(_HUES)
        return _HUES[i], _HUES_OF_TEXT[i], "1.6", "solid"
    if family == "shortcut":
        return FAINT, SOFT, "0.8", "solid"
    if family == "gate":
        return SOFT, SOFT, "1.2", "dotted"
    return INK, INK, "1.2", "solid"


def _arrow(arrow: Arrow, scene: Scene, layout: Layout) -> dict[str, str]:
    attributes = _stroke(arrow, scene)
    attributes["id"] = f"edge.{_identifier(arrow.name)}"
    attributes["tooltip"] = _tooltip(arrow.tooltip)
    if arrow.family == "shortcut":
        attributes["arrowsize"] = _number(HEAD / 10 * 0.8)
    path = layout.arrows[arrow.name]
    attributes["pos"] = f"e,{_point(path.tip)} " + " ".join(map(_point, path.points))
    label = layout.labels.get(arrow.name)
    if label is not None:
        attributes["label"] = _plain(label.lines)
        attributes["lp"] = _point(label.at)
    return attributes
