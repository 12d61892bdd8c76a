"""`hrg validate`."""

import json

import pytest

from hiresnet_graph.shipped import spec_names
from tests.render.networks import STATES

BAD = """\
name: bad
params: {width: 16}
input: {channels: 3, height: 32, width: 32}
nodes:
  stem: {block: conv, width: abc, kernl: 3}
  stage1: {block: basc, width: $width, depth: 2}
  head: {block: classifier, classes: 10}
flow: stem -> stge1 -> head
"""


@pytest.fixture
def bad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD)
    return "bad.yaml"


def test_validate_accepts_every_shipped_spec(hrg):
    result = hrg("validate", *spec_names())
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == spec_names()
    assert "hiresnet18: ok, 273,466 parameters; 7 variants: original, full, in, out, p1, p2, p3" in result.stdout


def test_validate_reports_all_errors_with_position_line_caret_and_hint(hrg, bad):
    result = hrg("validate", bad)
    assert result.exit_code == 1
    assert result.stderr == "4 problems.\n"
    lines = result.stdout.splitlines()
    at = lines.index("bad.yaml:5:30: nodes.stem.width: expected a whole number, got 'abc'.")
    assert lines[at + 1] == "      stem: {block: conv, width: abc, kernl: 3}"
    assert lines[at + 2].index("^") == lines[at + 1].index("abc")
    assert "bad.yaml:5:35: nodes.stem.kernl: unknown key 'kernl'." in lines
    assert "  hint: Did you mean 'kernel_size'?" in lines
    positions = [tuple(map(int, line.split(":")[1:3])) for line in lines if line.startswith("bad.yaml:")]
    assert len(positions) == 4 and positions == sorted(positions)


def test_validate_continues_after_an_invalid_spec(hrg, bad):
    result = hrg("validate", bad, "hiresnet18", "nosuch.yaml", ".")
    assert result.exit_code == 1
    assert "hiresnet18: ok" in result.stdout
    assert "nosuch.yaml:1:1: there is no such file." in result.stdout
    assert ".:1:1: expected a file, got a folder." in result.stdout
    assert result.stderr == "6 problems in 3 specs of 4.\n"


def test_validate_prints_json_alone(hrg, bad):
    result = hrg("validate", bad, "unet", "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert not data["valid"]
    first, second = data["specs"]
    assert (first["spec"], first["name"], first["valid"]) == ("bad.yaml", "bad", False)
    assert first["problems"][0] == {
        "file": "bad.yaml",
        "line": 5,
        "column": 30,
        "path": "nodes.stem.width",
        "message": "expected a whole number, got 'abc'.",
        "hint": None,
    }
    assert second == {"spec": "unet", "name": "unet", "valid": True, "problems": [], "warnings": []}


def test_validate_checks_variants_and_changes(hrg, tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text("name: v\nextends: hiresnet18\nvariants:\n  fine: {edges: in}\n  broken: {edges: p7}\n")
    assert f"{path}:5:19: " in hrg("validate", path).stdout
    assert hrg("validate", f"{path}@fine").exit_code == 0
    assert hrg("validate", f"{path}@broken").exit_code == 1
    result = hrg("validate", "hiresnet18", "stage1.width=abc", "unet")
    assert result.exit_code == 1 and "unet: ok" in result.stdout
    assert "command line:1:14: nodes.stage1.width: expected a whole number, got 'abc'.\n" in result.stdout


def test_validate_warns_of_edges_that_are_too_late_and_says_ok(hrg, tmp_path):
    path = tmp_path / "late.yaml"
    variants = "variants:\n  long: {params: {steps: 6}}\n  last: {params: {steps: 2}}\n"
    path.write_text(STATES.replace("{steps: 4}", "{steps: 3}") + variants)
    result = hrg("validate", path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{path}: ok, ") and lines[0].endswith("2 variants: long, last")
    warnings = [line for line in lines if "warning: " in line]
    assert len(warnings) == 2
    assert "warning: with 3 steps s2 -> s1, s3 -> s1, s2 -> s2, s3 -> s2 do not reach the readout." in warnings[0]
    assert "warning: in the variant 'last', with 2 steps s1 -> s1, s2 -> s1, s3 -> s1, s1 -> s2, " in warnings[1]
    assert not any("'long'" in line for line in warnings)
    assert "  hint: With 4 steps or more, every edge does." in lines
    assert result.stderr == f"{len(warnings)} warnings.\n"
    assert "warning" not in hrg("validate", f"{path}@long").stdout
    (entry,) = json.loads(hrg("validate", f"{path}@last", "--json").stdout)["specs"]
    assert entry["valid"] and entry["problems"] == []
    (warning,) = entry["warnings"]
    assert warning["message"].startswith("with 2 steps s1 -> s1, ") and "do not reach the readout" in warning["message"]
    assert warning["path"].startswith("transitions.")


def test_validate_checks_a_study_and_its_networks(hrg, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("network: hiresnet18\nchanges: {width: 2}\nvariants: [none, full]\nseeds: 2\n")
    assert hrg("validate", path, "unet").stdout.startswith(
        f"{path}: ok, a study of hiresnet18: 2 different networks, 2 seeds, 4 runs on digits, 80 epochs each\nunet: ok"
    )
    path.write_text("network: hiresnet18\nvariants: [none, stem>stge1]\nseeds: two\nbaseline: ful\n")
    result = hrg("validate", path)
    assert result.exit_code == 1 and result.stderr == "1 problem.\n" and "seeds: " in result.stdout
    path.write_text(path.read_text().replace("seeds: two", "seeds: 2"))
    result = hrg("validate", path)
    assert result.exit_code == 1 and result.stderr == "2 problems.\n"
    assert f"{path}:2:23: skips.edges: there is no node 'stge1'." in result.stdout
    assert hrg("validate", path, "width=3").exit_code == 2
