"""Colours, widths and dashes by name, for light and dark pages.

A distance of skips has a colour and a dash pattern, so that distances differ in a grey print too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hiresnet_graph.figure_style import HUES

ThemeName = Literal["light", "dark"]
Dash = tuple[float, ...]

SKIP_DASHES: tuple[Dash, ...] = ((), (7, 3), (2, 2), (9, 3, 2, 3), (12, 4), (5, 2, 2, 2, 2, 2))
"""The dash patterns of skips: those of hue 1, 2, ...; hue 7 has the first again."""
_DELAYED: Dash = (5, 3)


@dataclass(frozen=True, slots=True)
class Style:
    """How a shape is drawn; `stroke`, `fill` and `text` are names of tones.

    Attributes:
        fill: Empty for none.
        text: Tone of the labels of a line.
        width: Of the stroke, in points.
    """

    stroke: str
    fill: str = ""
    text: str = "soft"
    width: float = 1.0
    dash: Dash = ()


@dataclass(frozen=True, slots=True)
class Theme:
    """The tones of a page, each a colour like `#1a1a1a`, and the styles of everything on it."""

    tones: Mapping[str, str]
    styles: Mapping[str, Style]


_LIGHT = {
    "page": "#ffffff",
    "ink": "#1a1a1a",
    "soft": "#5a5a5a",
    "faint": "#8c8c8c",
    "border": "#4a4a4a",
    "input": "#ececec",
    "block": "#ffffff",
    "stage": "#e6eef7",
    "fold": "#f4f4f4",
    "frame": "#f1f5fa",
    "frame-border": "#b9c6d6",
    "edge-frame": "#fafafa",
    "edge-frame-border": "#c9c9c9",
} | dict(zip((f"hue{i}" for i in range(1, 7)), HUES, strict=True))
_LIGHT_TEXT = ("#005a8c", "#a84900", "#00694d", "#96487a", "#8a5f00", "#1e6c9c")
_DARK = {
    "page": "#15181d",
    "ink": "#ececec",
    "soft": "#b8bcc4",
    "faint": "#8f949c",
    "border": "#a3a9b3",
    "input": "#343941",
    "block": "#23272e",
    "stage": "#24364a",
    "fold": "#1b1e23",
    "frame": "#1b222b",
    "frame-border": "#4d5d70",
    "edge-frame": "#191c20",
    "edge-frame-border": "#53575e",
    "hue1": "#4fb0ec",
    "hue2": "#ff8f3f",
    "hue3": "#2fd0a2",
    "hue4": "#e9a3cb",
    "hue5": "#f2b63a",
    "hue6": "#a3d9f7",
}
_DARK_TEXT = tuple(_DARK[f"hue{i}"] for i in range(1, 7))


def _styles() -> dict[str, Style]:
    boxes = {
        "box input": Style("border", "input"),
        "box block": Style("border", "block"),
        "box stage": Style("border", "stage"),
        "box fold": Style("border", "fold", dash=(4, 3)),
        "box op": Style("border", "block"),
        "box zeros": Style("border", "fold", dash=(4, 3)),
        "frame": Style("frame-border", "frame"),
        "frame edge": Style("edge-frame-border", "edge-frame"),
        "glyph": Style("ink", "page"),
    }
    lines = {
        "flow": Style("ink", text="ink", width=1.2),
        "shortcut": Style("faint", width=0.8),
        "gate": Style("soft", width=1.2, dash=(1.2, 2.4)),
        "lateral": Style("hue3", text="hue3-text", width=1.2),
        "feedback": Style("hue2", text="hue2-text", width=1.2),
        "silent": Style("faint", width=1.2),
    }
    for i, dash in enumerate(SKIP_DASHES, 1):
        lines[f"skip {i}"] = Style(f"hue{i}", text=f"hue{i}-text", width=1.6, dash=dash)
    changes = {
        "same": Style("faint", width=1.0),
        "added": Style("hue3", text="hue3-text", width=2.2),
        "removed": Style("hue2", text="hue2-text", width=1.6, dash=(5, 3)),
        "changed": Style("hue1", text="hue1-text", width=1.8, dash=(9, 3, 2, 3)),
    }
    for name, style in changes.items():
        boxes[f"box {name}"] = replace(style, fill="block", width=style.width)
    delayed = {f"{name} delayed": replace(style, dash=_DELAYED) for name, style in lines.items()}
    outputs = {f"{name} output": replace(style, width=2.0) for name, style in boxes.items() if name.startswith("box")}
    return boxes | outputs | lines | delayed | changes


def _theme(tones: Mapping[str, str], texts: tuple[str, ...]) -> Theme:
    return Theme({**tones, **{f"hue{i}-text": color for i, color in enumerate(texts, 1)}}, _styles())


THEMES: Mapping[ThemeName, Theme] = {"light": _theme(_LIGHT, _LIGHT_TEXT), "dark": _theme(_DARK, _DARK_TEXT)}
