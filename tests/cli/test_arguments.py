import json

import pytest

from tests.train.states import TEXT

GROUPS = """\
name: groups
input: {channels: 3, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  c: {block: conv, width: 4}
flow: a -> b -> c
skips:
  near: {levels: [a, b, c], edges: p1}
  far: {levels: [a, b, c], edges: p2, slot: input}
"""


def problem(result):
    """The first line, the column of the caret, and the hints."""
    lines = result.stderr.splitlines()
    caret = next((line.index("^") - 4 for line in lines if line.strip() == "^"), None)
    hints = [line.strip() for line in lines if line.startswith("  hint:")]
    return lines[0], caret, hints


@pytest.mark.parametrize(
    ("args", "first", "caret", "hint"),
    [
        (["stage1.width=abc"], "command line:1:14: nodes.stage1.width: expected a whole number, got 'abc'.", 13, ""),
        (["widht=3"], "command line:1:1: there is no param 'widht'.", 0, "hint: Did you mean 'width'?"),
        (["stage9.depth=3"], "command line:1:1: stage9.depth: there is no node 'stage9'.", 0, "Did you mean"),
        (["block=[1"], "command line:1:7: block: this '[' is never closed.", 6, ""),
        (["--edges", "full - p9"], "--edges:1:8: skips.edges: 'p9' selects nothing", 7, ""),
        (["--variant", "ful"], "command line:1:11: 'hiresnet18' has no variant 'ful'.", 10, "Did you mean 'full'?"),
        (["--edges", "g=full"], "--edges:1:1: skips.g.edges: the skips have no group 'g'.", 0, "--edges EXPR"),
    ],
)
def test_errors_on_the_command_line_have_a_position_there(hrg, args, first, caret, hint):
    result = hrg("show", "hiresnet18", *args)
    assert result.exit_code == 1 and result.stdout == ""
    line, column, hints = problem(result)
    assert line.startswith(first)
    assert column == caret
    assert any(hint in line for line in hints) or not hint


def test_a_param_from_the_command_line_is_named_where_it_is_used(hrg):
    result = hrg("show", "hiresnet18", "width=abc")
    assert "nodes.stem.width: expected a whole number, got 'abc'." in result.stderr
    assert "hint: 'width' is set at command line:1:7." in result.stderr
    assert result.stderr.endswith("2 problems.\n")  # `$width` and `$(2 * width)`


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "hiresnet18", "full"], "'full' is not a change of the form K=V. Did you mean '--variant full'?"),
        (["show", "hiresnet18", "fulll"], "Did you mean '--variant full'?"),
        (["show", "hiresnet18", "unet"], "This command takes one spec; 'hrg diff' compares two."),
        (["show", "hiresnet18", "@full"], "Write the variant directly after the spec"),
        (["show", "width=3", "hiresnet18"], "but the spec comes first. Write 'hiresnet18 width=3'."),
        (["show", "width=3"], "but the spec comes first. Write 'SPEC width=3'."),
        (["show", "hiresnet18@full", "--variant", "in"], "both select a variant"),
        (["show", "hiresnet18", "--variant", "in", "--edges", "out"], "both select the edges"),
        (["show", "hiresnet18@in", "--edges", "out"], "both select the edges"),
        (["show", "hiresnet18", "skips.edges=in", "--edges", "out"], "'skips.edges=...' and '--edges' both select"),
        (["show", "frnn3", "transitions.edges=all", "--edges", "transitions=all"], "both select the edges"),
        (["show", "hiresnet18", "--edges", "in", "--edges", "out"], "--edges '(in) + (out)'"),
        (["show", "hiresnet18@"], "has nothing on one side of '@'"),
        (["show", "hiresnet18", "=3"], "'=3' is not a change of the form K=V."),
    ],
)
def test_contradictions_are_wrong_usage(hrg, args, message):
    result = hrg(*args)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("hrg show: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("args", [[], ["shwo"], ["show"], ["show", "unet", "--varaint", "a"], ["ablate"]])
def test_wrong_words_are_wrong_usage(hrg, args):
    result = hrg(*args)
    assert result.exit_code == 2
    assert "Usage: hrg" in result.output


def test_unknown_specs_get_a_suggestion(hrg):
    result = hrg("show", "hiresnt18")
    assert result.exit_code == 1
    assert result.stderr == (
        "hiresnt18:1:1: there is no file and no shipped spec 'hiresnt18'.\n  hint: Did you mean 'hiresnet18'?\n"
    )


def test_edges_of_one_group_leave_the_others(hrg, tmp_path):
    path = tmp_path / "groups.yaml"
    path.write_text(GROUPS)

    def skips(*args):
        data = json.loads(hrg("show", path, *args, "--json").stdout)
        return {edge["name"] for edge in data["edges"] if edge["family"] == "skip"}

    near, far = {"edges.near.a__b", "edges.near.b__c"}, {"edges.far.a__c"}
    assert skips() == near | far
    assert skips("--edges", "near=none") == far
    assert skips("--edges", "near = none", "--edges", "far=p1") == {"edges.far.a__b", "edges.far.b__c"}
    result = hrg("show", path, "--edges", "in")
    assert result.exit_code == 1 and "Groups: near, far." in result.stderr


def test_transitions_are_chosen_like_a_group_of_skips(hrg, tmp_path):
    path = tmp_path / "states.yaml"
    path.write_text(TEXT)

    def edges(*args):
        data = json.loads(hrg("show", path, *args, "--json").stdout)
        return {edge["name"].removeprefix("edges.") for edge in data["edges"] if edge["name"].startswith("edges.")}

    feedback = {"s2__s1", "s3__s2"}
    assert edges() - edges("--edges", "transitions=all - feedback") == feedback
    assert edges("transitions.edges=adjacent") == edges("--edges", "transitions = adjacent") == edges() - {"s1__s3"}
    for command in (["enumerate", path, "--group", "transitions", "--subsets", "leave-one-out", "--json"],):
        rows = json.loads(hrg(*command, "--edges", "transitions=all - feedback").stdout)["variants"]
        assert [row["label"] for row in rows][:2] == ["all", "without s1>s1"] and len(rows) == 7
    compiled = hrg("compile", path, "--edges", "transitions=all - feedback", "-o", tmp_path / "model.py")
    assert compiled.exit_code == 0 and "s2__s1" not in (tmp_path / "model.py").read_text()
    wrong = hrg("show", path, "--edges", "all")
    assert wrong.exit_code == 1 and "--edges transitions=EXPR" in wrong.stderr
    listed = hrg("enumerate", path, "--group", "transitions", "--subsets", "size:1")
    assert listed.exit_code == 0 and "Left out: s1>s1" in listed.stderr


def test_changes_are_typed_as_in_a_file(hrg):
    def parameters(*changes):
        return json.loads(hrg("show", "hiresnet18", *changes, "--json").stdout)["parameters"]

    assert parameters("width=0x10") == 273_466
    assert parameters("stage1.shortcut={channels: none}", "skips.edges=in & p1") < 273_466
    assert parameters("stage*.block1.hidden=8") < parameters("stage1.block1.hidden=8") < 273_466


def test_a_file_takes_precedence_over_a_shipped_spec_and_its_name_may_contain_an_at(hrg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "name: mine\ninput: {channels: 2}\nnodes: {a: {block: linear, width: 3}}\n"
    (tmp_path / "net@home.yaml").write_text(text)
    assert json.loads(hrg("show", "net@home.yaml", "--json").stdout)["parameters"] == 9
    (tmp_path / "hiresnet18").write_text(text)
    assert json.loads(hrg("show", "hiresnet18", "--json").stdout)["name"] == "mine"
