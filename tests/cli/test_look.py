import json

import pytest

import hiresnet_graph as hg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
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


def test_list_names_everything_with_its_first_line(hrg):
    listing = json.loads(hrg("list", "--json").stdout)
    assert [row["name"] for row in listing["specs"]] == spec_names()
    for family, registry in (
        ("blocks", BLOCKS),
        ("operations", OPS),
        ("merges", MERGES),
        ("projections", PROJECTIONS),
    ):
        assert [row["name"] for row in listing[family]] == list(registry)
        assert all(row["description"] for row in listing[family])
    assert "digits" in [row["name"] for row in listing["datasets"]]
    text = hrg("list").stdout
    assert all(row["name"] in text and row["description"] in text for rows in listing.values() for row in rows)


def test_list_of_data_sets_says_how_to_ask_for_them_and_where_they_are(hrg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HRG_DATA", str(tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    rows = {row["name"]: row for row in json.loads(hrg("list", "datasets", "--json").stdout)["datasets"]}
    assert rows["cifar10"]["found"] == str(tmp_path / "cifar-10-batches-py") and rows["cifar100"]["found"] is None
    assert rows["npz"]["usage"] == "npz:FILE" and "found" not in rows["npz"]
    lines = {line.split()[0]: line for line in hrg("list", "datasets").stdout.splitlines()[2:]}
    assert f"Found: {tmp_path}/cifar-10-batches-py." in lines["cifar10"] and "Not found here" in lines["cifar100"]
    assert "imagefolder:DIR" in lines


def test_list_of_specs_has_parameters(hrg):
    line = next(line for line in hrg("list", "specs").stdout.splitlines() if line.startswith("resnet50 "))
    assert line.split()[:2] == ["resnet50", "25,557,032"]
    assert "basic" not in hrg("list", "specs").stdout.split()


def test_list_of_an_unknown_family_is_wrong_usage(hrg):
    result = hrg("list", "layers")
    assert result.exit_code == 2 and "'blocks'" in result.stderr


def test_validate_accepts_every_shipped_spec(hrg):
    result = hrg("validate", *spec_names())
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == spec_names()
    assert "hiresnet18: ok, 273,466 parameters; 7 variants: original, full, in, out, p1, p2, p3" in result.stdout


def test_validate_tells_all_mistakes_with_place_line_caret_and_hint(hrg, bad):
    result = hrg("validate", bad)
    assert result.exit_code == 1
    assert result.stderr == "4 problems.\n"
    lines = result.stdout.splitlines()
    at = lines.index("bad.yaml:5:30: nodes.stem.width: expected a whole number, got 'abc'.")
    assert lines[at + 1] == "      stem: {block: conv, width: abc, kernl: 3}"
    assert lines[at + 2].index("^") == lines[at + 1].index("abc")
    assert "bad.yaml:5:35: nodes.stem.kernl: unknown key 'kernl'." in lines
    assert "  hint: Did you mean 'kernel_size'?" in lines
    places = [tuple(map(int, line.split(":")[1:3])) for line in lines if line.startswith("bad.yaml:")]
    assert len(places) == 4 and places == sorted(places)


def test_validate_goes_on_after_a_bad_spec(hrg, bad):
    result = hrg("validate", bad, "hiresnet18", "nosuch.yaml", ".")
    assert result.exit_code == 1
    assert "hiresnet18: ok" in result.stdout
    assert "nosuch.yaml:1:1: there is no such file." in result.stdout
    assert ".:1:1: expected a file, got a folder." in result.stdout
    assert result.stderr == "6 problems in 3 specs of 4.\n"


def test_validate_json_has_data_alone(hrg, bad):
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


def test_validate_warns_of_what_comes_too_late_and_says_ok(hrg, tmp_path):
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
        f"{path}: ok, a study of hiresnet18: 2 different networks, 2 seeds, 4 runs\nunet: ok"
    )
    path.write_text("network: hiresnet18\nvariants: [none, stem>stge1]\nseeds: two\nbaseline: ful\n")
    result = hrg("validate", path)
    assert result.exit_code == 1 and result.stderr == "3 problems.\n"
    assert f"{path}:2:23: skips.edges: there is no node 'stge1'." in result.stdout
    assert hrg("validate", path, "width=3").exit_code == 2


@pytest.mark.parametrize(
    ("rule", "number"), [("all", 64), ("size:0-1", 7), ("leave-one-out", 7), ("one-at-a-time", 7), ("family", 7)]
)
def test_enumerate_counts_the_subsets(hrg, rule, number):
    data = json.loads(hrg("enumerate", "hiresnet18", "--subsets", rule, "--json").stdout)
    assert len(data["variants"]) == number
    for row in data["variants"][:7]:
        expected = hg.load("hiresnet18").with_edges(row["edges"]).cost()
        assert (row["parameters"], row["macs"]) == (expected.parameters, expected.macs)


def test_enumerate_prints_a_table(hrg):
    result = hrg("enumerate", "hiresnet18", "block=plain", "--subsets", "family")
    assert ["2", "full", "270,682"] in [line.split()[:3] for line in result.stdout.splitlines()]
    assert result.stderr == "7 variants, 7 different networks.\n"


def test_enumerate_without_skips_says_what_to_do(hrg):
    result = hrg("enumerate", "resnet18", "--subsets", "all")
    assert result.exit_code == 2 and "no skips" in result.stderr
    result = hrg("enumerate", "hiresnet18", "--subsets", "al")
    assert result.exit_code == 2 and "Did you mean 'all'?" in result.stderr
