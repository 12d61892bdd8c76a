"""A scene in DOT, the language of Graphviz, and in Mermaid: without positions, which those programs choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hiresnet_graph.formats import one_line
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.make import box_style_name, style_name
from hiresnet_graph.render.picture.theme import THEMES, Theme
from hiresnet_graph.render.scene.scene import Arrow, Box, Scene


def to_dot(scene: Scene, options: RenderOptions) -> str:
    """The scene in the DOT language. Equal scenes give equal text."""
    theme = THEMES[options.theme]
    tones = theme.tones
    page = {
        "rankdir": options.direction,
        "bgcolor": tones["page"],
        "fontcolor": tones["soft"],
        "label": "",
        "newrank": "true",
    }
    page["label"] = "\n".join(scene.caption)
    font = {"fontname": options.font_families, "fontsize": "10"}
    lines = [f"digraph {_quoted(scene.title)} {{", f"  graph {_dot_attributes(page | font)};"]
    lines += [f"  node {_dot_attributes({'shape': 'box', **font})};", f"  edge {_dot_attributes(font)};"]
    for group in scene.groups:
        style = theme.styles["frame" if group.family is None else "frame edge"]
        title = "\n".join(filter(None, (group.title, group.note)))
        look = {"label": title, "style": "rounded,filled", "color": tones[style.stroke], "fillcolor": tones[style.fill]}
        lines.append(f"  subgraph {_quoted('cluster_' + group.name)} {{")
        lines.append(f"    graph {_dot_attributes({**look, 'fontcolor': tones['ink']})};")
        lines += [f"    {_dot_box(box, scene, theme)}" for box in scene.boxes if box.group == group.name]
        lines.append("  }")
    lines += [f"  {_dot_box(box, scene, theme)}" for box in scene.boxes if not box.group]
    for arrow in scene.arrows:
        ends = f"{_quoted(arrow.source)} -> {_quoted(arrow.target)}"
        lines.append(f"  {ends} {_dot_attributes(_dot_arrow(arrow, scene, theme))};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    lines = (one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def _dot_attributes(attributes: Mapping[str, str]) -> str:
    return "[" + ", ".join(f"{name}={_quoted(value)}" for name, value in attributes.items()) + "]"


def _dot_box(box: Box, scene: Scene, theme: Theme) -> str:
    style = theme.styles[box_style_name(box, scene)]
    look = {
        "label": "\n".join((box.title, *box.lines, *box.notes)),
        "tooltip": box.tooltip,
        "style": "rounded,filled,dashed" if style.dash else "rounded,filled",
        "penwidth": f"{style.width:g}",
        "color": theme.tones[style.stroke],
        "fillcolor": theme.tones[style.fill],
        "fontcolor": theme.tones["ink"],
    }
    return f"{_quoted(box.name)} {_dot_attributes(look)};"


def _dot_arrow(arrow: Arrow, scene: Scene, theme: Theme) -> dict[str, str]:
    style = theme.styles[style_name(arrow, scene)]
    look = {
        "id": arrow.name,
        "tooltip": arrow.tooltip,
        "color": theme.tones[style.stroke],
        "fontcolor": theme.tones[style.text],
        "penwidth": f"{style.width:g}",
        "style": "solid" if not style.dash else "dotted" if max(style.dash) < 3 else "dashed",
    }
    if arrow.label and scene.labelled and arrow.family != "shortcut":
        look["label"] = arrow.label.replace(", ", ",\n")
    if arrow.family not in ("flow", "edge"):
        look["constraint"] = "false"  # the flow decides on the order
    return look


# Mermaid


def to_mermaid(scene: Scene, options: RenderOptions) -> str:
    """The scene as a Mermaid flowchart. Equal scenes give equal text."""
    theme = THEMES[options.theme]
    ids = {box.name: f"b{i}" for i, box in enumerate(scene.boxes)}
    lines = ["---", f"title: {_mermaid_title(scene.title)}", "---"] if options.footer else []
    lines += [f"%% {one_line(line)}" for line in scene.caption]
    lines.append(f"flowchart {options.direction}")
    for i, group in enumerate(scene.groups):
        lines.append(f"  subgraph g{i}[{_mermaid_text((group.title, group.note))}]")
        lines += [f"    {_mermaid_box(box, ids)}" for box in scene.boxes if box.group == group.name]
        lines.append("  end")
    lines += [f"  {_mermaid_box(box, ids)}" for box in scene.boxes if not box.group]
    used: dict[str, list[int]] = {}
    for i, arrow in enumerate(scene.arrows):
        name = style_name(arrow, scene)
        used.setdefault(name, []).append(i)
        line = "-.->" if theme.styles[name].dash or arrow.family == "shortcut" else "-->"
        is_labelled = arrow.label and scene.labelled and arrow.family != "shortcut"
        label = f"|{_mermaid_text(arrow.label.split(', '))}|" if is_labelled else ""
        lines.append(f"  {ids[arrow.source]} {line}{label} {ids[arrow.target]}")
    return "\n".join([*lines, *_mermaid_styles(scene, theme, ids, used), ""])


def _mermaid_title(title: str) -> str:
    return '"' + one_line(title).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _mermaid_text(lines: Iterable[str]) -> str:
    """A quoted text; characters with a meaning in Mermaid or HTML are written like #35;."""
    shown = (one_line(line) for line in lines if line)
    escaped = ("".join(f"#{ord(c)};" if c in '"#&<>`|\\[]{}' else c for c in line) for line in shown)
    return '"' + "<br/>".join(escaped) + '"'


def _mermaid_box(box: Box, ids: Mapping[str, str]) -> str:
    return f"{ids[box.name]}({_mermaid_text((box.title, *box.lines, *box.notes))})"


def _mermaid_styles(scene: Scene, theme: Theme, ids: Mapping[str, str], used: Mapping[str, list[int]]) -> Iterator[str]:
    tones = theme.tones
    classes: dict[str, list[str]] = {}
    for box in scene.boxes:
        classes.setdefault(box_style_name(box, scene), []).append(ids[box.name])
    for name, members in classes.items():
        style = theme.styles[name]
        look = f"fill:{tones[style.fill]},stroke:{tones[style.stroke]},color:{tones['ink']}"
        dash = f",stroke-dasharray:{' '.join(f'{length:g}' for length in style.dash)}" if style.dash else ""
        identifier = name.replace(" ", "_")
        yield f"  classDef {identifier} {look},stroke-width:{style.width:g}px{dash}"
        yield f"  class {','.join(members)} {identifier}"
    for name, numbers in used.items():
        style = theme.styles[name]
        look = f"stroke:{tones[style.stroke]},stroke-width:{style.width:g}px,color:{tones[style.text]}"
        yield f"  linkStyle {','.join(map(str, numbers))} {look}"
