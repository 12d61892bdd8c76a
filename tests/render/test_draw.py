import os
import re
import stat
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.render import FORMATS, Level, RenderOptions, make_scene, render, to_svg
from tests.render.networks import STATES

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return hrg.load("hiresnet18").variant("full").plan


def names(root: ElementTree.Element, kind: str) -> list[str]:
    """The names of all nodes, edges or clusters of an SVG."""
    groups = (group for group in root.iter(f"{SVG}g") if kind == group.get("class"))
    return [group.get("id", "").removeprefix(f"{kind}.") for group in groups]


@pytest.mark.parametrize("level", ["stages", "blocks", "ops"])
def test_svg_has_every_box_and_every_skip(plan: Plan, tmp_path: Path, level: Level) -> None:
    path = render(plan, tmp_path / "net.svg", RenderOptions(level=level), title="HiResNet <full> & more")
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    assert root[0].tag == f"{SVG}title" and root[0].text == "HiResNet <full> & more"
    scene = make_scene(plan, level=level)
    assert sorted(names(root, "node")) == sorted(box.name for box in scene.boxes)
    assert sorted(names(root, "edge")) == sorted(arrow.name for arrow in scene.arrows)
    text = path.read_text(encoding="utf-8")
    for edge in plan.edges:
        if edge.family == "skip":
            assert edge.name in text
    words = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert any("1x1 conv" in word for word in words)
    assert "16x32x32" in words


def test_svg_has_no_external_references(plan: Plan) -> None:
    text = to_svg(plan)
    assert text.startswith("<svg ") and text.rstrip().endswith("</svg>")
    assert "<!DOCTYPE" not in text and "<image" not in text and "href=" not in text
    assert set(re.findall(r'https?://[^"\s<]*', text)) == {"http://www.w3.org/2000/svg"}


def test_svg_centres_text_in_boxes_in_any_font(plan: Plan) -> None:
    root = ElementTree.fromstring(to_svg(plan))
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "node":
            texts = list(group.iter(f"{SVG}text"))
            assert texts and {text.get("text-anchor") for text in texts} == {"middle"}
            assert len({text.get("x") for text in texts}) == 1


def test_png_is_large_enough_to_print(plan: Plan, tmp_path: Path) -> None:
    data = render(plan, tmp_path / "net.png", RenderOptions(level="stages")).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert 1500 < width < 4000 and 400 < height < 2000


def test_pdf_is_a_pdf(plan: Plan, tmp_path: Path) -> None:
    data = render(plan, tmp_path / "net.PDF", RenderOptions(direction="TB")).read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "pdf"])
def test_equal_networks_have_equal_files(plan: Plan, tmp_path: Path, kind: str) -> None:
    again = hrg.load("hiresnet18").variant("full").plan
    one = render(plan, tmp_path / f"one.{kind}").read_bytes()
    two = render(again, tmp_path / f"two.{kind}").read_bytes()
    assert one == two


@pytest.mark.parametrize(("width", "centimetres"), [("single", 8.5), ("double", 17.5), ("12.5", 12.5)])
def test_a_figure_has_the_width_of_a_column(plan: Plan, tmp_path: Path, width: str, centimetres: float) -> None:
    options = RenderOptions(level="stages", width=width)
    root = ElementTree.fromstring(to_svg(plan, options))
    assert float((root.get("width") or "").removesuffix("pt")) == pytest.approx(centimetres / 2.54 * 72, abs=0.01)
    pdf = render(plan, tmp_path / "net.pdf", options).read_bytes()
    box = re.search(rb"/MediaBox \[([^]]*)\]", pdf)
    assert box is not None
    assert float(box[1].split()[2]) == pytest.approx(centimetres / 2.54 * 72, abs=1)


def test_counts_and_footer_can_be_left_out(plan: Plan) -> None:
    def texts(options: RenderOptions) -> list[str]:
        return [text.text or "" for text in ElementTree.fromstring(to_svg(plan, options)).iter(f"{SVG}text")]

    for level in ("stages", "blocks"):
        bare = texts(RenderOptions(level=level, counts=False))
        assert {"hiresnet18", "16x32x32"} <= set(bare) and any("distance of skips" in text for text in bare)
        assert not any("param" in text or "MACs" in text for text in bare)
    assert not any("distance of skips" in text for text in texts(RenderOptions(footer=False)))


