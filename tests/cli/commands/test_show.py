"""`hrg show`."""

import json

import pytest
from safetensors.torch import save_file

import hiresnet_graph as hg
from hiresnet_graph.cost import count_folded
from hiresnet_graph.shipped import spec_names


def test_json_has_the_documented_keys_and_sums(hrg):
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


def test_the_memory_of_training_is_estimated_with_and_without_skips(hrg):
    data = json.loads(hrg("show", "hiresnet18", "--batch-size", "50", "--recipe", "optimizer=sgd", "--json").stdout)
    training, plain = data["training"], data["training"]["without_skips"]
    assert training["stored_bytes"] == 50 * data["memory_bytes"] and training["batch_size"] == 50
    assert training["optimizer_bytes"] == 4 * data["parameters"]
    skips = sum(edge["memory_bytes"] for edge in data["edges"] if edge["family"] == "skip")
    assert training["stored_bytes"] - plain["stored_bytes"] > 50 * skips  # the sums are counted where they are made
    assert plain["weights_bytes"] < training["weights_bytes"] < training["peak_bytes"]
    assert json.loads(hrg("show", "resnet20", "--json").stdout)["training"]["without_skips"] is None
    text = hrg("show", "hiresnet18", "--recipe", "checkpoint=blocks", "--recipe", "precision=bf16").stdout
    assert "\nTraining on batches of 100 (bf16, adam, with checkpoints) takes about 45" in text
    wrong = hrg("show", "hiresnet18", "--recipe", "freeze=[steem]").stderr
    assert "recipe: freeze: 'steem' matches no tensor of the network. Did you mean 'stem'?" in wrong
    assert "takes no --recipe" in hrg("show", "table2", "--recipe", "lr=1").stderr


def test_a_study_shows_the_memory_of_each_network(hrg):
    rows = json.loads(hrg("show", "table2-hiresnet56", "--json").stdout)["networks"]
    sizes = {row["label"]: row["training_bytes"] for row in rows}
    assert sizes["full"] > sizes["in"] > sizes["none"] > 300 * 2**20
    assert "Training is the estimated memory of a training step of one run." in hrg("show", "table2").stdout


@pytest.mark.parametrize("name", spec_names())
def test_every_shipped_spec_is_shown_with_its_true_costs(hrg, name):
    network = hg.load(name)
    data = json.loads(hrg("show", name, "--json").stdout)
    cost = network.cost()
    assert (data["parameters"], data["macs"], data["memory_bytes"]) == (cost.parameters, cost.macs, cost.memory_bytes)
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
    assert row.split() == ["stage2.block1", "basic", "32x16x16", "13,952", "3.539", "M", "128", "KiB"]
    skip = next(line for line in lines if line.startswith("stem -> stage3"))
    assert skip.split()[3:5] == ["skip", "add"] and "1,152" in skip
    assert "and 5 shortcuts without a projection" in lines
    skips = next(line for line in lines if line.startswith("skips "))
    assert "5,632" in skips and "2.1 %" in skips
    assert next(line for line in lines if line.startswith("all ")).split()[1] == "273,466"


def test_stages_of_deep_networks_are_folded_by_default(hrg):
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


def test_show_names_the_scale_and_the_gate_of_an_edge(hrg, tmp_path):
    path = tmp_path / "scaled.yaml"
    path.write_text(
        "name: scaled\ninput: {channels: 4, height: 4, width: 4}\n"
        "nodes:\n  a: {block: conv, width: 4}\n  b: {block: conv, width: 4}\n  g: sigmoid\n"
        "flow: [input -> a -> b, a -> g]\noutputs: b\n"
        "edges: [{from: a, to: b, scale: {init: 0}, gate: g}, {from: input, to: b, scale: 0.5}]\n"
    )
    lines = hrg("show", path).stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("edge "))
    assert lines[header].split() == ["edge", "kind", "merge", "projection", "scale", "parameters", "MACs", "memory"]
    rows = {row.split()[0]: " ".join(row.split()) for row in lines[header + 2 : header + 4]}
    assert rows["a"].startswith("a -> b edge add identity learned from 0, gate g 1 ")
    assert rows["input"].startswith("input -> b edge add identity 0.5 0 ")
    edges = {
        edge["name"]: (edge["scale"], edge["gate"]) for edge in json.loads(hrg("show", path, "--json").stdout)["edges"]
    }
    assert edges["edges.a__b"] == ("learned from 0", "g") and edges["edges.input__b"] == ("0.5", None)
    assert edges["flow.a__b"] == (None, None)


