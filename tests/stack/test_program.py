"""Stacks: each run gives the same result as on its own, whatever the others are."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import OutOfMemory, UsageError
from hiresnet_graph.stack import predicted_bytes, run_stack, stack_group
from hiresnet_graph.stack import trainer as stack_trainer
from hiresnet_graph.stack.capture import Captured
from hiresnet_graph.stack.request import StackMember, StackRequest
from hiresnet_graph.stack.trainer import StackTrainer
from hiresnet_graph.train import (
    EpochDone,
    Event,
    Finished,
    Paused,
    Recipe,
    RunRequest,
    Saved,
    Seeds,
    Started,
    read_record,
)
from hiresnet_graph.train.checkpoint import resume_points, save_checkpoint
from hiresnet_graph.train.events import Refused, RunEvent, StackEnded
from hiresnet_graph.train.record import BEST, LAST, OPTIMIZER, RUN_FILES
from hiresnet_graph.train.trainer import FINITE_CHECK_EVERY
from tests.train.runs import RECIPES, events_of, finish, request, result_of, stop_after
from tests.train.states import states

# A stack lies in memory as a run alone does with this: the differences of other layouts grow with each step.
LIKE: dict[str, Any] = {"channels_last": False, "optimizer": "sgd", "lr": 0.01}

FILES = set(RUN_FILES)

Asked = Sequence[RunRequest]


@pytest.fixture
def noisy(tiny: hrg.Architecture) -> hrg.Architecture:
    """The tiny network with dropout."""
    return tiny.override({"head.dropout": 0.3})


def seeds(arch: hrg.Architecture, number: int, **fields: Any) -> list[RunRequest]:
    """Runs that differ in their seeds."""
    return [request(arch, Seeds(seed, seed), **fields) for seed in range(number)]


def subsets(arch: hrg.Architecture, **fields: Any) -> list[RunRequest]:
    """Runs of networks that differ in their edges."""
    return [request(arch.with_edges(edges), **fields) for edges in ("none", "full", "in", "p2")]


@functools.cache
def digits() -> Dataset:
    return load_dataset("digits")


def stack(asked: Asked, folder: Path, whole: hrg.Architecture, backend: Any = "stacked") -> StackRequest:
    """A stack of runs in folders 0, 1, ... of a folder."""
    runs = [StackMember(f"run {place}", one, folder / str(place)) for place, one in enumerate(asked)]
    return StackRequest(tuple(runs), whole.to_yaml(), backend)


def train(asked: StackRequest, **how: Any) -> list[list[Event | Refused]]:
    """The events of each run of a stack."""
    *said, end = run_stack(asked, **{"dataset": digits(), **how})
    assert isinstance(end, StackEnded) and all(isinstance(one, RunEvent) for one in said)
    return [[one.event for one in said if isinstance(one, RunEvent) and one.key == run.key] for run in asked.runs]


def ends(asked: StackRequest, **how: Any) -> list[type]:
    return [type(events[-1]) for events in train(asked, **how)]


def results(asked: StackRequest) -> list[dict[str, Any]]:
    return [result_of(run.folder) for run in asked.runs]


def difference(folder: Path, other: Path, name: str = "last") -> float:
    """The largest difference between two files of weights, relative to the largest weight of the tensor."""
    ours, theirs = (load_file(place / f"{name}.safetensors") for place in (folder, other))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    return max(
        ((ours[key] - theirs[key]).abs().max() / (1e-3 + theirs[key].abs().max())).item()
        for key in ours
        if ours[key].is_floating_point()
    )


def assert_like_single_runs(asked: StackRequest, folder: Path, tolerance: float = 1e-4) -> None:
    """Each run of a finished stack has the result of a single run, up to rounding, and the same files."""
    for place, run in enumerate(asked.runs):
        alone = folder / f"alone{place}"
        finish(run.request, alone)
        assert {path.name for path in run.folder.iterdir()} == FILES
        for name in ("run.json", "spec.yaml"):
            assert (run.folder / name).read_bytes() == (alone / name).read_bytes()
        ours, theirs = read_record(run.folder), read_record(alone)
        assert ours is not None and theirs is not None
        for epoch, other in zip(ours.epochs, theirs.epochs, strict=True):
            assert (epoch.epoch, epoch.lr) == (other.epoch, other.lr)
            assert epoch.train_loss == pytest.approx(other.train_loss, rel=tolerance)
            assert epoch.validation_loss == pytest.approx(other.validation_loss, rel=tolerance)
        numbers = {"epochs", "machine", "time_s", "validation_accuracy", "best_epoch"}
        numbers |= {f"{which}_{what}" for which in ("test", "last_test") for what in ("accuracy", "top_k")}
        assert ours.model_dump(exclude=numbers) == theirs.model_dump(exclude=numbers)
        assert difference(run.folder, alone) < tolerance
        counters = load_file(run.folder / "last.safetensors")
        for name, value in load_file(alone / "last.safetensors").items():
            if name.endswith("num_batches_tracked"):
                assert torch.equal(counters[name], value) and value > 0


# ------------------------------------------------------------------------------------------------ as if they were alone


def test_edge_subsets_equal_single_runs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack([*subsets(tiny, **LIKE), request(tiny.with_edges("none"), Seeds(1, 2), **LIKE)], tmp_path, tiny)
    said = train(asked)
    for events in said:
        assert [type(event) for event in events] == [Started, *([EpochDone, Saved] * 2), Finished]
        machine = events[0].environment  # type: ignore[union-attr]
        assert (machine.backend, machine.replicas, machine.looped) == ("stacked", 5, ())
        assert events[-1].record.machine == machine  # type: ignore[union-attr]
        assert events[-1].record.epochs == tuple(e.epoch for e in events if isinstance(e, EpochDone))  # type: ignore[union-attr]
    assert_like_single_runs(asked, tmp_path)
    tensors = [load_file(run.folder / "model.safetensors").keys() for run in asked.runs]
    assert tensors[0] < tensors[2] < tensors[1] and tensors[0] < tensors[3] < tensors[1]


def test_each_run_has_its_own_rate_schedule_decay_and_norm(tiny: hrg.Architecture, tmp_path: Path) -> None:
    own: list[dict[str, Any]] = [
        {"lr": 0.02, "clip_norm": 0.5},
        {"schedule": "cosine", "warmup_epochs": 1, "clip_norm": 2.0},
        {"schedule": "one-cycle", "weight_decay": 0.01, "momentum": 0.5},
        {"step_every": 1, "step_factor": 0.1},
    ]
    fields = {**LIKE, "epochs": 3, "batch_size": 400}
    asked = stack([request(tiny, **{**fields, **some}) for some in own], tmp_path, tiny)
    train(asked)
    assert_like_single_runs(asked, tmp_path)
    assert len({tuple(row["lr"] for row in result["epochs"]) for result in results(asked)}) == 4


@pytest.mark.parametrize("name", ["sgd", "adamw", "bf16"])
def test_recipes_equal_single_runs(noisy: hrg.Architecture, tmp_path: Path, name: str) -> None:
    """With dropout, whose random numbers are those of single runs; two data seeds, one of them for two runs."""
    fields = {"channels_last": False, "lr": 0.003, **RECIPES[name]}
    runs = [request(noisy, Seeds(init, data), **fields) for init, data in ((0, 0), (1, 0), (1, 1))]
    asked = stack(runs, tmp_path, noisy)
    train(asked)
    assert_like_single_runs(asked, tmp_path, 0.1 if name == "bf16" else 1e-3)
    assert len({row["epochs"][0]["train_loss"] for row in results(asked)}) == 3


@pytest.mark.parametrize("backend", ["stacked", "branches"])
def test_norms_of_gradients_are_those_of_single_runs(tiny: hrg.Architecture, tmp_path: Path, backend: str) -> None:
    asked = stack(subsets(tiny, epochs=2, record_gradients=True, clip_norm=0.05, **LIKE), tmp_path, tiny, backend)
    train(asked, stop=stop_after(9))
    train(asked)  # resumed in the second epoch
    for place, run in enumerate(asked.runs):
        finish(run.request, tmp_path / f"alone{place}")
        ours, theirs = read_record(run.folder), read_record(tmp_path / f"alone{place}")
        assert ours is not None and theirs is not None
        for epoch, other in zip(ours.epochs, theirs.epochs, strict=True):
            assert other.gradient_norms and epoch.gradient_norms == pytest.approx(other.gradient_norms, rel=1e-3)
            assert list(epoch.gradient_norms or ()) == list(other.gradient_norms)  # no edges of other networks
    kept = {name for name in load_file(asked.runs[0].folder / OPTIMIZER) if name.startswith("gradients")}
    assert not kept


@pytest.mark.parametrize("readout", ["last", "all"])
def test_networks_in_time_equal_single_runs(tmp_path: Path, readout: str) -> None:
    arch = states(readout=readout)
    asked = stack(seeds(arch, 2, batch_size=400, **{**LIKE, "lr": 0.001}), tmp_path, arch)
    train(asked)
    assert_like_single_runs(asked, tmp_path)


def test_a_larger_network_equals_a_single_run(tmp_path: Path) -> None:
    arch = hrg.load("hiresnet18").override({"width": 4, "input.channels": 1, "input.height": 8, "input.width": 8})
    runs = [request(arch.variant(name), epochs=1, **LIKE) for name in ("original", "full", "out")]
    asked = stack(runs, tmp_path, arch)
    train(asked)
    assert_like_single_runs(asked, tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_branches_give_the_same_bits_as_single_runs(noisy: hrg.Architecture, tmp_path: Path, name: str) -> None:
    fields = RECIPES[name]
    runs = [request(noisy, Seeds(1, 2), **fields), request(noisy, Seeds(2, 1), **{**fields, "clip_norm": 0.1})]
    asked = stack([*runs, request(noisy.with_edges("in"), **fields)], tmp_path, noisy, "branches")
    train(asked)
    for run in asked.runs:
        record = finish(run.request, tmp_path / "alone" / run.key).record
        assert result_of(run.folder) == result_of(tmp_path / "alone" / run.key)
        machine = json.loads((run.folder / "result.json").read_text())["machine"]
        assert (machine["backend"], machine["replicas"], machine["looped"]) == ("branches", 3, ["dropout"])
        assert machine["channels_last"] == record.machine.channels_last


def test_a_stack_of_one_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    for backend in ("stacked", "branches"):
        asked = stack([request(tiny, **LIKE)], tmp_path / backend, tiny, backend)
        assert ends(asked) == [Finished]
        assert_like_single_runs(asked, tmp_path / backend)
        record = read_record(asked.runs[0].folder)
        assert record is not None and (record.machine.backend, record.machine.replicas) == (backend, 1)


def test_times_are_those_of_the_stack_divided_by_its_runs(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, learn = 0.0, StackTrainer._learn

    def slowly(self: StackTrainer, *batch: torch.Tensor) -> None:
        nonlocal now
        now += 4  # a step takes 4 seconds, and nothing else takes any time
        learn(self, *batch)

    monkeypatch.setattr(StackTrainer, "_learn", slowly)
    monkeypatch.setattr("hiresnet_graph.train.trainer.time.perf_counter", lambda: now)
    for events in train(stack(subsets(tiny, batch_size=500), tmp_path, tiny)):
        record = events[-1].record  # type: ignore[union-attr]
        assert [epoch.time_s for epoch in record.epochs] == [3.0] * 2 and record.time_s == 6.0


# ---------------------------------------------------------------------------------------- whatever the others may be


def test_the_result_of_a_run_does_not_depend_on_the_others(noisy: hrg.Architecture, tmp_path: Path) -> None:
    """The same run among others: fewer, more, in another order, with other edges, one of them diverging."""
    mine = request(noisy.with_edges("in"), Seeds(7, 3), clip_norm=1.0)
    others = [
        request(noisy, Seeds(1, 1)),
        request(noisy.with_edges("none"), Seeds(2, 2), lr=1e30),
        request(noisy.with_edges("full"), Seeds(3, 3), weight_decay=0.1),
        request(noisy, Seeds(4, 3)),
    ]
    more = seeds(noisy, 8)[5:]
    found = []
    for place, company in enumerate(
        [[mine], [mine, *others[:2]], [*others, mine], [more[0], mine, *others, *more[1:]], [others[3], mine]]
    ):
        asked = stack(company, tmp_path / str(place), noisy)
        train(asked)
        found.append(result_of(asked.runs[company.index(mine)].folder))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize("backend", ["stacked", "branches"])
def test_a_run_that_diverges_leaves_the_others_alone(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, every: int
) -> None:
    monkeypatch.setitem(FINITE_CHECK_EVERY, "cpu", every)  # as on a GPU
    both = [request(tiny, batch_size=100), request(tiny, batch_size=100, lr=1e30)]
    asked = stack([*both, request(tiny, Seeds(1, 1), batch_size=100)], tmp_path / "stack", tiny, backend)
    said = train(asked)
    alone = finish(both[1], tmp_path / "alone").record
    assert [type(event) for event in said[1]] == [Started, Finished]
    record, folder = said[1][-1].record, asked.runs[1].folder  # type: ignore[union-attr]
    assert record.outcome == "diverged" and record.diverged_at == alone.diverged_at == 2
    assert read_record(folder) == record and {path.name for path in folder.iterdir()} == FILES - {BEST, LAST, OPTIMIZER}
    steady = stack([both[0], asked.runs[2].request], tmp_path / "steady", tiny, backend)
    train(steady)
    assert results(steady) == [result_of(asked.runs[place].folder) for place in (0, 2)]


def test_a_stack_in_which_all_diverge_ends(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack([request(tiny, lr=lr) for lr in (1e30, 1e31)], tmp_path, tiny)
    assert [events[-1].record.outcome for events in train(asked)] == ["diverged"] * 2  # type: ignore[union-attr]


def test_a_validation_loss_that_is_not_finite_is_a_divergence(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = StackTrainer._evaluate

    def spoiled(self: StackTrainer, part: Any, ask: Any) -> Any:
        scores = evaluate(self, part, ask)
        if scores is not None and self.state.epoch == 1:
            scores[0] = scores[0]._replace(loss=math.inf)
        return scores

    monkeypatch.setattr(StackTrainer, "_evaluate", spoiled)
    asked = stack(seeds(tiny, 3, epochs=3), tmp_path, tiny)
    first, *others = (events[-1].record for events in train(asked))  # type: ignore[union-attr]
    assert (first.outcome, first.diverged_at, len(first.epochs)) == ("diverged", 14, 1)
    assert [record.outcome for record in others] == ["complete"] * 2


# ---------------------------------------------------------------------------------------------------- stopped anywhere


@pytest.mark.parametrize("backend", ["stacked", "branches"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_stack_that_is_stopped_anywhere_gives_the_same_bits(
    noisy: hrg.Architecture, tmp_path: Path, name: str, backend: str
) -> None:
    fields: dict[str, Any] = {"batch_size": 300, **RECIPES[name]}
    runs = [request(noisy, Seeds(3, 4), **fields), request(noisy.with_edges("in"), Seeds(1, 1), **fields)]
    whole, pieces = (stack(runs, tmp_path / part, noisy, backend) for part in ("whole", "pieces"))
    train(whole)
    chance, number = random.Random(name), 0
    while not all((run.folder / "result.json").exists() for run in pieces.runs):
        said = train(pieces, stop=stop_after(chance.randint(1, 9)))
        assert len({type(events[-1]) for events in said} - {Paused, Finished}) == 0
        torch.rand(chance.randint(1, 9))  # the global random numbers do not matter
        number += 1
    assert number >= 2
    assert results(pieces) == results(whole)


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_after(monkeypatch: pytest.MonkeyPatch, checkpoints: int) -> None:
    """End the process after a number of checkpoints."""
    save, left = save_checkpoint, checkpoints

    def saved(*what: Any) -> Any:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return save(*what)

    monkeypatch.setattr("hiresnet_graph.train.loop.save_checkpoint", saved)


@pytest.mark.parametrize("number", [1, 4, 5, 8])
def test_a_stack_that_is_killed_between_checkpoints_gives_the_same_bits(
    noisy: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Three runs write a checkpoint after each epoch: only some of them have the newest one."""
    fields: dict[str, Any] = {"epochs": 4, "batch_size": 500}
    runs = [*seeds(noisy, 2, **fields), request(noisy.with_edges("p2"), **fields)]
    whole, pieces = (stack(runs, tmp_path / part, noisy) for part in ("whole", "pieces"))
    train(whole)
    for kill in (number, 5):  # the second one meets what the first has left
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_after(patch, kill)
            list(run_stack(pieces))
    said = train(pieces)
    started = {events[0].epoch for events in said}  # type: ignore[union-attr]
    assert started == {number // 3 + 1}
    assert [len([event for event in events if isinstance(event, EpochDone)]) for events in said] == [4] * 3
    assert results(pieces) == results(whole)


def test_checkpoints_later_than_the_common_one_are_ignored(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run has a later checkpoint than the others, and all are killed again before reaching it."""
    runs = seeds(tiny, 3, epochs=4, batch_size=500)
    whole, pieces = (stack(runs, tmp_path / part, tiny) for part in ("whole", "pieces"))
    train(whole)
    for kill, stop in ((4, None), (3, stop_after(0)), (1, stop_after(0))):
        with monkeypatch.context() as patch:
            killed_after(patch, kill)
            with pytest.raises(Killed) if kill != 3 else contextlib.nullcontext():
                list(run_stack(pieces, stop=stop))
    assert [max(resume_points(run.folder)) for run in pieces.runs] == [(1, 2), (1, 1), (1, 1)]
    said = train(pieces)
    assert {events[0].environment.replicas for events in said} == {3}  # type: ignore[union-attr]
    assert results(pieces) == results(whole)


def test_runs_without_a_common_checkpoint_are_trained_one_after_the_other(
    tiny: hrg.Architecture, tmp_path: Path
) -> None:
    runs = seeds(tiny, 4, epochs=4)
    whole, pieces = (stack(runs, tmp_path / part, tiny) for part in ("whole", "pieces"))
    train(whole)
    for part, epochs in (([0, 1], 1), ([2], 3)):  # the fourth has not begun
        some = StackRequest(tuple(pieces.runs[place] for place in part), pieces.supergraph)
        for _ in range(epochs):
            train(some, stop=stop_after(8))  # past the end of an epoch of 7 steps
    assert [max(resume_points(run.folder)) for run in pieces.runs] == [(1, 1), (1, 1), (3, 3), (0, 0)]
    said: list[RunEvent] = [one for one in run_stack(pieces) if isinstance(one, RunEvent)]
    order = [(one.key, one.event.epoch) for one in said if isinstance(one.event, Started)]
    assert order == [(run.key, epoch) for run, epoch in zip(pieces.runs, (1, 1, 3, 0), strict=True)]
    assert results(pieces) == results(whole)


def test_runs_that_wait_for_others_pause_with_them(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack(seeds(tiny, 2, epochs=3), tmp_path, tiny)
    train(StackRequest(asked.runs[:1], asked.supergraph), stop=stop_after(16))
    said = train(asked, stop=lambda: True)
    assert [type(event) for event in said[0]] == [Started, EpochDone, EpochDone, Saved, Paused]
    assert said[0][-1] == Paused(2) and said[1] == [Paused(0)]


def test_a_damaged_checkpoint_resets_all_runs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    runs = seeds(tiny, 3, epochs=3)
    whole, pieces = (stack(runs, tmp_path / part, tiny) for part in ("whole", "pieces"))
    train(whole)
    train(pieces, stop=stop_after(16))
    newest = pieces.runs[1].folder / "checkpoints/2-1.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    assert {events[0].epoch for events in train(pieces)} == {2}  # type: ignore[union-attr]
    assert results(pieces) == results(whole)


def test_ctrl_c_is_deferred_and_saves(tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = seeds(tiny, 2, epochs=3)
    whole, pieces = (stack(runs, tmp_path / part, tiny) for part in ("whole", "pieces"))
    train(whole)
    learn, steps = StackTrainer._learn, 0

    def press(self: StackTrainer, *batch: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            os.kill(os.getpid(), signal.SIGINT)
        learn(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(StackTrainer, "_learn", press)
        with pytest.raises(KeyboardInterrupt):
            list(run_stack(pieces))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [max(resume_points(run.folder)) for run in pieces.runs] == [(1, 3)] * 2
    train(pieces)
    assert results(pieces) == results(whole)


def test_a_stack_whose_iterator_is_closed_saves(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack(seeds(tiny, 2, epochs=3, checkpoint_s=1000.0), tmp_path, tiny)
    said = run_stack(asked)
    while not isinstance(getattr(next(said), "event", None), EpochDone):
        pass
    said.close()  # type: ignore[attr-defined]
    assert [max(resume_points(run.folder)) for run in asked.runs] == [(1, 0)] * 2


def test_checkpoints_are_those_of_a_single_run(noisy: hrg.Architecture, tmp_path: Path) -> None:
    """Branches and single runs resume each other's checkpoints with the same bits; a stack is close to both."""
    fields: dict[str, Any] = {"epochs": 3, "batch_size": 250, "optimizer": "sgd", "lr": 0.003, "clip_norm": 1.0}
    runs = seeds(noisy, 2, **fields)
    for place, one in enumerate(runs):
        finish(one, tmp_path / f"alone{place}")
    for name, first, then in (("a", "alone", "branches"), ("b", "branches", "alone"), ("c", "stacked", "alone")):
        for way, stop in ((first, stop_after(10)), (then, None)):
            if way == "alone":
                for place, one in enumerate(runs):
                    events_of(one, tmp_path / name / str(place), stop=stop and stop_after(10))
            else:
                train(stack(runs, tmp_path / name, noisy, way), stop=stop)
        for place in range(2):
            ours, theirs = tmp_path / name / str(place), tmp_path / f"alone{place}"
            assert difference(ours, theirs) < 5e-3
            assert (result_of(ours) == result_of(theirs)) == (name != "c")


class Uncaptured(Captured):
    """As on a GPU, but without graphs: warm-up calls, and inputs copied into fixed tensors."""

    def _capture(
        self, compute: Callable[[], object], warm_up: Callable[[], None], context: object
    ) -> Callable[[], object]:
        for _ in range(3):
            warm_up()
        return compute


def test_capturing_a_step_does_not_change_results(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [*subsets(tiny, weight_decay=0.01), request(tiny, Seeds(1, 1), clip_norm=1.0)]
    usual, recorded = (stack(runs, tmp_path / name, tiny) for name in ("usual", "recorded"))
    train(usual)
    begin = StackTrainer.__init__

    def begun(self: StackTrainer, *args: Any) -> None:
        begin(self, *args)
        self._captures = True

    monkeypatch.setattr(StackTrainer, "__init__", begun)
    monkeypatch.setattr(stack_trainer, "Captured", Uncaptured)
    train(recorded, stop=stop_after(10))
    train(recorded)
    assert results(recorded) == results(usual)


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_an_invalid_run_is_refused_without_the_others(tiny: hrg.Architecture, tmp_path: Path) -> None:
    runs = [*seeds(tiny, 5), request(tiny.override({"head.classes": 7}))]
    runs[1] = dataclasses.replace(runs[1], spec="a: [")
    steady = stack([runs[0]], tmp_path / "steady", tiny)
    train(steady)
    folder = tmp_path / "stack"
    finish(request(tiny, lr=0.5), folder / "2")
    events_of(request(tiny, lr=0.5), folder / "3", until=1)
    for file in (folder / "3").glob("*.*"):
        file.unlink()
    (folder / "4").write_text("")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    members = [StackMember(str(place), one, folder / str(place)) for place, one in enumerate(runs)]
    said = train(StackRequest(tuple(members), tiny.to_yaml()))
    told = [events[0].message for events in said if isinstance(events[0], Refused)]
    assert [len(events) for events in said[1:]] == [1] * 5 == [1] * len(told)
    assert "this '[' is never closed" in told[0]
    assert "2 holds another run: seed was 0, now 2; recipe.lr was 0.5, now 0.01" in told[1]
    assert "3 holds checkpoints of another run" in told[2]
    assert "4 is a file; give a folder." in told[3]
    assert "'tiny' gives 7, but data 'digits' has 10 classes" in told[4]
    assert isinstance(said[0][-1], Finished) and result_of(folder / "0") == results(steady)[0]
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder / "1").exists() and not (folder / "5").exists()


def test_a_folder_with_a_file_of_others_refuses_its_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack(seeds(tiny, 2), tmp_path, tiny)
    asked.runs[1].folder.mkdir()
    (asked.runs[1].folder / "spec.yaml").mkdir()
    (first, second) = train(asked)
    assert isinstance(first[-1], Finished)
    assert len(second) == 1 and isinstance(second[0], Refused)
    assert "holds no run, but a file 'spec.yaml', which a run would replace" in second[0].message


def test_finished_runs_are_returned_at_once(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = stack(seeds(tiny, 3), tmp_path, tiny)
    finish(asked.runs[1].request, asked.runs[1].folder)
    before = result_of(asked.runs[1].folder)
    said = train(asked)
    assert [type(event) for event in said[1]] == [Started, Finished] and said[1][0].environment.backend == "eager"  # type: ignore[union-attr]
    assert said[0][0].environment.replicas == 2  # type: ignore[union-attr]
    assert result_of(asked.runs[1].folder) == before
    stamps = [(run.folder / "result.json").stat().st_mtime_ns for run in asked.runs]
    assert [[type(event) for event in events] for events in train(asked)] == [[Started, Finished]] * 3
    assert [(run.folder / "result.json").stat().st_mtime_ns for run in asked.runs] == stamps


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"batch_size": 100},
            r"differ in their recipes: batch_size is 200 and 100\. They may differ only in clip_norm, lr, ",
        ),
        ({"optimizer": "sgd"}, "optimizer is adam and sgd"),
        ({"compile": True}, "a run with 'compile' in its recipe is trained on its own, not in a stack"),
        ({"checkpoint": "blocks"}, "a run with 'checkpoint' in its recipe is trained on its own, not in a stack"),
        ({"freeze": ["stem"], "lr_scale": {"stem": 0.1}}, "a run with 'freeze', 'lr_scale' in its recipe"),
        ({"threads": 2}, "the runs of a stack have one threads, not 1 and 2"),
        ({"data": "digits:split_seed=1"}, "the runs of a stack have one data, not "),
    ],
)
def test_runs_that_do_not_go_together_are_refused(
    tiny: hrg.Architecture, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(stack([request(tiny), request(tiny, **other)], tmp_path, tiny), dataset=None)
    assert not any(tmp_path.iterdir())


def test_networks_that_are_not_subgraphs_are_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'tiny' is not 'tiny' without operands of its merges.*train each of them on its own"
    ):
        train(stack([request(tiny), request(tiny.override({"width": 5}))], tmp_path, tiny))


