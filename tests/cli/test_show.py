import json

import pytest

import hiresnet_graph as hg
from hiresnet_graph.shipped import spec_names


def test_json_has_the_keys_and_sums_that_were_promised(hrg):
    data = json.loads(hrg("show", "hiresnet18", "--variant", "full", "--json").stdout)
    assert (data["name"], data["variant"], data["parameters"]) == ("hiresnet18", "full", 273_466)
    assert data["macs"] == sum(row["macs"] for row in (*data["nodes"], *data["edges"]))
    assert data["parameters"] == sum(row["parameters"] for row in (*data["nodes"], *data["edges"]))
    assert data["memory_bytes"] == sum(row["memory_bytes"] for row in (*data["nodes"], *data["edges"]))
    stem = next(node for node in data["nodes"] if node["name"] == "stem")
    assert {key: stem[key] for key in ("block", "shape", "parameters", "macs")} == {
        "block": "conv",
        "shape": [16, 32, 32],
        "parameters": 464,
        "macs": 3 * 9 * 16 * 32 * 32,
    }
    skips = {(edge["from"], edge["to"]): edge for edge in data["edges"] if edge["family"] == "skip"}
    assert set(skips) == {
        ("stem", "stage1"),
        ("stem", "stage2"),
        ("stem", "stage3"),
        ("stage1", "stage2"),
        ("stage1", "stage3"),
        ("stage2", "stage3"),
    }
    assert skips["stem", "stage1"]["projection"] == "identity"
    edge = skips["stem", "stage2"]
    assert (edge["merge"], edge["projection"], edge["parameters"]) == ("add", "avg, conv1x1, batch", 576)
    assert "specs/hiresnet18.yaml:" in edge["origin"]
    assert data["share"]["skip"]["parameters"] == 5_632


@pytest.mark.parametrize("name", spec_names())
def test_every_shipped_spec_is_shown_with_its_true_costs(hrg, name):
    network = hg.load(name)
    data = json.loads(hrg("show", name, "--json").stdout)
    cost = network.cost()
    assert (data["parameters"], data["macs"], data["memory_bytes"]) == (cost.parameters, cost.macs, 4 * cost.memory)
    assert sum(part["parameters"] for part in data["share"].values()) == cost.parameters
    assert sum(part["macs"] for part in data["share"].values()) == cost.macs
    text = hrg("show", name).stdout
    assert f"{cost.parameters:,}" in text


@pytest.mark.parametrize(
    ("block", "edges", "parameters"),
    [
        ("plain", "none", 265_050),
        ("plain", "full", 270_682),
        ("basic", "none", 267_834),
        ("basic", "p1", 270_586),
        ("basic", "in", 269_562),
        ("resnext", "none", 70_842),
        ("resnext", "full", 76_474),
    ],
)
def test_changes_and_edge_sets_give_the_counts_of_the_paper(hrg, block, edges, parameters):
    result = hrg("show", "hiresnet18", f"block={block}", "--edges", edges, "--json")
    assert json.loads(result.stdout)["parameters"] == parameters


def test_the_table_names_nodes_edges_and_totals(hrg):
    text = hrg("show", "hiresnet18@full").stdout
    lines = text.splitlines()
    assert lines[0].startswith("hiresnet18, full")
    assert lines[1] == "flow  input -> stem -> stage1 -> stage2 -> stage3 -> head"
    row = next(line for line in lines if line.startswith("stage2.block1 "))
    assert row.split() == ["stage2.block1", "basic", "32x16x16", "13,952", "3.539", "M", "224", "KiB"]
    skip = next(line for line in lines if line.startswith("stem -> stage3"))
    assert skip.split()[3:5] == ["skip", "add"] and "1,152" in skip
    assert "and 5 shortcuts without a projection" in lines
    skips = next(line for line in lines if line.startswith("skips "))
    assert "5,632" in skips and "2.1 %" in skips
    assert next(line for line in lines if line.startswith("all ")).split()[1] == "273,466"


def test_stages_of_deep_networks_are_folded_unless_asked_for(hrg):
    folded = hrg("show", "resnet110").stdout
    assert "18 x basic" in folded and "stage1.block2" not in folded
    unfolded = hrg("show", "resnet110", "--blocks").stdout
    assert "stage1.block2" in unfolded and "18 x basic" not in unfolded
    assert "1,727,962" in folded and "1,727,962" in unfolded


