"""Studies of networks in time: transitions, steps, and invalid networks."""

from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.report import make_report, to_markdown
from hiresnet_graph.sweep import Study, Variant, ablate, enumerate_variants, plan_study, read_study
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.prepare import PreparedStudy
from hiresnet_graph.sweep.search import search
from hiresnet_graph.sweep.search_trials import read_trials
from hiresnet_graph.sweep.variants import chosen_edges, valid_variants, variant_of
from hiresnet_graph.train import Recipe
from tests.sweep.works import Inline
from tests.train.states import TEXT, states

QUICK = Recipe(epochs=1, batch_size=400)
ALL = ["s1>s1", "s1>s2", "s1>s3", "s2>s1", "s2>s2", "s2>s3", "s3>s2", "s3>s3"]
KINDS = {"no feedback": {"s2>s1", "s3>s2"}, "no lateral": {"s1>s1", "s2>s2", "s3>s3"}, "no bypass": {"s1>s3"}}


def test_the_families_are_the_kinds_of_transition() -> None:
    arch = states()
    found = enumerate_variants(arch, "family", "transitions")
    assert [variant.label for variant in found] == ["all", *KINDS, "adjacent"]
    edges = {variant.label: chosen_edges(variant.apply(arch), "transitions") for variant in found}
    assert edges["all"] == ALL and edges["adjacent"] == edges["no bypass"]
    for label, left_out in KINDS.items():
        assert edges[label] == [edge for edge in ALL if edge not in left_out]
    two = hrg.loads(
        "name: two\ninput: {channels: 2}\nnodes: {s1: {block: state, shape: [2]}, s2: {block: state, shape: [2]}}\n"
        "flow: input -> s1\noutputs: s2\ntime: {steps: 3}\n"
        "transitions: {s1: {s1: {}, s2: {}}, s2: {s1: {}, s2: {}}}\n"
    )
    assert [v.label for v in enumerate_variants(two, "family", "transitions")] == ["all", "no feedback", "no lateral"]


def test_subsets_are_taken_of_the_given_transitions() -> None:
    arch = states().with_edges("all - s1>s1", "transitions")
    found = enumerate_variants(arch, "leave-one-out", "transitions")
    assert [variant.label for variant in found] == ["all", *(f"without {edge}" for edge in ALL[1:])]
    for variant in found[1:]:
        left = set(ALL[1:]) - {variant.label.removeprefix("without ")}
        assert set(chosen_edges(variant.apply(arch), "transitions")) == left
    assert len(enumerate_variants(arch, "random:5", "transitions")) == 5
    late = states(steps=2)  # some arrive too late for the readout, and are in the spec all the same
    assert chosen_edges(late, "transitions") == ALL


def test_subsets_without_a_path_are_left_out_and_reported() -> None:
    arch = states()
    found, left_out = valid_variants(arch, enumerate_variants(arch, "size:0-1", "transitions"))
    assert not found and left_out["none"] == "no path leads from the input to 'norm'."
    found, left_out = valid_variants(arch, enumerate_variants(arch, "leave-one-out", "transitions"))
    assert [variant.label for variant, _ in found][:2] == ["all", "without s1>s1"] and not left_out
    chosen = Study(network=arch, subsets="size:2", group="transitions", seeds=1)
    networks = networks_of(chosen)
    assert len(networks.members) + len(networks.left_out) == 28
    assert "s1>s3 + s3>s3" in {network.info.label for network in networks.members}
    assert networks.left_out["s1>s2 + s2>s3"].endswith("at its readout, step 4. It holds one at step 2.")
    first = networks.remarks()[0]
    assert first.startswith("Left out: s") and " and " in first and first.endswith("'norm'.")
    with pytest.raises(UsageError, match=r"no subset is a network: no path leads.*Take 'leave-one-out'"):
        networks_of(Study(network=arch, subsets="one-at-a-time", group="transitions"))


def test_the_group_of_the_transitions_is_named() -> None:
    arch = states()
    with pytest.raises(
        UsageError, match=r"has no skips to take subsets of. Its transitions are the group 'transitions'"
    ):
        enumerate_variants(arch, "all")
    with pytest.raises(UsageError, match="Did you mean 'transitions'"):
        enumerate_variants(arch, "all", "transition")
    with pytest.raises(UsageError, match="'tiny' has no transitions"):
        enumerate_variants(hrg.loads("name: tiny\ninput: {channels: 1}\nnodes: {a: relu}"), "all", "transitions")
    chosen = variant_of(arch, "all - lateral", "all - lateral", "transitions")
    assert chosen == Variant("all - lateral", "all - lateral", "transitions")
    with pytest.raises(UsageError, match="Did you mean 'adjacent'"):
        variant_of(arch, "adjacnt", "adjacnt", "transitions")
    with pytest.raises(SpecError, match="--group transitions"):
        networks_of(Study(network=arch, variants=["all"]))


