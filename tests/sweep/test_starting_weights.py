"""Studies whose runs start from weights: for all variants, or for some."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.report import make_table
from hiresnet_graph.sweep import Study, ablate, plan_study, read_study
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.train import Recipe
from tests.conftest import TINY
from tests.sweep.works import Inline

STUDY = """\
network: tiny.yaml
variants:
  scratch: {edges: full, weights: null}
  tuned: full
  base: none
  again: {edges: none, weights: run/model.safetensors}
  other: {edges: none, weights: other.pth}
seeds: 1
weights: run
reinit: true
recipe: {epochs: 1, batch_size: 400, freeze: "edges.*"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `files` with a study, its spec and its weights; the working directory is another one."""
    files = tmp_path / "files"
    (files / "run").mkdir(parents=True)
    (files / "tiny.yaml").write_text(TINY)
    (files / "study.yaml").write_text(STUDY)
    network = hrg.loads(TINY).with_edges("none")
    save_file(dict(network.build(7).state_dict()), files / "run" / "model.safetensors")
    torch.save(network.build(8).state_dict(), files / "other.pth")
    monkeypatch.chdir(tmp_path)
    return files


def test_variants_start_from_their_weights(folder: Path) -> None:
    results = ablate(read_study(folder / "study.yaml"), out=folder / "out", executor=Inline())
    runs = {results.networks[row.network].label: row.record for row in results.rows}
    sources = {label: record and record.weights and Path(record.weights.source) for label, record in runs.items()}
    assert sources == {
        "scratch": None,
        "tuned": folder / "run",
        "base": folder / "run",
        "again": folder / "run",
        "other": folder / "other.pth",
    }
    assert [network.same_as for network in results.networks] == ["", "", "", "base", ""]
    assert [network.isomorphic_to for network in results.networks] == [""] * 5
    start = load_file(folder / "run" / "model.safetensors")
    # The frozen edges show where a run started: from the seed.
    edges = [load_file(folder / "out" / "runs" / f"{name}-seed0" / "last.safetensors") for name in ("scratch", "tuned")]
    names = [name for name in edges[0] if name.startswith("edges.")]
    assert names and all(torch.equal(edges[0][name], edges[1][name]) for name in names)
    assert not any(torch.equal(edges[0][name], edges[1][name]) for name in start if "num_batches" not in name)
    caption = make_table(results).caption
    assert f"Runs of tuned, base, again started from the weights in {folder / 'run'}." in caption
    assert json.loads((folder / "out" / "runs" / "base-seed0" / "run.json").read_text())["weights"]["reinit"] is True


def test_what_does_not_fit_is_said_for_each_variant(folder: Path) -> None:
    remarks = networks_of(read_study(folder / "study.yaml")).remarks()
    (sentence,) = remarks
    assert (
        sentence.startswith(f"tuned: {folder / 'run' / 'model.safetensors'} lacks 'edges.")
        and "initial values are kept" in sentence
    )


def test_keys_of_runs_have_the_content_of_the_weights(folder: Path) -> None:
    plan = plan_study(read_study(folder / "study.yaml"))
    keys = {plan.networks[row.network].label: row.key for row in plan.rows}
    assert keys["again"] == keys["base"] and len(set(keys.values())) == 4
    study = read_study(folder / "study.yaml").patched({"weights": str(folder / "other.pth")}, "--weights other.pth")
    other = {row.network: row.key for row in plan_study(study).rows}
    assert other[2] == keys["other"] and other[0] == keys["scratch"] and other[1] != keys["tuned"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "weights: run\n",
            "weights: lost\n",
            "9:10: weights: {folder}/lost: cannot be read: No such file or directory.",
        ),
        (
            "reinit: true",
            "reinit: false",
            "9:10: variant 'tuned': {folder}/run/model.safetensors: the network has edges that",
        ),
        (
            "other.pth",
            "tiny.yaml",
            "7:33: variants.other.weights: {folder}/tiny.yaml: this is a text, not a safetensors",
        ),
        ("weights: null", "weights: [a]", "3:12: variants.scratch: 'scratch': 'weights' must be a file or the folder"),
        ("weights: null", "reinit: 3", "3:12: variants.scratch: 'scratch': 'reinit' must be true or false, not 3."),
        ("weights: null", "weights: null, reinit: true", "variants.scratch.reinit: 'reinit' says what happens to"),
        ("edges.*", "edge.*", "11:47: recipe.freeze: 'edge.*' matches no tensor of the network."),
        ("reinit: true", "reinit: maybe", "reinit: expected true or false"),
    ],
)
def test_errors_have_their_position(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "study.yaml").write_text(STUDY.replace(old, new, 1))
    with pytest.raises(SpecError) as error:
        networks_of(read_study(folder / "study.yaml"))
    assert message.format(folder=folder) in str(error.value).replace("weights: variant", "variant")


def test_a_pattern_may_match_in_some_networks_only(folder: Path) -> None:
    study = read_study(folder / "study.yaml")
    assert {network.recipe.freeze for network in networks_of(study).members} == {("edges.*",)}


def test_proposals_of_a_search_start_from_the_weights(folder: Path) -> None:
    fields: dict[str, Any] = {"weights": "files/run", "reinit": True, "recipe": Recipe(epochs=1, freeze=("edges.*",))}
    search = {"space": {"edges": "full"}, "runs": 2}
    space = SearchSpace(Study(network=hrg.loads(TINY), search=search, seeds=1, **fields))  # type: ignore[arg-type]
    plan = space.plan({f"edge {edge}": False for edge in space.edges} | {key: False for key in space.distributions()})
    (request,) = plan.requests.values()
    assert request.weights is not None and Path(request.weights.source) == Path("files/run").absolute()
    with pytest.raises(UsageError, match="the network has edges that the weights lack"):
        SearchSpace(Study(network=hrg.loads(TINY), search=search, **{**fields, "reinit": False}))  # type: ignore[arg-type]
