"""`hrg analyze contributions`, `lesion` and `gradients`."""

import csv
import json
import shutil

import pytest

from tests.analysis.small import TEXT


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch, small_study):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_study, tmp_path / "study")
    (tmp_path / "small.yaml").write_text(TEXT)
    return tmp_path / "study"


def test_contributions_of_a_study_are_printed_drawn_and_saved(hrg, study):
    result = hrg("analyze", "contributions", "study", "--plot", "figure.svg")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].split()[:5] == ["variant", "at", "slot", "from", "kind"]
    assert "stem>stage2" in result.stdout and "small on digits, 359 test images" in " ".join(result.stdout.split())
    assert result.stderr == ("Saved study/analysis/contributions.json for 'hrg report --html'.\nWrote figure.svg.\n")
    assert (study.parent / "figure.svg").read_text().startswith("<svg")
    saved = json.loads((study / "analysis" / "contributions.json").read_text())
    assert saved == json.loads(hrg("analyze", "contributions", "study", "--json").stdout)
    assert hrg("status", "study").exit_code == 0 and hrg("report", "study").exit_code == 0


def test_runs_whose_weights_are_elsewhere_are_left_out(hrg, study):
    """As in a folder with the ledger of another machine."""
    (study / "runs" / "full-seed0" / "model.safetensors").unlink()
    left = sorted(path.name for path in (study / "runs").glob("full-*") if path.name != "full-seed0")
    result = hrg("analyze", "contributions", "study", "--json")
    assert "Left out, since their weights are not in the folder: full-seed0." in result.stderr and left
    rows = json.loads(result.stdout)["rows"]
    assert {row["n"] for row in rows if row["variant"] == "full"} == {len(left)}
    shutil.rmtree(study / "runs")
    result = hrg("analyze", "contributions", "study")
    assert result.exit_code == 2 and "finished runs are not in its folder 'runs'; the ledger has" in result.stderr


def test_the_normalisation_of_weights_from_outside_is_said(hrg, study):
    weights = "study/runs/full-seed0/model.safetensors"
    command = ("analyze", "lesion", "small.yaml@full", "--weights", weights, "--part", "validation")
    said = hrg(*command).stderr
    assert said.startswith("Images are normalised with the mean (0.30") and "of the training images." in said
    assert "need theirs: '--data digits:mean=M,std=S'." in said
    assert "normalised" not in hrg(*command, "--data", "digits:mean=0,std=1").stderr
    assert "normalised" not in hrg(*command[:4], "study/runs/full-seed0").stderr


def test_lesions_of_a_run_and_of_its_weights_agree(hrg, study):
    run = hrg("analyze", "lesion", "study/runs/full-seed0", "--random", "2", "--with", "mean", "-f", "csv")
    weights = "study/runs/full-seed0/model.safetensors"
    args = ("--weights", weights, "--data", "digits", "--random", "2", "--with", "mean", "-f", "csv")
    assert run.exit_code == 0, run.stderr
    assert hrg("analyze", "lesion", "small.yaml@full", *args).stdout == run.stdout
    assert run.stderr == "" and not (study / "runs" / "full-seed0" / "analysis").exists()


