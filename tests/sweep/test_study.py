import json
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import data_source
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.report import make_report, report_tables, to_json
from hiresnet_graph.shipped import spec_names, study_names, study_path
from hiresnet_graph.spec.marked import MarkedDict
from hiresnet_graph.spec.reader import is_study
from hiresnet_graph.sweep import Study, read_study
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.plan import plan_study
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.study import study_of
from hiresnet_graph.train import Recipe, Seeds

SMALL = "network: hiresnet18\nchanges: {width: 2}\n"


def messages(folder: Path, text: str) -> list[str]:
    """All errors of a study file, as `line:column: message`."""
    path = folder / "study.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        networks_of(read_study(path))
    for problem in error.value.problems:
        assert problem.position is not None and problem.position.source.name == str(path), problem
    return [str(problem).removeprefix(f"{path}:") for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: hiresnet18\nvaraints: [none]\n", "2:1: varaints: unknown key 'varaints'. Did you mean 'variants'?"),
        (SMALL + "variants: none\n", "3:11: variants: expected a list or a mapping, got 'none'."),
        (SMALL + "variants: [none]\nseeds: []\n", "4:8: seeds: at least one seed is required."),
        (SMALL + "variants: [none]\nseeds: [1, 2, 1]\n", "4:8: seeds: a seed is given twice."),
        (SMALL + "variants: [none]\nseeds: {init: 3}\n", "4:8: seeds.data: the key 'data' is missing."),
        (SMALL + "variants: [none]\nrecipe: {lr: 0}\n", "4:14: recipe.lr: expected a number greater than 0, got 0."),
        (SMALL + "variants: [none]\nrecipe: {epochs: -1}\n", "4:18: recipe.epochs: expected a number of at least 1"),
        (
            SMALL + "variants: [none]\nrecipe: {epoch: 1}\n",
            "4:10: recipe.epoch: unknown key 'epoch'. Did you mean 'epochs'?",
        ),
        (SMALL, "1:1: a study requires something to compare: 'variants', 'subsets' or 'grid'."),
        (SMALL + "variants: []\n", "3:11: variants: no variant is given."),
        (SMALL + "variants: [none]\nsubsets: all\n", "4:1: subsets: a study has 'variants' or 'subsets', not both."),
        (
            SMALL + "variants: [none, ful]\n",
            "3:18: variants[1]: 'ful' is neither a variant nor an edge set. Did you mean 'full'?",
        ),
        (SMALL + "variants: [none, none]\n", "3:18: variants[1]: 'none' is given twice."),
        (SMALL + "variants: [none, full - p9]\n", "3:25: skips.edges: 'p9' selects nothing"),
        (
            SMALL + "variants:\n  a: {edges: stem>stag1}\n",
            "4:19: skips.edges: there is no node 'stag1'. Did you mean 'stage1'?",
        ),
        (SMALL + "variants:\n  a: {edges: [in, stem>]}\n", "4:24: skips.edges[1]: expected a node's name after '>'"),
        (SMALL + "variants:\n  a: {widht: 3}\n", "4:7: widht: there is no param 'widht'. Did you mean 'width'?"),
        ("network: hiresnet18\nchanges: {stem.width: no}\nvariants: [none]\n", "2:23: nodes.stem.width: expected"),
        (SMALL + "subsets: size:9\n", "3:10: subsets: rule 'size:9': sizes range from 0 to 6"),
        (SMALL + "subsets: al\n", "3:10: subsets: there is no subset rule 'al'. Did you mean 'all'?"),
        ("network: resnet20\nsubsets: all\n", "2:10: subsets: 'resnet20' has no skips"),
        (
            "network: nosuch\nvariants: [none]\n",
            "1:10: network: 'nosuch': there is no file and no shipped spec",
        ),
        ("network: ./no.yaml\nvariants: [none]\n", "1:10: network: './no.yaml': there is no such file."),
        ("network: hiresnet18@fll\nvariants: [none]\n", "1:10: network: 'hiresnet18' has no variant 'fll'."),
        (
            SMALL + "variants: [none]\ngrid: {lr: [0.1, -1]}\n",
            "4:18: grid.lr[1]: recipe.lr: expected a number greater than 0",
        ),
        (SMALL + "variants: [none]\ngrid: {lr: [1, 1]}\n", "4:16: grid.lr[1]: this value is given twice."),
        (SMALL + "variants: [none]\ngrid: {lr: []}\n", "4:12: grid.lr: at least one value is required."),
        (SMALL + "variants: [none]\ngrid: {recipe.l: [1]}\n", "4:8: grid.recipe.l: the recipe has no field 'l'."),
        (SMALL + "variants: [none]\ngrid: {width: [1]}\n", "4:8: grid.width: 'params.width' is set here and in 'chan"),
        (SMALL + "variants: [none]\ngrid: {stge1.depth: [1]}\n", "4:8: stge1.depth: there is no node 'stge1'."),
        (SMALL + "variants: [none]\nbaseline: ful\n", "4:11: baseline: there is no variant 'ful'. Known: none."),
        (SMALL + "search: {space: {edges: full}}\n", "3:9: search: the networks of this study are chosen by a search."),
    ],
)
def test_an_error_has_its_position(tmp_path: Path, text: str, message: str) -> None:
    assert messages(tmp_path, text)[0].startswith(message)