def test_show_warns_of_a_merge_that_scales_the_flow(hrg, tmp_path):
    path = tmp_path / "gated.yaml"
    path.write_text(
        "name: gated\ninput: {channels: 4, height: 4, width: 4}\n"
        "nodes: {a: relu, b: tanh, c: identity}\nflow: a -> b -> c\n"
        "edges: [{from: a, to: c, merge: gated}]\n"
    )
    (line,) = hrg("show", path).stderr.splitlines()
    assert line == (
        f"Warning: {path}:5:9: 'merge: gated' also gives b -> c a learned gate. For a learned gate on this entry "
        "alone, write 'scale: gate' in place of the merge. To keep it, set it on the node 'c'."
    )
    (warning,) = json.loads(hrg("show", path, "--json").stdout)["warnings"]
    assert (warning["line"], warning["column"], warning["path"]) == (5, 9, "edges[0]")


def test_show_describes_how_a_network_runs_in_time(hrg, windows):
    result = hrg("show", windows)
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("time  "))
    assert lines[start : start + 3] == [
        "time  6 steps, biological unrolling: every edge between nodes on cycles has a delay",
        "      input at step 0; values that do not exist yet are skipped; readout at step 5",
        "      from 4 steps on the output depends on the input, from 5 on every edge reaches the readout",
    ]
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["s1"][3] == "0-2" and rows["s2"][3] == "3-5" and rows["post"][3] == "3-5"
    assert "s1 -> s1  edge  add    brc2            1  1-2, 4" in result.stdout
    network = hg.load(windows)
    folded = count_folded(network.plan)
    assert folded < network.cost().parameters
    assert f"{folded:,} parameters with one copy of every weight for all steps." in lines
    assert "MACs by step  0: 4.608 k; 1-2: 18.43 k each; 3: 10.37 k; 4: 18.43 k; 5: 18.46 k" in lines


def test_show_names_both_unrollings(hrg):
    assert "time  6 steps, engineering unrolling: a path without delay leads from" in hrg("show", "blt").stdout
    assert "time  6 steps, biological unrolling: every edge" in hrg("show", "blt@biological").stdout


def test_show_puts_warnings_on_stderr(hrg, windows):
    result = hrg("show", windows, "steps=4")
    assert result.exit_code == 0 and "Warning" not in result.stdout
    (line,) = result.stderr.splitlines()
    assert line == (
        f"Warning: {windows}:13:12: with 4 steps s2 -> s2 does not reach the readout. "
        "With 5 steps or more, every edge does."
    )
    assert hrg("show", windows).stderr == ""


