import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import data_source
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.sweep import Study, plan_study, read_study
from hiresnet_graph.sweep.isomorphism import wiring
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.train import Recipe, Seeds, identify_request

QUICK = {"epochs": 1, "batch_size": 400}

EDGE = "{from: stem, to: stage2, slot: output, projection: {spatial: avg, channels: conv1x1, norm: batch}, name: %s}"


def test_every_network_is_planned_with_every_seed(tiny: hrg.Architecture) -> None:
    study = Study(network=tiny, variants=["original", "full"], seeds=[4, 2], recipe=Recipe(**QUICK), name="small")
    plan = plan_study(study)
    assert (plan.name, plan.architecture, plan.data, plan.baseline) == ("small", "tiny", "digits", "original")
    assert [network.label for network in plan.networks] == ["original", "full"]
    assert plan.networks[1].edges == ("stem>stage1", "stage1>stage2", "stem>stage2")
    assert plan.networks[1].parameters == tiny.cost().parameters and plan.networks[1].macs == tiny.cost().macs
    assert [(row.network, row.seeds) for row in plan.rows] == [
        (network, Seeds(seed, seed)) for network in (0, 1) for seed in (4, 2)
    ]
    assert list(plan.requests) == [plan.rows[i].key for i in (0, 2, 1, 3)]  # all networks with the first seed first
    for row in plan.rows:
        request = plan.requests[row.key]
        assert (request.label, request.seeds) == (plan.networks[row.network].label, row.seeds)
        assert request.recipe == study.recipe
        assert hrg.loads(request.spec).plan.digest() == plan.networks[row.network].plan
        assert identify_request(request).key == row.key  # as a worker computes it


def test_equal_networks_share_their_runs(tiny: hrg.Architecture) -> None:
    study = Study(network=tiny, variants={"a": "none", "b": "original", "c": "p2", "d": "stem>stage2"}, seeds=2)
    plan = plan_study(study)
    assert [network.same_as for network in plan.networks] == ["", "a", "", "c"]
    assert len(plan.rows) == 8 and len(plan.requests) == 4
    assert [row.key for row in plan.rows[:2]] == [row.key for row in plan.rows[2:4]]
    assert {request.label for request in plan.requests.values()} == {"a", "c"}
    assert not any(network.isomorphic_to for network in plan.networks)


def test_networks_that_differ_in_names_only_are_reported_and_trained(tiny: hrg.Architecture) -> None:
    """The skip of `p2` as an edge with other names, so that its initial weights differ."""
    text = tiny.with_edges("none").to_yaml() + "".join(
        f"  {name}: {{edges: [{EDGE % name}]}}\n" for name in ("one", "two")
    )
    net = hrg.loads(text)
    plan = plan_study(Study(network=net, variants=["none", "p2", "one", "two", "stem>stage2"], seeds=2))
    assert [network.same_as for network in plan.networks] == ["", "", "", "", "p2"]
    assert [network.isomorphic_to for network in plan.networks] == ["", "", "p2", "p2", ""]
    assert len(plan.requests) == 8
    assert len({network.parameters for network in plan.networks[1:]}) == 1


def test_wiring_sees_all_but_names() -> None:
    """It is equal for another order of calls and other names, and differs for small changes."""
    plan = hrg.load("hiresnet18").override({"width": 2}).plan
    assert wiring(_shuffled(plan, 1)) == wiring(_shuffled(plan, 2)) == wiring(plan)
    assert wiring(hrg.load("hiresnet18").override({"width": 2}).with_edges("full - p3").plan) != wiring(plan)
    swapped = [replace(call, inputs=call.inputs[::-1]) if len(call.inputs) == 2 else call for call in plan.calls]
    assert wiring(replace(plan, calls=tuple(swapped))) != wiring(plan)
    tied = [
        replace(call, weights="stage1.block1.conv1") if call.weights == "stage1.block1.conv2" else call
        for call in plan.calls
    ]
    assert wiring(replace(plan, calls=tuple(tied))) != wiring(plan)


