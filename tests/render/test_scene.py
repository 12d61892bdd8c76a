from dataclasses import replace

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.graph import EdgeRecord
from hiresnet_graph.plan import Plan
from hiresnet_graph.render import Arrow, Scene, make_scene

TINY = """
name: tiny
input: {channels: 2, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 4}
  stage1: {block: basic, width: 4, depth: 2}
  stage2: {block: basic, width: 8, depth: 2, stride: 2}
  head: {block: classifier, classes: 3}
flow: stem -> stage1 -> stage2 -> head
skips: {levels: [stem, stages], edges: full}
"""


def plan_of(text: str = TINY) -> Plan:
    return hrg.loads(text).plan


def deep(depth: int) -> str:
    """The tiny network with a first stage of this depth."""
    return TINY.replace("width: 4, depth: 2", f"width: 4, depth: {depth}")


def arrows(scene: Scene, family: str) -> dict[str, Arrow]:
    return {arrow.name: arrow for arrow in scene.arrows if arrow.family == family}


def names(scene: Scene) -> list[str]:
    return [box.name for box in scene.boxes]


def test_stages_level_has_a_box_for_each_stage_and_each_other_node() -> None:
    scene = make_scene(plan_of(), level="stages")
    assert names(scene) == ["input", "stem", "stage1", "stage2", "head"]
    stage2 = scene.boxes[3]
    assert stage2.lines == ("2 x basic", "8x4x4")
    assert stage2.members == ("stage2.block1", "stage2.block2")
    assert scene.groups == ()
    assert {(a.source, a.target) for a in arrows(scene, "skip").values()} == {
        ("stem", "stage1"),
        ("stage1", "stage2"),
        ("stem", "stage2"),
    }
    assert not arrows(scene, "shortcut")


def test_blocks_level_has_a_box_for_each_node_and_a_group_for_each_stage() -> None:
    plan = plan_of()
    scene = make_scene(plan)
    assert names(scene) == [node.name for node in plan.nodes]
    assert [group.name for group in scene.groups] == ["stage1", "stage2"]
    assert scene.groups[1].title == "stage2  8x4x4"
    assert [box.title for box in scene.boxes if box.group == "stage1"] == ["block1", "block2"]
    assert len(arrows(scene, "shortcut")) == 4


def test_a_skip_that_names_a_stage_ends_at_the_stage() -> None:
    skip = arrows(make_scene(plan_of()), "skip")["edges.stem__stage2"]
    assert (skip.source, skip.source_group) == ("stem", "")
    assert (skip.target, skip.target_group) == ("stage2.block2", "stage2")


def test_ops_level_has_a_box_for_each_call_and_an_arrow_for_each_operand() -> None:
    plan = plan_of()
    scene = make_scene(plan, level="ops")
    assert names(scene) == [*plan.inputs, *(call.name for call in plan.calls)]
    assert len(scene.arrows) == sum(len(call.inputs) for call in plan.calls)
    assert {group.name for group in scene.groups} >= {"stem", "stage1.block1", "edges.stem__stage2"}


def test_ops_level_tells_skips_and_shortcuts_from_the_flow() -> None:
    scene = make_scene(plan_of(), level="ops")
    family = {(arrow.source, arrow.target): arrow.family for arrow in scene.arrows}
    assert family["stem.relu", "stage1.block2.output.add"] == "skip"
    assert family["edges.stem__stage2.norm", "stage2.block2.output.add"] == "skip"
    assert family["stem.relu", "stage1.block1.residual.add"] == "shortcut"
    assert family["stage1.block1.norm2", "stage1.block1.residual.add"] == "flow"
    assert family["stage2.block1.shortcut.norm", "stage2.block1.residual.add"] == "shortcut"


def test_labels_say_what_the_projections_do() -> None:
    labels = {name: arrow.label for name, arrow in arrows(make_scene(plan_of()), "skip").items()}
    assert labels == {
        "edges.stem__stage1": "identity",
        "edges.stage1__stage2": "avg pool, 1x1 conv, BN",
        "edges.stem__stage2": "avg pool, 1x1 conv, BN",
    }


def test_a_pooling_that_two_skips_share_is_in_both_labels() -> None:
    text = TINY.replace(
        "edges: full}", "edges: [stem>stage2.block1, stem>stage2], projection: {norm: none, channels: conv1x1}}"
    )
    plan = plan_of(text)
    assert sum(call.op.kind == "avg_pool" for call in plan.calls) == 1
    labels = [arrow.label for arrow in arrows(make_scene(plan), "skip").values()]
    assert labels == ["avg pool, 1x1 conv"] * 2


def test_colours_go_by_distance_and_agree_between_variants() -> None:
    full = arrows(make_scene(plan_of(), level="stages"), "skip")
    assert {name: arrow.hue for name, arrow in full.items()} == {
        "edges.stem__stage1": 1,
        "edges.stage1__stage2": 1,
        "edges.stem__stage2": 2,
    }
    only = arrows(make_scene(plan_of(TINY.replace("full", "p2")), level="stages"), "skip")
    assert only["edges.stem__stage2"].hue == 2