def test_a_font_is_named_before_the_usual_ones(plan: Plan) -> None:
    root = ElementTree.fromstring(to_svg(plan, RenderOptions(font="Source Sans 3")))
    assert root.get("font-family") == "Source Sans 3,Helvetica,Arial,sans-serif"


@pytest.mark.parametrize(("name", "message"), [("net.jpg", "'.jpg' is not a diagram format"), ("net", "has no suffix")])
def test_an_unknown_suffix_is_an_error_with_the_known_ones(plan: Plan, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"must be one of \.svg, \.pdf, \.png, \.tex, \.html, \.dot, \.mmd") as error:
        render(plan, tmp_path / name)
    assert message in str(error.value)


def test_a_misspelled_suffix_has_a_suggestion(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean '\.svg'"):
        render(plan, tmp_path / "net.svgz")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"direction": "up"}, r"no direction 'up'\. Known: LR, TB"),
        ({"level": "block"}, r"no level 'block' of detail\. Did you mean 'blocks'\?"),
        ({"theme": "grey"}, r"no theme 'grey'\. Known: light, dark"),
        ({"width": "wide"}, r"the width 'wide' must be single, double, or a number of centimetres from 2 to 200"),
        ({"width": "1e9"}, "from 2 to 200"),
        ({"width": "nan"}, "from 2 to 200"),
        ({"font": 'a"b'}, "is not the name of a font"),
    ],
)
def test_an_unknown_option_is_an_error_that_lists_the_known_ones(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RenderOptions(**wrong)  # type: ignore[arg-type]


def test_a_missing_folder_is_reported_before_anything_is_drawn(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the folder '.*missing' of 'net.svg' does not exist"):
        render(plan, tmp_path / "missing" / "net.svg")
    (tmp_path / "net.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        render(plan, tmp_path / "net.svg")


def test_a_file_that_cannot_be_written_is_an_error_and_keeps_the_old_file(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "net.dot"
    target.write_text("old")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UsageError, match=r"net\.dot: cannot be written: Permission denied"):
        render(plan, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user for whom permissions count")
def test_a_folder_without_permission_is_an_error(plan: Plan, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UsageError, match="cannot be written"):
            render(plan, tmp_path / "net.dot")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_picture_of_thousands_of_boxes_is_refused(plan: Plan, tmp_path: Path) -> None:
    node = plan.nodes[1]
    many = replace(plan, nodes=tuple(replace(node, name=f"n{i}", value=f"n{i}") for i in range(2001)), edges=())
    with pytest.raises(UsageError, match=r'2,001 boxes, more than 2,000\. .*level="stages"'):
        render(many, tmp_path / "net.svg")
    assert render(many, tmp_path / "net.dot").stat().st_size > 0


def test_too_many_steps_are_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiresnet_graph.render.draw._MAX_BOXES", 150)
    network = hrg.loads(STATES).override({"steps": 70})
    with pytest.raises(
        UsageError,
        match=r'209 boxes, more than 150\. .*Use level="stages" or fewer steps, or write a \.dot or \.mmd file',
    ):
        network.render(tmp_path / "net.svg", unrolled=True)
    assert network.render(tmp_path / "net.svg").stat().st_size > 0


def test_a_network_in_time_is_drawn_rolled_or_unrolled(tmp_path: Path) -> None:
    network = hrg.loads(STATES)
    rolled = ElementTree.parse(network.render(tmp_path / "rolled.svg")).getroot()
    flat = ElementTree.parse(network.render(tmp_path / "flat.svg", unrolled=True)).getroot()
    assert names(rolled, "node") == ["input", "pre", "s1", "s2", "s3", "post"]
    assert sorted(names(flat, "node")) == sorted(box.name for box in make_scene(network.plan, unrolled=True).boxes)
    assert sorted(names(flat, "cluster")) == [f"step{step}" for step in range(4)]
    assert "t = 2" in [element.text for element in flat.iter(f"{SVG}text")]
    assert flat.findtext(f"{SVG}title") == "states"
    assert to_svg(network.plan, RenderOptions(unrolled=True)) in (tmp_path / "flat.svg").read_text(encoding="utf-8")


def test_drawing_does_not_load_torch() -> None:
    code = (
        "import sys, hiresnet_graph as hrg\n"
        "from hiresnet_graph.render import to_svg\n"
        "to_svg(hrg.load('hiresnet18').plan)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
