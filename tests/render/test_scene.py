from dataclasses import replace

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.cost import Cost, count_folded, count_parts, macs_per_step
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_si
from hiresnet_graph.graph import EdgeRecord
from hiresnet_graph.plan import Plan
from hiresnet_graph.render import Arrow, Scene, make_scene
from hiresnet_graph.render.layout.geometry import title_lines
from tests.recurrent.graphs import make
from tests.render.networks import DELAYS, STATES, ZEROS

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


def test_ops_level_distinguishes_skips_and_shortcuts_from_the_flow() -> None:
    scene = make_scene(plan_of(), level="ops")
    family = {(arrow.source, arrow.target): arrow.family for arrow in scene.arrows}
    assert family["stem.relu", "stage1.block2.output.add"] == "skip"
    assert family["edges.stem__stage2.norm", "stage2.block2.output.add"] == "skip"
    assert family["stem.relu", "stage1.block1.residual.add"] == "shortcut"
    assert family["stage1.block1.norm2", "stage1.block1.residual.add"] == "flow"
    assert family["stage2.block1.shortcut.norm", "stage2.block1.residual.add"] == "shortcut"


def test_labels_describe_the_projections() -> None:
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


def test_colours_depend_on_distance_and_agree_between_variants() -> None:
    full = arrows(make_scene(plan_of(), level="stages"), "skip")
    assert {name: arrow.hue for name, arrow in full.items()} == {
        "edges.stem__stage1": 1,
        "edges.stage1__stage2": 1,
        "edges.stem__stage2": 2,
    }
    only = arrows(make_scene(plan_of(TINY.replace("full", "p2")), level="stages"), "skip")
    assert only["edges.stem__stage2"].hue == 2


def test_blocks_that_skips_join_are_levels() -> None:
    plan = hrg.load("hiresvit_tiny").override({"depth": 3}).plan
    blocks = ["encoder.block1", "encoder.block2", "encoder.block3"]
    levels = ["positions", *blocks]
    found = {(arrow.source, arrow.target): arrow.hue for arrow in arrows(make_scene(plan), "skip").values()}
    assert found == {(a, b): j - i for i, a in enumerate(levels) for j, b in enumerate(levels) if i < j}
    between_stages = hrg.load("hiresnet56").plan
    assert {arrow.distance for arrow in arrows(make_scene(between_stages), "skip").values()} == {1, 2, 3}


def test_the_distance_of_a_skip_is_counted_in_its_levels() -> None:
    """As `p1` counts it: nodes that are no level between the ends do not matter."""
    network = hrg.load("hiresnet18").override({"skips.levels": ["stem", "stage2", "stage3"]})
    found = arrows(make_scene(network.variant("p1").plan), "skip").values()
    assert [(arrow.source, arrow.distance) for arrow in found] == [("stem", 1), ("stage2.block3", 1)]
    assert {"skip", "p1"} <= set(next(iter(found)).families)
    (long,) = (edge for edge in network.variant("p2").plan.edges if edge.family == "skip")
    assert (long.ends, long.distance) == (("stem", "stage3"), 2)
    (written,) = (edge for edge in network.with_edges("stage1>stage3").plan.edges if edge.family == "skip")
    assert written.distance is None  # stage1 is no level


def test_numbers_in_the_picture_are_those_of_the_cost_table() -> None:
    network = hrg.load("hiresnet18").variant("full")
    scene = make_scene(network.plan, level="stages")
    assert scene.caption[0].startswith("hiresnet18: 273,466 parameters (5,632 on skips, 2,784 on shortcuts), ")
    shown = sum(int(note.split()[0].replace(",", "")) for box in scene.boxes for note in box.notes if "params" in note)
    assert shown + 5632 + 2784 == network.cost().parameters