def _shuffled(plan: Plan, seed: int) -> Plan:
    """The same network with other names, and its calls in another valid order."""
    chance = random.Random(seed)
    names = {call.name: f"n{chance.getrandbits(60)}" for call in plan.calls}
    weights = {call.weights: f"w{chance.getrandbits(60)}" for call in plan.calls}
    waiting, calls, ready = list(plan.calls), [], set(plan.inputs)
    while waiting:
        call = chance.choice([call for call in waiting if set(call.inputs) <= ready])
        waiting.remove(call)
        ready.add(call.name)
        inputs = tuple(names.get(name, name) for name in call.inputs)
        calls.append(replace(call, name=names[call.name], inputs=inputs, weights=weights[call.weights]))
    outputs = {name: names[value] for name, value in plan.outputs.items()}
    return replace(plan, calls=tuple(calls), outputs=outputs)


def test_a_grid_crosses_recipe_and_network(tiny: hrg.Architecture) -> None:
    study = Study(
        network=tiny,
        variants=["none", "full"],
        seeds=1,
        grid={"lr": [0.1, 0.01], "width": [2, 4], "recipe.batch_size": [50]},
        recipe={"epochs": 3},
    )
    plan = plan_study(study)
    settings = [dict(network.setting) for network in plan.networks]
    assert settings[0] == settings[1] == {"recipe.lr": 0.1, "width": 2, "recipe.batch_size": 50}
    assert [(s["recipe.lr"], s["width"]) for s in settings[::2]] == [(0.1, 2), (0.1, 4), (0.01, 2), (0.01, 4)]
    assert len(plan.requests) == 8 and plan.networks[0].plan == plan.networks[4].plan != plan.networks[2].plan
    for row in plan.rows:
        recipe = plan.requests[row.key].recipe
        assert recipe.lr == plan.networks[row.network].setting["recipe.lr"]
        assert (recipe.epochs, recipe.batch_size) == (3, 50)
    # a setting equal to the recipe has the same runs as without a grid
    alone = plan_study(Study(network=tiny, variants=["none"], seeds=1, recipe={"epochs": 3}))
    among = plan_study(Study(network=tiny, variants=["none"], seeds=1, grid={"lr": [0.1, 0.01]}, recipe={"epochs": 3}))
    assert set(alone.requests) < set(among.requests)


def test_a_grid_without_variants_varies_the_network_itself(tiny: hrg.Architecture) -> None:
    found = networks_of(Study(network=tiny.variant("original"), grid={"optimizer": ["adam", "sgd"]}))
    assert [member.info.label for member in found.members] == ["original", "original"]
    assert [member.recipe.optimizer for member in found.members] == ["adam", "sgd"]


def test_an_ambiguous_grid_key_is_refused() -> None:
    net = hrg.load("hiresnet18").override({"width": 2})
    tree = net.tree.copy()
    tree["params"] = {**tree["params"], "lr": 3}
    both = hrg.from_dict(tree)
    with pytest.raises(UsageError, match=r"'lr' is a field of the recipe and a param .* Write 'recipe\.lr' or"):
        networks_of(Study(network=both, variants=["none"], grid={"lr": [1, 2]}))
    found = networks_of(Study(network=both, variants=["none"], grid={"recipe.lr": [1, 2], "params.lr": [4]}))
    assert dict(found.members[0].info.setting) == {"recipe.lr": 1, "params.lr": 4}


def test_subsets_have_a_full_set_and_a_baseline(tiny: hrg.Architecture) -> None:
    edges = ("stem>stage1", "stage1>stage2", "stem>stage2")
    for rule, baseline, number in (
        ("all", "none", 8),
        ("leave-one-out", "all", 4),
        ("random:4", None, 4),
        ("family", "none", 6),
    ):
        found = networks_of(Study(network=tiny, subsets=rule))
        assert (found.subsets_of, found.baseline, len(found.members)) == (edges, baseline, number)
        assert all(set(member.info.edges) <= set(edges) for member in found.members)
    assert networks_of(Study(network=tiny, variants=["full", "none"])).subsets_of == ()
    assert networks_of(Study(network=tiny, variants=["full", "none"], baseline="none")).baseline == "none"
    with pytest.raises(UsageError, match=r"'skips\.edges' is set here and in 'subsets'"):
        networks_of(Study(network=tiny, subsets="all", grid={"skips.edges": ["full", "in"]}))
    with pytest.raises(UsageError, match="grid: the grid changes the edges that subsets are taken of"):
        networks_of(Study(network=tiny, subsets="all", grid={"skips.levels": [["stem", "stages"], ["stem", "stage1"]]}))


