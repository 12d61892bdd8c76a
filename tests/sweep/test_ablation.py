import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.sweep import Results, Study, ablate
from hiresnet_graph.sweep.ablation import Interrupted, Progress
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.prepare import PreparedStudy, prepare_study
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.train import Recipe, Seeds, train
from tests.sweep.works import Inline

QUICK = Recipe(epochs=1, batch_size=400)


def study(arch: hrg.Architecture, *variants: str, seeds: Any = (0, 1), **others: Any) -> Study:
    return Study(network=arch, variants=variants, seeds=seeds, **{"recipe": QUICK, **others})


def results(folder: Path) -> dict[str, object]:
    """The files of all runs of a study, without what may differ between equal runs."""
    found = {}
    for path in sorted(folder.glob("runs/*/result.json")):
        record = json.loads(path.read_text())
        for name in ("machine", "time_s"):
            del record[name]
        for epoch in record["epochs"]:
            del epoch["time_s"]
        weights = [(path.parent / f"{name}.safetensors").read_bytes() for name in ("model", "last")]
        found[path.parent.name] = (record, weights, (path.parent / "spec.yaml").read_text())
    return found


def states(found: Results) -> list[tuple[str, Seeds, str]]:
    return [(found.networks[row.network].label, row.seeds, row.state) for row in found.rows]


def test_results_do_not_depend_on_workers_or_other_networks(tiny: hrg.Architecture, tmp_path: Path) -> None:
    alone = ablate(study(tiny, "full", seeds=[1]), out=tmp_path / "a", executor=Inline())
    shared = ablate(study(tiny, "none", "full"), out=tmp_path / "b", jobs=2)
    one = ablate(study(tiny, "p2", "full", seeds=[2, 1]), out=tmp_path / "c", executor=Inline())
    assert states(shared) == [(label, Seeds(seed, seed), "complete") for label in ("none", "full") for seed in (0, 1)]
    assert alone.rows[0].key == shared.rows[3].key == one.rows[3].key
    assert results(tmp_path / "a")["full-seed1"] == results(tmp_path / "b")["full-seed1"]
    assert results(tmp_path / "a")["full-seed1"] == results(tmp_path / "c")["full-seed1"]
    assert list(results(tmp_path / "b")) == ["full-seed0", "full-seed1", "none-seed0", "none-seed1"]
    # and those of a single run are the same
    train(tiny.with_edges("full"), out=tmp_path / "d/runs/full-seed1", recipe=QUICK, seed=1, label="full")
    assert results(tmp_path / "d")["full-seed1"] == results(tmp_path / "a")["full-seed1"]


def test_without_its_ledger_a_study_trains_nothing_again(tiny: hrg.Architecture, tmp_path: Path) -> None:
    def requested(edges: str) -> Study:
        return study(tiny, seeds=[0]).model_copy(update={"variants": {"a": {"edges": edges}}})

    for edges in ("full", "none"):  # the second run has a folder with a suffix
        last = ablate(requested(edges), out=tmp_path, executor=Inline(), accept_changes=True)
    before = results(tmp_path)
    assert len(before) == 2
    (tmp_path / "ledger.sqlite").unlink()
    assert prepare_study(requested("none"), tmp_path).done == 1
    started: list[PreparedStudy] = []
    seen: list[Progress] = []
    again = ablate(requested("none"), out=tmp_path, executor=Inline(), started=started.append, progress=seen.append)
    assert seen == [] and started[0].done == 1 and results(tmp_path) == before
    assert [row.record for row in again.rows] == [row.record for row in last.rows]


def test_no_run_is_trained_twice_and_a_study_can_be_extended(tiny: hrg.Architecture, tmp_path: Path) -> None:
    seen: list[Progress] = []
    started: list[PreparedStudy] = []
    first = ablate(study(tiny, "none", seeds=[0]), out=tmp_path, executor=Inline())
    written = (tmp_path / "runs/none-seed0/result.json").stat().st_mtime_ns
    larger = study(tiny, "in", "none")
    both = ablate(larger, out=tmp_path, executor=Inline(), started=started.append, progress=seen.append)
    assert (tmp_path / "runs/none-seed0/result.json").stat().st_mtime_ns == written
    assert both.rows[2].record == first.rows[0].record and {state for *_, state in states(both)} == {"complete"}
    assert [(step.total, step.done) for step in started] == [(4, 1)]
    assert sorted(step.name for step in seen if step.record) == ["in-seed0", "in-seed1", "none-seed1"]
    assert [step.done for step in seen if step.record] == [2, 3, 4]
    # again: nothing to train, so no worker is needed
    again = ablate(larger, out=tmp_path, executor=Failing(), started=started.append)
    assert again == both and started[-1].done == 4
    # a smaller study leaves out the other rows, and keeps them
    smaller = ablate(study(tiny, "none", seeds=[1]), out=tmp_path, executor=Failing(), started=started.append)
    assert states(smaller) == [("none", Seeds(1, 1), "complete")]
    assert started[-1].messages == ("3 runs of an earlier plan are kept, and left out of the results.",)
    assert ablate(larger, out=tmp_path, executor=Failing()) == both


