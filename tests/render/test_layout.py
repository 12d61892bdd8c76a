from dataclasses import replace
from itertools import combinations, pairwise

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.plan import Plan
from hiresnet_graph.render import Direction, Level, Scene, make_scene
from hiresnet_graph.render.geometry import Places, Point, Rect, box_size, broken, header_size, text_width
from hiresnet_graph.render.layout import place
from hiresnet_graph.shipped import spec_names
from tests.render.networks import DELAYS, STATES, STREAMS, ZEROS

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


def placed(plan: Plan, level: Level = "blocks", direction: Direction = "LR") -> tuple[Scene, Places]:
    scene = make_scene(plan, level=level)
    places = place(scene, direction)
    assert places is not None
    return scene, places


def inside(inner: Rect, outer: Rect) -> bool:
    slack = outer.grown(0.05)
    return (
        slack.left <= inner.left and inner.right <= slack.right and slack.low <= inner.low and inner.high <= slack.high
    )


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("name", spec_names())
def test_shipped_networks_have_places_without_overlaps(name: str, level: Level, direction: Direction) -> None:
    scene, places = placed(hrg.load(name).plan, level, direction)
    assert set(places.boxes) == {box.name for box in scene.boxes}
    assert set(places.arrows) == {arrow.name for arrow in scene.arrows}
    for (a, first), (b, second) in combinations(places.boxes.items(), 2):
        assert not first.meets(second), f"{a} and {b} overlap"
    for (a, first), (b, second) in combinations(places.groups.items(), 2):
        assert not first.meets(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        rect = places.boxes[box.name]
        assert inside(rect, places.page)
        width, height = box_size(box)
        assert rect.width >= width - 0.05 and rect.height >= height - 0.05
        for group, frame in places.groups.items():
            assert inside(rect, frame) if group == box.group else not rect.meets(frame)


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("variant", ["original", "full", "in", "out", "p1", "p2", "p3"])
def test_labels_of_hiresnet_lie_on_nothing(variant: str, level: Level, direction: Direction) -> None:
    scene, places = placed(hrg.load("hiresnet18").variant(variant).plan, level, direction)
    assert set(places.labels) == {arrow.name for arrow in scene.arrows if arrow.family == "skip"}
    rects = [(name, rect) for name, label in places.labels.items() for rect in label.rects()]
    for name, rect in rects:
        assert inside(rect, places.page)
        assert not any(rect.meets(box) for box in places.boxes.values())
        assert not any(rect.meets(other) for other_name, other in rects if other_name != name)
        for arrow, path in places.arrows.items():
            assert not any(rect.holds(point) for point in path.samples(60)), f"{arrow} runs through the label of {name}"


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
def test_arrows_start_and_end_at_what_they_join(level: Level, direction: Direction) -> None:
    scene, places = placed(hrg.load("hiresnet18").variant("full").plan, level, direction)
    for arrow in scene.arrows:
        path = places.arrows[arrow.name]
        assert len(path.points) % 3 == 1
        source = places.groups[arrow.source_group] if arrow.source_group else places.boxes[arrow.source]
        target = places.groups[arrow.target_group] if arrow.target_group else places.boxes[arrow.target]
        for rect, end in ((source, path.points[0]), (target, path.tip)):
            assert rect.grown(0.1).holds(end) and not rect.grown(-0.1).holds(end), arrow.name


def test_stages_of_hiresnet_stand_in_one_row_with_arcs_above() -> None:
    scene, places = placed(hrg.load("hiresnet18").variant("full").plan, "stages")
    rows = {places.boxes[box.name].centre.y for box in scene.boxes}
    assert len(rows) == 1
    lefts = [places.boxes[box.name].left for box in scene.boxes]
    assert lefts == sorted(lefts)
    top = max(rect.high for rect in places.boxes.values())
    heights = {}
    for arrow in scene.arrows:
        if arrow.family == "skip":
            points = places.arrows[arrow.name].samples(40)
            assert min(point.y for point in points) >= top - 0.1
            heights[arrow.name] = max(point.y for point in points)
    near, far = heights["edges.stage1__stage2"], heights["edges.stem__stage3"]
    assert near == heights["edges.stem__stage1"] < heights["edges.stem__stage2"] < far


@pytest.mark.parametrize("name", ["hiresnet18", "resnet20", "resnet50", "resnet110", "densenet121", "ror3_56", "unet"])
def test_pictures_fit_a_page(name: str) -> None:
    _, places = placed(hrg.load(name).plan)
    assert 0.7 < places.page.width / places.page.height < 4
    assert places.page.width < 72 * 15


def test_a_network_that_goes_down_and_up_in_size_is_drawn_as_a_valley() -> None:
    _, places = placed(hrg.load("unet").plan)
    level = {name: rect.centre.y for name, rect in places.boxes.items()}
    assert level["enc1"] == level["dec1"] > level["enc2"] == level["dec2"] > level["mid"]
    assert places.boxes["enc1"].right < places.boxes["mid"].left < places.boxes["dec1"].left


def test_arcs_between_blocks_of_many_stages_end_at_the_blocks() -> None:
    scene, places = placed(hrg.loads(BLOCK_SKIPS).plan)
    assert len({places.boxes[box.name].centre.y for box in scene.boxes}) == 1
    for arrow in scene.arrows:
        if arrow.family == "skip":
            assert abs(places.arrows[arrow.name].tip.y - places.boxes[arrow.target].high) < 0.1


def test_feedback_runs_on_the_other_side() -> None:
    plan = hrg.load("hiresnet18").variant("original").plan
    edge = next(edge for edge in plan.edges if edge.name == "flow.stage1__stage2")
    back = replace(edge, name="back", source="stage3.block3", target="stage1.block1", family="edge", delay=1)
    own = replace(edge, name="own", source="stem", target="stem", family="edge", delay=1, ends=("stem", "stem"))
    back = replace(back, ends=("stage3", "stage1"))
    _, places = placed(replace(plan, edges=(*plan.edges, back, own)), "stages")
    low = min(rect.low for rect in places.boxes.values())
    for name in ("back", "own"):
        assert max(point.y for point in places.arrows[name].samples()) <= low + 0.1
    assert places.labels["back"].lines == ("t+1",)


def test_a_network_that_branches_is_left_to_graphviz() -> None:
    assert place(make_scene(hrg.loads(BRANCHES).plan)) is None


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("name", ["hiresnet18", "unet", "resnet20", "densenet40", "vgg16"])
def test_wires_between_calls_run_through_no_box(name: str, direction: Direction) -> None:
    scene, places = placed(hrg.load(name).plan, "ops", direction)
    assert set(places.boxes) == {box.name for box in scene.boxes}
    assert set(places.arrows) == {arrow.name for arrow in scene.arrows}
    for frames in (places.boxes, places.groups):
        for (a, first), (b, second) in combinations(frames.items(), 2):
            assert not first.meets(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        assert inside(places.boxes[box.name], places.groups.get(box.group, places.page))
    for arrow in scene.arrows:
        path = places.arrows[arrow.name]
        for end, point in ((arrow.source, path.points[0]), (arrow.target, path.tip)):
            assert places.boxes[end].grown(0.1).holds(point) and not places.boxes[end].grown(-0.1).holds(point)
        for point in path.samples(8):
            assert not any(rect.grown(-0.1).holds(point) for rect in places.boxes.values()), arrow.name


def test_wires_of_different_values_do_not_run_along_each_other() -> None:
    scene, places = placed(hrg.load("hiresnet18").variant("full").plan, "ops")
    upright: dict[float, list[tuple[float, float, str]]] = {}
    for arrow in scene.arrows:
        points = places.arrows[arrow.name].points
        for a, b in pairwise(points[::3]):
            if a.x == b.x and a.y != b.y:
                upright.setdefault(a.x, []).append((min(a.y, b.y), max(a.y, b.y), arrow.name))
    for runs in upright.values():
        for (low, high, one), (other_low, other_high, two) in combinations(runs, 2):
            assert one == two or high <= other_low or other_high <= low, f"{one} and {two}"


def test_what_a_skip_does_stands_before_the_node_where_it_ends() -> None:
    _, places = placed(hrg.load("hiresnet18").variant("full").plan, "ops")
    skip, target = places.groups["edges.stem__stage3"], places.groups["stage3.block3"]
    assert places.groups["stage3.block2"].right < skip.left < skip.right < target.left


def test_calls_of_a_network_that_branches_have_places_too() -> None:
    text = BRANCHES.replace("c: {block: identity}", "c: {block: squeeze_excite}")
    scene, places = placed(hrg.loads(text).plan, "ops", "TB")
    assert len(places.boxes) == len(scene.boxes)


def test_width_of_text_counts_wide_characters() -> None:
    assert text_width("ii", 10) < text_width("ab", 10) < text_width("MM", 10) < text_width("模型模", 10)
    assert text_width("ab", 10) < text_width("ab", 10, bold=True)
    assert text_width("e\u0301", 10) == text_width("e", 10)


def test_a_rectangle_knows_what_is_inside() -> None:
    rect = Rect(0, 0, 2, 1)
    assert rect.centre == Point(1, 0.5) and rect.holds(Point(1, 0.5)) and not rect.holds(Point(2, 1))
    assert rect.meets(Rect(1, 0.5, 3, 3)) and not rect.meets(Rect(2, 0, 3, 1))


# networks in time

IN_TIME = ("blt", "cornet_r", "cornet_rt", "frnn2", "frnn3", "frnn4", "frnn4_imagenet", "rnn_resnet1", "rnn_resnet3")


def in_time(name: str) -> Plan:
    own = {"states": STATES, "delays": DELAYS, "streams": STREAMS, "zeros": ZEROS}
    return (hrg.loads(own[name]) if name in own else hrg.load(name)).plan


def unrolled(plan: Plan, level: Level = "blocks", direction: Direction = "LR") -> tuple[Scene, Places]:
    scene = make_scene(plan, level=level, unrolled=True)
    places = place(scene, direction)
    assert places is not None
    return scene, places


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("level", ["stages", "blocks"])
@pytest.mark.parametrize("name", [*IN_TIME, "states", "delays", "streams", "zeros"])
def test_unrolled_nothing_overlaps_and_no_arrow_runs_through_a_box(
    name: str, level: Level, direction: Direction
) -> None:
    scene, places = unrolled(in_time(name), level, direction)
    assert set(places.boxes) == {box.name for box in scene.boxes}
    assert set(places.arrows) == {arrow.name for arrow in scene.arrows}
    for rects in (places.boxes, places.groups):
        for (a, first), (b, second) in combinations(rects.items(), 2):
            assert not first.meets(second), f"{a} and {b} overlap"
    for box in scene.boxes:
        rect = places.boxes[box.name]
        width, height = box_size(box)
        assert rect.width >= width - 0.05 and rect.height >= height - 0.05
        assert inside(rect, places.groups[box.group]) and inside(places.groups[box.group], places.page)
    for group in scene.groups:
        width, height = header_size(group)
        at = places.headers[group.name]
        header = Rect(at.x - width / 2, at.y - height / 2, at.x + width / 2, at.y + height / 2)
        assert inside(header, places.groups[group.name])
        assert not any(header.meets(rect) for rect in places.boxes.values())
    for arrow in scene.arrows:
        path = places.arrows[arrow.name]
        for end, point in ((arrow.source, path.points[0]), (arrow.target, path.tip)):
            assert places.boxes[end].grown(0.1).holds(point) and not places.boxes[end].grown(-0.1).holds(point)
        for point in path.samples(30):
            through = [box for box, rect in places.boxes.items() if rect.grown(-0.2).holds(point)]
            assert not through, f"{arrow.name} runs through {through}"


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_unrolled_steps_are_columns_and_nodes_are_rows(direction: Direction) -> None:
    scene, places = unrolled(in_time("frnn3"), direction=direction)
    time, rank = (0, 1) if direction == "LR" else (1, 0)
    for name in {box.title for box in scene.boxes}:
        assert len({places.boxes[box.name].centre[rank] for box in scene.boxes if box.title == name}) == 1
    at = [places.groups[group.name].centre[time] for group in scene.groups]
    assert at == sorted(at, reverse=direction == "TB")
    ranks = {box.title: places.boxes[box.name].centre[rank] for box in scene.boxes}
    order = sorted(ranks, key=ranks.__getitem__)
    assert order == ["input", "pre", "s1", "s2", "s3", "norm", "relu", "head"]


def test_unrolled_values_that_stay_go_straight_on() -> None:
    scene, places = unrolled(in_time("frnn4"))
    lateral = [arrow for arrow in scene.arrows if arrow.way == "lateral"]
    assert len(lateral) == 1 + 4 * 3 + 1
    for arrow in lateral:
        middle = places.boxes[arrow.source].centre.y
        assert all(abs(point.y - middle) < 0.1 for point in places.arrows[arrow.name].samples())


def test_unrolled_arrows_of_a_box_arrive_apart() -> None:
    scene, places = unrolled(in_time("frnn4"))
    for name in {arrow.target for arrow in scene.arrows}:
        tips = [places.arrows[arrow.name].tip for arrow in scene.arrows if arrow.target == name]
        assert len(set(tips)) == len(tips)


def test_unrolled_long_delays_have_lanes_of_their_own() -> None:
    scene, places = unrolled(in_time("delays"))
    long = [places.arrows[arrow.name] for arrow in scene.arrows if arrow.delay > 1]
    runs = []
    for path in long:
        level = [(a, b) for a, b in pairwise(path.points[::3]) if abs(a.y - b.y) < 0.01 and b.x - a.x > 1]
        assert len(level) == 1
        runs += level
    for (a, b), (c, d) in combinations(runs, 2):
        assert abs(a.y - c.y) > 1 or b.x <= c.x or d.x <= a.x


@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("name", [*IN_TIME, "states", "zeros"])
def test_labels_of_rolled_networks_lie_on_nothing(name: str, direction: Direction) -> None:
    scene, places = placed(in_time(name), "blocks", direction)
    assert set(places.labels) == {arrow.name for arrow in scene.arrows if arrow.label and arrow.family != "shortcut"}
    rects = [(label, rect) for label, found in places.labels.items() for rect in found.rects()]
    for label, rect in rects:
        assert inside(rect, places.page)
        assert not any(rect.meets(box) for box in places.boxes.values()), label
        assert not any(rect.meets(other) for other_label, other in rects if other_label != label), label
        for arrow, path in places.arrows.items():
            assert not any(rect.holds(point) for point in path.samples(60)), (
                f"{arrow} runs through the label of {label}"
            )


def test_rolled_feedback_and_loops_are_below_and_bypasses_above() -> None:
    scene, places = placed(in_time("frnn4"))
    low = min(rect.low for rect in places.boxes.values())
    high = max(rect.high for rect in places.boxes.values())
    order = [box.name for box in scene.boxes]
    for arrow in scene.arrows:
        heights = [point.y for point in places.arrows[arrow.name].samples()]
        if arrow.way == "forward" and order.index(arrow.target) - order.index(arrow.source) > 1:
            assert min(heights) >= high - 0.1
        elif arrow.way != "forward":
            assert max(heights) <= low + 0.1


def test_loops_of_one_box_lie_in_each_other() -> None:
    text = ZEROS.replace(
        "- {from: c, to: c, delay: 1}", "- {from: c, to: c, delay: 1}\n  - {from: c, to: c, delay: 3, name: far}"
    )
    _, places = placed(hrg.loads(text).plan)
    near, far = places.arrows["edges.c__c"], places.arrows["edges.far"]
    assert min(point.y for point in far.samples()) < min(point.y for point in near.samples()) - 5
    assert far.tip.x < near.tip.x < near.points[0].x < far.points[0].x


def test_a_label_is_broken_where_it_gets_narrowest() -> None:
    assert broken("3x3 conv /2, GN, ReLU, at 1-4", 3) == ("3x3 conv /2,", "GN, ReLU,", "at 1-4")
    assert broken("brc2, t+1", 3) == ("brc2,", "t+1")
    assert broken("t+1", 3) == ("t+1",)
    assert broken("a, b, c", 1) == ("a, b, c",)
