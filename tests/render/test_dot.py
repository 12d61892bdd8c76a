import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pygraphviz
import pytest

import hiresnet_graph as hrg
from hiresnet_graph.formats import one_line
from hiresnet_graph.render import Arrow, Box, Direction, Group, Level, Scene, make_scene, to_dot
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.shapes import Map
from tests.render.networks import STATES, STREAMS, ZEROS

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


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks", "ops"])
def test_graphviz_reads_as_many_nodes_and_edges_as_the_scene_has(level: Level, direction: Direction) -> None:
    scene = make_scene(hrg.load("hiresnet18").variant("full").plan, level=level)
    graph = pygraphviz.AGraph(string=to_dot(scene, direction=direction))
    assert sorted(graph.nodes()) == sorted(box.name for box in scene.boxes)
    assert sorted(graph.edges()) == sorted((arrow.source, arrow.target) for arrow in scene.arrows)
    assert len(graph.subgraphs()) == len(scene.groups)


def test_equal_scenes_give_equal_text() -> None:
    one, two = (to_dot(make_scene(hrg.load("hiresnet18").variant("full").plan)) for _ in range(2))
    assert one == two


def test_everything_has_a_position() -> None:
    branching = scene_of([box("a"), box("b"), box("c")], [arrow("a", "c"), arrow("b", "c")])
    for scene in (make_scene(hrg.load("hiresnet18").plan), branching):
        placed = pygraphviz.AGraph(string=to_dot(scene))
        assert placed.graph_attr["layout"] == "nop2"
        assert all(node.attr["pos"] for node in placed.nodes())
        assert all(edge.attr["pos"] for edge in placed.edges())


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("chain", [True, False])
def test_any_name_is_drawn_as_it_is(name: str, chain: bool) -> None:
    arrows = [arrow("in", name, family="skip", label=name)]
    boxes = [box("in"), box(name)]
    arrows += [arrow("in", name, name="flow")] if chain else [arrow(name, "in", name="back")]
    group = Group(name, name, "")
    boxes[1] = replace(boxes[1], group=name)
    text = to_dot(scene_of(boxes, arrows, (group,)))
    graph = pygraphviz.AGraph(string=text)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (2, 2)
    svg = graph.draw(format="svg", prog=graph.graph_attr["layout"]).decode()
    shown = "".join(ElementTree.fromstring(svg).itertext())
    assert shown.count(one_line(name)) >= 3  # box, group and arrow
    assert all(c.isprintable() or c == "\n" for c in svg)


def test_families_differ_in_colour_width_and_line() -> None:
    boxes = [box("a"), box("b"), box("c")]
    arrows = [
        arrow("a", "b"),
        arrow("b", "c"),
        arrow("a", "c", family="skip", hue=1),
        arrow("a", "c", family="skip", hue=2, name="second"),
        arrow("b", "b", family="shortcut"),
        arrow("a", "c", family="gate", name="gate"),
        arrow("c", "a", family="edge", delay=1, label="delay 1"),
    ]
    graph = pygraphviz.AGraph(string=to_dot(scene_of(boxes, arrows)))
    by_id = {edge.attr["id"].removeprefix("edge."): edge.attr for edge in graph.edges()}
    assert by_id["a%3Eb"]["color"] == "#1a1a1a"
    assert by_id["a%3Ec"]["color"] != by_id["second"]["color"]
    assert float(by_id["b%3Eb"]["penwidth"]) < float(by_id["a%3Eb"]["penwidth"]) < float(by_id["a%3Ec"]["penwidth"])
    assert by_id["gate"]["style"] == "dotted"
    assert by_id["c%3Ea"]["style"] == "dashed" and "delay 1" in by_id["c%3Ea"]["label"]


def test_text_on_white_has_contrast() -> None:
    from hiresnet_graph.render.dot import _HUES, _HUES_OF_TEXT, INK, SOFT

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (*_HUES_OF_TEXT, INK, SOFT):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, colour
    assert len(set(_HUES)) == len(_HUES) == len(_HUES_OF_TEXT)


def by_id(scene: Scene) -> dict[str, dict[str, str]]:
    graph = pygraphviz.AGraph(string=to_dot(scene))
    default = {"color": graph.edge_attr["color"]}
    return {edge.attr["id"].removeprefix("edge."): default | dict(edge.attr) for edge in graph.edges()}


def test_edges_with_a_delay_are_dashed_unless_unrolled() -> None:
    plan = hrg.loads(STATES).plan
    rolled = by_id(make_scene(plan))
    assert {name for name, edge in rolled.items() if edge["style"] == "dashed"} == {
        f"edges.s{j}__s{k}" for j in (1, 2, 3) for k in (1, 2, 3)
    }
    assert {edge["style"] for edge in by_id(make_scene(plan, unrolled=True)).values()} == {"solid"}


def test_colours_show_the_heading_in_a_network_in_time() -> None:
    for unrolled, step in ((False, ""), (True, ".step2")):
        edges = by_id(make_scene(hrg.loads(STATES).plan, unrolled=unrolled))
        colour = {pair: edges[f"edges.{pair}{step}"]["color"] for pair in ("s1__s2", "s1__s3", "s2__s2", "s2__s1")}
        assert colour["s1__s2"] == colour["s1__s3"] == "#1a1a1a"
        assert colour["s2__s2"] == "#009E73" and colour["s2__s1"] == "#D55E00"
    silent = by_id(make_scene(hrg.loads(STATES).override({"steps": 3}).plan))["edges.s2__s1"]
    assert silent["color"] == "#8c8c8c"


def test_a_box_of_zeros_is_dashed() -> None:
    graph = pygraphviz.AGraph(string=to_dot(make_scene(hrg.loads(ZEROS).plan, unrolled=True)))
    assert "dashed" in graph.get_node("c.step1").attr["style"]
    assert "dashed" not in (graph.get_node("c.step2").attr["style"] or "")


def test_feedback_does_not_change_the_ranks_of_a_network_that_branches() -> None:
    layout = make_layout(make_scene(hrg.loads(STREAMS).plan))
    x = {name: rect.centre.x for name, rect in layout.boxes.items()}
    assert x["input"] < x["lgn"] < x["dorsal"] == x["ventral"] < x["it"] < x["head"]
    assert layout.labels["edges.it__lgn"].lines == ("t+2",)