def test_json_has_the_timing(hrg, windows):
    data = json.loads(hrg("show", windows, "steps=4", "--json").stdout)
    time = data["time"]
    assert (time["steps"], time["input"], time["empty"], time["readout"]) == (4, "first", "skip", "last")
    assert (time["unrolling"], time["readouts"]) == (["biological"], [3])
    assert (time["smallest_steps"], time["complete_steps"]) == (4, 5)
    assert time["holds"] == {"input": [0], "pre": [0], "s1": [0, 1, 2], "s2": [3], "post": [3]}
    assert (time["silent_edges"], time["unfilled_nodes"]) == (["edges.s2__s2"], [])
    assert sum(time["macs_per_step"]) == data["macs"] and len(time["macs_per_step"]) == 4
    assert time["parameters_folded"] == data["parameters_folded"] < data["parameters"]
    (warning,) = data["warnings"]
    assert (warning["line"], warning["path"]) == (13, "transitions.s2.s2")
    assert {node["name"]: node["holds"] for node in data["nodes"]} == time["holds"]
    at = {edge["name"]: (edge["delay"], edge["at"]) for edge in data["edges"]}
    assert at["edges.s1__s1"] == (1, [1, 2, 4]) and at["edges.s2__s2"] == (1, None) and at["flow.pre__s1"] == (0, None)
    assert hrg("show", windows, "steps=4", "--json").stderr == ""


def test_json_of_a_network_without_time_says_so(hrg):
    data = json.loads(hrg("show", "unet", "--json").stdout)
    assert data["time"] is None and data["parameters_folded"] == data["parameters"]
    assert {node["holds"] for node in data["nodes"]} == {None} and {edge["at"] for edge in data["edges"]} == {None}


def test_a_state_that_is_never_filled_is_named(hrg, windows):
    assert "error" in json.loads(hrg("show", windows, "--json", "--edges", "transitions=s2>s2").stdout)
    extended = windows.with_name("lone.yaml")
    extended.write_text("name: lone\nextends: ./windows.yaml\nnodes: {s3: {block: state, shape: [4, 8, 8]}}\n")
    extended.write_text(extended.read_text() + "transitions: {s3: {s1: brc2}}\n")
    time = json.loads(hrg("show", extended, "--json").stdout)["time"]
    assert time["unfilled_nodes"] == ["s3"] and time["holds"]["s3"] == []
    assert "'s3' never holds a value" in hrg("show", extended).stderr


def test_one_copy_counts_nested_steps_too(hrg):
    data = json.loads(hrg("show", "rcnn", "--json").stdout)
    assert (data["parameters"], data["parameters_folded"], data["time"]) == (674_986, 672_682, None)
    norms = 4 * 4 * 2 * 96
    assert data["parameters"] - data["parameters_folded"] == norms * 3 // 4
    assert "672,682 parameters with one copy of every weight for all steps." in hrg("show", "rcnn").stdout


def test_copies_in_copies_count_once(hrg, tmp_path):
    path = tmp_path / "nested.yaml"
    path.write_text(
        "name: nested\ninput: {channels: 2, height: 4, width: 4}\n"
        "blocks:\n  inner:\n"
        "    nodes: {norm: batch_norm, conv: {block: conv2d, width: 2, kernel_size: 1, bias: false}}\n"
        "    flow: norm -> conv\n    edges: [{from: conv, to: norm, delay: 1}]\n    time: {steps: 2}\n"
        "nodes: {a: inner, head: {block: classifier, classes: 3}}\nflow: a -> head\n"
        "edges: [{from: a, to: a, delay: 1}]\ntime: {steps: 3}\n"
    )
    network = hg.load(path)
    assert "a.norm.step1.step2.weight" in network.plan.tensors()
    head, conv, norm = 2 * 3 + 3, 4, 4
    data = json.loads(hrg("show", path, "--json").stdout)
    assert data["parameters"] == head + conv + norm * 2 * 3
    assert data["parameters_folded"] == head + conv + norm
    assert data["memory_bytes"] == sum(row["memory_bytes"] for row in (*data["nodes"], *data["edges"]))


