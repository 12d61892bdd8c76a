"""Two networks in one diagram, and several on one sheet."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.render import RenderOptions, Scene, make_scene, render_difference, render_sheet
from hiresnet_graph.render.scene.difference import difference_scene
from tests.render.lines import crossed, overlaps
from tests.render.test_draw import SVG, names


def scene_of(before: str, after: str) -> Scene:
    def made(text: str) -> Scene:
        name, _, variant = text.partition("@")
        network = hrg.load(name)
        return make_scene((network.variant(variant) if variant else network).plan, title=text)

    return difference_scene(made(before), made(after))


def test_edges_that_differ_are_added_or_removed() -> None:
    scene = scene_of("hiresnet18@in", "hiresnet18@out")
    changes = {arrow.name: arrow.change for arrow in scene.arrows if arrow.change}
    assert changes == {
        "edges.stem__stage1": "removed",
        "edges.stem__stage2": "removed",
        "edges.stage1__stage3": "added",
        "edges.stage2__stage3": "added",
    }
    assert not any(box.change for box in scene.boxes)
    assert scene.caption[0] == "hiresnet18@in \u2192 hiresnet18@out: 2 added, 2 removed, 0 changed"
    assert {arrow.label for arrow in scene.arrows if arrow.change} == {
        "\u2212 identity",
        "\u2212 avg pool, 1x1 conv, BN",
        "+ avg pool, 1x1 conv, BN",
    }


def test_boxes_that_differ_say_what_they_were() -> None:
    scene = scene_of("resnet20", "hiresnet18@original")
    assert [(box.name, box.change) for box in scene.boxes if box.change] == [("stage1.block3", "removed")]
    names_of = [box.name for box in scene.boxes]
    assert names_of.index("stage1.block3") == names_of.index("stage1.block2") + 1
    wider = make_scene(hrg.load("resnet20").override({"stage2.width": 48}).plan)
    found = difference_scene(make_scene(hrg.load("resnet20").plan), wider)
    box = next(box for box in found.boxes if box.name == "stage2.block2")
    assert box.change == "changed" and box.title == "~ block2"
    assert box.notes == ("41,664 params", "was 32x16x16", "was 18,560 params")


def test_equal_networks_have_no_difference() -> None:
    scene = scene_of("resnet20", "resnet20")
    assert scene.caption[0].endswith(": no difference")
    assert not any(part.change for part in (*scene.boxes, *scene.arrows))


def test_no_line_of_a_difference_lies_on_another(tmp_path: Path) -> None:
    from hiresnet_graph.render.layout.make import make_layout

    for before, after in (("resnet20", "hiresnet18"), ("cornet_z", "cornet_s"), ("vgg16", "unet")):
        scene = scene_of(before, after)
        layout = make_layout(scene)
        assert not overlaps(scene, layout) and not crossed(scene, layout), (before, after)


def test_a_sheet_has_all_networks_below_their_names(tmp_path: Path) -> None:
    network = hrg.load("hiresnet18")
    plans = [(name, network.variant(name).plan) for name in ("original", "full", "p1")]
    options = RenderOptions(level="stages", width="double", counts=False)
    root = ElementTree.parse(render_sheet(plans, tmp_path / "net.svg", options)).getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert [text for text in texts if text in ("original", "full", "p1")] == ["original", "full", "p1"]
    assert len(names(root, "node")) == len(set(names(root, "node"))) == 18
    assert sum("edges." in name for name in names(root, "edge")) == 0 + 6 + 3
    assert root.get("width") == "496.06pt"


def test_a_sheet_has_as_many_columns_as_given(tmp_path: Path) -> None:
    network = hrg.load("hiresnet50")
    plans = [(name, network.variant(name).plan) for name in ("none", "in", "out")]
    options = RenderOptions(level="stages", width="double")
    width = {}
    for columns in (1, 2, 3, 8):
        sheet = render_sheet(plans, tmp_path / f"{columns}.svg", options, columns=columns)
        root = ElementTree.parse(sheet).getroot()
        titles = {t.text: (float(t.get("x", 0)), float(t.get("y", 0))) for t in root.iter(f"{SVG}text")}
        assert len({titles[name][0] for name, _ in plans}) == min(columns, 3), columns
        assert len({titles[name][1] for name, _ in plans}) == {1: 3, 2: 2}.get(columns, 1), columns
        assert root.get("width") == "496.06pt"
        width[columns] = float(root.get("viewBox", "").split()[2])
    natural = render_sheet(plans, tmp_path / "natural.svg", RenderOptions(level="stages"), columns=1)
    box = ElementTree.parse(natural).getroot().get("viewBox", "")
    assert width[1] < 0.9 * float(box.split()[2])  # wrapped into rows, which are not as small
    with pytest.raises(UsageError, match="at least one column, not 0"):
        render_sheet(plans, tmp_path / "net.svg", columns=0)


def test_a_sheet_is_a_picture(tmp_path: Path) -> None:
    plan = hrg.load("hiresnet18").plan
    with pytest.raises(UsageError, match=r"must be one of \.svg, \.pdf, \.png, \.tex, \.html, not \.dot"):
        render_sheet([("a", plan)], tmp_path / "net.dot")
    with pytest.raises(UsageError, match="at least one network"):
        render_sheet([], tmp_path / "net.svg")
    assert "removed" in render_difference(("a", plan), ("b", plan), tmp_path / "net.mmd").read_text()