def test_numbers_in_the_picture_are_those_of_the_cost_table() -> None:
    network = hrg.load("hiresnet18").variant("full")
    scene = make_scene(network.plan, level="stages")
    assert scene.caption[0].startswith("hiresnet18: 273,466 parameters (5,632 on skips), ")
    told = sum(int(note.split()[0].replace(",", "")) for box in scene.boxes for note in box.notes if "params" in note)
    assert told + 5632 == network.cost().parameters


def test_long_stages_are_folded_at_the_level_of_blocks() -> None:
    plan = plan_of(deep(9))
    scene = make_scene(plan)
    fold = next(box for box in scene.boxes if box.role == "fold")
    titles = [box.title for box in scene.boxes if box.group == "stage1"]
    assert titles == ["block1", "block2", "block3 … block8", "block9"]
    assert fold.lines[0] == "6 x basic"
    assert len(fold.members) == 6
    assert [(a.source, a.target) for a in scene.arrows if a.family == "flow"][3:5] == [
        ("stage1.block2", fold.name),
        (fold.name, "stage1.block9"),
    ]
    assert sorted(name for box in scene.boxes for name in box.members) == sorted(node.name for node in plan.nodes)


def test_stages_of_six_blocks_are_not_folded() -> None:
    plan = plan_of(deep(6))
    assert all(box.role != "fold" for box in make_scene(plan).boxes)


def test_a_block_at_which_a_skip_ends_is_not_folded_away() -> None:
    scene = make_scene(plan_of(deep(12).replace("edges: full", "edges: [stem>stage1.block5]")))
    assert "stage1.block5" in names(scene)
    assert [box.name for box in scene.boxes if box.role == "fold"] == [
        "stage1.block3...block4",
        "stage1.block6...block11",
    ]


def test_skips_into_a_fold_are_one_arrow_that_tells_their_number() -> None:
    scene = make_scene(plan_of(deep(12).replace("levels: [stem, stages]", "levels: [stem, stage1.block*]")))
    into = [arrow for arrow in arrows(scene, "skip").values() if (arrow.source, arrow.target[-3:]) == ("stem", "k11")]
    assert [(arrow.label, len(arrow.edges)) for arrow in into] == [("9 x identity", 9)]


def test_of_many_labels_the_caption_tells_the_kinds() -> None:
    text = TINY.replace("depth: 2", "depth: 4").replace("levels: [stem, stages]", "levels: [stem, blocks]")
    scene = make_scene(plan_of(text))
    assert not scene.labelled
    assert scene.caption[1] == "skips: avg pool, 1x1 conv, BN (20); identity (16)"


def test_a_merge_other_than_add_is_shown() -> None:
    text = TINY.replace("edges: full", "edges: [stem>stage2], merge: concat")
    (box,) = [box for box in make_scene(plan_of(text)).boxes if "concat at input" in box.notes]
    assert box.name == "stage2.block1"


def test_a_gate_is_an_arrow_from_the_node_that_gives_it() -> None:
    text = """
name: gated
input: {channels: 2, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  g: {block: conv, width: 1}
  c: {block: conv, width: 4}
flow: [a -> b -> c, a -> g]
edges: [{from: a, to: c, gate: g}]
"""
    scene = make_scene(plan_of(text))
    (gate,) = arrows(scene, "gate").values()
    assert (gate.source, gate.target, gate.label) == ("g", "c", "gate")


def test_a_delay_is_in_the_label() -> None:
    plan = plan_of()
    edge = next(edge for edge in plan.edges if edge.name == "edges.stem__stage1")
    back: EdgeRecord = replace(edge, name="edges.back", source="stage2.block2", target="stem", delay=2, family="edge")
    scene = make_scene(replace(plan, edges=(*plan.edges, replace(back, ends=("stage2", "stem")))))
    arrow = arrows(scene, "edge")["edges.back"]
    assert (arrow.label, arrow.delay, arrow.source_group) == ("delay 2", 2, "stage2")


def test_outputs_are_marked_and_named_where_there_are_several() -> None:
    text = TINY.replace("head -> ", "") + "outputs: [head, stage1]\n"
    boxes = {box.name: box for box in make_scene(plan_of(text)).boxes}
    assert boxes["head"].output and boxes["stage1.block2"].output and not boxes["stem"].output
    assert "output 'stage1'" in boxes["stage1.block2"].notes


def test_paths_of_files_stay_out_of_the_picture() -> None:
    network = hrg.load("hiresnet18")
    scene = make_scene(network.plan)
    assert all("/" not in box.tooltip for box in scene.boxes)
    assert any("hiresnet18.yaml:" in box.tooltip for box in scene.boxes)


def test_an_unknown_level_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no level 'stage' .* Did you mean 'stages'\? Known: stages, blocks, ops\."):
        make_scene(plan_of(), level="stage")  # type: ignore[arg-type]
