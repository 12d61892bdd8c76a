"""A picture as a LaTeX document with a TikZ picture, whose colours and styles have names at its top."""

from __future__ import annotations

from collections.abc import Iterator

from hiresnet_graph.formats import one_line
from hiresnet_graph.render.layout.geometry import Point
from hiresnet_graph.render.picture.glyphs import GLYPH, arrowhead, glyph_strokes
from hiresnet_graph.render.picture.picture import Link, Panel, Picture, Text
from hiresnet_graph.render.picture.theme import Style
from hiresnet_graph.render.writers.numbers import BASELINE, RADIUS, number

_HEAD = r"""% Compiles with pdflatex. In a paper, put colours and styles before \begin{document}, and the picture in a
% figure. A change of a colour or style changes everything that has it.
\documentclass{article}
\usepackage{fix-cm}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{tikz}
\usepackage[paperwidth=WIDTHbp, paperheight=HEIGHTbp, margin=0bp]{geometry}
\pagestyle{empty}
\setlength{\parindent}{0bp}
\setlength{\topskip}{0bp}"""
_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "…": r"\ldots{}",
    "→": r"$\to$",
    "\u00d7": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u2013": "--",
    "\u2014": "---",
} | {c: f"\\{c}" for c in "{}$&#%_"}
_LAST_LATIN = "\u017f"


def to_tikz(picture: Picture) -> str:
    """The document. Equal pictures give equal text."""
    return "\n".join(_TikzWriter(picture).lines()) + "\n"


def _tex(text: str) -> str:
    """A text for LaTeX; a letter that its usual fonts lack is written as its code."""
    return "".join(_CHARACTERS.get(c, c if c <= _LAST_LATIN else f"[U+{ord(c):04X}]") for c in one_line(text))


def _comment(text: str) -> str:
    return f"% {one_line(text)}"


class _TikzWriter:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.styles = picture.theme.styles

    def lines(self) -> Iterator[str]:
        page, scale = self.picture.page, self.picture.scale
        # One point more than the picture, so that rounding does not move it to a second page.
        size = (number(page.width * scale + 1), number(page.height * scale + 1))
        yield _HEAD.replace("WIDTH", size[0]).replace("HEIGHT", size[1])
        used = list(dict.fromkeys([*(panel.style for panel in self.picture.panels), *self._line_styles()]))
        texts = [text for panel in self.picture.panels for text in panel.texts]
        texts += [text for link in self.picture.links for text in link.texts]
        texts += self.picture.caption
        tones = {"page", "ink", *(text.tone for text in texts)}
        for name in used:
            tones |= {self.styles[name].stroke, self.styles[name].fill} - {""}
        yield "% colours"
        for name, color in self.picture.theme.tones.items():
            if name in tones:
                yield f"\\definecolor{{hrg-{name}}}{{HTML}}{{{color.removeprefix('#').upper()}}}"
        yield "% styles"
        yield "\\tikzset{"
        # Shapes and fonts are scaled by `transform shape`; lengths of lines are not, and have their final size.
        yield f"  hrg/.style={{x=1bp, y=1bp, scale={scale:.4f}, transform shape, line cap=butt}},"
        for name in used:
            yield f"  hrg {name}/.style={{{self._look(self.styles[name])}}},"
        for size_pt, is_bold in sorted({(text.size, text.is_bold) for text in texts}):
            series = r"\bfseries" if is_bold else r"\mdseries"
            font = f"font=\\fontsize{{{number(size_pt)}bp}}{{{number(size_pt * 1.2)}bp}}\\sffamily{series}\\selectfont"
            yield f"  {_font(size_pt, is_bold)}/.style={{{font}, anchor=base, inner sep=0bp, outer sep=0bp}},"
        yield "}"
        yield "\\begin{document}"
        yield "\\begin{tikzpicture}[hrg]"
        yield f"\\fill[hrg-page] (0,0) rectangle ({number(page.width)},{number(page.height)});"
        for panel in self.picture.panels:
            yield from self._panel(panel)
        for link in self.picture.links:
            yield from self._link(link)
        yield from map(self._text, self.picture.caption)
        yield "\\end{tikzpicture}"
        yield "\\end{document}"

    def _line_styles(self) -> Iterator[str]:
        for link in self.picture.links:
            yield link.style
            if link.glyphs:
                yield "glyph"

    def _length(self, value: float) -> str:
        return f"{number(value * self.picture.scale)}bp"

    def _look(self, style: Style) -> str:
        parts = [f"draw=hrg-{style.stroke}", f"line width={self._length(style.width)}"]
        if style.fill:
            parts += [f"fill=hrg-{style.fill}", f"rounded corners={self._length(RADIUS)}"]
        if style.dash:
            pairs = zip(style.dash[::2], style.dash[1::2], strict=True)
            parts.append("dash pattern=" + " ".join(f"on {self._length(a)} off {self._length(b)}" for a, b in pairs))
        return ", ".join(parts)

    def _text(self, text: Text) -> str:
        at = _point(Point(text.at.x, text.at.y - BASELINE * text.size))
        return f"\\node[{_font(text.size, text.is_bold)}, text=hrg-{text.tone}] at {at} {{{_tex(text.text)}}};"

    def _panel(self, panel: Panel) -> Iterator[str]:
        rect = panel.rect
        yield _comment(panel.name)
        corners = f"{_point(Point(rect.left, rect.low))} rectangle {_point(Point(rect.right, rect.high))}"
        yield f"\\draw[hrg {panel.style}] {corners};"
        yield from map(self._text, panel.texts)

    def _link(self, link: Link) -> Iterator[str]:
        yield _comment(link.tooltip.split("\n")[0])
        points = link.curve.points
        path = _point(points[0])
        for i in range(1, len(points) - 2, 3):
            path += f" .. controls {_point(points[i])} and {_point(points[i + 1])} .. {_point(points[i + 2])}"
        yield f"\\draw[hrg {link.style}] {path};"
        yield f"\\fill[hrg-{self.styles[link.style].stroke}] {' -- '.join(map(_point, arrowhead(link)))} -- cycle;"
        yield from map(self._text, link.texts)
        for glyph in link.glyphs:
            yield f"\\draw[hrg glyph] {_point(glyph.at)} circle[radius={number(GLYPH)}];"
            yield from (f"\\draw[hrg glyph] {_point(a)} -- {_point(b)};" for a, b in glyph_strokes(glyph))


def _font(size: float, is_bold: bool) -> str:
    return f"hrg text {number(size).replace('.', '-')}" + (" bold" if is_bold else "")


def _point(point: Point) -> str:
    return f"({number(point.x)},{number(point.y)})"
