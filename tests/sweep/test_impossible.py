"""Subsets, random edges and proposals of a search that are no networks: left out, counted and named; and pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.sweep.networks import Networks, networks_of
from hiresnet_graph.sweep.search import search
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.sweep.search_trials import read_trials
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.train.recipe import Recipe
from tests.sweep.works import Inline

TEXT = """\
name: cell
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 2}
  n1: {block: conv, width: 2}
  n2: {block: conv, width: 2}
  n3: {block: identity}
  head: {block: classifier, classes: 10}
flow: [stem, n3 -> head]
skips: {levels: [stem, n1, n2, n3], edges: full, slot: input}
"""
EDGES = ["stem>n1", "stem>n2", "n1>n2", "stem>n3", "n1>n3", "n2>n3"]
DIRECT = {"stem>n3"}, {"stem>n1", "n1>n3"}, {"stem>n2", "n2>n3"}, {"stem>n1", "n1>n2", "n2>n3"}
"""All paths from the stem to n3."""


def cell() -> hrg.Architecture:
    return hrg.loads(TEXT)


def networks(**fields: Any) -> Networks:
    return networks_of(Study(network=cell(), seeds=1, **fields))


def subset(label: str) -> set[str]:
    return set() if label == "none" else set(EDGES) if label == "all" else set(label.split(" + "))


def has_path(edges: set[str]) -> bool:
    return any(path <= edges for path in DIRECT)


def is_whole(edges: set[str]) -> bool:
    """Whether each node from which an edge leads to n3 is reached itself."""
    reached = {"stem"} | {"n1"} & {edge[5:] for edge in edges if edge.startswith("stem>")}
    reached |= {"n2"} if "stem>n2" in edges or ("n1>n2" in edges and "n1" in reached) else set()
    needed = {"n3"} | {edge[:2] for edge in edges if edge.endswith("n3") and edge[:4] != "stem"}
    needed |= {"n1"} if "n2" in needed and "n1>n2" in edges else set()
    return has_path(edges) and needed - {"n3"} <= reached


def test_every_subset_is_a_network_or_left_out_with_a_reason() -> None:
    found = networks(subsets="all")
    labels = {member.info.label for member in found.members}
    assert len(labels) + len(found.left_out) == 64 and not labels & found.left_out.keys()
    assert all(is_whole(subset(label)) == (label in labels) for label in [*labels, *found.left_out])
    assert found.left_out["none"] == "no path leads from the input to 'n3'."
    assert found.baseline is None and found.subsets_of == tuple(EDGES)
    assert all(set(member.info.edges) == subset(member.info.label) for member in found.members)
    first = found.remarks()[0]
    assert first.startswith("Left out: none; stem>n1; ") and first.endswith(": no path leads from the input to 'n3'.")
    assert f" and {8 - 6} more (8 subsets): " in first


def test_pruning_makes_a_network_of_every_subset_with_a_path() -> None:
    found = networks(subsets="all", prune="dead")
    assert all(has_path(subset(member.info.label)) for member in found.members)
    assert len(found.members) + len(found.left_out) == 64
    assert not any(has_path(subset(label)) for label in found.left_out)
    assert set(found.left_out.values()) == {"no path leads from the input to the output 'head'."}
    different = {member.info.plan for member in found.members}
    assert different == {member.info.plan for member in networks(subsets="all").members}


def test_a_subset_and_its_file_are_the_same_network() -> None:
    for member in networks(subsets="all", prune="dead").members:
        assert hrg.loads(member.architecture.to_yaml()).plan.digest() == member.info.plan


def test_a_baseline_that_is_left_out_is_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"baseline: the baseline 'none' is no network: no path leads .* 'prune: dead'"
    ):
        networks(subsets="all", baseline="none")
    assert networks(subsets="leave-one-out").baseline == "all"


def test_no_network_at_all_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"subsets: no subset is a network: no path leads .* or set 'prune: dead'"):
        networks(subsets="size:0")


def test_a_variant_that_the_study_names_must_be_a_network() -> None:
    with pytest.raises(SpecError, match="in 'stem>n1', no path leads from the input to 'n3'"):
        networks(variants=["full", "stem>n1"])


def test_random_edges_are_networks() -> None:
    found = networks(variants=["full - n1>n3"], controls=[{"random-edges": "full - n1>n3", "draws": 2}])
    labels = [member.info.label for member in found.members]
    assert labels == ["full - n1>n3", *(f"5 random edges (full - n1>n3) {i}" for i in (1, 2))]
    with pytest.raises(UsageError, match=r"no random edges for 'stem>n3': 5 sets of 1 among the 6 possible edges"):
        networks(variants=["stem>n3"], controls=["random-edges"])


def test_prune_of_a_study_file(tmp_path: Path) -> None:
    (tmp_path / "cell.yaml").write_text(TEXT)
    study = tmp_path / "study.yaml"
    study.write_text("network: cell.yaml\nsubsets: all\nseeds: 1\nprune: dead\n")
    assert len(networks_of(read_study(study)).members) == 47
    study.write_text("network: cell.yaml\nsubsets: all\nseeds: 1\nprune: live\n")
    with pytest.raises(SpecError, match=r"study.yaml:4:8: prune: expected 'dead', got 'live'"):
        read_study(study)


def searched(space: dict[str, Any], **fields: Any) -> Study:
    how = {"runs": 6, "batch": 3, "sampler": "brute-force", **fields}
    return Study.model_validate(
        {"network": cell(), "seeds": 1, "recipe": Recipe(epochs=1, batch_size=1294), "search": {"space": space, **how}}
    )


def test_a_search_goes_on_after_impossible_proposals(tmp_path: Path) -> None:
    what = searched({"edges": "stem>n3 + n2>n3 + stem>n2"})
    results = search(what, out=tmp_path, executor=Inline())
    outcomes = {trial.label: trial.outcome for trial in read_trials(tmp_path)}
    impossible = {label for label, outcome in outcomes.items() if outcome == "no-network"}
    assert impossible == {"none", "stem>n2", "n2>n3", "stem>n3 + n2>n3"}
    assert len(results.networks) == 3  # with stem>n2 alone beside it, stem>n3 is the same network
    again = search(what, out=tmp_path, executor=Inline())
    assert [network.plan for network in again.networks] == [network.plan for network in results.networks]


def test_prune_in_a_search_space() -> None:
    params = {"edge stem>n3": True, "edge n2>n3": True}
    assert SearchSpace(searched({"edges": "stem>n3 + n2>n3", "prune": "dead"})).valid_plan(params) is not None
    assert (
        SearchSpace(searched({"edges": "stem>n3 + n2>n3 + stem>n2"})).valid_plan(params | {"edge stem>n2": False})
        is None
    )
    with pytest.raises(ValueError, match="'prune' must be 'dead'"):
        searched({"edges": "full", "prune": "live"})