def test_the_parameters_in_the_box_of_a_block_are_those_of_the_table_of_nodes() -> None:
    """The shortcut of a block has its own line there, and its own arrow here."""
    network = hrg.load("hiresnet18").variant("full")
    boxes = {box.name: box for box in make_scene(network.plan).boxes}
    assert "13,952 params" in boxes["stage2.block1"].notes
    costs = count_parts(network.plan)
    for name, box in boxes.items():
        number = costs.get(name, Cost()).parameters
        assert box.notes[:1] == ((f"{number:,} params",) if number else ()), name
    groups = {group.name: group.note for group in make_scene(network.plan).groups}
    assert groups["stage2"] == f"{13952 + 18560 + 18560:,} params"


def test_the_caption_explains_the_colours_of_skips() -> None:
    full = hrg.load("hiresnet18").variant("full").plan
    for level in ("stages", "blocks", "ops"):
        assert make_scene(full, level=level).caption[1:] == (
            "distance of skips: 1 blue, 2 orange dashed, 3 green dotted",
        )
    assert len(make_scene(hrg.load("hiresnet18").variant("p1").plan).caption) == 1  # one colour


def test_the_caption_names_as_many_colours_as_there_are() -> None:
    names = [f"n{i}" for i in range(9)]
    nodes = "".join(f"  {name}: {{block: conv, width: 4}}\n" for name in names)
    text = f"name: many\ninput: {{channels: 3, height: 8, width: 8}}\nnodes:\n{nodes}flow: {' -> '.join(names)}\n"
    scene = make_scene(plan_of(text + f"skips: {{levels: [{', '.join(names)}], edges: full}}\n"))
    assert scene.caption[1] == "colour and dashes of skips: their distance, 6 in turn"


def test_very_long_names_are_cut_in_the_middle_and_complete_in_the_tooltip() -> None:
    long = "the_" + "very_" * 20 + "long_name"
    text = TINY.replace("stem", long)
    for level in ("blocks", "ops"):
        scene = make_scene(plan_of(text), level=level, title=long)
        texts = [part for box in scene.boxes for part in (box.title, *box.lines)] + [g.title for g in scene.groups]
        assert max(map(len, texts)) <= 87 and any(text.startswith("the_very_") and "…" in text for text in texts)
        assert any(long in box.tooltip for box in scene.boxes)
        assert level == "blocks" or any(g.title.endswith("_long_name > stage2") for g in scene.groups)
        assert len(scene.caption[0]) < 200 and scene.title == long


def test_long_titles_are_wrapped_where_a_reader_would_break_them() -> None:
    assert title_lines("stage1.block1") == ("stage1.block1",)
    assert title_lines("features.denseblock3.denselayer24.conv2") == ("features.denseblock3.", "denselayer24.conv2")
    assert title_lines("encoder_of_the_left_eye > decoder_of_both") == ("encoder_of_the_left_eye >", "decoder_of_both")
    assert title_lines("x" * 60) == ("x" * 28, "x" * 28, "x" * 4)


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


def test_skips_into_a_fold_are_one_arrow_with_their_number() -> None:
    scene = make_scene(plan_of(deep(12).replace("levels: [stem, stages]", "levels: [stem, stage1.block*]")))
    into = [arrow for arrow in arrows(scene, "skip").values() if (arrow.source, arrow.target[-3:]) == ("stem", "k11")]
    assert [(arrow.label, len(arrow.edges)) for arrow in into] == [("9 x identity", 9)]


def test_with_many_labels_the_caption_lists_the_kinds() -> None:
    text = TINY.replace("depth: 2", "depth: 4").replace("levels: [stem, stages]", "levels: [stem, blocks]")
    scene = make_scene(plan_of(text))
    assert not scene.labelled
    assert scene.caption[-1] == "skips: avg pool, 1x1 conv, BN (20); identity (16)"


def test_a_merge_other_than_add_is_shown() -> None:
    text = TINY.replace("edges: full", "edges: [stem>stage2], merge: concat")
    (box,) = [box for box in make_scene(plan_of(text)).boxes if "concat at input" in box.notes]
    assert box.name == "stage2.block1"


