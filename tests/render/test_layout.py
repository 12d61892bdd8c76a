import time
from dataclasses import replace
from itertools import combinations

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.plan import Plan
from hiresnet_graph.render import Direction, Level, Scene, make_scene
from hiresnet_graph.render.layout.geometry import Point, Rect, box_size, header_size, text_width, wrapped
from hiresnet_graph.render.layout.layout import Layout
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.shipped import spec_names
from tests.recurrent.graphs import make
from tests.render.lines import crossed, overlaps
from tests.render.networks import CELL, DELAYS, FIRE, SIDES, STATES, STREAMS, TREE, TWICE, ZEROS
from tests.strategies import make as make_spec

LARGE = (
    "blt",
    "cornet_r",
    "densenet121",
    "frnn4",
    "frnn4_imagenet",
    "hiresnet101",
    "hiresnet110",
    "resnet101",
    "resnet110",
)
"""Networks whose layouts take seconds."""

BRANCHES = """
name: branches
input: {channels: 2, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  c: {block: identity}
flow: [input -> a -> c, input -> b -> c]
"""

BLOCK_SKIPS = """
name: blocks
input: {channels: 2, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 4}
  stage1: {block: basic, width: 4, depth: 3}
  stage2: {block: basic, width: 8, depth: 3, stride: 2}
  head: {block: classifier, classes: 3}
flow: stem -> stage1 -> stage2 -> head
skips: {levels: [stem, blocks], edges: p2}
"""


def placed(plan: Plan, level: Level = "blocks", direction: Direction = "LR") -> tuple[Scene, Layout]:
    scene = make_scene(plan, level=level)
    return scene, make_layout(scene, direction)


def scenes(plan: Plan, level: Level) -> list[Scene]:
    """The scenes of a plan: if it has steps, also unrolled."""
    steps = [False, True] if plan.folded is not None and level != "ops" else [False]
    return [make_scene(plan, level=level, unrolled=unrolled) for unrolled in steps]