SET_TWICE = """
variants: [full] | recipe: {lr: 1} | grid: {lr: [1]} -> grid.lr: lr recipe.lr
variants: [full] | grid: {lr: [1], recipe.lr: [2]} -> grid.recipe.lr: lr grid.lr
variants: [full] | grid: {block: [plain], params.block: [basic]} -> grid.params.block: params.block grid.block
variants: [full] | grid: {params.width: [3]} -> grid.params.width: params.width changes.width
variants: {a: {stage1.depth: 4}} | grid: {nodes.stage1.depth: [1]} -> \
    grid.nodes.stage1.depth: stage1.depth variants.a.stage1.depth
variants: {a: {block: plain, params.block: basic}} -> variants.a.params.block: params.block variants.a.block
variants: {a: {edges: in, skips.edges: out}} -> variants.a.edges: skips.edges variants.a.skips.edges
variants: {a: {edges: in}} | grid: {skips.edges: [out]} -> grid.skips.edges: skips.edges variants.a.edges
variants: {a: {variant: full}, b: in + out} | grid: {skips.edges: [out]} -> \
    grid.skips.edges: skips.edges variants.a variants.b
variants: {a: {width: 8}, b: {block: plain}} | controls: [random-edges] | grid: {skips.edges: [in]} -> \
    grid.skips.edges: skips.edges controls[0]
subsets: all | grid: {skips.edges: [full]} -> grid.skips.edges: skips.edges subsets
variants: {a: {stage1.shortcut.norm: none}} | grid: {stage1.shortcut: [{norm: batch}]} -> \
    grid.stage1.shortcut: stage1.shortcut.norm variants.a.stage1.shortcut.norm
"""


@pytest.mark.parametrize("case", SET_TWICE.replace("\\\n    ", "").strip().splitlines())
def test_a_field_set_twice_is_refused_with_both_places(tmp_path: Path, case: str) -> None:
    text, expected = case.split(" -> ")
    place, field, *others = expected.split()
    found = messages(tmp_path, SMALL + text.replace(" | ", "\n") + "\n")
    assert len(found) == 1
    shown = ", ".join(f"'{other}'" for other in others)
    assert f" {place} '{field}' is set here and in {shown}, and only one value can have an effect." in found[0]
    assert all(f"'{other}' is at " in found[0] for other in others)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("grid: {channels_last: [true, false], lr: [1, 2]}", "channels_last"),
        ("grid: {recipe.compile: [true, false]}", "compile"),
        ("grid: {checkpoint_steps: [1, 2]}", "checkpoint_steps"),
        ("grid: {momentum: [0.5, 0.9], lr: [1, 2]}", "momentum"),
        ("recipe: {schedule: cosine}\ngrid: {step_every: [5, 9]}", "step_every"),
        ("recipe: {augment: flip}\ngrid: {crop_padding: [1, 2]}", "crop_padding"),
    ],
)
def test_a_grid_of_values_that_compute_the_same_is_refused(tmp_path: Path, text: str, field: str) -> None:
    """Its rows would have labels of runs that were not trained."""
    found = messages(tmp_path, SMALL + f"variants: [none]\n{text}\n")
    assert len(found) == 1
    assert f"{field}: '{field}' has no effect on what a run computes, so runs with its different values" in found[0]


