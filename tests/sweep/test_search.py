import itertools
import json
import math
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.sweep.driver import Interrupted
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.search import search
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.sweep.search_trials import Trial, read_trials
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.train.recipe import Recipe

QUICK = Recipe(epochs=2, batch_size=400)


def study(arch: hrg.Architecture, recipe: Recipe = QUICK, **how: Any) -> Study:
    space = how.pop("space", {"edges": "full"})
    return Study.model_validate({"network": arch, "recipe": recipe, "seeds": 1, "search": {"space": space, **how}})


def weights(folder: Path) -> dict[str, bytes]:
    found = {path.parent.name: path.read_bytes() for path in folder.glob("runs/*/model.safetensors")}
    assert found
    return found


def epochs(results: Results) -> dict[str, int]:
    """The trained epochs of complete runs by label."""
    return {
        results.networks[row.network].label: len(row.record.epochs) for row in results.rows if row.record is not None
    }


def test_brute_force_trains_each_network_once(tiny: hrg.Architecture, tmp_path: Path) -> None:
    results = search(study(tiny, sampler="brute-force", runs=100), out=tmp_path, jobs=1)
    found = read_trials(tmp_path)
    assert len(found) == 8 == len({trial.label for trial in found})
    assert results.is_search
    assert sorted(len(network.edges) for network in results.networks) == [0, 1, 1, 1, 2, 2, 2, 3]
    assert {trial.outcome for trial in found} == {"complete"}
    best = {row.key: row.record.validation_accuracy for row in results.rows if row.record is not None}
    assert {trial.keys[0]: trial.values[0] for trial in found} == best