def inside(inner: Rect, outer: Rect) -> bool:
    slack = outer.grown(0.05)
    return (
        slack.left <= inner.left and inner.right <= slack.right and slack.low <= inner.low and inner.high <= slack.high
    )


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("name", spec_names())
def test_shipped_networks_have_layouts_without_overlaps(name: str, level: Level, direction: Direction) -> None:
    scene, layout = placed(hrg.load(name).plan, level, direction)
    assert set(layout.boxes) == {box.name for box in scene.boxes}
    assert set(layout.arrows) == {arrow.name for arrow in scene.arrows}
    for (a, first), (b, second) in combinations(layout.boxes.items(), 2):
        assert not first.overlaps(second), f"{a} and {b} overlap"
    for (a, first), (b, second) in combinations(layout.groups.items(), 2):
        assert not first.overlaps(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        rect = layout.boxes[box.name]
        assert inside(rect, layout.page)
        width, height = box_size(box)
        assert rect.width >= width - 0.05 and rect.height >= height - 0.05
        for group, frame in layout.groups.items():
            assert inside(rect, frame) if group == box.group else not rect.overlaps(frame)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("variant", ["original", "full", "in", "out", "p1", "p2", "p3"])
def test_labels_of_hiresnet_overlap_nothing(variant: str, level: Level, direction: Direction) -> None:
    scene, layout = placed(hrg.load("hiresnet18").variant(variant).plan, level, direction)
    assert set(layout.labels) == {arrow.name for arrow in scene.arrows if arrow.family == "skip"}
    rects = [(name, rect) for name, label in layout.labels.items() for rect in label.rects()]
    for name, rect in rects:
        assert inside(rect, layout.page)
        assert not any(rect.overlaps(box) for box in layout.boxes.values())
        assert not any(rect.overlaps(other) for other_name, other in rects if other_name != name)
        for arrow, path in layout.arrows.items():
            assert not any(rect.contains(point) for point in path.samples(60)), f"{arrow} crosses the label of {name}"


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
def test_arrows_start_and_end_at_the_boxes_they_connect(level: Level, direction: Direction) -> None:
    scene, layout = placed(hrg.load("hiresnet18").variant("full").plan, level, direction)
    for arrow in scene.arrows:
        path = layout.arrows[arrow.name]
        assert len(path.points) % 3 == 1
        source = layout.groups[arrow.source_group] if arrow.source_group else layout.boxes[arrow.source]
        target = layout.groups[arrow.target_group] if arrow.target_group else layout.boxes[arrow.target]
        for rect, end in ((source, path.points[0]), (target, path.tip)):
            assert rect.grown(0.1).contains(end) and not rect.grown(-0.1).contains(end), arrow.name


def test_stages_of_hiresnet_are_in_one_row_with_arcs_above() -> None:
    scene, layout = placed(hrg.load("hiresnet18").variant("full").plan, "stages")
    rows = {layout.boxes[box.name].centre.y for box in scene.boxes}
    assert len(rows) == 1
    lefts = [layout.boxes[box.name].left for box in scene.boxes]
    assert lefts == sorted(lefts)
    top = max(rect.high for rect in layout.boxes.values())
    heights = {}
    for arrow in scene.arrows:
        if arrow.family == "skip":
            points = layout.arrows[arrow.name].samples(40)
            assert min(point.y for point in points) >= top - 0.1
            heights[arrow.name] = max(point.y for point in points)
    near, far = heights["edges.stage1__stage2"], heights["edges.stem__stage3"]
    assert near == heights["edges.stem__stage1"] < heights["edges.stem__stage2"] < far


@pytest.mark.parametrize("name", ["hiresnet18", "resnet20", "resnet50", "resnet110", "densenet121", "ror3_56", "unet"])
def test_pictures_fit_a_page(name: str) -> None:
    _, layout = placed(hrg.load(name).plan)
    assert 0.7 < layout.page.width / layout.page.height < 4
    assert layout.page.width < 72 * 15


def test_a_network_whose_sizes_go_down_and_up_is_drawn_as_a_valley() -> None:
    _, layout = placed(hrg.load("unet").plan)
    level = {name: rect.centre.y for name, rect in layout.boxes.items()}
    assert level["enc1"] == level["dec1"] > level["enc2"] == level["dec2"] > level["mid"]
    assert layout.boxes["enc1"].right < layout.boxes["mid"].left < layout.boxes["dec1"].left


def test_arcs_between_blocks_of_many_stages_end_at_the_blocks() -> None:
    scene, layout = placed(hrg.loads(BLOCK_SKIPS).plan)
    assert len({layout.boxes[box.name].centre.y for box in scene.boxes}) == 1
    for arrow in scene.arrows:
        if arrow.family == "skip":
            assert abs(layout.arrows[arrow.name].tip.y - layout.boxes[arrow.target].high) < 0.1


def test_feedback_is_on_the_other_side() -> None:
    plan = hrg.load("hiresnet18").variant("original").plan
    edge = next(edge for edge in plan.edges if edge.name == "flow.stage1__stage2")
    back = replace(edge, name="back", source="stage3.block3", target="stage1.block1", family="edge", delay=1)
    own = replace(edge, name="own", source="stem", target="stem", family="edge", delay=1, ends=("stem", "stem"))
    back = replace(back, ends=("stage3", "stage1"))
    _, layout = placed(replace(plan, edges=(*plan.edges, back, own)), "stages")
    low = min(rect.low for rect in layout.boxes.values())
    for name in ("back", "own"):
        assert max(point.y for point in layout.arrows[name].samples()) <= low + 0.1
    assert layout.labels["back"].lines == ("t+1",)


def test_branches_are_beside_each_other() -> None:
    _, layout = placed(hrg.loads(BRANCHES).plan)
    a, b, c = (layout.boxes[name] for name in "abc")
    assert a.centre.x == b.centre.x < c.centre.x and a.low > b.high
    assert a.centre.y - c.centre.y == c.centre.y - b.centre.y > 0
    _, layout = placed(hrg.loads(BRANCHES).plan, direction="TB")
    a, b, c = (layout.boxes[name] for name in "abc")
    assert a.centre.y == b.centre.y > c.centre.y and a.right < b.left


def test_the_branches_of_one_block_are_beside_each_other_in_its_frame() -> None:
    _, layout = placed(hrg.loads(FIRE).plan, "ops")
    squeeze, one, three, out = (
        layout.boxes[f"fire.{name}"] for name in ("squeeze", "one", "three", "out.input.concat")
    )
    assert squeeze.right < one.left == three.left < one.right < out.left and one.low > three.high
    assert inside(out, layout.groups["fire"]) and inside(squeeze, layout.groups["fire"])


def test_a_long_run_of_calls_is_continued_in_the_next_column() -> None:
    names = [f"c{i}" for i in range(40)]
    nodes = ", ".join(f"{name}: {{block: conv2d, width: 2}}" for name in names)
    blocks = f"blocks: {{long: {{nodes: {{{nodes}}}, flow: [{' -> '.join(names)}]}}}}"
    text = f"name: long\ninput: {{channels: 2, height: 8, width: 8}}\n{blocks}\nnodes: {{x: long}}\nflow: [input -> x]"
    scene, layout = placed(hrg.loads(text).plan, "ops")
    lefts = [layout.boxes[box.name].left for box in scene.boxes if box.group]
    assert lefts == sorted(lefts) and [lefts.count(left) for left in sorted(set(lefts))] == [13, 13, 14]
    assert not overlaps(scene, layout) and not crossed(scene, layout)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("name", ["hiresnet18", "unet", "resnet20", "densenet40", "vgg16"])
def test_wires_between_calls_cross_no_box(name: str, direction: Direction) -> None:
    scene, layout = placed(hrg.load(name).plan, "ops", direction)
    assert set(layout.boxes) == {box.name for box in scene.boxes}
    assert set(layout.arrows) == {arrow.name for arrow in scene.arrows}
    for frames in (layout.boxes, layout.groups):
        for (a, first), (b, second) in combinations(frames.items(), 2):
            assert not first.overlaps(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        assert inside(layout.boxes[box.name], layout.groups.get(box.group, layout.page))
    for arrow in scene.arrows:
        path = layout.arrows[arrow.name]
        for end, point in ((arrow.source, path.points[0]), (arrow.target, path.tip)):
            assert layout.boxes[end].grown(0.1).contains(point) and not layout.boxes[end].grown(-0.1).contains(point)
        for point in path.samples(8):
            assert not any(rect.grown(-0.1).contains(point) for rect in layout.boxes.values()), arrow.name


# lines that lie on one another show connections that do not exist


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in spec_names()]
)
def test_no_line_of_a_shipped_network_lies_on_another(name: str) -> None:
    plan = hrg.load(name).plan
    for level in ("stages", "blocks", "ops"):
        for scene in scenes(plan, level):
            layout = make_layout(scene, "TB" if len(scene.boxes) % 2 else "LR")
            assert not overlaps(scene, layout), (level, scene.unrolled)
            assert not crossed(scene, layout), (level, scene.unrolled)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("variant", ["full", "in", "out", "p2"])
