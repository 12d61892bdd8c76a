import dataclasses
import shutil
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep import NetworkInfo, read_results
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train import Recipe, train
from hiresnet_graph.train.single import resume_run
from tests.sweep.works import Inline, Quick, record, study


def test_results_are_those_of_the_study(tmp_path: Path) -> None:
    plan = study(["none", "nan", "fails"], [0, 1])
    networks = (
        dataclasses.replace(plan.networks[0], setting={"recipe.lr": 0.01, "width": 8}, edges=("a>b", "b>c")),
        dataclasses.replace(plan.networks[1], isomorphic_to="none"),
        plan.networks[2],
    )
    plan = dataclasses.replace(plan, networks=networks, baseline="none", subsets_of=("a>b", "b>c"))
    with Ledger.open(tmp_path) as ledger, pytest.raises(RunError):
        ledger.join(plan)
        train_all(ledger, plan.requests, Inline(), work=Quick)
    results = read_results(tmp_path)
    assert results.networks == networks
    assert list(results.networks[0].setting) == ["recipe.lr", "width"]
    for name in ("name", "architecture", "data", "recipe", "baseline", "subsets_of"):
        assert getattr(results, name) == getattr(plan, name)
    assert not results.is_search
    assert [(row.network, row.seeds, row.key) for row in results.rows] == [
        (row.network, row.seeds, row.key) for row in plan.rows
    ]
    assert [row.state for row in results.rows] == ["complete"] * 2 + ["diverged"] * 2 + ["failed"] * 2
    assert [row.message for row in results.rows] == [""] * 4 + ["the disk is full."] * 2
    assert [row.record is None for row in results.rows] == [False] * 4 + [True] * 2
    assert results.rows[2].record == record(plan.requests[plan.rows[2].key], outcome="diverged")


def test_copied_and_read_only_folders_are_read(tmp_path: Path) -> None:
    plan = study()
    with Ledger.open(tmp_path / "study") as ledger:
        ledger.join(plan)
        train_all(ledger, plan.requests, Inline(), work=Quick)
        ledger.commit()
        before = read_results(tmp_path / "study")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "study" / "ledger.sqlite", tmp_path / "copy")
    (tmp_path / "copy" / "ledger.sqlite").chmod(0o444)
    assert read_results(tmp_path / "copy") == before
    assert not read_status(tmp_path / "copy").is_alive
    # and reading writes nothing
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ledger.sqlite"]


def test_a_single_run_is_a_study_of_one_row(tiny: hrg.Architecture, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=400)
    trained = train(tiny.variant("full"), out=tmp_path, recipe=recipe, seed=3)
    results = read_results(tmp_path)
    assert results.networks == (NetworkInfo("full", {}, trained.plan, trained.parameters, trained.macs),)
    (row,) = results.rows
    assert (row.seeds, row.state, row.record, row.attempts) == (trained.seeds, "complete", trained, 1)
    assert (results.architecture, results.data, results.recipe["epochs"]) == ("tiny", "digits", 1)
    (run,) = read_status(tmp_path).runs
    assert (run.state, run.epoch, run.epochs) == ("complete", 1, 1)
    assert run.validation_accuracy == trained.epochs[-1].validation_accuracy
    (tmp_path / "result.json").unlink()
    status = read_status(tmp_path)
    assert (status.runs[0].state, status.runs[0].epoch) == ("waiting", 1)
    hint = f"It is not being trained. Resume it with: hrg train --resume {tmp_path}"
    assert status.resume_hint == hint
    with pytest.raises(RunError) as caught:
        read_results(tmp_path)
    assert str(caught.value) == f"{tmp_path}: the run is not finished, so it has no result yet. {hint}"
    Ledger.open(tmp_path / "study").close()
    shutil.copytree(tmp_path, tmp_path / "study" / "runs" / "full", ignore=lambda *_: ["study"])
    hint = read_status(tmp_path / "study" / "runs" / "full").resume_hint
    assert hint == f"It belongs to a study: hrg status {tmp_path / 'study'}"


def test_a_folder_without_results_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no such folder\. 'hrg ablate .*nowhere' creates .* 'hrg train .*nowhere' one"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no study and no finished run\. 'hrg ablate' and 'hrg train' create one"):
        read_results(tmp_path)
    Ledger.open(tmp_path).close()  # created without a study
    for read in (read_results, read_status):
        with pytest.raises(RunError, match="holds no study"):
            read(tmp_path)
    (tmp_path / "run").mkdir()
    for read in (read_results, read_status, resume_run):
        with pytest.raises(RunError, match=f"Did you mean '{tmp_path / 'run'}'"):
            read(tmp_path / "runs")
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"result\.json: .*This is not a result of this version"):
        read_results(tmp_path / "run")