def test_zeros_inside_a_block_belong_to_the_block(hrg, tmp_path):
    path = tmp_path / "zeros.yaml"
    path.write_text(
        "name: zeros\ninput: {channels: 2, height: 4, width: 4}\n"
        "blocks:\n  inner:\n    nodes: {conv: {block: conv2d, width: 2, kernel_size: 1}, out: identity}\n"
        "    flow: conv -> out\n    edges: [{from: out, to: conv, delay: 1, block: conv2d, width: 2, kernel_size: 1}]\n"
        "    time: {steps: 2, input: first, empty: zeros}\n"
        "nodes: {pre: conv2d, a: inner, head: {block: classifier, classes: 3}}\n"
        "flow: pre -> a -> head\n"
    )
    path.write_text(path.read_text().replace("pre: conv2d", "pre: {block: conv2d, width: 2, kernel_size: 1}"))
    plan = hg.load(path).plan
    assert {call.owner for call in plan.calls} == {"pre", "a", "head"}


def test_a_study_is_shown_with_its_networks_and_published_values(hrg):
    text = hrg("show", "table2").stdout
    assert "\nnetwork  hiresnet18\ndata     cifar10\nrecipe   epochs 80\n" in text
    assert "\nruns     40 runs, 5 seeds for each network; baseline original\n" in text
    assert "\nfull         273,466  36.62 M   166 MiB      6  89.46 (0.30), n 5\n" in text
    assert "\nPublished: Lopez and Triesch" in text and "\nDiffers: augmentation (crop and flip);" in text
    data = json.loads(hrg("show", "table1-tiny-imagenet", "--json").stdout)
    cells = {(row["label"], row["setting"]["block"]): row["published"] for row in data["networks"]}
    assert cells["full", "plain"] == {"mean": 42.22, "std": 0.37, "n": 5}
    assert cells["original", "resnext"] is None and len(cells) == 9
    assert data["changes"] == {"classes": 200, "input.height": 64, "input.width": 64} and data["runs"] == 45


def test_a_study_without_published_values_and_a_search_are_shown(hrg, tmp_path):
    text = hrg("show", "digits").stdout
    assert "runs     10 runs, 2 seeds for each network; baseline original" in text and "published" not in text
    study = "network: hiresnet18\nsearch: {space: {edges: full, width: [4, 8]}, runs: 9}\nseeds: 1\n"
    (tmp_path / "s.yaml").write_text(study)
    assert "\nsearch   tpe, up to 9 runs, for accuracy: edges full, width " in hrg("show", tmp_path / "s.yaml").stdout


def test_a_study_takes_no_changes(hrg):
    result = hrg("show", "table2", "width=3")
    assert result.exit_code == 2 and "'table2' is a study, which takes no changes." in result.stderr


def test_a_study_is_shown_with_the_weights_that_its_runs_start_from(hrg, tmp_path):
    small = {"width": 2, "input.channels": 1, "input.height": 8, "input.width": 8}
    state = hg.load("hiresnet18").variant("original").override(small).build(seed=5).state_dict()
    save_file(dict(state), tmp_path / "w.safetensors")
    variants = {"tuned": "full", "scratch": {"edges": "full", "weights": None}}
    study = {
        "network": "hiresnet18",
        "changes": small,
        "variants": variants,
        "weights": "w.safetensors",
        "reinit": True,
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    lines = hrg("show", tmp_path / "study.yaml").stdout.splitlines()
    assert "weights  w.safetensors" in lines
    assert [line.split()[-1] for line in lines[-3:-1]] == [str(tmp_path / "w.safetensors"), "weights"]
    data = json.loads(hrg("show", tmp_path / "study.yaml", "--json").stdout)
    assert [row["weights"] for row in data["networks"]] == [str(tmp_path / "w.safetensors"), None]
    assert [row["same_as"] for row in data["networks"]] == [None, None]


def test_a_network_without_parameters_is_shown(hrg, tmp_path):
    path = tmp_path / "k.yaml"
    path.write_text("name: k\ninput: {channels: 3}\nnodes: {a: relu}\n")
    assert json.loads(hrg("show", path, "--json").stdout)["parameters"] == 0
    refused = hrg("train", path, "-o", tmp_path / "run")
    assert refused.exit_code == 2 and "'k' has no parameters, so there is nothing to train." in refused.stderr