@pytest.mark.parametrize(
    "grid",
    ["{momentum: [0.5, 0.9], optimizer: [adam, sgd]}", "{channels_last: [true], lr: [1, 2]}", "{step_every: [5, 9]}"],
)
def test_a_grid_of_values_that_sometimes_matter_is_accepted(tmp_path: Path, grid: str) -> None:
    (tmp_path / "study.yaml").write_text(SMALL + f"variants: [none]\ngrid: {grid}\n")
    assert networks_of(read_study(tmp_path / "study.yaml")).members


@pytest.mark.parametrize(
    ("recipe", "grid"),
    [
        ("{epochs: 200}", "{warmup_epochs: [0, 100]}"),
        ("{}", "{epochs: [200], warmup_epochs: [0, 100]}"),
        ("{batch_size: 512}", "{accumulate: [1, 128]}"),
    ],
)
def test_values_of_a_grid_are_checked_with_the_recipe_of_the_study(tmp_path: Path, recipe: str, grid: str) -> None:
    (tmp_path / "study.yaml").write_text(SMALL + f"variants: [none]\nrecipe: {recipe}\ngrid: {grid}\n")
    assert networks_of(read_study(tmp_path / "study.yaml")).members
    wrong = grid.replace("100]", "500]").replace("128]", "1024]")
    (found,) = messages(tmp_path, SMALL + f"variants: [none]\nrecipe: {recipe}\ngrid: {wrong}\n")
    assert "[1]: recipe: " in found and ("below epochs" in found or "at most batch_size" in found)


def test_a_change_that_overrides_a_variant_of_the_spec_is_refused(tmp_path: Path) -> None:
    found = messages(tmp_path, "network: hiresnet18\nchanges: {skips.edges: in}\nvariants: [original, full]\n")
    assert len(found) == 1 and found[0].startswith("2:11: changes.skips.edges: 'skips.edges' is set here and in")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("variants: [none, full - p1]\nchanges: {skips.edges: out}\n", "skips.edges"),
        ("variants: {a: {width: 4}, b: {params.width: 2}}\nchanges: {width: 8}\n", "width"),
        (
            "variants: {a: {stage1.shortcut: {norm: none}}}\nchanges: {stage1.shortcut: {norm: batch}}\n",
            "stage1.shortcut",
        ),
    ],
)
def test_a_change_that_every_variant_replaces_is_refused(tmp_path: Path, text: str, name: str) -> None:
    (found,) = messages(tmp_path, f"network: hiresnet18\n{text}")
    assert found.startswith(f"3:11: changes.{name}: every variant sets '{name}' itself, so that this value has no")


def test_a_variant_may_deviate_from_the_changes_and_from_its_own_variant(tmp_path: Path) -> None:
    text = "variants: {a: {width: 8}, b: {variant: full, edges: in}, c: {stage1.shortcut.norm: none}}\n"
    (tmp_path / "study.yaml").write_text(SMALL + text + "grid: {lr: [1], stage1.shortcut: [{channels: pad}]}\n")
    assert len(networks_of(read_study(tmp_path / "study.yaml")).members) == 3


