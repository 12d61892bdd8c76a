"""What can be chosen about a diagram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar, get_args

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.figure_style import WIDTHS_CM
from hiresnet_graph.render.layout.layout import Direction
from hiresnet_graph.render.picture.theme import ThemeName
from hiresnet_graph.render.scene.scene import Level

FONT = "Helvetica,Arial,sans-serif"
_MIN_CM, _MAX_CM = 2.0, 200.0
_V = TypeVar("_V", bound=str)


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How a network is drawn.

    Attributes:
        level: `stages` has a box for each stage, as for a paper; `blocks` one for each block; `ops` one for each call.
        direction: `LR` for left to right, `TB` for top to bottom.
        unrolled: Draw each step of a network with `time`, in a column of its own (with `TB`, a row).
        width: `single` or `double` for the columns of a journal page, or a number of centimetres; empty for the
            natural size. A picture that would be too small is wrapped into several rows first.
        font: A font family that the reader's machine has; empty for Helvetica or Arial.
        counts: Whether boxes and the caption have numbers of parameters and multiply-adds.
        footer: Whether there is a caption.
        theme: `light` or `dark`.
    """

    level: Level = "blocks"
    direction: Direction = "LR"
    unrolled: bool = False
    width: str = ""
    font: str = ""
    counts: bool = True
    footer: bool = True
    theme: ThemeName = "light"

    def __post_init__(self) -> None:
        """Check the names and the width.

        Raises:
            UsageError: A level, direction, theme or width is unknown, or the font is no name.
        """
        _check("level of detail", self.level, get_args(Level))
        _check("direction", self.direction, get_args(Direction))
        _check("theme", self.theme, get_args(ThemeName))
        if any(c in "\"'<>&;{}\\" or not c.isprintable() for c in self.font):
            raise UsageError(f"the font {self.font!r} is not the name of a font. Give one like 'Source Sans 3'.")
        _ = self.width_cm

    @property
    def width_cm(self) -> float | None:
        """The width of the figure in centimetres; None for the natural size."""
        if not self.width:
            return None
        if self.width in WIDTHS_CM:
            return WIDTHS_CM[self.width]
        try:
            width = float(self.width)
        except ValueError:
            width = math.nan
        if not _MIN_CM <= width <= _MAX_CM:
            known = ", ".join(WIDTHS_CM)
            raise UsageError(
                f"the width '{self.width}' must be {known}, or a number of centimetres from {_MIN_CM:g} to {_MAX_CM:g}."
            )
        return width

    @property
    def font_families(self) -> str:
        """The CSS list of fonts."""
        return f"{self.font},{FONT}" if self.font else FONT


def _check(noun: str, value: _V, known: tuple[_V, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        closest = f"{hint} " if hint.startswith("Did") else ""
        start = (
            f"there is no level '{value}' of detail" if noun.startswith("level") else f"there is no {noun} '{value}'"
        )
        raise UsageError(f"{start}. {closest}Known: {', '.join(known)}.")
