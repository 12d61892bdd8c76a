import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.formats import one_line
from hiresnet_graph.render import Arrow, Box, Direction, Group, Level, RenderOptions, Scene, make_scene
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.render.picture.make import make_picture, style_name
from hiresnet_graph.render.picture.picture import Glyph, Picture
from hiresnet_graph.render.picture.theme import THEMES, Style
from hiresnet_graph.render.writers.dot import scene_graph
from hiresnet_graph.render.writers.mermaid import to_mermaid
from hiresnet_graph.render.writers.svg import to_svg_text
from hiresnet_graph.shapes import Map
from tests.render.networks import DELAYS, STATES, STREAMS, ZEROS

NASTY = [
    'a"b',
    "a<b>&c",
    "a:b:n",
    "Größe → 模型",
    "back\\slash\\",
    "-",
    "digraph",
    "<b>x</b>",
    "two\nlines",
    "100%",
    "right\u202eleft",
    "a\x7fb\ufffe",
]


def box(name: str, **fields: object) -> Box:
    plain = Box(name, name, (), (), "block", "", (name,), Map(1, 2, 2), False, name)
    return replace(plain, **fields)  # type: ignore[arg-type]


def arrow(source: str, target: str, **fields: object) -> Arrow:
    plain = Arrow(f"{source}>{target}", source, target, "flow", f"{source} > {target}", hue=1)
    return replace(plain, **fields)  # type: ignore[arg-type]


def scene_of(boxes: list[Box], arrows: list[Arrow], groups: tuple[Group, ...] = ()) -> Scene:
    return Scene("test", "blocks", tuple(boxes), groups, tuple(arrows), ("caption",), True)


def picture_of(scene: Scene, **options: object) -> Picture:
    chosen = RenderOptions(**options)  # type: ignore[arg-type]
    return make_picture(scene, make_layout(scene, chosen.direction), chosen)


def dot(text: str) -> str:
    """What Graphviz makes of a text, as `-Tplain` lines."""
    program = shutil.which("dot")
    if program is None:
        pytest.skip("Graphviz is not installed")
    done = subprocess.run([program, "-Tplain"], input=text, capture_output=True, encoding="utf-8", check=True)
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
def test_graphviz_reads_as_many_nodes_and_edges_as_the_scene_has(level: Level, direction: Direction) -> None:
    scene = make_scene(hrg.load("hiresnet18").variant("full").plan, level=level)
    kinds = [
        line.split()[0] for line in dot(scene_graph(scene, RenderOptions(direction=direction)).source).splitlines()
    ]
    assert (kinds.count("node"), kinds.count("edge")) == (len(scene.boxes), len(scene.arrows))


def test_a_network_is_a_graph_of_the_package_graphviz() -> None:
    graph = hrg.load("hiresnet18").to_graphviz(level="stages", direction="TB")
    graph.node("note", "added by hand")
    kinds = [line.split()[0] for line in dot(graph.source).splitlines()]
    assert (kinds.count("node"), kinds.count("edge")) == (7, 11)
    assert "rankdir=TB" in graph.source and "stem -> stage3" in graph.source


@pytest.mark.parametrize("name", NASTY)
def test_any_name_is_written_as_it_is(name: str) -> None:
    arrows = [arrow("in", name, family="skip", label=name), arrow("in", name, name="flow")]
    boxes = [box("in"), box(name, group=name)]
    scene = scene_of(boxes, arrows, (Group(name, name, ""),))
    svg = to_svg_text(picture_of(scene))
    shown = "".join(ElementTree.fromstring(svg).itertext())
    assert shown.count(one_line(name)) >= 3  # box, group and arrow
    assert all(c.isprintable() or c == "\n" for c in svg)
    mermaid = to_mermaid(scene, RenderOptions())
    assert mermaid.count("\n") == 15 and all(c.isprintable() or c == "\n" for c in mermaid)
    plain = dot(scene_graph(scene, RenderOptions()).source)
    assert [line.split()[0] for line in plain.splitlines()] == ["graph", "node", "node", "edge", "edge", "stop"]


def test_mermaid_has_every_box_and_arrow_with_its_style() -> None:
    scene = make_scene(hrg.load("hiresnet18").variant("full").plan)
    lines = to_mermaid(scene, RenderOptions(direction="TB")).splitlines()
    assert lines[:3] == ["---", 'title: "hiresnet18"', "---"] and "flowchart TB" in lines
    assert '    b2("block1<br/>basic<br/>16x32x32<br/>4,672 params")' in lines
    assert '  b1 -.->|"avg pool<br/>1x1 conv<br/>BN"| b9' in lines
    arrows = [line for line in lines if "-->" in line or "-.->" in line]
    assert len(arrows) == len(scene.arrows) and lines.count("  end") == len(scene.groups) == 3
    numbered = [number for line in lines if "linkStyle" in line for number in line.split()[1].split(",")]
    assert sorted(map(int, numbered)) == list(range(len(scene.arrows)))


def styles(scene: Scene) -> dict[str, Style]:
    theme = THEMES["light"]
    return {arrow.name: theme.styles[style_name(arrow, scene)] for arrow in scene.arrows}


