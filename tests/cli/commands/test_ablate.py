import csv
import dataclasses
import json

import pytest

from hiresnet_graph.cli.progress import RemainingTime
from hiresnet_graph.sweep import prepare
from hiresnet_graph.sweep.training import Progress
from hiresnet_graph.train import Recipe
from tests.sweep import works
from tests.sweep.works import study
from tests.train.states import TEXT

SMALL = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]
STUDY = """
name: small
network: hiresnet18
changes: {width: 2, input.channels: 1, input.height: 8, input.width: 8}
variants: [none, full, p3]
baseline: none
seeds: 1
recipe: {epochs: 1, batch_size: 400}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def test_no_run_is_trained_twice(hrg, folder):
    args = ["ablate", *SMALL, "--variants", "none,full", "--epochs", "1", "--jobs", "1", "-o", "out"]
    first = hrg(*args, "--seeds", "1")
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("hiresnet18: 2 networks on digits, 2 runs.\n")
    assert "run 2/2  full, seed 0: " in first.stderr and first.stdout == ""
    dry = hrg(*args, "--seeds", "2", "--dry-run", "--no-calibrate")
    assert "4 runs on digits, 1 epoch each.\n2 done, 2 runs to train." in dry.stderr
    assert [line.split()[-2:] for line in dry.stdout.splitlines()[2:]] == [["2", "1"], ["2", "1"]]
    second = hrg(*args, "--seeds", "2")
    assert "2 of them were finished before" in second.stderr and "seed 0" not in second.stderr

    table = list(csv.DictReader(hrg("report", "out", "-f", "csv").stdout.splitlines()))
    assert [(row["variant"], row["n"]) for row in table] == [("none", "2"), ("full", "2")]
    assert hrg(*args, "--seeds", "1").exit_code == 0  # a smaller study
    dry = hrg(*args, "--seeds", "2", "--dry-run", "--no-calibrate")
    assert "4 done, 0 runs to train." in dry.stderr
    changed = hrg(*args, "--seeds", "2", "--lr", "0.1")
    assert changed.exit_code == 2 and "another recipe (lr=0.01, now 0.1)" in changed.stderr
    assert "--accept-changes" in changed.stderr
    dry = hrg(*args, "--seeds", "2", "--lr", "0.1", "--dry-run")
    assert dry.exit_code == 2 and "another recipe (lr=0.01, now 0.1)" in dry.stderr.splitlines()[-1]
    dry = hrg(*args, "--seeds", "2", "--lr", "0.1", "--dry-run", "--no-calibrate", "--json")
    assert dry.exit_code == 2 and "another recipe" in json.loads(dry.stdout)["refused"]
    accepted = hrg(*args, "--seeds", "2", "--lr", "0.1", "--dry-run", "--no-calibrate", "--accept-changes")
    assert accepted.exit_code == 0


def test_progress_names_label_setting_and_seed_in_words(hrg, folder):
    (folder / "s.yaml").write_text(STUDY.replace("[none, full, p3]", "{long only: p3}").replace("baseline: none\n", ""))
    result = hrg("ablate", "s.yaml", "--grid", "lr=0.01,0.1", "--jobs", "1", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "run 1/2  long only, lr=0.01, seed 0: " in result.stderr
    assert "run 2/2  long only, lr=0.1, seed 0: " in result.stderr


def test_subsets_are_taken_of_the_given_edges(hrg):
    for name in (SMALL, ["study.yaml"]):
        args = ["--edges", "p2", "--subsets", "all", "--dry-run", "--no-calibrate", "--baseline", "none"]
        result = hrg("ablate", *name, *args)
        assert result.exit_code == 0, result.stderr
        assert "4 variants x" in result.stderr


def test_edges_that_every_variant_replaces_are_refused(hrg, folder):
    (folder / "s.yaml").write_text(STUDY.replace("[none, full, p3]", "[none, full - p1]"))
    for args, code in (([*SMALL, "--variants", "none,full - p1"], 2), (["s.yaml"], 1)):
        both = hrg("ablate", *args, "--edges", "p2", "--dry-run", "--no-calibrate")
        assert both.exit_code == code and both.stdout == ""
        assert "every variant sets 'skips.edges' itself, so that this value has no effect." in both.stderr
    args = ["--edges", "p2", "--dry-run", "--no-calibrate", "--json"]
    mixed = json.loads(hrg("ablate", *SMALL, "--variants", "none,hiresnet18", *args).stdout)["networks"]
    assert [row["label"] for row in mixed] == ["none", "hiresnet18"]
    kept = json.loads(hrg("ablate", *SMALL, "--variants", "none,p2", *args[2:]).stdout)["networks"]
    assert [row["parameters"] for row in mixed] == [row["parameters"] for row in kept]


@pytest.mark.parametrize(
    ("fields", "options", "settings"),
    [
        ("recipe: {lr: 0.01, epochs: 1}", ["--grid", "lr=0.1,0.2"], [{"recipe.lr": 0.1}, {"recipe.lr": 0.2}]),
        ("recipe: {lr: 0.01}", ["--grid", "recipe.lr=0.1,0.2"], [{"recipe.lr": 0.1}, {"recipe.lr": 0.2}]),
        ("grid: {recipe.lr: [1, 2]}", ["--grid", "lr=0.1,0.2"], [{"recipe.lr": 0.1}, {"recipe.lr": 0.2}]),
        ("grid: {lr: [1, 2]}", ["--lr", "0.1"], [{}]),
        ("grid: {lr: [1, 2]}", ["--grid", ""], [{}]),
        ("grid: {lr: [1, 2], params.block: [plain]}", ["block=basic", "--lr", "0.1"], [{}]),
        ("grid: {lr: [1, 2], block: [plain]}", ["block=basic"], [{"recipe.lr": 1}, {"recipe.lr": 2}]),
        (
            "changes: {block: basic}",
            ["--grid", "params.block=plain,basic"],
            [{"params.block": "plain"}, {"params.block": "basic"}],
        ),
        ("changes: {params.block: plain}", ["block=basic"], [{}]),
    ],
)
def test_an_option_replaces_the_value_of_its_field_wherever_the_file_has_it(hrg, folder, fields, options, settings):
    (folder / "s.yaml").write_text(f"network: hiresnet18\nvariants: [none]\nseeds: 1\ndata: cifar10\n{fields}\n")
    result = hrg("ablate", "s.yaml", *options, "--dry-run", "--no-calibrate", "--json")
    assert result.exit_code == 0, result.output
    found = [row["setting"] for row in json.loads(result.stdout)["networks"]]
    assert found == settings


def test_two_options_that_set_one_field_are_refused(hrg, folder):
    (folder / "s.yaml").write_text("network: hiresnet18\nvariants: [none]\nseeds: 1\nrecipe: {lr: 1}\n")
    both = hrg("ablate", "s.yaml", "--grid", "lr=0.1,0.2", "--lr", "0.1", "--dry-run", "--no-calibrate")
    assert both.exit_code == 1 and "grid.lr: 'lr' is set here and in 'recipe.lr'" in both.stderr
    nothing = hrg("ablate", *SMALL, "--grid", "", "--dry-run")
    assert nothing.exit_code == 2 and "nothing to compare" in nothing.stderr


def test_wrong_separators_and_names_of_variants(hrg):
    result = hrg("ablate", *SMALL, "--variants", "full;in", "--dry-run")
    assert result.exit_code == 2 and "Variants are separated by commas: 'full,in'." in result.stderr
    for names in ("inn", "full,inn"):
        result = hrg("ablate", *SMALL, "--variants", names, "--dry-run")
        assert result.exit_code == 2 and "Did you mean 'in'? Variants of 'hiresnet18': original, full," in result.stderr
    assert "is given twice" in hrg("ablate", *SMALL, "--variants", "full - p2,full - p2", "--dry-run").stderr


def test_a_wrong_recipe_on_the_command_line_names_its_option(hrg):
    words = ["--recipe", "optimizer=adm", "--recipe", "lrr=1"]
    for args in (["ablate", "study.yaml"], ["ablate", *SMALL, "--variants", "none"], ["train", *SMALL]):
        result = hrg(*args, *words, "-o", "out")
        assert result.exit_code == 2
        assert "--recipe optimizer=adm: expected 'adam', 'adamw' or 'sgd', got 'adm'." in result.stderr
        assert "--recipe lrr=1: there is no field 'lrr'. Did you mean 'lr'?" in result.stderr
    result = hrg("ablate", "study.yaml", "--baseline", "ful", "--dry-run")
    assert "baseline: there is no variant 'ful'" in result.stderr


def test_a_missing_file_is_compared_with_others_by_its_name(hrg, folder):
    assert "Did you mean" not in hrg("ablate", "network.yaml", "--dry-run").stderr
    assert "Did you mean 'study.yaml'?" in hrg("ablate", "stduy.yaml", "--dry-run").stderr


def test_a_dry_run_of_a_study_lists_all_and_writes_nothing(hrg, folder):
    before = sorted(path.name for path in folder.iterdir())
    result = hrg("ablate", "study.yaml", "--dry-run", "--controls", "random-edges:p3", "-o", "out")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows[2:5]] == ["none", "full", "p3"] and rows[5][:4] == ["1", "random", "edge", "(p3)"]
    assert (
        "4 variants x 1 seed, 4 different networks: 4 runs on digits, 1 epoch each.\n0 done, 4 runs to train."
        in result.stderr
    )
    assert "Disk: about " in result.stderr and "by itself" not in result.stderr
    assert "Time: about " in result.stderr and "images per second" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_dry_run_prints_json(hrg):
    args = ["--dry-run", "--no-calibrate", "--json", "--grid", "lr=0.01,0.003", "--variants", "none,original,full"]
    result = hrg("ablate", "study.yaml", *args)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["runs"] == {"unique": 4, "done": 0, "missing": 4} and found["baseline"] == "none"
    assert [(row["label"], row["same_as"]) for row in found["networks"][:3]] == [
        ("none", None),
        ("original", "none"),
        ("full", None),
    ]
    assert [row["setting"] for row in found["networks"][::3]] == [{"recipe.lr": 0.01}, {"recipe.lr": 0.003}]
    assert found["disk_bytes"] > 0 and found["stacking"] is False and found["time_s"] is None


def test_runs_are_stacked_on_request(hrg, folder):
    args = ["ablate", "study.yaml", "--seeds", "2", "--jobs", "1", "--stack", "4"]
    dry = hrg(*args, "--dry-run", "--no-calibrate")
    assert "\n6 runs as 2 programs of at most 3 (stacked).\n" in dry.stderr, dry.stderr
    trained = hrg(*args, "-o", "out")
    assert trained.exit_code == 0, trained.stderr
    assert "6 runs.\n6 runs as 2 programs of at most 3 (stacked).\n" in trained.stderr
    status = json.loads(hrg("status", "out", "--json").stdout)
    assert [(run["state"], run["replicas"]) for run in status["runs"]] == [("complete", 3)] * 6
    assert "backend stacked" in hrg("report", "out").stdout
    # the frozen plan decides; without a folder it is as requested
    again = ["ablate", "study.yaml", "--seeds", "3", "--jobs", "1", "--dry-run", "--no-calibrate", "--json"]
    found = json.loads(hrg(*again, "-o", "out").stdout)
    assert (found["backend"], found["stack"], found["stacking"], found["time_s"]) == ("stacked", 4, True, None)
    found = json.loads(hrg(*again, "--stack", "auto").stdout)
    assert (found["backend"], found["stack"], found["stacking"], found["measured"]) == ("eager", 1, False, [])


def test_a_dry_run_considers_the_memory(hrg, monkeypatch):
    monkeypatch.setattr(prepare, "memory_budget", lambda devices, workers: 0)
    dry = hrg("ablate", "study.yaml", "--seeds", "2", "--stack", "4", "--dry-run", "--no-calibrate")
    assert "Each run is computed by itself: no two runs can be stacked" in dry.stderr


def step(key, epoch, epochs=10, state="running", reused=False):
    request = dataclasses.replace(next(iter(study(recipe=Recipe(epochs=epochs)).requests.values())), label=key)
    done = works.epoch(epoch) if state == "running" else None
    return Progress(0, 8, key, key, request, state, done, reused=reused)


def test_the_remaining_time_counts_epochs_since_the_first():
    # stacks of 4 on two workers, an epoch each in 10 s: 8 epochs in that time
    stacks = [[f"{worker}{run}" for run in range(4)] for worker in "ab"]
    clock = RemainingTime({key: 10 for keys in stacks for key in keys})
    for epoch in (1, 2, 3):
        for late, keys in enumerate(stacks):
            for key in keys:
                left = clock.left_s(step(key, epoch), 100 + 10 * epoch + late)
        assert left == (0 if epoch == 1 else pytest.approx((80 - 8 * epoch) / 8 * 10, rel=0.11))
    # a run that is resumed after its 5th epoch and repeats one; another was finished before
    clock = RemainingTime({"a": 5, "b": 10, "c": 10})
    steps = [(step("c", 1, state="complete", reused=True), 0), (step("a", 6), 50), (step("a", 7), 60)]
    lefts = [clock.left_s(step, now_s) for step, now_s in steps]
    assert lefts == [0, 0, pytest.approx((3 + 10) * 10)]
    assert clock.left_s(step("a", 7), 70) == pytest.approx((3 + 10) * 20)
    assert clock.left_s(step("a", 0, state="diverged"), 80) == pytest.approx(10 * 30)
    # runs of one epoch
    clock = RemainingTime(dict.fromkeys("abcd", 1))
    for number, key in enumerate("abcd"):
        left = clock.left_s(step(key, 1, epochs=1), 10 * number)
        clock.left_s(step(key, 1, epochs=1, state="complete"), 10 * number)
        assert left == 10 * (3 - number) * (number > 0)


def test_a_dry_run_names_the_workers_of_the_executor(hrg):
    args = ["ablate", "study.yaml", "--seeds", "20", "--dry-run", "--no-calibrate", "--executor"]
    assert ". Up to 16 Slurm jobs at one time." in hrg(*args, "slurm").stderr
    assert json.loads(hrg(*args, "slurm", "--jobs", "4", "--json").stdout)["workers"] == 4
    assert ". As many workers as the Ray cluster has room for." in hrg(*args, "ray").stderr
    assert json.loads(hrg(*args, "ray", "--json").stdout)["workers"] is None


@pytest.mark.slow
def test_a_dry_run_measures_the_fastest_execution_plan(hrg):
    timed = hrg("ablate", "study.yaml", "--stack", "4", "--seeds", "2", "--jobs", "1", "--dry-run")
    assert "(stacked)" in timed.stderr and "Time: about " in timed.stderr
    args = ["ablate", "study.yaml", "--stack", "auto", "--jobs", "1", "--threads", "1", "--dry-run", "--json"]
    result = hrg(*args)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    (alone,) = found["measured"]  # the study is too short for more
    assert (alone["workers"], alone["threads"], alone["backend"], alone["stack"]) == (1, 1, "eager", 1)
    assert alone["images_s"] > 0 and found["time_s"] == alone["time_s"] > 0


def test_transitions_are_ablated_as_skips_are(hrg, folder):
    (folder / "states.yaml").write_text(TEXT)
    args = ["states.yaml", "--group", "transitions", "--seeds", "1", "--dry-run", "--no-calibrate"]
    chosen = hrg("ablate", *args, "--variants", "adjacent,all - lateral", "--grid", "time.steps=3,5")
    assert chosen.exit_code == 0, chosen.stderr
    assert chosen.stdout.splitlines()[0].split()[:2] == ["time.steps", "variant"]
    assert "2 variants x 2 settings x 1 seed, 3 different networks: 3 runs on digits, 80 epochs each." in chosen.stderr
    assert "Warning: adjacent, time.steps=3: states.yaml:1" in chosen.stderr
    listed = hrg("ablate", *args, "--edges", "transitions=all - s1>s2", "--subsets", "leave-one-out", "--json")
    data = json.loads(listed.stdout)
    assert [row["label"] for row in data["networks"]][:2] == ["all", "without s1>s1"]
    assert data["remarks"][0].startswith("Left out: without s1>s3: no path leads from the input")
    few = hrg("ablate", *args, "--variants", "all", "--grid", "time.steps=1,4")
    assert few.exit_code == 1 and "in 'time.steps=1', 1 step is too few" in few.stderr


def test_options_override_the_file(hrg):
    args = [
        "width=3",
        "--subsets",
        "one-at-a-time",
        "--seeds",
        "3,1",
        "--recipe",
        "optimizer=sgd",
        "--baseline",
        "none",
    ]
    result = hrg("ablate", "study.yaml", *args, "--dry-run", "--no-calibrate")
    assert result.exit_code == 0, result.stderr
    assert "7 variants x 2 seeds, 7 different networks: 14 runs" in result.stderr
    small = hrg("ablate", "study.yaml", "--subsets", "one-at-a-time", "--dry-run", "--no-calibrate")
    assert result.stdout.splitlines()[2] != small.stdout.splitlines()[2]


@pytest.mark.parametrize(("name", "networks"), [("table2", 8), ("table1-tiny-imagenet", 9)])
def test_a_dry_run_of_a_shipped_study_needs_no_data(hrg, monkeypatch, name, networks):
    monkeypatch.delenv("HRG_DATA", raising=False)
    result = hrg("ablate", name, "--dry-run", "--no-calibrate")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == networks + 2 and f": {5 * networks} runs" in result.stderr
    assert "The data are missing" in result.stderr
    lacking = hrg("ablate", name, "-o", "out")
    assert lacking.exit_code == 2 and "there is no folder" in lacking.stderr


def test_the_shipped_studies_are_listed(hrg):
    rows = json.loads(hrg("list", "studies", "--json").stdout)["studies"]
    assert {"digits", "table1-cifar10", "table1-cifar100", "table1-tiny-imagenet", "table2"} <= {
        r["name"] for r in rows
    }
    assert all(row["description"] for row in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to compare"),
        (["--variants", "none", "--subsets", "all"], "Give one"),
        (["--subsets", "nosuch"], "there is no subset rule 'nosuch'"),
        (["--variants", "none,none"], "'none' is given twice"),
        (["--variants", "none,ful"], "Did you mean 'full'"),
        (["--variants", "none", "--data", "nosuch"], "there is no data set 'nosuch'"),
        (["--variants", "none", "--seeds", "0"], "must be a number of seeds"),
        (["--variants", "none", "--seeds", "a"], "must be a number of seeds"),
        (["--variants", "none", "--seeds", "1,1"], "a seed is given twice"),
        (["--variants", "none", "--lr", "0"], "expected a number greater than 0"),
        (["--variants", "none", "--epochs", "-1"], "--epochs"),
        (["--variants", "none", "--batch-size", "5000"], "the batch size is 5,000, but data"),
        (["--variants", "none", "--recipe", "optimizer=sdg"], "'adam', 'adamw' or 'sgd'"),
        (["--variants", "none", "--controls", "ajusted"], "Did you mean 'adjusted'"),
        (["--variants", "none,full", "--controls", "random-edges"], "no random edges for 'full'"),
        (["--variants", "none", "--grid", "lr"], "Write a field once, with its values"),
        (["--variants", "none", "--grid", "lr=1,-1"], "expected a number greater than 0, got -1"),
        (["--variants", "none", "--baseline", "full"], "there is no variant 'full'"),
        (["--variants", "none", "--download"], "cannot be downloaded"),
        (["--variants", "none", "--device", "cuda:99"], "is a GPU"),
        (["--variants", "none", "--executor", "loca"], "Did you mean 'local'"),
        (["--variants", "none", "--address", "auto"], "Ray cluster"),
        (["--variants", "none", "--stack", "1"], "must be 'auto', 'off' or a number of runs (2 to 10,000), not '1'"),
        (["--variants", "none", "--stack", "8", "--executor", "ray"], "workers of a Ray cluster compute each run"),
        (["--variants", "none", "--json"], "requires '--dry-run'"),
        (["--variants", "none", "head.classes=7"], "training requires one output of 10 values"),
    ],
)
def test_errors_are_wrong_usage_and_write_nothing(hrg, folder, args, message):
    result = hrg("ablate", *SMALL, *args, "-o", "out")
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr and not (folder / "out").exists()
    if "--json" in args:
        assert message in json.loads(result.stdout)["error"]
    else:
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("hiresnet18", "'--variants none,full', '--subsets leave-one-out', or '--grid K=V,W'"),
        ("unet", "'--variants none,unet', '--subsets leave-one-out', or '--grid K=V,W'"),
        ("frnn3", "'--group transitions --subsets family' or '--grid K=V,W'"),
        ("resnet18", "'--grid K=V,W'"),
    ],
)
def test_what_a_network_offers_to_compare_is_named(hrg, spec, options):
    assert hrg("ablate", spec, "--dry-run").stderr.strip() == f"hrg ablate: nothing to compare: give {options}."


def test_training_requires_a_folder(hrg):
    result = hrg("ablate", "study.yaml")
    assert result.exit_code == 2 and "'--output DIR'" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("full, p3", "full, p9", "study.yaml:5:24: skips.edges: 'p9' selects nothing"),
        ("epochs: 1,", "epochs: 0,", "study.yaml:8:18: recipe.epochs: expected a number of at least 1, got 0."),
        ("baseline", "basline", "study.yaml:6:1: unknown key 'basline'."),
        ("hiresnet18\n", "hiresnt18\n", "study.yaml:3:10: network: 'hiresnt18': there is no file"),
        ("width: 2,", "width: 2, classes: 3,", "training requires one output of 10 values"),
    ],
)
def test_errors_of_a_file_have_positions(hrg, folder, old, new, message):
    (folder / "study.yaml").write_text(STUDY.replace(old, new))
    for more in (["--dry-run", "--no-calibrate"], ["-o", "out"]):
        result = hrg("ablate", "study.yaml", *more)
        assert result.exit_code == 1 and message in result.stderr, result.stderr
        assert "    " in result.stderr and "^" in result.stderr
    assert not (folder / "out").exists()


def test_a_read_only_folder_is_reported(hrg, folder):
    (folder / "out").write_text("")
    result = hrg("ablate", "study.yaml", "-o", "out")
    assert result.exit_code in (1, 2) and "out" in result.stderr