def test_no_line_of_hiresnet_lies_on_another(variant: str, direction: Direction) -> None:
    for level in ("stages", "blocks", "ops"):
        scene, layout = placed(hrg.load("hiresnet18").variant(variant).plan, level, direction)
        assert not overlaps(scene, layout) and not crossed(scene, layout), level


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("text", [FIRE, TREE, CELL, TWICE, STREAMS, DELAYS])
def test_no_line_of_a_network_that_branches_lies_on_another(text: str, direction: Direction) -> None:
    plan = hrg.loads(text).plan
    for level in ("blocks", "ops"):
        for scene in scenes(plan, level):
            layout = make_layout(scene, direction)
            assert not overlaps(scene, layout) and not crossed(scene, layout), level


@pytest.mark.parametrize("seed", range(10))
def test_no_line_of_a_random_network_lies_on_another(seed: int) -> None:
    for plan in (make(seed).arch.plan, hrg.loads(make_spec(seed).yaml).plan):
        for level in ("blocks", "ops"):
            for scene in scenes(plan, level):
                layout = make_layout(scene, "LR" if seed % 2 else "TB")
                assert not overlaps(scene, layout) and not crossed(scene, layout), level


# rows


@pytest.mark.parametrize("level", ["stages", "blocks", "ops"])
@pytest.mark.parametrize("width", [300.0, 700.0])
@pytest.mark.parametrize("name", ["hiresnet18@full", "cornet_s", "unet", "resnet20"])
def test_no_line_of_a_wrapped_network_lies_on_another(name: str, width: float, level: Level) -> None:
    spec, _, variant = name.partition("@")
    network = hrg.load(spec)
    scene = make_scene((network.variant(variant) if variant else network).plan, level=level)
    layout = make_layout(scene, "LR", width)
    assert not overlaps(scene, layout) and not crossed(scene, layout)
    natural = make_layout(scene).page.width
    assert natural <= width or layout.page.width <= natural  # not wrapped where that would make it wider
    for (a, first), (b, second) in combinations((layout.groups or layout.boxes).items(), 2):
        assert not first.overlaps(second), f"{a} and {b} overlap"


