"""A scene as a Mermaid flowchart, without positions, which Mermaid chooses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hiresnet_graph.formats import one_line
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.make import box_style_name, style_name
from hiresnet_graph.render.picture.theme import THEMES, Theme
from hiresnet_graph.render.scene.scene import Box, Scene


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
