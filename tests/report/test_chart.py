import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import get_args

import pytest

from hiresnet_graph.cli.commands.readout import PICTURES
from hiresnet_graph.report.chart import Dot, Fills, Kind, Line, chart_bytes, line_chart

SVG = "{http://www.w3.org/2000/svg}"
BREAK = (Dot(2, 10.0), Dot(3, 90.0, 5.0), Dot(5, 50.0, is_filled=False))


def written(*lines: Line, kind: Kind = "svg") -> bytes:
    fills = Fills("now", 'it\'s "then"')
    chart = line_chart(lines, title="a < b & c", x_label="step", y_label="accuracy (%)", fills=fills)
    return chart_bytes(chart, kind)


def drawn(*lines: Line) -> ET.Element:
    return ET.fromstring(written(*lines))


def words(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def marks(root: ET.Element, kind: str, role: str = "role-mark") -> list[dict[str, str]]:
    """The marks of one kind: of the data, or of a legend."""
    groups = (group for group in root.iter(f"{SVG}g") if group.get("class", "").split()[:2] == [f"mark-{kind}", role])
    return [part.attrib for group in groups for part in group]


def test_a_chart_has_titles_dots_and_lines() -> None:
    root = drawn(Line("one", BREAK))
    assert {"a < b & c", "step", "accuracy (%)", "2", "3", "4", "5", "now", 'it\'s "then"'} <= set(words(root))
    assert "one" not in words(root)
    dots = [dot for dot in marks(root, "symbol") if "stroke" in dot]
    looks = [("black" if dot["fill"] == "#000000" else dot["fill"], dot.get("fill-opacity", "1")) for dot in dots]
    assert looks == [("black", "1"), ("black", "1"), ("black", "0")]
    keys = [(key["fill"], key["stroke"]) for key in marks(root, "symbol", "role-legend-symbol")]
    assert keys == [("black", "black"), ("white", "black")]
    heights = [float(dot["transform"].rstrip(")").split(",")[1]) for dot in dots]
    assert heights[1] < heights[2] < heights[0]  # downwards on the page
    assert len(marks(root, "line")) == 2  # 2 to 3 is joined, 3 to 5 is not


def test_spread_is_an_error_bar() -> None:
    assert len(marks(drawn(Line("one", BREAK)), "rule")) > len(marks(drawn(Line("one", BREAK[:1])), "rule")) == 0


def test_several_lines_have_a_legend_and_distinct_styles() -> None:
    lines = [Line(f"line {i}", (Dot(0, float(i)), Dot(1, float(i)))) for i in range(35)]
    root = drawn(*lines)
    assert [line.label for line in lines[:28]] == [word for word in words(root) if word.startswith("line")][:28]
    assert words(root).count("line 34") == 1 and "now" not in words(root)
    looks = {(line["stroke"], line.get("stroke-dasharray")) for line in marks(root, "line")}
    assert len(looks) == 28


@pytest.mark.parametrize(("low", "high"), [(50.0, 50.0), (0.0, 100.0), (97.1, 97.9), (-3.0, 2e6)])
def test_every_dot_is_inside_the_axes(low: float, high: float) -> None:
    for dots in ((Dot(0, low), Dot(1, high)), (Dot(7, low),)):
        for dot in marks(drawn(Line("x", dots)), "symbol"):
            x, y = map(float, dot["transform"].removeprefix("translate(").rstrip(")").split(","))
            assert 0 < x < 420 and 0 <= y <= 280


def test_the_number_of_ticks_is_limited() -> None:
    found = [word for word in words(drawn(Line("x", (Dot(4, 50.0),)))) if word.isdecimal()]
    assert found.count("4") == 1 and "3" not in found and "5" not in found
    many = drawn(Line("x", tuple(Dot(step, 0.5) for step in range(200))))
    assert sum(word.isdecimal() for word in words(many)) <= 14


STARTS: dict[Kind, bytes] = {"svg": b"<svg ", "png": b"\x89PNG", "pdf": b"%PDF-", "html": b"<!DOCTYPE html>"}


@pytest.mark.parametrize("kind", STARTS)
def test_every_format_is_written_reproducibly(kind: Kind) -> None:
    data = written(Line("one", BREAK), kind=kind)
    assert data.startswith(STARTS[kind])
    if kind != "pdf":  # there, the names of fonts are drawn by lot
        assert data == written(Line("one", BREAK), kind=kind)


def test_a_page_is_self_contained() -> None:
    page = written(Line("one", BREAK), kind="html").decode()
    assert "<script src" not in page and "<link" not in page and "cdn.jsdelivr" not in page and "import(" not in page


def test_the_command_knows_the_formats() -> None:
    assert set(PICTURES) == set(get_args(Kind)) == set(STARTS)


def test_altair_is_loaded_when_a_chart_is_made() -> None:
    program = "import sys, hiresnet_graph.report, hiresnet_graph.cli.commands.readout\n"
    program += "heavy = {'altair', 'vl_convert'} & set(sys.modules)\nassert not heavy, heavy\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