@pytest.mark.parametrize("text", [TREE, CELL, pytest.param(DELAYS, marks=pytest.mark.slow), SIDES, STREAMS])
def test_a_network_that_branches_is_wrapped_too(text: str) -> None:
    for level in ("blocks", "ops"):
        scene = make_scene(hrg.loads(text).plan, level=level)
        layout = make_layout(scene, "LR", 400)
        assert not overlaps(scene, layout) and not crossed(scene, layout)


def test_only_what_is_too_wide_is_wrapped_and_frames_are_never_broken() -> None:
    scene = make_scene(hrg.load("resnet20").plan)
    natural = make_layout(scene)
    assert make_layout(scene, "LR", natural.page.width + 1) == natural
    assert make_layout(scene, "TB", 100) == make_layout(scene, "TB")
    wrapped_layout = make_layout(scene, "LR", 350)
    assert wrapped_layout.boxes["stage3.block1"].high < wrapped_layout.boxes["stage1.block3"].low
    for box in scene.boxes:
        assert not box.group or inside(wrapped_layout.boxes[box.name], wrapped_layout.groups[box.group])


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("text", [STREAMS, TREE, TWICE, SIDES])
def test_labels_of_a_network_that_branches_overlap_nothing(text: str, direction: Direction) -> None:
    scene, layout = placed(hrg.loads(text).plan, "blocks", direction)
    assert set(layout.labels) == {arrow.name for arrow in scene.arrows if arrow.label and arrow.family != "shortcut"}
    rects = [(name, rect) for name, label in layout.labels.items() for rect in label.rects()]
    for name, rect in rects:
        assert inside(rect, layout.page)
        assert not any(rect.overlaps(box) for box in layout.boxes.values()), name
        assert not any(rect.overlaps(other) for other_name, other in rects if other_name != name), name
        for arrow, path in layout.arrows.items():
            assert not any(rect.contains(point) for point in path.samples(40)), f"{arrow} crosses the label of {name}"


def test_a_dense_network_that_branches_has_a_layout_within_seconds() -> None:
    names = [f"n{i}" for i in range(60)]
    nodes = "".join(f"  {name}: {{block: plain, width: 4}}\n" for name in [*names, "side"])
    flow = f"flow: [{' -> '.join(names)}, n0 -> side -> n59]\nskips: {{levels: [{', '.join(names)}], edges: full}}"
    plan = hrg.loads(f"name: dense\ninput: {{channels: 3, height: 8, width: 8}}\nnodes:\n{nodes}{flow}\n").plan
    for level in ("blocks", "ops"):
        start = time.process_time()
        scene, _ = placed(plan, level)
        assert time.process_time() - start < 10 and len(scene.arrows) > 1770


def test_what_overlaps_is_found() -> None:
    """The test of the tests above."""
    scene, layout = placed(hrg.loads(FIRE).plan, "ops")
    line = layout.arrows["fire.one->fire.out.input.concat"]
    layout.arrows["fire.squeeze->fire.three"] = line
    layout.boxes["head.pool"] = Rect(0, 0, layout.page.right, layout.page.high)
    assert list(overlaps(scene, layout)) == [("fire.squeeze->fire.three", "fire.one->fire.out.input.concat")]
    assert {arrow for arrow, box in crossed(scene, layout)} == {arrow.name for arrow in scene.arrows}