def test_a_gate_is_an_arrow_from_its_node() -> None:
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


def test_the_scale_and_the_gate_of_an_edge_are_in_its_label() -> None:
    text = """
name: scaled
input: {channels: 2, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  g: {block: conv, width: 1}
  c: {block: conv, width: 4}
flow: [input -> a -> b -> c, a -> g]
edges:
  - {from: a, to: c, scale: {init: 0}, gate: g}
  - {from: input, to: b, scale: gate, projection: standard}
  - {from: input, to: c, slot: output, scale: -0.5, projection: {channels: pad, norm: none}}
skips: {edges: a>b, scale: learned}
"""
    scene = make_scene(plan_of(text))
    labels = {arrow.edges: arrow.label for family in ("edge", "skip") for arrow in arrows(scene, family).values()}
    assert labels == {
        ("edges.a__c",): "scale learned from 0, gate g",
        ("edges.input__b",): "1x1 conv, BN, gate",
        ("edges.input__c",): "zero pad, scale -0.5",
        ("edges.a__b",): "scale learned",
    }
    titles = {box.name: box.title for box in make_scene(plan_of(text), level="ops").boxes}
    assert titles["edges.a__c.scale"] == "scale from 0" and titles["edges.input__b.scale"] == "gate"
    assert titles["edges.input__c.fixed_scale"] == "scale -0.5"


def test_a_delay_is_in_the_label() -> None:
    plan = plan_of()
    edge = next(edge for edge in plan.edges if edge.name == "edges.stem__stage1")
    back: EdgeRecord = replace(edge, name="edges.back", source="stage2.block2", target="stem", delay=2, family="edge")
    scene = make_scene(replace(plan, edges=(*plan.edges, replace(back, ends=("stage2", "stem")))))
    arrow = arrows(scene, "edge")["edges.back"]
    assert (arrow.label, arrow.delay, arrow.source_group) == ("t+2", 2, "stage2")


def test_outputs_are_marked_and_named_where_there_are_several() -> None:
    text = TINY.replace("head -> ", "") + "outputs: [head, stage1]\n"
    boxes = {box.name: box for box in make_scene(plan_of(text)).boxes}
    assert boxes["head"].output and boxes["stage1.block2"].output and not boxes["stem"].output
    assert "output 'stage1'" in boxes["stage1.block2"].notes


def test_the_picture_contains_no_folders() -> None:
    network = hrg.load("hiresnet18")
    scene = make_scene(network.plan)
    assert all("/" not in box.tooltip for box in scene.boxes)
    assert any("hiresnet18.yaml:" in box.tooltip for box in scene.boxes)


# networks in time


def states(*, unrolled: bool = False, **changes: object) -> Scene:
    network = hrg.loads(STATES).override({key.replace("__", "."): value for key, value in changes.items()})
    return make_scene(network.plan, unrolled=unrolled)


def test_rolled_there_is_one_box_for_all_steps_and_delays_are_in_the_labels() -> None:
    scene = states()
    assert names(scene) == ["input", "pre", "s1", "s2", "s3", "post"] and not scene.unrolled
    found = {(arrow.source, arrow.target): (arrow.label, arrow.delay, arrow.heading) for arrow in scene.arrows}
    assert found["pre", "s1"] == ("", 0, "forward")
    assert found["s1", "s3"] == ("brc2, t+1", 1, "forward")
    assert found["s2", "s2"] == ("brc2, t+1", 1, "lateral")
    assert found["s3", "s1"] == ("brd2, t+1", 1, "feedback")
    assert len(found) == 3 + 9