def test_lesions_of_shortcuts(hrg, study):
    """Zeros for a shortcut give the accuracy of the block without one."""
    run, weights = "study/runs/original-seed0", ("--weights", "study/runs/original-seed0/model.safetensors")
    result = hrg("analyze", "lesion", run, "--shortcuts", "-f", "csv")
    assert result.exit_code == 0, result.stderr
    rows = {row["edges"]: float(row["accuracy_mean"]) for row in csv.DictReader(result.stdout.splitlines())}
    assert list(rows) == ["intact", "stage1.block1.shortcut", "stage2.block1.shortcut"]
    plain = hrg(
        *("analyze", "lesion", "small.yaml@original", "stage1.block=plain", *weights),
        *("--shortcuts", "-f", "csv"),
    )
    found = {row["edges"]: float(row["accuracy_mean"]) for row in csv.DictReader(plain.stdout.splitlines())}
    assert found["intact"] == rows["stage1.block1.shortcut"] < rows["intact"]
    assert list(found) == ["intact", "stage2.block1.shortcut"]
    both = json.loads(hrg("analyze", "lesion", run, "--shortcuts", "--pairs", "--json").stdout)
    assert [row["edges"] for row in both["rows"]] == ["intact", "stage1.block1.shortcut + stage2.block1.shortcut"]
    caption = " ".join(hrg("analyze", "lesion", "small.yaml@full", *weights, "--reinit").stdout.split())
    assert "test images, with the weights of model.safetensors." in caption


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["contributions", "nothing"], 1, "nothing: there is no such folder."),
        (["contributions", "."], 1, ".: holds no study and no finished run."),
        (["gradients", "nothing"], 1, "nothing: there is no such folder."),
        (["gradients", "small.yaml"], 2, "'small.yaml' is a file, without a record of training."),
        (["lesion", "study/runs/original-seed0"], 2, "'small' has no edges beside the flow, so there is nothing to"),
        (["lesion", "study", "--edges", "stem>stage7"], 2, "edges 'stem>stage7', character 1: 'stem>stage7' selects"),
        (["lesion", "study", "--edges", "stem>stag2"], 2, "Did you mean 'stem>stage2'?"),
        (["lesion", "study", "--edges", "stem>stag2"], 2, "hrg analyze lesion: 'full': edges 'stem>stag2'"),
        (["lesion", "study", "--part", "tset"], 2, "Did you mean 'test'?"),
        (["lesion", "study", "--edges", "none"], 2, "edges 'none' selects no edge of 'small'."),
        (["lesion", "study", "--edges", "in", "--pairs"], 2, "'--edges' and '--pairs' both select what is replaced."),
        (["lesion", "study", "--edges", "in", "--shortcuts"], 2, "'--edges' and '--shortcuts' both select what is"),
        (["lesion", "study/runs/original-seed0"], 2, "add '--shortcuts' for those of its blocks, or name an edge"),
        (["lesion", "study", "--with", "noise"], 2, "'zero', 'mean', 'resample'"),
        (["contributions", "study", "--plot", "a.gif"], 2, "'a.gif': a figure is written as .svg, .pdf or .png."),
        (["contributions", "study", "--data", "digits"], 2, "--data: 'study' has its own network and data."),
        (["contributions", "small.yaml", "--data", "digits"], 2, "Give a spec with its weights: 'small.yaml --weights"),
        (["contributions", "study", "width=2"], 2, "width=2: 'study' has its own network and data."),
        (["contributions", "study", "--reinit"], 2, "it requires '--weights FILE'."),
        (
            ["contributions", "study/runs/full-seed0/model.safetensors"],
            2,
            "is a file of weights, not the folder of a run",
        ),
        (["contributions", "small.yaml"], 2, "'small.yaml' is a spec, not the folder of a run or a study."),
        (["lesion", "small.yaml@full"], 2, "'small.yaml@full' is a spec, not the folder of a run or a study."),
        (["readout", "frnn3", "width=2"], 2, "'frnn3' is a spec, not the folder of a run or a study."),
        (
            ["contributions", "small.yaml", "--weights", "lost.safetensors"],
            1,
            "lost.safetensors: cannot be read: No such",
        ),
        (["contributions", "small.yaml", "--weights", "study"], 1, "study holds a study, which has no weights."),
        (
            ["contributions", "small.yaml@original", "--weights", "study/runs/full-seed0"],
            1,
            "these weights belong to another network: 'edges.",
        ),
    ],
)
def test_wrong_input_is_one_message(hrg, args, code, message):
    result = hrg("analyze", *args)
    assert result.exit_code == code and message in " ".join(result.stderr.split()), result.stderr
    assert result.stdout == ""


def test_an_unfinished_run_and_missing_test_images_are_messages(hrg, study):
    (study / "runs" / "full-seed0" / "result.json").unlink()
    result = hrg("analyze", "contributions", "study/runs/full-seed0")
    assert result.exit_code == 1 and "the run is not finished, so it has no result yet." in result.stderr


def test_gradients_of_a_study_are_printed_drawn_and_saved_without_its_data(hrg, study):
    for settings in study.glob("runs/*/run.json"):
        settings.write_text(settings.read_text().replace('"kind":"digits"', '"kind":"lost"'))
    result = hrg("analyze", "gradients", "study", "--plot", "figure.pdf")
    assert result.exit_code == 0 and result.stdout.splitlines()[2].split()[:3] == ["original", "stem", "1"]
    assert result.stderr == "Saved study/analysis/gradients.json for 'hrg report --html'.\nWrote figure.pdf.\n"
    rows = hrg("analyze", "gradients", "study/runs/full-seed0", "-f", "csv").stdout.splitlines()
    assert rows[0].startswith("variant,block,epoch,n,norm_mean") and len(rows) == 1 + 3 * 7


def test_gradients_that_were_not_recorded_are_a_message(hrg, study):
    for path in study.glob("runs/*/result.json"):
        record = json.loads(path.read_text())
        for epoch in record["epochs"]:
            epoch["gradient_norms"] = None
        path.write_text(json.dumps(record))
    result = hrg("analyze", "gradients", "study/runs/full-seed0")
    assert (
        result.exit_code == 2
        and "training recorded none. Train it with '--recipe record_gradients=true'" in " ".join(result.stderr.split())
    )


def test_a_changed_network_is_analysed_with_weights_that_fit_in_part(hrg, study):
    weights = "study/runs/original-seed0"
    args = ("contributions", "small.yaml@full", "--weights", weights, "--json")
    assert hrg("analyze", *args).exit_code == 1
    result = hrg("analyze", *args, "--reinit")
    assert result.exit_code == 0 and "lacks 'edges.stage1__stage2." in result.stderr
    changed = hrg(
        "analyze", "contributions", "small.yaml", "skips.edges=in", "--weights", weights, "--reinit", "--json"
    )
    assert changed.exit_code == 0, changed.stderr
    ours, theirs = (json.loads(one.stdout)["rows"] for one in (result, changed))
    skips = [{row["edge"] for row in rows if row["kind"] == "skip"} for rows in (ours, theirs)]
    assert skips == [{"stem>stage1", "stage1>stage2", "stem>stage2"}, {"stem>stage1", "stem>stage2"}]