def test_families_differ_in_colour_width_and_line() -> None:
    boxes = [box("a"), box("b"), box("c")]
    arrows = [
        arrow("a", "b"),
        arrow("b", "c"),
        arrow("a", "c", family="skip", hue=1),
        arrow("a", "c", family="skip", hue=2, name="second"),
        arrow("b", "b", family="shortcut"),
        arrow("a", "c", family="gate", name="gate"),
        arrow("c", "a", family="edge", delay=1, name="late"),
    ]
    found = styles(scene_of(boxes, arrows))
    assert found["b>b"].width < found["a>b"].width < found["a>c"].width
    assert found["a>c"].stroke != found["second"].stroke and found["a>c"].dash != found["second"].dash
    assert len({found[name].dash for name in ("a>b", "second", "gate", "late")}) == 4


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_on_everything_it_is_written_on(theme: str) -> None:
    tones = THEMES[theme].tones  # type: ignore[index]
    for text in ("ink", "soft", *(f"hue{i}-text" for i in range(1, 7))):
        grounds = ["page"] if text.startswith("hue") else ["page", "input", "block", "stage", "fold", "frame"]
        for ground in grounds:
            low, high = sorted((luminance(tones[text]), luminance(tones[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_distances_of_skips_differ_without_colour() -> None:
    dashes = [THEMES["light"].styles[f"skip {i}"].dash for i in range(1, 7)]
    assert len(set(dashes)) == 6
    assert THEMES["light"].styles.keys() == THEMES["dark"].styles.keys()
    assert THEMES["light"].tones.keys() == THEMES["dark"].tones.keys()


def test_edges_with_a_delay_are_dashed_unless_unrolled() -> None:
    plan = hrg.loads(STATES).plan
    rolled = styles(make_scene(plan))
    assert {name for name, style in rolled.items() if style.dash} == {
        f"edges.s{j}__s{k}" for j in (1, 2, 3) for k in (1, 2, 3)
    }
    assert not any(style.dash for style in styles(make_scene(plan, unrolled=True)).values())


def test_colours_show_the_heading_in_a_network_in_time() -> None:
    tones = THEMES["light"].tones
    for unrolled, step in ((False, ""), (True, ".step2")):
        found = styles(make_scene(hrg.loads(STATES).plan, unrolled=unrolled))
        color = {pair: tones[found[f"edges.{pair}{step}"].stroke] for pair in ("s1__s2", "s1__s3", "s2__s2", "s2__s1")}
        assert color["s1__s2"] == color["s1__s3"] == "#1a1a1a"
        assert color["s2__s2"] == "#009e73" and color["s2__s1"] == "#d55e00"
    silent = styles(make_scene(hrg.loads(STATES).override({"steps": 3}).plan))["edges.s2__s1"]
    assert tones[silent.stroke] == "#8c8c8c"


def test_a_box_of_zeros_is_dashed() -> None:
    picture = picture_of(make_scene(hrg.loads(ZEROS).plan, unrolled=True))
    dashed = {panel.name for panel in picture.panels if picture.theme.styles[panel.style].dash}
    assert "c.step1" in dashed and "c.step2" not in dashed


# glyphs


def glyphs(text: str, edges: str = "full") -> dict[str, list[str]]:
    network = hrg.loads(text)
    scene = make_scene(network.with_edges(edges).plan if edges else network.plan)
    return {link.name: [glyph.symbol for glyph in link.glyphs] for link in picture_of(scene).links if link.glyphs}


CHAIN = """
name: chain
input: {channels: 2, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, c: {block: conv, width: 4}, d: {block: conv, width: 4}}
flow: a -> b -> c -> d
skips: {levels: [a, b, c, d], edges: full - p1, MORE}
"""


@pytest.mark.parametrize(
    ("more", "symbols"),
    [
        ("slot: output", ["add"]),
        ("merge: concat, slot: input", ["concat"]),
        ("slot: output, scale: learned", ["add", "scale"]),
        ("slot: output, scale: gate", ["add", "gate"]),
    ],
)
def test_a_glyph_at_its_target_shows_how_a_skip_is_merged(more: str, symbols: list[str]) -> None:
    found = glyphs(CHAIN.replace("MORE", more), "")
    assert found == dict.fromkeys(("edges.a__c", "edges.a__d", "edges.b__d"), symbols)


def test_a_gated_edge_is_marked_and_the_signal_that_gates_it_is_not() -> None:
    found = glyphs(DELAYS, "")
    assert found["edges.again"] == ["add", "gate"] and "edges.again.gate" not in found
    assert found["edges.c__c"] == ["add"]


def test_glyphs_do_not_cover_each_other_or_labels() -> None:
    for text in (DELAYS, STREAMS, STATES):
        scene = make_scene(hrg.loads(text).plan)
        layout, picture = make_layout(scene), picture_of(scene)
        placed: list[Glyph] = [glyph for link in picture.links for glyph in link.glyphs]
        for i, glyph in enumerate(placed):
            for other in placed[:i]:
                assert abs(glyph.at.x - other.at.x) + abs(glyph.at.y - other.at.y) > 7.5
            for label in layout.labels.values():
                for rect in label.rects():
                    assert not rect.contains(type(glyph.at)(glyph.at.x - 10, glyph.at.y - 10))


def test_feedback_does_not_change_the_ranks_of_a_network_that_branches() -> None:
    layout = make_layout(make_scene(hrg.loads(STREAMS).plan))
    x = {name: rect.centre.x for name, rect in layout.boxes.items()}
    assert x["input"] < x["lgn"] < x["dorsal"] == x["ventral"] < x["it"] < x["head"]
    assert layout.labels["edges.it__lgn"].lines == ("t+2",)