def test_proposals_do_not_depend_on_interruptions(tiny: hrg.Architecture, tmp_path: Path) -> None:
    what = study(
        tiny,
        space={"edges": "full", "width": [3, 4], "lr": {"low": 0.001, "high": 0.1, "log": True}},
        sampler="nsga2",
        objectives=["accuracy", "parameters"],
        runs=4,
        batch=2,
    )
    search(what, out=tmp_path / "whole", jobs=1)

    def stop(trial: Trial, runs: int) -> None:
        reported.append(runs)
        signal.raise_signal(signal.SIGINT)

    reported: list[int] = []
    with pytest.raises(Interrupted, match=r"Interrupted: [1-3] of a budget of 4 runs are finished"):
        search(what, out=tmp_path / "stopped", jobs=2, progress=stop)
    again: list[int] = []
    search(what, out=tmp_path / "stopped", jobs=1, progress=lambda trial, runs: again.append(runs))
    assert reported == list(range(1, len(reported) + 1)) and again[-1] == 4  # each run is counted as it ends
    assert again == list(range(again[0], 5))
    assert read_trials(tmp_path / "stopped") == read_trials(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert len(read_results(tmp_path / "whole").rows) == 4


@pytest.mark.parametrize(("runs", "batch", "networks"), [(5, 1, 2), (7, 4, 3)])
def test_a_budget_is_spent_on_networks_with_all_their_seeds(
    tiny: hrg.Architecture, tmp_path: Path, runs: int, batch: int, networks: int
) -> None:
    """The rest of a budget that the number of seeds does not divide is not used; a resumed search agrees."""
    what = study(tiny, Recipe(epochs=1, batch_size=800), sampler="random", runs=runs, batch=batch)
    what = what.model_copy(update={"seeds": 2})
    for _ in range(2):
        results = search(what, out=tmp_path, jobs=1)
        trained = [trial for trial in read_trials(tmp_path) if trial.outcome == "complete"]
        assert len(trained) == networks == len(results.networks)
        assert [len(set(trial.keys)) for trial in trained] == [2] * networks
        assert sum(row.state == "complete" for row in results.rows) == 2 * networks <= runs
    accuracies = {row.key: row.record.validation_accuracy for row in results.rows if row.record is not None}
    for trial in trained:
        assert trial.values == (pytest.approx(sum(accuracies[key] for key in trial.keys) / 2),)


def test_halving_prunes_the_worse_half(tiny: hrg.Architecture, tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=400)
    halving = {"first": 1, "factor": 2}
    results = search(study(tiny, recipe, sampler="random", runs=4, batch=4, halving=halving), out=tmp_path, jobs=1)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        curves = database.execute(
            "SELECT key, max(epoch), accuracy FROM curves WHERE split = 'validation' AND epoch <= 1 GROUP BY key"
        ).fetchall()
        lengths = dict(database.execute("SELECT key, max(epoch) FROM curves GROUP BY key").fetchall())
    database.close()
    first = {key: accuracy for key, _, accuracy in curves}
    found = [trial for trial in read_trials(tmp_path) if trial.keys[0] in first and trial.outcome != "known"]
    assert sorted(lengths.values()) == [1, 1, 2, 4]
    assert sorted(trial.outcome for trial in found) == ["complete", "pruned", "pruned", "pruned"]
    ranked = sorted(found, key=lambda trial: -first[trial.keys[0]])
    assert {lengths[trial.keys[0]] for trial in ranked[:2]} == {2, 4}
    assert list(epochs(results).values()) == [4]
    assert sorted(row.state for row in results.rows) == ["complete", "pruned", "pruned", "pruned"]


@pytest.mark.slow
def test_a_parameter_limit_and_a_larger_budget_later(tiny: hrg.Architecture, tmp_path: Path) -> None:
    space = {"edges": "full", "width": [4, 64]}
    first = search(study(tiny, space=space, runs=2, limit={"parameters": 2000}), out=tmp_path, jobs=1)
    assert len(first.rows) == 2
    more = search(study(tiny, space=space, runs=3, limit={"parameters": 2000}), out=tmp_path, jobs=1)
    assert [row.key for row in more.rows][:2] == [row.key for row in first.rows]
    assert len(more.rows) == 3
    assert all(network.parameters <= 2000 for network in more.networks)
    too_large = [trial for trial in read_trials(tmp_path) if trial.outcome == "too-large"]
    assert too_large and all(trial.parameters > 2000 and not trial.values for trial in too_large)
    with pytest.raises(UsageError, match=r"holds another search \(sampler: tpe, now random\)"):
        search(study(tiny, space=space, sampler="random", limit={"parameters": 2000}), out=tmp_path, jobs=1)
    with pytest.raises(UsageError, match="its network, data, recipe or seeds have changed"):
        search(study(tiny, Recipe(epochs=1), space=space, limit={"parameters": 2000}), out=tmp_path, jobs=1)


def test_the_smallest_and_the_largest_network(tiny: hrg.Architecture) -> None:
    space = SearchSpace(study(tiny, space={"edges": "full", "width": [4, 2, 3], "lr": {"low": 0.01, "high": 0.1}}))
    assert space.size == math.inf
    sizes = [
        space.plan(
            {**dict(zip(("edge " + edge for edge in space.edges), there, strict=True)), "width": width, "lr": 0.1}
        )
        for there in itertools.product((False, True), repeat=len(space.edges))
        for width in (2, 3, 4)
    ]
    parameters = [plan.networks[0].parameters for plan in sizes]
    assert (space.extreme(min).parameters, space.extreme(max).parameters) == (min(parameters), max(parameters))


FILE = """
network: hiresnet18
search: {space: SPACE, batch: 4, HOW}
seeds: 1
recipe: {epochs: 2}
"""


@pytest.mark.parametrize(
    ("space", "how", "message"),
    [
        ("{}", "runs: 4", r"search\.yaml:3:17: .*at least one key is required, like 'edges: full'"),
        ("{edges: [a]}", "runs: 4", r"'edges' must be an edge set"),
        ("{width: 8}", "runs: 4", r"search\.yaml:3:"),
        ("{width: {low: 9, high: 3}}", "runs: 4", r"low \(9\) must be below high \(3\)"),
        ("{edges: full}", "runs: 0", r"search\.yaml:3:\d+: .*search\.runs"),
        ("{edges: full}", "sampler: tpee", r"search\.sampler"),
        (
            "{edges: full}",
            "objectives: [macs]",
            r"must be \[accuracy\], \[accuracy, parameters\] or",
        ),
        ("{edges: full}", "halving: {first: 2}", r"the first rung \(2\) must be below the epochs of the recipe \(2\)"),
        ("{edges: full}", "halving: {first: 1, factor: 9}", r"batch \(4\) must be at least halving\.factor \(9\)"),
        ("{edges: ful}", "runs: 4", "ful"),
        ("{depth: [2, 3]}", "runs: 4", r"search\.yaml:3:18: .*there is no param 'depth'"),
        ("{width: [8, 0]}", "runs: 4", r"at least 1, got 0\. 'width' is set at .*search\.yaml:3:29\.\Z"),
        ("{lr: {low: 0.1, high: 1}}", "sampler: brute-force", r"search\.yaml:3:9: .*cannot try every number of 'lr'"),
        ("{lr: [0.1, -1]}", "runs: 4", r"search\.yaml:3:28: search\.space\.lr: recipe\.lr: expected"),
        (
            "{compile: [true, false]}",
            "runs: 4",
            r"search\.yaml:3:18: search\.space\.compile: 'compile' has no effect on",
        ),
        (
            "{momentum: {low: 0.1, high: 0.9}}",
            "runs: 4",
            r"search\.space\.momentum: 'momentum' has no effect on what a",
        ),
        ("{recipe.l: [0.1]}", "runs: 4", r"search\.yaml:3:18: search\.space\.recipe\.l: the recipe has no field 'l'"),
        ("{edges: none}", "runs: 4", r"search\.yaml:3:25: search\.space\.edges: 'hiresnet18' has no skips"),
        ("{edges: full - p9}", "runs: 4", r"search\.yaml:3:32: .*'p9' selects nothing"),
        ("{width: [8], params.width: [9]}", "runs: 4", r"search\.yaml:3:30: .*'params\.width' is set here and in 'sea"),
        (
            "{edges: full, skips.edges: [in]}",
            "runs: 4",
            r"search\.yaml:3:31: .*is set here and in 'sea",
        ),
        (
            "{width: [8]}",
            "runs: 4, limit: {parameters: 9}",
            r"limit\.parameters: no network of the space is",
        ),
        ("{width: [8]}", "runs: 4, limit: {macs: 9}", r"limit\.macs: no network of the space is within 9 macs"),
    ],
)
def test_invalid_searches_are_reported(tmp_path: Path, space: str, how: str, message: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(FILE.replace("SPACE", space).replace("HOW", how))
    with pytest.raises(SpecError, match=message) as refused:
        search(file, out=tmp_path / "out", jobs=1)
    assert not list(tmp_path.glob("out/runs/*"))
    validated = CliRunner().invoke(app, ["validate", str(file), "--json"])
    found = [problem["message"] for problem in json.loads(validated.stdout)["specs"][0]["problems"]]
    assert found == [problem.message for problem in refused.value.problems]


def test_all_errors_of_a_search_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    text = "{depth: [2], width: [8, 0], lr: [0.1, -1], edges: full - p9}"
    file.write_text(FILE.replace("SPACE", text).replace("HOW", "runs: 4, halving: {first: 2}"))
    with pytest.raises(SpecError) as refused:
        SearchSpace(read_study(file))
    assert [problem.path for problem in refused.value.problems] == [
        "depth",
        "search.space.lr",
        "skips.edges",
        "search.halving.first",
        "nodes.stem.width",
    ]


def test_a_wrong_network_of_a_search_is_reported_by_validate(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("name: n\ninput: {channels: 1, height: 8, width: 8}\nnodes: {a: conv}\n")
    (tmp_path / "search.yaml").write_text(
        FILE.replace("hiresnet18", "net.yaml").replace("SPACE, batch: 4, HOW", "{lr: [1]}")
    )
    validated = CliRunner().invoke(app, ["validate", str(tmp_path / "search.yaml")])
    assert validated.exit_code == 1 and "net.yaml:3:" in validated.stdout


def test_wrong_options_create_no_folder(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'local'"):
        search(study(tiny), out=tmp_path / "out", executor="loca")
    assert not (tmp_path / "out").exists()


def test_a_budget_below_one_network_is_reported(tiny: hrg.Architecture, tmp_path: Path) -> None:
    five = study(tiny, runs=4).model_copy(update={"seeds": 5})
    with pytest.raises(UsageError, match="a budget of 4 runs is too small for one network with 5 seeds"):
        search(five, out=tmp_path)


def test_a_study_has_either_variants_or_a_search(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this study has no 'search'"):
        search(Study(network=tiny, variants=("none",)), out=tmp_path)
    both = study(tiny).model_copy(update={"variants": ("none",)})
    with pytest.raises(UsageError, match="a study with 'search' has no 'variants'"):
        search(both, out=tmp_path)


def test_without_its_ledger_a_search_finds_the_same(tiny: hrg.Architecture, tmp_path: Path) -> None:
    what = study(tiny, sampler="random", runs=3, batch=1)
    search(what, out=tmp_path, jobs=1)
    before = read_trials(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    search(what, out=tmp_path, jobs=1)
    assert read_trials(tmp_path) == before and all(math.isfinite(trial.values[0]) for trial in before)


def test_lists_and_mappings_are_values_of_a_space(tiny: hrg.Architecture, tmp_path: Path) -> None:
    space = {"no_decay": [["biases"], ["norms"]], "lr_scale": [{"stem*": 0.5}, {}], "weight_decay": [0.1]}
    results = search(study(tiny, space=space, sampler="brute-force", runs=9), out=tmp_path, jobs=1)
    found = {json.dumps(network.setting, sort_keys=True) for network in results.networks}
    assert found == {
        json.dumps({"recipe.lr_scale": scale, "recipe.no_decay": no_decay, "recipe.weight_decay": 0.1}, sort_keys=True)
        for scale in ({"stem*": 0.5}, {})
        for no_decay in (["biases"], ["norms"])
    }
