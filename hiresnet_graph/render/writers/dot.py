"""A scene as a graph of the package graphviz: DOT text without positions, which Graphviz chooses."""

from __future__ import annotations

from collections.abc import Iterable

import graphviz

from hiresnet_graph.formats import one_line
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.make import box_style_name, style_name
from hiresnet_graph.render.picture.theme import THEMES, Theme
from hiresnet_graph.render.scene.scene import Arrow, Box, Scene


def scene_graph(scene: Scene, options: RenderOptions) -> graphviz.Digraph:
    """The scene as a `graphviz.Digraph`, whose `source` is DOT. Equal scenes give equal text."""
    theme = THEMES[options.theme]
    tones = theme.tones
    font = {"fontname": options.font_families, "fontsize": "10"}
    page = {
        "rankdir": options.direction,
        "bgcolor": tones["page"],
        "fontcolor": tones["soft"],
        "label": _text(scene.caption),
        "newrank": "true",
    }
    graph = graphviz.Digraph(
        _text([scene.title]), graph_attr=page | font, node_attr={"shape": "box", **font}, edge_attr=font
    )
    # In the name of an end of an edge, a colon would separate a port.
    names = {box.name: f"n{i}" if ":" in box.name else _text([box.name]) for i, box in enumerate(scene.boxes)}
    for group in scene.groups:
        style = theme.styles["frame" if group.family is None else "frame edge"]
        look = {
            "label": _text(filter(None, (group.title, group.note))),
            "style": "rounded,filled",
            "color": tones[style.stroke],
            "fillcolor": tones[style.fill],
            "fontcolor": tones["ink"],
        }
        with graph.subgraph(name=_text(["cluster_" + group.name]), graph_attr=look) as inner:
            for box in scene.boxes:
                if box.group == group.name:
                    inner.node(names[box.name], **_box(box, scene, theme))
    for box in scene.boxes:
        if not box.group:
            graph.node(names[box.name], **_box(box, scene, theme))
    for arrow in scene.arrows:
        graph.edge(names[arrow.source], names[arrow.target], **_arrow(arrow, scene, theme))
    return graph


def _text(lines: Iterable[str]) -> str:
    """Lines as they are: no HTML, and no escapes but for the ends of lines."""
    text: str = graphviz.nohtml("\\n".join(graphviz.escape(one_line(line)) for line in lines))
    return text


def _box(box: Box, scene: Scene, theme: Theme) -> dict[str, str]:
    style = theme.styles[box_style_name(box, scene)]
    return {
        "label": _text((box.title, *box.lines, *box.notes)),
        "tooltip": _text(box.tooltip.split("\n")),
        "style": "rounded,filled,dashed" if style.dash else "rounded,filled",
        "penwidth": f"{style.width:g}",
        "color": theme.tones[style.stroke],
        "fillcolor": theme.tones[style.fill],
        "fontcolor": theme.tones["ink"],
    }


def _arrow(arrow: Arrow, scene: Scene, theme: Theme) -> dict[str, str]:
    style = theme.styles[style_name(arrow, scene)]
    look = {
        "id": _text([arrow.name]),
        "tooltip": _text(arrow.tooltip.split("\n")),
        "color": theme.tones[style.stroke],
        "fontcolor": theme.tones[style.text],
        "penwidth": f"{style.width:g}",
        "style": "solid" if not style.dash else "dotted" if max(style.dash) < 3 else "dashed",
    }
    if arrow.label and scene.labelled and arrow.family != "shortcut":
        look["label"] = _text(arrow.label.replace(", ", ",\n").split("\n"))
    if arrow.family not in ("flow", "edge"):
        look["constraint"] = "false"  # the flow decides on the order
    return look