def test_an_error_in_the_spec_points_to_the_changed_value(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(SMALL + "variants:\n  a: {block: plian}\n")
    with pytest.raises(SpecError, match=r"there is no block 'plian'.*'block' is set at .*study\.yaml:4:14\."):
        networks_of(read_study(tmp_path / "study.yaml"))


def test_all_errors_of_variants_are_reported(tmp_path: Path) -> None:
    found = messages(tmp_path, SMALL + "variants: [fll, 'in + p7', 'stem>x']\ncontrols: [adjsted]\n")
    assert [line.split(": ")[0] for line in found] == ["3:12", "3:23", "3:34", "4:12"]
    found = messages(tmp_path, SMALL + "variants: [fll, 'in + p7', 'stem>x']\n")
    assert [line.split(": ")[0] for line in found] == ["3:12", "3:23", "3:34"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (
            "variants: [none, ful]\nseeds: two\nrecipie: {epochs: 1}\ncontrols: [adjsuted]\n",
            ["seeds", "recipie"],
        ),
        (
            "variants: [none, full]\nrecipe: {epoch: 1, learning_rate: 1}\nbaseline: noskips\ndata: digitz\n",
            ["recipe.epoch", "recipe.learning_rate"],
        ),
        ("varaints: [none]\nbaseline: none\ncontrols: [random-edges:none]\n", ["varaints"]),
        (
            "variants: [none, ful]\nbaseline: ful\ngrid: {lr: [-1]}\ndata: digitz\n",
            ["variants[1]", "grid.lr[0]", "data"],
        ),
        ("variants: [full]\nsearhc: {}\ncontrols: [adjusted:in]\n", ["searhc"]),
    ],
)
def test_errors_of_fields_come_first_and_all_others_together(tmp_path: Path, text: str, paths: list[str]) -> None:
    assert [line.split(": ")[1] for line in messages(tmp_path, SMALL + text)] == paths


def test_without_a_file_an_error_is_wrong_usage(tiny: hrg.Architecture) -> None:
    with pytest.raises(UsageError, match=r"^variants\[1\]: 'ful' is neither a variant"):
        networks_of(Study(network=tiny, variants=["none", "ful"]))
    with pytest.raises(SpecError, match=r"^variants\[0\].edges:1:6: skips.edges: there is no node 'nowhere'"):
        networks_of(Study(network=tiny, variants=["stem>nowhere"]))
    with pytest.raises(UsageError, match="seeds: at least one seed is required"):
        study_of(MarkedDict({"network": "hiresnet18", "seeds": []}))


def test_seeds_are_counted_listed_or_crossed() -> None:
    def pairs(seeds: Any) -> list[tuple[int, int]]:
        return [tuple(pair) for pair in Study(network="x", seeds=seeds).seed_pairs]

    assert pairs(2) == [(0, 0), (1, 1)]
    assert pairs([3, 1]) == [(3, 3), (1, 1)]
    assert pairs({"init": 2, "data": [7]}) == [(0, 7), (1, 7)]
    assert pairs({"init": [5, 4], "data": 2}) == [(5, 0), (5, 1), (4, 0), (4, 1)]
    assert Study(network="x").seed_pairs == tuple(Seeds(seed, seed) for seed in range(5))


def test_a_spec_is_found_beside_the_study(
    tmp_path: Path, tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "tiny.yaml").write_text(tiny.to_yaml())
    (tmp_path / "nets" / "study.yaml").write_text("network: tiny.yaml@full\nvariants: [original, p2]\n")
    monkeypatch.chdir(tmp_path)
    for path in ("nets/study.yaml", tmp_path / "nets" / "study.yaml"):
        assert read_study(path).base().plan.digest() == tiny.variant("full").plan.digest()
    monkeypatch.chdir(tmp_path / "nets")
    assert read_study("study.yaml").base().chosen == "full"


def test_a_study_may_be_written_and_read_again(tmp_path: Path, tiny: hrg.Architecture) -> None:
    study = Study(
        network=tiny,
        changes={"width": 3},
        variants={"a": "none", "b": {"edges": ["p1", "p2"], "stage1.depth": 2}},
        controls=["adjusted"],
        seeds={"init": 2, "data": [0]},
        grid={"lr": [0.1, 0.01]},
        data=data_source("digits:split_seed=3"),
        recipe=Recipe(epochs=3),
    )
    (tmp_path / "s.yaml").write_text(study.to_yaml())
    again = read_study(tmp_path / "s.yaml")
    assert again.to_yaml() == study.to_yaml()
    assert again.recipe == study.recipe and again.seed_pairs == study.seed_pairs
    again, study = (one.model_copy(update={"controls": ()}) for one in (again, study))
    assert [m.info for m in networks_of(again).members] == [m.info for m in networks_of(study).members]