def test_the_calls_of_a_skip_are_before_the_node_where_it_ends() -> None:
    _, layout = placed(hrg.load("hiresnet18").variant("full").plan, "ops")
    skip, target = layout.groups["edges.stem__stage3"], layout.groups["stage3.block3"]
    assert layout.groups["stage3.block2"].right < skip.left < skip.right < target.left


def test_calls_of_a_network_that_branches_have_a_layout_too() -> None:
    text = BRANCHES.replace("c: {block: identity}", "c: {block: squeeze_excite}")
    scene, layout = placed(hrg.loads(text).plan, "ops", "TB")
    assert len(layout.boxes) == len(scene.boxes)


def test_width_of_text_counts_wide_characters() -> None:
    assert text_width("ii", 10) < text_width("ab", 10) < text_width("MM", 10) < text_width("模型模", 10)
    assert text_width("ab", 10) < text_width("ab", 10, bold=True)
    assert text_width("e\u0301", 10) == text_width("e", 10)


def test_rectangles_contain_points_and_overlap() -> None:
    rect = Rect(0, 0, 2, 1)
    assert rect.centre == Point(1, 0.5) and rect.contains(Point(1, 0.5)) and not rect.contains(Point(2, 1))
    assert rect.overlaps(Rect(1, 0.5, 3, 3)) and not rect.overlaps(Rect(2, 0, 3, 1))


# networks in time

IN_TIME = ("blt", "cornet_r", "cornet_rt", "frnn2", "frnn3", "frnn4", "frnn4_imagenet", "rnn_resnet1", "rnn_resnet3")


def in_time(name: str) -> Plan:
    own = {"states": STATES, "delays": DELAYS, "streams": STREAMS, "zeros": ZEROS}
    return (hrg.loads(own[name]) if name in own else hrg.load(name)).plan


def unrolled(plan: Plan, level: Level = "blocks", direction: Direction = "LR") -> tuple[Scene, Layout]:
    scene = make_scene(plan, level=level, unrolled=True)
    return scene, make_layout(scene, direction)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("name", [*IN_TIME, "states", "delays", "streams", "zeros"])
