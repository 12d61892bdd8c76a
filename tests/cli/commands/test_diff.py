"""`hrg diff`."""

import json

import pytest


def test_diff_of_two_variants_lists_the_edges_that_one_lacks(hrg):
    data = json.loads(hrg("diff", "hiresnet18@original", "hiresnet18@full", "--json").stdout)
    assert not data["same"] and data["parameters"] == 5_632 and data["nodes"] == []
    assert [entry["change"] for entry in data["edges"]] == ["added"] * 6
    assert sum(entry["b"]["parameters"] for entry in data["edges"]) == 5_632
    text = hrg("diff", "hiresnet18@original", "hiresnet18@full").stdout
    assert "+   stem -> stage3" in text.replace("+  s", "+   s") and "+5,632" in text


def test_diff_accepts_changes_after_each_spec(hrg):
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


def test_diff_finds_changes_without_effect_on_counts(hrg, tmp_path):
    for name, block in (("a", "relu"), ("b", "gelu")):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: x\ninput: {{channels: 2, height: 4, width: 4}}\n"
            f"nodes: {{c: {{block: conv, width: 2, activation: {block}}}}}\nflow: c\n"
        )
    data = json.loads(hrg("diff", tmp_path / "a.yaml", tmp_path / "b.yaml", "--json").stdout)
    assert not data["same"] and [entry["name"] for entry in data["nodes"]] == ["c"]


def test_diff_shows_the_fields_of_all_changed_blocks_and_edges(hrg):
    args = "diff", "hiresnet18", "stage1.activation=gelu", "stage2.block1.conv1.kernel_size=5"
    data = json.loads(hrg(*args, "--json").stdout)
    assert {entry["name"]: entry["fields"] for entry in data["nodes"]} == {
        "stage1.block1": {"activation": {"a": "relu", "b": "gelu"}},
        "stage1.block2": {"activation": {"a": "relu", "b": "gelu"}},
        "stage2.block1": {"conv1.kernel_size": {"a": None, "b": 5}},
    }
    text = hrg(*args).stdout
    assert "\nstage1.block2  activation         relu  gelu\n" in text
    assert "\nstage2.block1  conv1.kernel_size  none  5\n" in text


def test_diff_shows_params_merges_and_projections(hrg):
    data = json.loads(hrg("diff", "hiresnet18", "width=8", "skips.projection.spatial=max", "--json").stdout)
    assert data["params"] == {"width": {"a": 16, "b": 8}}
    fields = {entry["name"]: entry["fields"] for entry in data["edges"]}
    assert fields["edges.stem__stage3"] == {"projection.spatial": {"a": "avg", "b": "max"}}
    assert "\nparams.width: 16 => 8\n" in hrg("diff", "hiresnet18", "width=8").stdout
    data = json.loads(hrg("diff", "hiresnet18", "skips.merge=gated", "stage3.block=plain", "--json").stdout)
    fields = {entry["name"]: entry["fields"] for entry in (*data["nodes"], *data["edges"])}
    assert fields["edges.stem__stage3"] == {"merge.kind": {"a": "add", "b": "gated"}}
    assert fields["stage3.block2"]["block"] == {"a": "basic", "b": "plain"}
    data = json.loads(hrg("diff", "resnet20@a", "resnet20@b", "--json").stdout)
    fields = {entry["name"]: entry["fields"] for entry in data["edges"]}
    assert fields["stage2.block1.shortcut"] == {
        "shortcut.channels": {"a": "pad", "b": "conv1x1"},
        "shortcut.norm": {"a": "none", "b": "batch"},
    }


def test_diff_of_equal_networks_says_so(hrg):
    assert "Both are the same network." in hrg("diff", "hiresnet18", "hiresnet18@full").stdout
    assert json.loads(hrg("diff", "hiresnet18", "hiresnet18@full", "--json").stdout)["same"]


@pytest.mark.parametrize("args", [("hiresnet18",), ("hiresnet18", "unet", "vgg16"), ("width=3", "hiresnet18")])
def test_diff_requires_two_networks(hrg, args):
    result = hrg("diff", *args)
    assert result.exit_code == 2 and result.stdout == "" and "hrg diff:" in result.stderr


def test_diff_reports_delays_steps_and_fields_of_time(hrg, windows):
    data = json.loads(hrg("diff", f"{windows}", f"{windows}@two", "--json").stdout)
    assert not data["same"] and data["time"] == {}
    (edge,) = [entry for entry in data["edges"] if entry["name"] == "edges.s1__s2"]
    assert (edge["change"], edge["a"]["delay"], edge["b"]["delay"]) == ("changed", 1, 2)
    text = hrg("diff", f"{windows}", f"{windows}@two").stdout
    assert "edge, add, brc2, delay 1, at 3 => edge, add, brc2, delay 2, at 3" in text
    data = json.loads(hrg("diff", f"{windows}", f"{windows}@every", "--json").stdout)
    assert data["time"] == {"input": {"a": "first", "b": "every"}, "readout": {"a": "last", "b": "all"}}
    text = hrg("diff", f"{windows}", f"{windows}@every").stdout
    assert "\ntime.input: first => every\ntime.readout: last => all\n" in text
    assert "time.steps: none => 6" in hrg("diff", "hiresnet18", f"{windows}").stdout


def test_diff_of_networks_that_differ_only_in_steps_omits_unchanged_nodes(hrg, windows):
    data = json.loads(hrg("diff", f"{windows}", f"{windows}", "steps=7", "--json").stdout)
    assert data["time"] == {"steps": {"a": 6, "b": 7}}
    assert {entry["name"] for entry in data["nodes"]} == set()
    assert {entry["name"] for entry in data["edges"]} == {"edges.s2__s2"}