def test_an_ablation_of_transitions(tmp_path: Path) -> None:
    started: list[PreparedStudy] = []
    study = Study(
        name="kinds",
        network=states(),
        group="transitions",
        variants={"all": "all", "no feedback": "all - feedback", "same": "all - s2>s1 - s3>s2"},
        seeds=2,
        recipe=QUICK,
    )
    found = ablate(study, out=tmp_path, executor=Inline(), started=started.append)
    assert [row.state for row in found.rows] == ["complete"] * 6
    assert [network.same_as for network in found.networks] == ["", "", "no feedback"]
    assert found.networks[0].edges == tuple(ALL)
    assert set(found.networks[1].edges) == set(ALL) - KINDS["no feedback"]
    assert found.networks[1].parameters < found.networks[0].parameters
    assert started[0].networks.remarks() == () and started[0].total == 4
    text = to_markdown(make_report(found))
    assert "| no feedback |" in text and "same (= no feedback)" in text and "## Differences from all" in text


def test_too_few_steps_are_reported_before_training(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    (tmp_path / "states.yaml").write_text(TEXT)
    path.write_text(
        "network: ./states.yaml\ngroup: transitions\nvariants: {all: all, far: all - bypass}\n"
        "grid: {time.steps: [2, 3, 5]}\nseeds: 1\n"
    )
    with pytest.raises(SpecError) as caught:
        ablate(str(path), out=tmp_path / "out", executor=Inline())
    (problem,) = caught.value.problems
    assert problem.message == (
        "in 'far, time.steps=2', 2 steps are too few: the output 'head' first depends on the input at step 2."
    )
    assert problem.hint == "Set 'time.steps' to 3 or more." and not (tmp_path / "out").exists()
    path.write_text(path.read_text().replace("[2, 3, 5]", "[3, 5]").replace("far: all - bypass", "once: forward"))
    with pytest.raises(SpecError) as caught:
        networks_of(read_study(path))
    (problem,) = caught.value.problems
    assert problem.message == (
        "in 'once, time.steps=5', the output 'head' holds no value at its readout, step 4. "
        "It holds one at steps 1 and 2."
    )


def test_the_number_of_steps_is_a_setting_like_others() -> None:
    for key in ("time.steps", "steps"):
        networks = networks_of(Study(network=states(), grid={key: [2, 3, 5]}, seeds=1, recipe=QUICK))
        assert [dict(network.info.setting) for network in networks.members] == [{key: n} for n in (2, 3, 5)]
        assert len({network.info.plan for network in networks.members}) == 3
        warned = networks.remarks()
        assert any(remark.startswith(f"Warning: states, {key}=2: ") for remark in warned)
        assert not any(f"{key}=5" in remark for remark in warned)


def test_loss_weights_are_checked_for_each_network(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    (tmp_path / "states.yaml").write_text(TEXT)
    path.write_text(
        "network: ./states.yaml\nchanges: {time.readout: all}\ngrid: {time.steps: [3, 5]}\nseeds: 1\n"
        "recipe: {loss_steps: [1, 2]}\n"
    )
    with pytest.raises(SpecError, match=r"study.yaml:5:\d+: recipe.loss_steps: .* read out at 4 steps: steps 1 to 4"):
        networks_of(read_study(path))
    path.write_text(
        "network: ./states.yaml\nchanges: {time.readout: all}\nseeds: 1\n"
        "grid: {loss_steps: [mean, last, [1, 2, 3, 4]]}\n"
    )
    plan = plan_study(read_study(path))
    assert len(plan.requests) == 3
    path.write_text(path.read_text().replace("time.readout: all", "time.readout: last"))
    assert len(plan_study(read_study(path)).requests) == 1  # only one step is read out, so all settings are equal
    path.write_text(path.read_text().replace("time.readout: last", "time.readout: all").replace("3, 4]", "3]"))
    with pytest.raises(SpecError, match=r"study.yaml:4:\d+: grid.loss_steps: 'loss_steps' has 3 weights"):
        networks_of(read_study(path))


def test_a_search_skips_invalid_networks(tmp_path: Path) -> None:
    what = Study(
        network=states(),
        group="transitions",
        seeds=1,
        recipe=Recipe(epochs=1, batch_size=1294),
        search={"space": {"edges": "s1>s3 + s3>s3"}, "runs": 4, "batch": 4, "sampler": "brute-force"},  # type: ignore[arg-type]
    )
    search(what, out=tmp_path, executor=Inline())
    again = search(what, out=tmp_path, executor=Inline())
    outcomes = {trial.label: trial.outcome for trial in read_trials(tmp_path)}
    assert outcomes == {
        "none": "no-network",
        "s1>s3": "no-network",
        "s3>s3": "no-network",
        "s1>s3 + s3>s3": "complete",
    }
    assert [network.label for network in again.networks] == ["s1>s3 + s3>s3"]


def test_the_shipped_study_trains_each_kind_once() -> None:
    networks = networks_of(read_study("frnn3-transitions"))
    assert [network.info.label for network in networks.members] == ["all", *KINDS, "adjacent"]
    assert [network.info.same_as for network in networks.members] == ["", "", "", "", "no bypass"]
    assert networks.remarks() == ()