def test_unrolled_nothing_overlaps_and_no_arrow_crosses_a_box(name: str, level: Level, direction: Direction) -> None:
    scene, layout = unrolled(in_time(name), level, direction)
    assert set(layout.boxes) == {box.name for box in scene.boxes}
    assert set(layout.arrows) == {arrow.name for arrow in scene.arrows}
    for rects in (layout.boxes, layout.groups):
        for (a, first), (b, second) in combinations(rects.items(), 2):
            assert not first.overlaps(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        rect = layout.boxes[box.name]
        width, height = box_size(box)
        assert rect.width >= width - 0.05 and rect.height >= height - 0.05
        assert inside(rect, layout.groups[box.group]) and inside(layout.groups[box.group], layout.page)
    for group in scene.groups:
        width, height = header_size(group)
        at = layout.headers[group.name]
        header = Rect(at.x - width / 2, at.y - height / 2, at.x + width / 2, at.y + height / 2)
        assert inside(header, layout.groups[group.name])
        assert not any(header.overlaps(rect) for rect in layout.boxes.values())
    for arrow in scene.arrows:
        path = layout.arrows[arrow.name]
        for end, point in ((arrow.source, path.points[0]), (arrow.target, path.tip)):
            assert layout.boxes[end].grown(0.1).contains(point) and not layout.boxes[end].grown(-0.1).contains(point)
        for point in path.samples(30):
            through = [box for box, rect in layout.boxes.items() if rect.grown(-0.2).contains(point)]
            assert not through, f"{arrow.name} runs through {through}"


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_unrolled_steps_are_columns_and_nodes_are_rows(direction: Direction) -> None:
    scene, layout = unrolled(in_time("frnn3"), direction=direction)
    time, rank = (0, 1) if direction == "LR" else (1, 0)
    for name in {box.title for box in scene.boxes}:
        assert len({layout.boxes[box.name].centre[rank] for box in scene.boxes if box.title == name}) == 1
    at = [layout.groups[group.name].centre[time] for group in scene.groups]
    assert at == sorted(at, reverse=direction == "TB")
    ranks = {box.title: layout.boxes[box.name].centre[rank] for box in scene.boxes}
    order = sorted(ranks, key=ranks.__getitem__)
    assert order == ["input", "pre", "s1", "s2", "s3", "norm", "relu", "head"]


def test_unrolled_arrows_along_a_row_are_straight() -> None:
    scene, layout = unrolled(in_time("frnn4"))
    lateral = [arrow for arrow in scene.arrows if arrow.heading == "lateral"]
    assert len(lateral) == 1 + 4 * 3 + 1
    for arrow in lateral:
        middle = layout.boxes[arrow.source].centre.y
        assert all(abs(point.y - middle) < 0.1 for point in layout.arrows[arrow.name].samples())


def test_unrolled_arrows_arrive_at_a_box_at_different_points() -> None:
    scene, layout = unrolled(in_time("frnn4"))
    for name in {arrow.target for arrow in scene.arrows}:
        tips = [layout.arrows[arrow.name].tip for arrow in scene.arrows if arrow.target == name]
        assert len(set(tips)) == len(tips)


def test_unrolled_long_delays_have_lanes_of_their_own() -> None:
    """However many they are: the gap between rows grows with them."""
    more = "\n".join(f"  - {{from: a, to: b, delay: {2 + k % 3}, slot: output, name: more{k}}}" for k in range(9))
    scene, layout = unrolled(hrg.loads(DELAYS.replace("time:", f"{more}\ntime:", 1)).plan)
    assert sum(arrow.delay > 1 for arrow in scene.arrows) > 9
    assert not overlaps(scene, layout) and not crossed(scene, layout)


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_unrolled_bypasses_of_one_step_arrive_at_points_of_their_own(direction: Direction) -> None:
    """Random network 10 has three bypasses into one node."""
    scene, layout = unrolled(make(10).arch.plan, direction=direction)
    assert not overlaps(scene, layout) and not crossed(scene, layout)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("name", [*IN_TIME, "states", "zeros"])
def test_labels_of_rolled_networks_overlap_nothing(name: str, direction: Direction) -> None:
    scene, layout = placed(in_time(name), "blocks", direction)
    assert set(layout.labels) == {arrow.name for arrow in scene.arrows if arrow.label and arrow.family != "shortcut"}
    rects = [(label, rect) for label, found in layout.labels.items() for rect in found.rects()]
    for label, rect in rects:
        assert inside(rect, layout.page)
        assert not any(rect.overlaps(box) for box in layout.boxes.values()), label
        assert not any(rect.overlaps(other) for other_label, other in rects if other_label != label), label
        for arrow, path in layout.arrows.items():
            assert not any(rect.contains(point) for point in path.samples(60)), f"{arrow} crosses the label of {label}"


def test_rolled_feedback_and_loops_are_below_and_bypasses_above() -> None:
    scene, layout = placed(in_time("frnn4"))
    low = min(rect.low for rect in layout.boxes.values())
    high = max(rect.high for rect in layout.boxes.values())
    order = [box.name for box in scene.boxes]
    for arrow in scene.arrows:
        heights = [point.y for point in layout.arrows[arrow.name].samples()]
        if arrow.heading == "forward" and order.index(arrow.target) - order.index(arrow.source) > 1:
            assert min(heights) >= high - 0.1
        elif arrow.heading != "forward":
            assert max(heights) <= low + 0.1


def test_loops_of_one_box_are_nested() -> None:
    text = ZEROS.replace(
        "- {from: c, to: c, delay: 1}", "- {from: c, to: c, delay: 1}\n  - {from: c, to: c, delay: 3, name: far}"
    )
    _, layout = placed(hrg.loads(text).plan)
    near, far = layout.arrows["edges.c__c"], layout.arrows["edges.far"]
    assert min(point.y for point in far.samples()) < min(point.y for point in near.samples()) - 5
    assert far.tip.x < near.tip.x < near.points[0].x < far.points[0].x


def test_a_label_is_wrapped_to_the_narrowest_lines() -> None:
    assert wrapped("3x3 conv /2, GN, ReLU, at 1-4", 3) == ("3x3 conv /2,", "GN, ReLU,", "at 1-4")
    assert wrapped("brc2, t+1", 3) == ("brc2,", "t+1")
    assert wrapped("t+1", 3) == ("t+1",)
    assert wrapped("a, b, c", 1) == ("a, b, c",)
