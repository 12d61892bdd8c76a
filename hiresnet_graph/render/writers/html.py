"""A picture as a web page: one file, in which edges show what they do, and families of edges can be switched off."""

from __future__ import annotations

import html
import re
from collections import Counter
from importlib.resources import files

from hiresnet_graph.render.picture.picture import Picture
from hiresnet_graph.render.writers.svg import to_svg_text

_NAMES = {
    "flow": "flow",
    "edge": "single edges",
    "shortcut": "shortcuts of blocks",
    "gate": "gates",
    "skip": "skips",
    "in": "in",
    "out": "out",
}
"""The families in the order of their switches; `p1`, `p2`, ... follow."""


def to_html(picture: Picture) -> str:
    """The page. Equal pictures give equal text."""
    template = files("hiresnet_graph.render.writers").joinpath("page.html").read_text(encoding="utf-8")
    tones = picture.theme.tones
    parts = {
        "TITLE": html.escape(picture.title),
        "FONT": picture.font,
        "PAGE": tones["page"],
        "INK": tones["ink"],
        "SOFT": tones["soft"],
        "BORDER": tones["frame-border"],
        "PANEL": tones["frame"],
        "FOCUS": tones["hue1"],
        "SWITCHES": _switches(picture),
        "DIAGRAM": to_svg_text(picture),
    }
    return re.sub("%([A-Z]+)%", lambda found: parts[found[1]], template)


def _switches(picture: Picture) -> str:
    """A checkbox for each family, with its number of lines."""
    numbers = Counter(family for link in picture.links for family in link.families)
    distances = sorted((family for family in numbers if family not in _NAMES), key=lambda family: (len(family), family))
    shown = [family for family in (*_NAMES, *distances) if numbers[family]]
    return "\n".join(
        f'<label><input type="checkbox" value="{html.escape(family)}" checked> '
        f"{html.escape(_NAMES.get(family, family))} ({numbers[family]})</label>"
        for family in shown
    )