def test_ops_lists_every_call(hrg):
    network = hg.load("hiresnet18")
    data = json.loads(hrg("show", "hiresnet18", "--ops", "--json").stdout)
    assert [call["name"] for call in data["calls"]] == [call.name for call in network.plan.calls]
    assert sum(call["parameters"] for call in data["calls"]) == network.cost().parameters
    text = hrg("show", "hiresnet18", "--ops").stdout
    assert all(call.name in text for call in network.plan.calls)


def test_branching_flow_is_shown_as_chains(hrg, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "name: two\ninput: {channels: 2, height: 4, width: 4}\n"
        "nodes: {a: {block: conv, width: 2}, b: {block: conv, width: 2}, c: relu}\n"
        "flow: [input -> a -> c, input -> b -> c]\n"
    )
    lines = hrg("show", path).stdout.splitlines()
    assert lines[1:3] == ["flow  input -> a -> c", "flow  input -> b -> c"]


def test_gates_weights_and_several_inputs_are_counted(hrg, tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text(
        "name: gate\ninput: {left: {channels: 2, height: 4, width: 4}, right: {channels: 2, height: 4, width: 4}}\n"
        "nodes:\n  a: {block: conv, width: 4}\n  b: {block: conv, width: 4}\n  g: sigmoid\n"
        "flow: [left -> a, right -> g, a -> b]\n"
        "edges: [{from: a, to: b, slot: output, merge: weighted, gate: a}]\noutputs: [b, g]\n"
    )
    data = json.loads(hrg("show", path, "--json").stdout)
    assert data["inputs"] == {"left": [2, 4, 4], "right": [2, 4, 4]} and data["outputs"] == {
        "b": [4, 4, 4],
        "g": [2, 4, 4],
    }
    assert data["parameters"] == sum(row["parameters"] for row in (*data["nodes"], *data["edges"]))
    assert data["share"]["edge"]["parameters"] == 1


def test_diff_of_two_variants_lists_the_edges_that_one_lacks(hrg):
    data = json.loads(hrg("diff", "hiresnet18@original", "hiresnet18@full", "--json").stdout)
    assert not data["same"] and data["parameters"] == 5_632 and data["nodes"] == []
    assert [entry["change"] for entry in data["edges"]] == ["added"] * 6
    assert sum(entry["b"]["parameters"] for entry in data["edges"]) == 5_632
    text = hrg("diff", "hiresnet18@original", "hiresnet18@full").stdout
    assert "+   stem -> stage3" in text.replace("+  s", "+   s") and "+5,632" in text


def test_diff_takes_changes_behind_each_spec(hrg):
    data = json.loads(hrg("diff", "hiresnet18", "block=plain", "hiresnet18", "block=resnext", "--json").stdout)
    assert (data["a"]["parameters"], data["b"]["parameters"]) == (270_682, 76_474)
    assert data["a"]["spec"] == "hiresnet18 block=plain"
    changed = {entry["name"] for entry in data["nodes"] if entry["change"] == "changed"}
    assert "stage3.block2" in changed and "stem" not in changed


def test_diff_of_one_spec_with_changes_compares_it_with_itself(hrg):
    data = json.loads(hrg("diff", "resnet20", "n=4", "--json").stdout)
    assert {entry["name"] for entry in data["nodes"] if entry["change"] == "added"} == {
        f"stage{i}.block4" for i in (1, 2, 3)
    }
    text = hrg("diff", "resnet20", "n=4").stdout
    assert text.startswith("a: resnet20\nb: resnet20 n=4\n")


def test_diff_sees_what_changes_no_count(hrg, tmp_path):
    for name, block in (("a", "relu"), ("b", "gelu")):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: x\ninput: {{channels: 2, height: 4, width: 4}}\n"
            f"nodes: {{c: {{block: conv, width: 2, activation: {block}}}}}\nflow: c\n"
        )
    data = json.loads(hrg("diff", tmp_path / "a.yaml", tmp_path / "b.yaml", "--json").stdout)
    assert not data["same"] and [entry["name"] for entry in data["nodes"]] == ["c"]


def test_diff_of_equal_networks_says_so(hrg):
    assert "Both are the same network." in hrg("diff", "hiresnet18", "hiresnet18@full").stdout
    assert json.loads(hrg("diff", "hiresnet18", "hiresnet18@full", "--json").stdout)["same"]


@pytest.mark.parametrize("args", [("hiresnet18",), ("hiresnet18", "unet", "vgg16"), ("width=3", "hiresnet18")])
def test_diff_wants_two_networks(hrg, args):
    result = hrg("diff", *args)
    assert result.exit_code == 2 and result.stdout == "" and "hrg diff:" in result.stderr