def test_data_and_networks_must_fit(tmp_path: Path, tiny: hrg.Architecture) -> None:
    def message(text: str, kind: type[Exception] = SpecError) -> str:
        (tmp_path / "tiny.yaml").write_text(tiny.to_yaml())
        (tmp_path / "s.yaml").write_text(f"network: tiny.yaml\nvariants: [none]\n{text}")
        with pytest.raises(kind) as error:
            plan_study(read_study(tmp_path / "s.yaml"))
        return str(error.value).removeprefix(str(tmp_path / "s.yaml"))

    data = "data: {kind: synthetic, classes: 3, images: 100}\n"
    assert message(data).startswith(":3:7: data: variant 'none': 'tiny' gives 10, but data 'synthetic' has 3 classes")
    assert (
        "4:22: recipe.batch_size: the batch size is 5,000, but data 'digits' has only 1,294 training images"
        in message("data: digits\nrecipe: {batch_size: 5000}\n")
    )
    losses = "data: digits\nrecipe: {losses: {haed: 1}}\n"
    assert message(losses).startswith(":4:18: recipe.losses: variant 'none': 'tiny' has no output 'haed'. Did you mean")
    weights = "data: digits\ngrid: {class_weights: [[1, 2], balanced]}\n"
    assert message(weights).startswith(":4:23: grid.class_weights: 'class_weights' has 2 weights, but data 'digits'")
    assert message("data: digts\n").startswith(":3:7: data: there is no data set 'digts'")
    grid = "data: digits\ngrid: {input.height: [8, 16]}\n"
    assert "take images of different shapes" in message(grid)
    missing = message("data: {kind: cifar10, root: nosuch}\n", UsageError)
    assert "there is no folder 'cifar-10-batches-py'" in missing and "nosuch" in missing


def test_run_keys_do_not_depend_on_the_rest_of_the_study(tiny: hrg.Architecture) -> None:
    small = plan_study(Study(network=tiny, variants=["full"], seeds=[1], recipe=QUICK))
    large = plan_study(
        Study(
            network=tiny.override({"width": 4}),
            name="other",
            variants={"p2": "p2", "everything": "full"},
            seeds=3,
            recipe={**QUICK, "channels_last": True},
            data=data_source("digits"),
        )
    )
    assert set(small.requests) < set(large.requests)
    other = plan_study(Study(network=tiny, variants=["full"], seeds=[1], recipe=QUICK, data="digits:split_seed=1"))
    assert not set(small.requests) & set(other.requests)


def test_what_is_computed_of_a_network_does_not_depend_on_the_number_of_recipes(
    tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid of thousands of settings would take minutes otherwise."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        method = getattr(hrg.Architecture, name)

        def call(self: hrg.Architecture) -> object:
            calls[name] += 1
            return method(self)

        monkeypatch.setattr(hrg.Architecture, name, call)

    for name in ("cost", "to_yaml", "standalone"):
        counted(name)

    def of(rates: tuple[float, ...]) -> tuple[Counter[str], int]:
        calls.clear()
        study = Study(network=tiny, variants=("none", "full"), grid={"lr": rates}, seeds=2, data="digits")
        prepared = prepare_study(study, None, calibrates=False)
        assert prepared.disk_bytes > 0 and prepared.remarks is not None
        return Counter(calls), prepared.total

    (few, total), (many, more) = of((0.01,)), of((0.01, 0.02, 0.03))
    assert few == many and few["to_yaml"] >= 2
    assert more == 3 * total