def test_options_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALL + "subsets: all\nseeds: 3\nrecipe: {epochs: 7, lr: 0.1}\n")
    study = read_study(path).patched({"subsets": None, "variants": ["none"], "recipe": {"lr": 0.2}}, "hrg ablate x")
    assert (study.subsets, study.seeds, study.recipe.epochs, study.recipe.lr) == (None, 3, 7, 0.2)
    assert "variants: [none]" in study.to_yaml()
    with pytest.raises(SpecError, match=r"^command line:1:1: recipe.lr: expected a number greater than 0, got -1"):
        read_study(path).patched({"recipe": {"lr": -1}}, "hrg ablate x --lr -1")


def test_a_study_is_distinguished_from_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SMALL)
    Path("n.yaml").write_text("name: n\nextends: hiresnet18\n")
    assert is_study("s.yaml") and is_study("table2")
    assert not is_study("n.yaml") and not is_study("hiresnet18") and not is_study("hiresnet18@full")
    assert not is_study("nosuch.yaml") and not is_study("nosuch")
    assert not set(spec_names()) & set(study_names())
    Path("s.yaml").write_text("spec: hiresnet18\nseeds: 2\n")
    assert is_study("s.yaml")
    with pytest.raises(SpecError, match=r"^s.yaml:1:1: spec: unknown key 'spec'. Did you mean 'network'\?$"):
        read_study("s.yaml")
    Path("n.yaml").write_text("name: n\nextends: hiresnet18\nseeds: 3\n")
    assert not is_study("n.yaml")
    with pytest.raises(SpecError, match=r"there is no file and no shipped study 'table3'. Did you mean 'table2'"):
        read_study("table3")


PUBLISHED = """variants: [none, full]
grid: {lr: [0.1, 0.2]}
published:
  source: a paper
  values:
    - {label: none, setting: {lr: 0.1}, mean: 90, std: 1, n: 3}
    - {label: full, setting: {recipe.lr: 0.2}, mean: 91}
  differs: [the data]
"""