class Failing(Inline):
    """An executor that must not be used."""

    def submit(self, task: object) -> None:
        raise AssertionError("no run should be trained")


def test_equal_networks_share_runs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    found = ablate(study(tiny, "original", "none", "p2", "stem>stage2", seeds=1), out=tmp_path, executor=Inline())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["original-seed0", "p2-seed0"]
    assert [row.record for row in found.rows[::2]] == [row.record for row in found.rows[1::2]]
    assert [network.same_as for network in found.networks] == ["", "original", "", "p2"]
    # also in a later call with the other label only
    later = ablate(study(tiny, "stem>stage2", seeds=1), out=tmp_path, executor=Failing())
    assert later.rows[0].record == found.rows[3].record


def test_a_grid_and_separate_seeds_give_one_row_each(tiny: hrg.Architecture, tmp_path: Path) -> None:
    wanted = study(tiny, "none", "full", seeds={"init": 2, "data": [5]}, grid={"lr": [0.01, 0.1]}, baseline="full")
    found = ablate(wanted, out=tmp_path, executor=Inline())
    assert found.baseline == "full" and len(found.networks) == 4 and len(found.rows) == 8
    for row in found.rows:
        assert row.record is not None
        assert (row.record.recipe.lr, row.record.seeds) == (found.networks[row.network].setting["recipe.lr"], row.seeds)
    accuracies = {row.seeds: row.record.test_accuracy for row in found.rows[:2] if row.record}
    assert set(accuracies) == {Seeds(0, 5), Seeds(1, 5)} and len(set(accuracies.values())) == 2


def test_results_have_the_edges_of_subsets(tiny: hrg.Architecture, tmp_path: Path) -> None:
    found = ablate(Study(network=tiny, subsets="leave-one-out", seeds=1, recipe=QUICK), out=tmp_path, executor=Inline())
    assert found.subsets_of == ("stem>stage1", "stage1>stage2", "stem>stage2") and found.baseline == "all"
    assert [len(network.edges) for network in found.networks] == [3, 2, 2, 2]


def test_other_starting_weights_are_named(tiny: hrg.Architecture, tmp_path: Path) -> None:
    for seed in (1, 2):
        save_file(dict(tiny.build(seed).state_dict()), tmp_path / f"{seed}.safetensors")
    out, first, second = tmp_path / "study", str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")
    requested = study(tiny, "original", seeds=1, weights=first)
    ablate(requested, out=out, executor=Inline())
    save_file(dict(tiny.build(3).state_dict()), tmp_path / "3.safetensors")
    for change, message in (
        ({"weights": None}, f"weights was {first}, now random"),
        ({"weights": second}, f"weights was {first}, now {second}"),
        ({"weights": None, "recipe": QUICK.model_copy(update={"record_gradients": True})}, f"weights was {first}, now"),
    ):
        refusal = prepare_study(requested.model_copy(update=change), out).refusal
        assert f"{out} holds another run as 'original' ({message}" in refusal and "--accept-changes" in refusal
    (tmp_path / "3.safetensors").rename(first)
    refusal = prepare_study(requested, out).refusal
    assert f"holds another run as 'original' (the weights in {first} were different). Choose" in refusal


def test_finished_runs_without_norms_of_gradients_are_counted(tiny: hrg.Architecture, tmp_path: Path) -> None:
    recording = QUICK.model_copy(update={"record_gradients": True})

    def messages(**changes: Any) -> str:
        return " ".join(prepare_study(study(tiny, "full", **{"seeds": 1, **changes}), tmp_path).messages)

    ablate(study(tiny, "full", seeds=1), out=tmp_path, executor=Inline())
    assert "record_gradients" not in messages()
    assert "1 finished run was trained without 'record_gradients', and it is not trained" in messages(recipe=recording)
    ablate(study(tiny, "full", recipe=recording), out=tmp_path, executor=Inline())
    assert "1 finished run was trained without" in messages(recipe=recording, seeds=(0, 1))
    assert messages(recipe=recording, seeds=[1]) == "1 run of an earlier plan is kept, and left out of the results."
    (tmp_path / "ledger.sqlite").unlink()
    assert "1 finished run was trained without" in messages(recipe=recording, seeds=(0, 1))
    assert messages(recipe=recording, seeds=[1]) == ""