def test_the_caption_has_steps_readout_copies_and_colours() -> None:
    network = hrg.loads(STATES)
    first, second, third = states().caption
    cost = network.cost()
    assert first.startswith(f"states: {cost.parameters:,} parameters ({count_folded(network.plan):,} with one copy")
    assert first.endswith(" in 4 steps")
    assert second == "biological unrolling; input at step 0; readout at step 3"
    assert third == "dashed: takes time (t+1: one step); green: lateral; orange: feedback"
    assert "readout at steps 1-3" in states(time__readout="all").caption[1]


def test_the_caption_of_a_network_without_time_does_not_mention_it() -> None:
    caption = "".join(make_scene(plan_of()).caption)
    assert not any(word in caption for word in ("step", "unrolling", "readout"))


def test_steps_at_which_an_edge_is_open_are_in_its_label() -> None:
    scene = make_scene(hrg.loads(DELAYS).plan, level="stages")
    labels = {name: arrow.label for name, arrow in arrows(scene, "edge").items()}
    assert labels["edges.c__b"] == "t+1, at 3-5" and labels["edges.c__c"] == "t+3"
    assert "at: the steps when it is open" in scene.caption[2]


def test_skips_of_a_network_in_time_have_one_colour() -> None:
    skips = arrows(make_scene(hrg.loads(DELAYS).plan, level="stages"), "skip").values()
    assert len({arrow.distance for arrow in skips}) > 1 and {arrow.hue for arrow in skips} == {1}


def test_edges_that_reach_no_readout_are_silent() -> None:
    silent = {arrow.name for arrow in states(steps=3).arrows if arrow.heading == "silent"}
    assert silent == {"edges.s2__s1", "edges.s3__s1", "edges.s2__s2", "edges.s3__s2"}
    assert "grey: not in the readout" in states(steps=3).caption[2]
    assert not any(arrow.heading == "silent" for arrow in states(steps=3, unrolled=True).arrows)


def test_the_label_of_an_edge_is_that_of_one_step() -> None:
    text = ZEROS.replace("steps: 4", "steps: 5")
    labels = [arrow.label for arrow in make_scene(hrg.loads(text).plan).arrows]
    assert labels.count("3x3 conv, BN, ReLU, t+1") == 2 and "3x3 conv, BN, ReLU" in labels


def test_a_gate_in_time_is_an_arrow_at_each_step() -> None:
    plan = hrg.loads(DELAYS).plan
    (gate,) = arrows(make_scene(plan), "gate").values()
    assert (gate.source, gate.target, gate.delay) == ("g", "c", 0)
    found = arrows(make_scene(plan, unrolled=True), "gate")
    assert [name.rsplit(".", 1)[1] for name in found] == ["step2", "step3", "step4", "step5"]
    assert all(arrow.source.rsplit(".")[-1] == arrow.target.rsplit(".")[-1] for arrow in found.values())


def test_nodes_are_in_the_order_of_the_flow_in_spite_of_cycles() -> None:
    text = STATES.replace("  pre:", "  late:").replace("pre -> s1", "late -> pre -> s1")
    text = text.replace("  post:", "  pre: {block: identity}\n  post:")
    assert names(make_scene(hrg.loads(text).plan)) == ["input", "late", "pre", "s1", "s2", "s3", "post"]


def test_unrolled_there_is_a_box_for_each_step_that_reaches_the_readout() -> None:
    scene = states(unrolled=True)
    assert scene.unrolled
    steps = {box.title: [] for box in scene.boxes}
    for box in scene.boxes:
        steps[box.title].append(box.group)
        assert box.name == f"{box.title}.{box.group}"
    assert steps == {
        "input": ["step0"],
        "pre": ["step0"],
        "s1": ["step0", "step1", "step2"],
        "s2": ["step1", "step2"],
        "s3": ["step1", "step2", "step3"],
        "post": ["step3"],
    }
    assert [(group.name, group.title) for group in scene.groups] == [(f"step{t}", f"t = {t}") for t in range(4)]
    assert [box.name for box in scene.boxes if box.output] == ["post.step3"]


