"""`hrg list`."""

import json

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.shipped import spec_names


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
    printed = hrg("list").stdout
    assert max(map(len, printed.splitlines())) <= 100  # also in a pipe
    text = " ".join(printed.split())
    assert all(row["name"] in text and row["description"] in text for rows in listing.values() for row in rows)


def test_list_of_data_sets_has_their_usage_and_folder(hrg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HRG_DATA", str(tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    rows = {row["name"]: row for row in json.loads(hrg("list", "datasets", "--json").stdout)["datasets"]}
    assert rows["cifar10"]["found"] == str(tmp_path / "cifar-10-batches-py") and rows["cifar100"]["found"] is None
    assert rows["npz"]["usage"] == "npz:FILE" and "found" not in rows["npz"]
    text = " ".join(hrg("list", "datasets").stdout.split())
    ten, hundred = (text[text.index(f" {name} ") :] for name in ("cifar10", "cifar100"))
    assert "Found: " in ten[: ten.index(" cifar100 ")] and "Not found here" in hundred[: hundred.index(" digits ")]
    assert " imagefolder:DIR " in text


def test_list_of_specs_has_parameters(hrg):
    line = next(line for line in hrg("list", "specs").stdout.splitlines() if line.startswith("resnet50 "))
    assert line.split()[:2] == ["resnet50", "25,557,032"]
    assert "basic" not in hrg("list", "specs").stdout.split()


def test_list_of_an_unknown_kind_is_wrong_usage(hrg):
    result = hrg("list", "layers")
    assert result.exit_code == 2 and "'blocks'" in result.stderr
    assert "Did you mean 'blocks'?" in hrg("list", "block").stderr