def test_published_values_are_those_of_networks(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(SMALL + PUBLISHED)
    study = read_study(tmp_path / "study.yaml")
    found = {(info.label, info.setting["recipe.lr"]): info for info in (one.info for one in networks_of(study).members)}
    assert study.published is not None
    values = {key: study.published.value_for(info.label, info.setting) for key, info in found.items()}
    assert {key: value.mean for key, value in values.items() if value} == {("none", 0.1): 90, ("full", 0.2): 91}
    assert study.published.sentences() == ["Published: a paper.", "Differs: the data."]
    assert study.patched({"seeds": 2}, "").published == study.published
    assert study.patched({"variants": ["none"]}, "").published is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "label: none",
            "label: non",
            "8:15: published.values[0].label: there is no variant 'non'. Did you mean 'none'?",
        ),
        ("lr: 0.1}, m", "lr: 0.3}, m", "8:30: published.values[0].setting: 'none' has no network with this setting."),
        (", setting: {lr: 0.1}", "", "8:7: published.values[0].setting: 'none' has no network with this setting."),
        (
            "full, setting: {recipe.lr: 0.2",
            "none, setting: {lr: 0.1",
            "9:7: published.values[1]: 'none' has two values.",
        ),
        ("mean: 90", "mean: 0.9e3", "8:47: published.values[0].mean: expected a number of at most 100, got 900.0."),
        (
            "mean: 90, std: 1, n: 3}\n    - {label: full, setting: {recipe.lr: 0.2}, mean: 91",
            "mean: 0.9}\n    - {label: full, setting: {recipe.lr: 0.2}, mean: 0.91",
            "6:3: published: accuracies are in percent, but none is above 1. Write 90.",
        ),
        ("std: 1", "sd: 1", "8:51: published.values[0].sd: unknown key 'sd'. Did you mean 'std'?"),
        ("  source: a paper\n", "", "6:3: published.source: the key 'source' is missing."),
    ],
)
def test_wrong_published_values_are_reported(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert PUBLISHED.count(old) == 1
    found = messages(tmp_path, SMALL + PUBLISHED.replace(old, new))
    assert [line[: len(message)] for line in found] == [message]


def test_published_values_change_no_run_and_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(SMALL + PUBLISHED)
    study = read_study(tmp_path / "study.yaml")
    plan = plan_study(study)
    without = study_of(study.tree.without("published"))
    assert plan_study(without).requests.keys() == plan.requests.keys()
    with Ledger.open(tmp_path / "out") as ledger:
        ledger.join(plan)
    results = read_results(tmp_path / "out")
    assert results.published == study.published
    report = make_report(results)
    (table,) = [table for table in report_tables(report) if table.part == "table"]
    at = [column.header for column in table.columns].index("published")
    assert [row[at] for row in table.rows] == ["90.00 (1.00)", "", "", "91.00 (-)"]
    assert "Published: a paper. Differs: the data." in table.caption
    assert (table.records[0]["published_mean"], table.records[0]["published_n"]) == (90, 3)
    assert json.loads(to_json(report))["published"]["values"][1]["mean"] == 91


# ------------------------------------------------------------------------------------------------------ shipped studies

TABLE_1 = {
    ("plain", "original"): 265.0,
    ("plain", "adjusted"): 270.7,
    ("plain", "full"): 270.7,
    ("basic", "original"): 267.8,
    ("basic", "adjusted"): 273.5,
    ("basic", "full"): 273.5,
    ("resnext", "original"): 70.8,
    ("resnext", "adjusted"): 76.5,
    ("resnext", "full"): 76.5,
}
TABLE_2 = [267.8, 273.5, 273.5, 269.6, 272.3, 270.6, 269.6, 269.0]


def header(name: str) -> str:
    """The header comment of a shipped study."""
    path = study_path(name)
    assert path is not None
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    return "\n".join(line for line in lines if line.startswith("#"))


def printed(parameters: int) -> float:
    """In thousands, halves to the even digit, as the paper prints them."""
    return round(parameters / 100) / 10


@pytest.mark.parametrize(
    ("name", "epochs", "classes"), [("cifar10", 80, 10), ("cifar100", 100, 100), ("tiny-imagenet", 120, 200)]
)
def test_table_1(name: str, epochs: int, classes: int) -> None:
    study = read_study(f"table1-{name}")
    assert (study.recipe.epochs, study.data, len(study.seed_pairs)) == (epochs, name, 5)
    found = networks_of(study)
    more = 65 * (classes - 10)  # weights and biases of the other classes
    counts = {(str(m.info.setting["block"]), m.info.label): m.info.parameters - more for m in found.members}
    assert {place: printed(count) for place, count in counts.items()} == TABLE_1
    assert list(counts) == list(TABLE_1) and found.baseline == "original"
    text = header(study.name)
    assert all(f"{m.info.parameters:,}" in text for m in found.members)
    size = 64 if name == "tiny-imagenet" else 32
    assert {m.architecture.plan.inputs["input"].sizes for m in found.members} == {(3, size, size)}
    if classes == 10:  # the baselines are shipped as specs, too
        for member in found.members:
            if member.info.label == "adjusted":
                shipped = hrg.load(f"hiresnet18_{member.info.setting['block']}_adjusted")
                assert shipped.plan.digest() == member.info.plan


def test_table_2() -> None:
    found = networks_of(read_study("table2"))
    assert [m.info.label for m in found.members] == ["original", "adjusted", "full", "in", "out", "p1", "p2", "p3"]
    assert [printed(m.info.parameters) for m in found.members] == TABLE_2
    assert all(f"{m.info.parameters:,}" in header("table2") for m in found.members)


@pytest.mark.parametrize("name", study_names())
def test_a_shipped_study_has_its_source(name: str) -> None:
    assert "ource:" in header(name)
    study = read_study(name)
    assert study.name == name and study.description.endswith(".")
    # The defaults are the paper's: Adam, 0.01 halved every 20 epochs, batches of 100. Transformers need others.
    own = {"optimizer", "lr", "weight_decay", "schedule", "warmup_epochs"} if name == "table2-hiresvit" else set()
    assert set(study.recipe.model_fields_set) == {"epochs"} | own