def test_unrolled_each_arrow_starts_at_the_step_of_its_value() -> None:
    scene = states(unrolled=True)
    found = {(arrow.source, arrow.target) for arrow in scene.arrows}
    assert found == {
        ("input.step0", "pre.step0"),
        ("pre.step0", "s1.step0"),
        *(("s1.step0", f"s{k}.step1") for k in (1, 2, 3)),
        *((f"s{j}.step1", f"s{k}.step2") for j in (1, 2, 3) for k in (1, 2, 3)),
        *((f"s{j}.step2", "s3.step3") for j in (1, 2, 3)),
        ("s3.step3", "post.step3"),
    }
    assert not any(arrow.label for arrow in scene.arrows)


def test_unrolled_the_macs_of_the_steps_are_those_of_the_cost_table() -> None:
    network = hrg.load("frnn2")
    macs = macs_per_step(network.plan)
    assert sum(macs) == network.cost().macs
    notes = [group.note for group in make_scene(network.plan, unrolled=True).groups]
    assert notes == [f"{format_si(number, decimals=1)} MACs" for number in macs]


def test_unrolled_stages_can_be_one_box() -> None:
    plan = hrg.loads(DELAYS).plan
    blocks = {box.title for box in make_scene(plan, unrolled=True).boxes}
    assert {"a.block1", "a.block2", "c"} <= blocks
    stages = make_scene(plan, unrolled=True, level="stages")
    assert {box.title for box in stages.boxes} == {"input", "a", "b", "c", "d", "g", "head"}
    assert {box.role for box in stages.boxes if box.title == "a"} == {"stage"}
    assert ("d.step3", "a.step5") in {(arrow.source, arrow.target) for arrow in stages.arrows}


def test_unrolled_boxes_from_zeros_alone_have_a_role() -> None:
    scene = make_scene(hrg.loads(ZEROS).plan, unrolled=True)
    assert [box.name for box in scene.boxes if box.role == "zeros"] == ["b.step0", "c.step0", "c.step1"]
    assert scene.caption[-1].endswith("dashed boxes: from zeros alone")


def test_a_network_without_time_cannot_be_unrolled() -> None:
    with pytest.raises(UsageError, match="'tiny' has no 'time', so there is nothing to unroll"):
        make_scene(plan_of(), unrolled=True)


def test_ops_level_has_the_calls_of_all_steps_grouped_by_step() -> None:
    plan = hrg.loads(ZEROS).plan
    scene = make_scene(plan, level="ops", unrolled=True)
    assert scene == make_scene(plan, level="ops") and not scene.unrolled
    assert names(scene) == [*plan.inputs, *(call.name for call in plan.calls)]
    assert {group.name: group.note for group in scene.groups}["edges.a__b.step1"] == "t = 1"
    assert not any(box.group for box in scene.boxes if ".zeros" in box.name)


def test_a_shortcut_inside_the_block_of_an_edge_does_not_belong_to_the_target() -> None:
    assert not arrows(make_scene(hrg.load("rnn_resnet3").plan), "shortcut")


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("unrolled", [False, True])
def test_scenes_of_random_networks_in_time_are_consistent(seed: int, unrolled: bool) -> None:
    plan = make(seed).arch.plan
    for level in ("stages", "blocks", "ops"):
        scene = make_scene(plan, level=level, unrolled=unrolled)
        known = {box.name for box in scene.boxes}
        groups = {group.name for group in scene.groups}
        assert len(known) == len(scene.boxes) and len({arrow.name for arrow in scene.arrows}) == len(scene.arrows)
        assert all({arrow.source, arrow.target} <= known for arrow in scene.arrows)
        assert {box.group for box in scene.boxes} <= groups | {""}
        if scene.unrolled:
            for arrow in scene.arrows:
                start, end = (int(name.rsplit(".step", 1)[1]) for name in (arrow.source, arrow.target))
                assert end - start == arrow.delay