def test_a_changed_study_is_refused_unless_accepted(tiny: hrg.Architecture, tmp_path: Path) -> None:
    ablate(study(tiny, "none", seeds=1), out=tmp_path, executor=Inline())
    before = results(tmp_path)
    for changed, message in (
        (
            study(tiny, "none", seeds=1, recipe=Recipe(epochs=1, batch_size=200)),
            r"another recipe \(batch_size=400, now 200",
        ),
        (study(tiny.override({"width": 3}), "none", seeds=1), "another network as 'none'"),
        (study(tiny.override({"input.height": 6}), "none", seeds=1), "other data|other images"),
    ):
        with pytest.raises(UsageError, match=message):
            ablate(changed, out=tmp_path, executor=Failing())
        assert results(tmp_path) == before
    wider = study(tiny.override({"width": 3}), "none", seeds=1)
    found = ablate(wider, out=tmp_path, executor=Inline(), accept_changes=True)
    assert found.networks[0].parameters < tiny.with_edges("none").cost().parameters and len(found.rows) == 1
    assert read_status(tmp_path).outside == 1
    assert before.items() <= results(tmp_path).items()


def test_invalid_requests_write_nothing(tiny: hrg.Architecture, tmp_path: Path) -> None:
    none = study(tiny, "none")
    for wrong, message in (
        ({"jobs": 0}, "jobs: must be a number from 1 to 10,000, not 0"),
        ({"threads": 0}, "threads: must be a number from 1 to 1,024, not 0"),
        ({"executor": "loca"}, "there is no executor 'loca'. Did you mean 'local'"),
        ({"device": "gpu"}, "device: expected 'cpu', 'cuda', 'cuda:N' or 'auto', not 'gpu'"),
        ({"address": "auto"}, "address 'auto' belongs to a Ray cluster"),
    ):
        with pytest.raises(UsageError, match=message):
            ablate(none, out=tmp_path / "x", **wrong)
    with pytest.raises(UsageError, match="there is no data set 'digts'"):
        ablate(study(tiny, "none", data="digts"), out=tmp_path / "x")
    with pytest.raises(UsageError, match="training requires one output of 10 values"):
        ablate(study(tiny.override({"head.classes": 3}), "none"), out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_does_not_stop_others(tiny: hrg.Architecture, tmp_path: Path) -> None:
    (tmp_path / "runs" / "none-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "none-seed0" / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"run 'none-seed0': .*not a result of this version") as error:
        ablate(study(tiny, "none", "full", seeds=1), out=tmp_path, executor=Inline())
    assert "1 of 2 runs are finished" in str(error.value)
    assert (tmp_path / "runs/full-seed0/result.json").exists()


def test_ctrl_c_keeps_finished_runs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    def stop(step: Progress) -> None:
        if step.record is not None:
            raise KeyboardInterrupt

    two = study(tiny, "none", "full", seeds=1)
    with pytest.raises(KeyboardInterrupt):
        ablate(two, out=tmp_path, executor=Inline(), progress=stop)
    assert list(results(tmp_path)) == ["none-seed0"]
    assert {state for *_, state in states(ablate(two, out=tmp_path, executor=Inline()))} == {"complete"}
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_default_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiresnet_graph.sweep.options.available_cores", lambda: 8)
    some, five, six = ExecutionOptions(device="cpu"), ExecutionOptions(jobs=5), ExecutionOptions(jobs=6)
    assert some.workers(("cpu",), 1) == 8 and some.workers(("cpu",), 3) == 2
    assert some.workers(("cpu",), 9) == 1 and some.workers(("cpu",), 1, runs=3) == 3
    assert five.workers(("cpu",), 1, runs=20) == 5 and five.workers(("cpu",), 1, runs=0) == 1
    slurm, ray = (ExecutionOptions(executor=name) for name in ("slurm", "ray"))
    assert slurm.workers(("cpu",), 1) == slurm.workers(("cuda",), 1) == 16 and slurm.workers(("cpu",), 1, runs=3) == 3
    assert slurm.describe_workers(3) == "Up to 3 Slurm jobs at one time" and five.describe_workers(5) == "5 workers"
    assert ray.describe_workers(2) == "As many workers as the Ray cluster has room for"
    assert ExecutionOptions(executor="ray", jobs=4).describe_workers(4).endswith("has room for, up to 4")
    assert some.workers(("cuda:0", "cuda:1"), 1) == 2 and six.workers(("cuda:0", "cuda:1"), 1) == 6
    assert some.devices() == ("cpu",)
    with ExecutionOptions(jobs=3).make_executor(("cpu",), 1, "unused", tasks=10) as executor:
        assert executor.slots == 3


@pytest.mark.parametrize("stack", [None, 2])
def test_more_epochs_continue_the_runs_of_a_study_with_the_same_bits(
    tiny: hrg.Architecture, tmp_path: Path, stack: int | None
) -> None:
    def of(epochs: int, **fields: Any) -> Study:
        return study(tiny, "none", "full", seeds=[0], recipe=Recipe(epochs=epochs, batch_size=400, **fields))

    ablate(of(2), out=tmp_path / "a", executor=Inline(), stack=stack)
    shorter = results(tmp_path / "a")
    started: list[PreparedStudy] = []
    epochs: list[int] = []
    longer = ablate(
        of(4),
        out=tmp_path / "a",
        executor=Inline(),
        stack=stack,
        started=started.append,
        progress=lambda step: epochs.append(step.epoch.epoch) if step.epoch is not None else None,
    )
    assert sorted(epochs) == [3, 3, 4, 4]
    assert "2 runs continue where a shorter one has ended." in started[0].messages
    assert list(started[0].remaining.values()) == [2, 2]
    ablate(of(4), out=tmp_path / "b", executor=Inline(), stack=stack)
    found, alone = results(tmp_path / "a"), results(tmp_path / "b")
    assert {name: found[name] for name in shorter} == shorter  # the earlier results are kept
    assert {state for *_, state in states(longer)} == {"complete"}
    added = {name.rpartition("-")[0]: found[name] for name in found if name not in shorter}
    assert added == alone  # label and seed, without the start of the key
    with pytest.raises(UsageError, match=r"another recipe \(epochs=4, now 5, schedule=step, now cosine\)"):
        ablate(of(5, schedule="cosine"), out=tmp_path / "a", executor=Inline(), stack=stack)


def test_the_epochs_of_a_checkpoint_are_not_left(tiny: hrg.Architecture, tmp_path: Path) -> None:
    what = study(tiny, "none", "full", seeds=[0], recipe=Recipe(epochs=3, batch_size=400))

    prepared = prepare_study(what, tmp_path)
    assert list(prepared.remaining.values()) == [3, 3]
    with Ledger.open(tmp_path) as ledger:
        ledger.join(prepared.plan)
        run = ledger.runs()[0]
        ledger.start_attempt(run.key, 1, "cpu 0")
        ledger.pause(run.key, 1, 2)
    checkpoints = run.folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    for cursor in ("1-0", "2-2"):
        (checkpoints / f"{cursor}.json").touch()
    assert list(prepare_study(what, tmp_path).remaining.values()) == [1, 3]


def test_more_epochs_of_a_cosine_schedule_are_another_study(tiny: hrg.Architecture, tmp_path: Path) -> None:
    recipes = [Recipe(epochs=epochs, batch_size=400, schedule="cosine") for epochs in (1, 2)]
    ablate(study(tiny, "none", seeds=[0], recipe=recipes[0]), out=tmp_path, executor=Inline())
    reason = r"\(epochs=1, now 2; with 'cosine', all rates depend on the number of epochs\)\. Choose another folder"
    with pytest.raises(UsageError, match=reason):
        ablate(study(tiny, "none", seeds=[0], recipe=recipes[1]), out=tmp_path, executor=Inline())


def test_a_damaged_shorter_run_stops_itself_alone(tiny: hrg.Architecture, tmp_path: Path) -> None:
    def of(epochs: int) -> Study:
        return study(tiny, "none", "full", seeds=[0], recipe=Recipe(epochs=epochs, batch_size=400))

    ablate(of(1), out=tmp_path, executor=Inline())
    (tmp_path / "runs/none-seed0/optimizer.safetensors").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(RunError, match=r"run 'none-seed0.*damaged.*\n1 of 2 runs are finished"):
            ablate(of(2), out=tmp_path, executor=Inline())
    assert sorted(run.state for run in read_status(tmp_path).runs) == ["complete", "waiting"]


def test_without_its_ledger_longer_runs_continue_the_shorter_ones(tiny: hrg.Architecture, tmp_path: Path) -> None:
    def of(epochs: int) -> Study:
        return study(tiny, "none", "full", seeds=[0], recipe=Recipe(epochs=epochs, batch_size=400))

    ablate(of(1), out=tmp_path, executor=Inline())
    (tmp_path / "ledger.sqlite").unlink()
    ablate(of(1), out=tmp_path, executor=Inline())
    assert len(prepare_study(of(2), tmp_path).continued) == 2