def test_running_out_of_memory_is_reported(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StackTrainer, "_learn", lambda *_: torch.empty(1 << 60))
    with pytest.raises(
        OutOfMemory, match=r"a stack of 2 runs, epoch 1, step 1: not enough memory .*recipe\.batch_size"
    ):
        train(stack(seeds(tiny, 2), tmp_path, tiny))


def test_what_runs_of_a_stack_must_have_in_common() -> None:
    base = stack_group(Recipe())
    own = Recipe(
        lr=0.5, schedule="cosine", clip_norm=1, weight_decay=0.1, warmup_epochs=2, step_every=3, step_factor=0.1
    )
    assert base is not None and stack_group(own) == base
    assert hash(base) != hash(stack_group(Recipe(top_k=1))) and stack_group(Recipe(epochs=3)) != base
    assert stack_group(Recipe(compile=True)) is stack_group(Recipe(checkpoint_steps=1)) is None


@pytest.mark.parametrize("low", [False, True])
def test_predicted_memory_is_close_to_what_is_stored(tmp_path: Path, low: bool) -> None:
    """Compared with what autograd stores for the backward pass of a step, and all other tensors."""
    arch = hrg.load("hiresnet18").override({"input.channels": 1, "input.height": 8, "input.width": 8})
    batch, kept = 100, {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    runs = seeds(arch, 4, batch_size=batch, epochs=1, precision="bf16" if low else "fp32")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        train(stack(runs, tmp_path, arch), stop=lambda: True)
    parameters = 4 * arch.cost().parameters
    found = sum(kept.values()) + 4 * 4 * parameters  # the gradients, both moments, the best so far
    assert 0.9 * found < predicted_bytes(arch.plan, 4, batch, low) < 2.5 * found
    assert predicted_bytes(arch.plan, 1, batch, low) == predicted_bytes(arch.plan, 3, batch, low)
