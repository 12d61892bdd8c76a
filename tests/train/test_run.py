"""One run: its results, and that they are the same after any interruption."""

import dataclasses
import importlib
import json
import linecache
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, StepLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import OutOfMemory, RunError, UsageError
from hiresnet_graph.files import make_folder
from hiresnet_graph.ops import OPS
from hiresnet_graph.train import (
    EpochDone,
    Finished,
    Paused,
    Recipe,
    Saved,
    Seeds,
    Started,
    identify_request,
    read_record,
    run,
)
from hiresnet_graph.train.checkpoint import checkpoint_files, load_checkpoint, write_checkpoint
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.evaluation import Scores
from hiresnet_graph.train.identity import NetworkIdentity, custom_ops_hash, identify_run
from hiresnet_graph.train.record import RUN_FILES, read_settings
from hiresnet_graph.train.single_trainer import SingleTrainer
from hiresnet_graph.train.trainer import FINITE_CHECK_EVERY
from tests.train.runs import RECIPES, events_of, finish, request, result_of, stop_after


@pytest.fixture
def noisy(tiny: hrg.Architecture) -> hrg.Architecture:
    """The tiny network with dropout."""
    return tiny.override({"head.dropout": 0.3})


def test_a_run_yields_events_and_writes_its_files(tiny: hrg.Architecture, tmp_path: Path) -> None:
    events = events_of(request(tiny, epochs=6, batch_size=50), tmp_path)
    kinds = [type(event) for event in events]
    assert kinds == [Started, *([EpochDone, Saved] * 6), Finished]
    record = events[-1].record  # type: ignore[union-attr]
    assert record.outcome == "complete" and record.test_accuracy is not None and record.test_accuracy > 0.8
    assert record.epochs == tuple(event.epoch for event in events if isinstance(event, EpochDone))
    assert record.epochs[-1].train_loss < record.epochs[0].train_loss
    assert record.epochs[-1].train_accuracy > record.epochs[0].train_accuracy
    assert all(epoch.validation_top_k >= epoch.validation_accuracy for epoch in record.epochs)
    assert record.test_top_k is not None and record.test_top_k > record.test_accuracy
    assert (record.parameters, record.macs) == (tiny.cost().parameters, tiny.cost().macs)
    assert read_record(tmp_path) == record
    assert record.key == identify_request(request(tiny, epochs=6, batch_size=50)).key
    files = set(RUN_FILES)
    assert {path.name for path in tmp_path.iterdir()} == files


def test_the_time_of_a_run_is_that_of_its_epochs_and_its_test(tiny: hrg.Architecture, tmp_path: Path) -> None:
    begun = time.perf_counter()
    events_of(request(tiny, epochs=3), tmp_path, stop=stop_after(4))
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    counted = checkpoint.counters
    assert counted.time_s == pytest.approx(
        sum(epoch.time_s for epoch in counted.epochs) + counted.epoch_time_s, abs=0.01
    )
    record = finish(request(tiny, epochs=3), tmp_path).record
    elapsed_s, epochs_s = time.perf_counter() - begun, sum(epoch.time_s for epoch in record.epochs)
    assert 0 < epochs_s <= record.time_s + 0.01 and record.time_s < elapsed_s


def test_metrics_that_cannot_be_written_stop_the_run_and_lose_nothing(tiny: hrg.Architecture, tmp_path: Path) -> None:
    events = run(request(tiny, epochs=3), tmp_path)
    while not isinstance(next(events), Saved):
        pass
    metrics = tmp_path / "metrics.jsonl"
    metrics.rename(tmp_path / "moved")
    metrics.mkdir()
    with pytest.raises(RunError) as error:
        list(events)
    assert str(error.value) == f"{metrics}: cannot be written: Is a directory."
    metrics.rmdir()
    (tmp_path / "moved").rename(metrics)
    finish(request(tiny, epochs=3), tmp_path)
    finish(request(tiny, epochs=3), tmp_path / "whole")
    (tmp_path / "whole").rename(tmp_path.parent / "whole")
    assert result_of(tmp_path) == result_of(tmp_path.parent / "whole")


def test_a_finished_run_is_returned_at_once(tiny: hrg.Architecture, tmp_path: Path) -> None:
    first = finish(request(tiny), tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = events_of(request(tiny), tmp_path)
    assert [type(event) for event in again] == [Started, Finished]
    assert again[-1].record == first.record  # type: ignore[union-attr]
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_that_is_stopped_anywhere_gives_the_same_bits(noisy: hrg.Architecture, tmp_path: Path, name: str) -> None:
    asked = request(noisy, Seeds(3, 4), epochs=3, batch_size=150, **RECIPES[name])
    finish(asked, tmp_path / "whole")
    chance, pieces = random.Random(name), 0
    while not (tmp_path / "pieces" / "result.json").exists():
        last = events_of(asked, tmp_path / "pieces", stop=stop_after(chance.randint(1, 20)))[-1]
        assert isinstance(last, Paused | Finished)
        torch.rand(chance.randint(1, 9))  # what others draw meanwhile changes nothing
        pieces += 1
    assert pieces >= 3
    assert result_of(tmp_path / "pieces") == result_of(tmp_path / "whole")


def test_a_resumed_run_of_streamed_images_gives_the_same_bits(noisy: hrg.Architecture, tmp_path: Path) -> None:
    """Data workers are started and ended with each part, without changing the random numbers of dropout."""
    chance = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / f"images/{label}").mkdir(parents=True)
        for place in range(20):
            pixels = chance.integers(80 * label, 80 * label + 90, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"images/{label}/{place}.png")
    data = f"imagefolder:{tmp_path / 'images'},stream=true,channels=1"
    arch = noisy.override({"head.classes": 3})
    asked = request(arch, data=data, batch_size=5, data_workers=1)
    finish(asked, tmp_path / "whole")
    for steps in (3, 11):
        events_of(asked, tmp_path / "pieces", stop=stop_after(steps))
    finish(dataclasses.replace(asked, data_workers=0), tmp_path / "pieces")
    assert result_of(tmp_path / "pieces") == result_of(tmp_path / "whole")


def test_a_search_pauses_a_run_between_epochs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(tiny, epochs=4)
    finish(asked, tmp_path / "whole")
    folder = tmp_path / "pieces"
    for until in (1, 3):
        events = events_of(asked, folder, until=until)
        assert events[-1] == Paused(until) and isinstance(events[-2], Saved)
    assert events_of(asked, folder, until=2)[-1] == Paused(3)
    rest = events_of(asked, folder, until=4)
    # epochs of the checkpoint are told again, for those who have not heard of them
    assert rest[0].epoch == 3 and [e.epoch.epoch for e in rest if isinstance(e, EpochDone)] == [1, 2, 3, 4]  # type: ignore[union-attr]
    assert result_of(folder) == result_of(tmp_path / "whole")


# Forks as many children as it is told, each of which goes on with the run, and kills each after a few events.
KILLING = """
import os, pickle, random, signal, sys, time
from pathlib import Path

import torch

from hiresnet_graph.train import run

torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]).zero_grad()  # imports what it needs
asked, folder, chance = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), random.Random(7)
asked.data.load()  # imports what it needs
for _ in range(int(sys.argv[3])):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        for event in run(asked, folder):
            if not getattr(event, "epoch", None) or type(event).__name__ == "Saved":
                os.write(write, b".")
        os._exit(0)
    os.read(read, 1)
    for _ in range(chance.randint(1, 3)):
        os.read(read, 1)
    time.sleep(chance.random() * 0.05)  # somewhere in an epoch, or while a checkpoint is written
    os.kill(child, signal.SIGKILL)
    print("killed" if os.waitpid(child, 0)[1] == signal.SIGKILL else "ended")
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_gives_the_same_bits(noisy: hrg.Architecture, tmp_path: Path, kills: int) -> None:
    asked = request(noisy, epochs=4 * kills, batch_size=100)
    finish(asked, tmp_path / "whole")
    (tmp_path / "killing.py").write_text(KILLING)
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    folder = tmp_path / "killed"
    command = [sys.executable, "killing.py", "asked", str(folder), str(kills)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.split() == ["killed"] * kills, done.stdout
    assert not (folder / "result.json").exists() and any((folder / "checkpoints").iterdir())
    finish(asked, folder)
    assert result_of(folder) == result_of(tmp_path / "whole")


def test_ctrl_c_is_deferred_and_saves(noisy: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(noisy, epochs=3, batch_size=100)
    finish(asked, tmp_path / "whole")

    def press(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (2, 5):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        events_of(asked, tmp_path / "pressed", on_step=press)
    assert {path.name for path in (tmp_path / "pressed/checkpoints").iterdir()} >= {"1-5.json", "1-5.safetensors"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finish(asked, tmp_path / "pressed")
    assert result_of(tmp_path / "pressed") == result_of(tmp_path / "whole")


def test_a_run_whose_iterator_is_closed_saves(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(tiny, epochs=3, checkpoint_s=1000.0)
    events = run(asked, tmp_path)
    while not isinstance(next(events), EpochDone):
        pass
    events.close()  # type: ignore[attr-defined]
    assert events_of(asked, tmp_path)[0].epoch == 1  # type: ignore[union-attr]


def test_checkpoints_are_due_also_within_an_epoch(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    def later(epoch: int, step: int, steps: int) -> None:
        nonlocal now
        now += 1  # a step takes a second

    monkeypatch.setattr("hiresnet_graph.train.loop.time.monotonic", clock)
    asked = request(tiny, epochs=2, batch_size=100, checkpoint_s=5.0)  # 13 steps an epoch
    events = events_of(asked, tmp_path, on_step=later)
    assert [type(event).__name__[0] for event in events] == list("SSSESSSEF")
    finish(request(tiny, epochs=2, batch_size=100), tmp_path / "other")
    assert result_of(tmp_path)["last"] == result_of(tmp_path / "other")["last"]


def test_events_carry_files_on_request(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(tiny, epochs=3)
    here, there = tmp_path / "here", tmp_path / "there"
    events = events_of(asked, here, until=1, ship_files=True)
    (saved,) = [event for event in events if isinstance(event, Saved)]
    write_checkpoint(there, saved.files)
    assert checkpoint_files(there) == saved.files == checkpoint_files(here)
    end = finish(asked, there, ship_files=True)
    assert dict(end.files)["result.json"] == (there / "result.json").read_bytes()
    assert dict(end.files).keys() == {path.name for path in there.iterdir()}
    assert [row["epoch"] for row in result_of(there)["metrics"]] == [1, 1, 2, 2, 3, 3]


def test_metrics_are_cut_back_to_the_checkpoint(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(tiny, epochs=3)
    events_of(asked, tmp_path, until=2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "split": "train", "lo')  # the power failed here
    finish(asked, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["split"]) for row in rows] == [
        (epoch, split) for epoch in (1, 2, 3) for split in ("train", "validation")
    ]


def test_one_seed_gives_the_same_bits_whatever_torch_is_set_to(noisy: hrg.Architecture, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            torch.manual_seed(number)
            expected = torch.get_rng_state()
            finish(request(noisy, Seeds(5, 5)), tmp_path / str(number))
            assert torch.get_num_threads() == number
            assert torch.equal(torch.get_rng_state(), expected)
    finally:
        torch.set_num_threads(threads)
    assert result_of(tmp_path / "1") == result_of(tmp_path / "3")


def test_both_seeds_change_the_result(noisy: hrg.Architecture, tmp_path: Path) -> None:
    records = [
        finish(request(noisy, Seeds(init, data), epochs=1, batch_size=1000), tmp_path / f"{init}{data}").record
        for init, data in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({record.epochs[0].train_loss for record in records}) == 4
    assert len({record.key for record in records}) == 4 and len({record.plan for record in records}) == 1


def test_label_smoothing_and_clipping_equal_those_of_torch(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """Two epochs of the tiny network, as a PyTorch user would write them."""
    asked = request(
        tiny, epochs=2, batch_size=500, label_smoothing=0.2, clip_norm=0.5, optimizer="sgd", lr=0.1, weight_decay=0.01
    )
    found = finish(asked, tmp_path).record
    module = tiny.build(0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    digits = match_input(load_dataset("digits"), tiny.plan)
    loader = Loader(digits, device=torch.device("cpu"), memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.2)
    losses = []
    for epoch in (1, 2):
        total = 0.0
        for x_BCHW, labels_B in loader.training(epoch, 500):
            optimizer.zero_grad()
            loss = criterion(module(x_BCHW), labels_B)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
            total += loss.item() * len(labels_B)
        losses.append(total / len(digits.split.train))
    assert [epoch.train_loss for epoch in found.epochs] == pytest.approx(losses, rel=1e-4)


Schedulers = Callable[[torch.optim.Optimizer, int], tuple[list[LRScheduler], list[LRScheduler]]]
SCHEDULES: dict[str, tuple[dict[str, Any], Schedulers]] = {
    # Schedulers of torch that move after each step, and after each epoch.
    "constant": ({"schedule": "constant"}, lambda optimizer, steps: ([], [])),
    "step": ({"step_every": 2, "step_factor": 0.1}, lambda optimizer, steps: ([], [StepLR(optimizer, 2, 0.1)])),
    "cosine": ({"schedule": "cosine"}, lambda optimizer, steps: ([], [CosineAnnealingLR(optimizer, 5)])),
    "one-cycle": (
        {"schedule": "one-cycle", "optimizer": "adam"},
        lambda optimizer, steps: ([OneCycleLR(optimizer, 0.01, 5 * steps, cycle_momentum=False)], []),
    ),
    "step after a warm-up": (
        {"step_every": 1, "warmup_epochs": 2},
        lambda optimizer, steps: (
            [LinearLR(optimizer, 1 / (2 * steps), 1, 2 * steps - 1)],
            [StepLR(optimizer, 1, 0.5)],
        ),
    ),
    "cosine after a warm-up": (
        {"schedule": "cosine", "warmup_epochs": 1},
        lambda optimizer, steps: ([LinearLR(optimizer, 1 / steps, 1, steps - 1)], [CosineAnnealingLR(optimizer, 5)]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_of_a_run_are_those_of_torch_at_every_step(tiny: hrg.Architecture, tmp_path: Path, name: str) -> None:
    """Also of a run that is stopped within its second epoch and resumed."""
    fields, make = SCHEDULES[name]
    found: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: found.append(optimizer.param_groups[0]["lr"]))
    try:
        asked = request(tiny, **{"epochs": 5, "batch_size": 500, "optimizer": "sgd", "lr": 0.01, **fields})
        events_of(asked, tmp_path, stop=stop_after(4))
        record = finish(asked, tmp_path).record
    finally:
        hook.remove()
    steps = len(found) // 5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    each_step, each_epoch = make(optimizer, steps)
    expected = []
    for _ in range(5):
        for _ in range(steps):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for scheduler in each_step:
                scheduler.step()
        for scheduler in each_epoch:
            scheduler.step()
    assert steps == 3 and found == pytest.approx(expected, rel=1e-9)
    assert [epoch.lr for epoch in record.epochs] == pytest.approx(expected[::steps], rel=1e-9)


def test_the_best_epoch_is_chosen_by_validation_and_ties_by_loss(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation accuracies are 0.5, 0.9, 0.9, 0.9, 0.7; the test accuracy is a tenth of the epoch of the weights."""
    validation = {1: (0.6, 0.5), 2: (0.4, 0.9), 3: (0.3, 0.9), 4: (0.3, 0.9), 5: (0.1, 0.7)}
    made: dict[bytes, int] = {}

    def evaluate(self: SingleTrainer, part: str, stop: object) -> list[Scores]:
        weights = self.module.state_dict()["head.linear.bias"].numpy().tobytes()
        epoch = made.setdefault(weights, self.state.epoch + 1)
        return [Scores(*validation[epoch], 1.0) if part == "validation" else Scores(0.0, epoch / 10, 1.0)]

    monkeypatch.setattr(SingleTrainer, "_evaluate", evaluate)
    record = finish(request(tiny, epochs=5, batch_size=1000), tmp_path).record
    assert record.best_epoch == 3 and record.validation_accuracy == 0.9
    assert (record.test_accuracy, record.last_test_accuracy) == (0.3, 0.5)


def test_the_weights_and_the_spec_of_a_run_give_its_test_accuracy(tiny: hrg.Architecture, tmp_path: Path) -> None:
    record = finish(request(tiny.override({"width": 3}).with_edges("in"), epochs=4, batch_size=50), tmp_path).record
    again = hrg.load(tmp_path / "spec.yaml")
    assert again.plan.digest() == record.plan
    module = again.build(seed=99).eval()
    loader = Loader(load_dataset("digits"), device=torch.device("cpu"))
    for name, expected in (("model", record.test_accuracy), ("last", record.last_test_accuracy)):
        module.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
        with torch.no_grad():
            hits = [
                (module(x_BCHW).argmax(1) == labels_B).double() for x_BCHW, labels_B in loader.evaluation("test", 100)
            ]
        assert torch.cat(hits).mean().item() == pytest.approx(expected, abs=1e-6)


def test_top_k_is_capped_at_the_number_of_classes(tiny: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(
        tiny.override({"head.classes": 3}), data="synthetic:classes=3,images=60,size=8,channels=1", batch_size=20
    )
    assert finish(asked, tmp_path).record.test_top_k == 1.0


@pytest.mark.parametrize("choice", [{"channels_last": False}, {"precision": "bf16"}, {"precision": "tf32"}])
def test_memory_formats_and_precisions_give_similar_results(
    tiny: hrg.Architecture, tmp_path: Path, choice: dict[str, object]
) -> None:
    usual = finish(request(tiny, epochs=1, batch_size=100), tmp_path / "usual").record
    other = finish(request(tiny, epochs=1, batch_size=100, **choice), tmp_path / "other").record
    assert other.epochs[0].train_loss == pytest.approx(usual.epochs[0].train_loss, rel=0.02)
    assert other.machine.channels_last == choice.get("channels_last", True)
    assert (other.key == usual.key) == ("precision" not in choice)


@pytest.mark.parametrize("given", [None, True])
def test_narrow_strided_shortcuts_are_not_trained_in_channels_last(tmp_path: Path, given: bool | None) -> None:
    """There, kernels of torch 2.14.1 for AVX2 write past the end of a gradient, and the process dies later."""
    narrow = hrg.load("hiresnet18").override({"width": 2, "input.channels": 1, "input.height": 8, "input.width": 8})
    record = finish(request(narrow, epochs=2, batch_size=100, channels_last=given), tmp_path).record
    assert record.outcome == "complete" and record.machine.channels_last is False


@pytest.mark.slow
def test_a_compiled_network_gives_similar_results(tiny: hrg.Architecture, tmp_path: Path) -> None:
    usual = finish(request(tiny, batch_size=100), tmp_path / "usual").record
    other = finish(request(tiny, batch_size=100, compile=True), tmp_path / "other").record
    assert other.machine.backend == "compile" and other.key == usual.key
    assert other.epochs[-1].train_loss == pytest.approx(usual.epochs[-1].train_loss, rel=0.02)


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("steps", [1, 50])
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setitem(FINITE_CHECK_EVERY, "cpu", steps)  # as on a GPU
    record = finish(request(tiny, epochs=50, batch_size=100, lr=1e30), tmp_path).record
    assert record.outcome == "diverged" and record.diverged_at == 2
    assert record.test_accuracy is record.last_test_accuracy is record.best_epoch is None
    assert all(math.isfinite(epoch.train_loss) for epoch in record.epochs)
    assert read_record(tmp_path) == record
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": Seeds(1, 0)}, "seed was 0, now 1/0"),
        ({"lr": 0.5}, "recipe.lr was 0.01, now 0.5"),
        ({"arch": "wide"}, "the network was another ('tiny')"),
        ({"data": "digits:split_seed=1"}, "the images, their split or their size were different"),
    ],
)
def test_a_folder_of_another_run_is_refused(
    tiny: hrg.Architecture, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    events_of(request(tiny), tmp_path / "begun", until=1)
    finish(request(tiny), tmp_path / "finished")
    if "arch" in change:
        change = {"arch": tiny.override({"width": 5})}
    other = request(**{"arch": tiny, **change})  # type: ignore[arg-type]
    for name in ("begun", "finished"):
        before = {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        with pytest.raises(UsageError, match=f"{name} holds another run: .*") as caught:
            events_of(other, tmp_path / name)
        assert message in str(caught.value)
        assert {path: path.read_bytes() for path in before} == before
    finish(other, tmp_path / "begun", fresh=True)
    finish(other, tmp_path / "other")
    assert result_of(tmp_path / "begun") == result_of(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"head.classes": 7}, {}, r"'tiny' gives 7, but data 'digits' has 10 classes.*Set 'head.classes=10'\."),
        (
            {},
            {"batch_size": 5000},
            r"the batch size is 5,000, but data 'digits' has only 1,294 training images\.",
        ),
        ({}, {"device": "cuda:7"}, r"device 'cuda:7' is a GPU, but .*'--device cpu'"),
        ({}, {"device": "gpu"}, r"device: expected 'cpu', 'cuda', 'cuda:N' or 'auto', not 'gpu'"),
        ({}, {"augment": "crop", "crop_padding": 8}, "crop_padding"),
        ({}, {"data": "cifar10:root=nowhere"}, "nowhere"),
    ],
)
def test_a_refused_run_writes_nothing(
    tiny: hrg.Architecture, tmp_path: Path, changes: dict[str, object], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        events_of(request(tiny.override(changes), **fields), tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_record_in_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert read_record(tmp_path) is None
    for path, message in (("run", "run is a file; give a folder."), ("run/one", "this folder cannot be created: ")):
        with pytest.raises(RunError, match=message):
            read_record(tmp_path / path)


def test_a_folder_that_is_a_file_is_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file is a file; give a folder\."):
        events_of(request(tiny), tmp_path / "file")
    with pytest.raises(RunError, match=r"file.below: this folder cannot be created: .*file is a file\."):
        events_of(request(tiny), tmp_path / "file" / "below")
    for reads in (make_folder, read_settings, hrg.load_run):
        with pytest.raises(RunError, match=r"file is a file; give a folder\."):
            reads(tmp_path / "file")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried"), "cpu"])
def test_running_out_of_memory_is_reported(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | str
) -> None:
    def train_step(self: SingleTrainer, *args: object) -> None:
        if isinstance(error, str):
            torch.empty(1 << 60)
        else:
            raise error

    monkeypatch.setattr(SingleTrainer, "_train_step", train_step)
    with pytest.raises(OutOfMemory, match=r"seed 0, epoch 1, step 1: not enough memory .*recipe\.batch_size"):
        events_of(request(tiny), tmp_path)


# ----------------------------------------------------------------------------------------------------------------- keys


def test_the_key_depends_only_on_what_changes_the_results(tiny: hrg.Architecture) -> None:
    base = identify_request(request(tiny)).key
    same = [
        request(tiny, channels_last=False, compile=True),
        request(tiny, threads=7, checkpoint_s=9.0, device="cuda"),
        request(tiny, augment="none"),  # what is standard for the digits
        dataclasses.replace(request(tiny), label="another"),
        request(hrg.from_dict({**json.loads(tiny.to_json()), "name": "renamed"})),
    ]
    assert {identify_request(asked).key for asked in same} == {base}
    others = [
        request(tiny.with_edges("none")),
        request(tiny, lr=0.02),
        request(tiny, augment="flip"),
        request(tiny, Seeds(0, 1)),
        request(tiny, Seeds(1, 0)),
        request(tiny, data="digits:split_seed=1"),
        request(tiny.override({"input.height": 16})),
    ]
    assert len({base, *(identify_request(asked).key for asked in others)}) == 1 + len(others)
    keys = {
        identify_run(NetworkIdentity("a", custom_ops, 1), Recipe(), Seeds(0, 0), None).key
        for custom_ops in ("", "source of an operation")
    }
    assert len(keys) == 2


OPERATION = """
from typing import ClassVar

import torch

from hiresnet_graph.ops import OPS, Activation


def bend(x):
    return torch.tanh(x) * {factor}


@OPS.register
class Bend(Activation):
    kind: ClassVar[str] = "bend"
    function: ClassVar[str] = "bending.bend"
"""


def test_the_source_of_a_custom_operation_is_in_the_key(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    spec = {**json.loads(tiny.to_json()), "skips": None, "variants": None}
    spec["nodes"] = {**spec["nodes"], "bent": "bend"}
    spec["flow"] = "stem -> stage1 -> bent -> stage2 -> head"
    spec = {key: value for key, value in spec.items() if value is not None}
    found = []
    try:
        for factor in (1, 2, 1):
            (tmp_path / "bending.py").write_text(OPERATION.format(factor=factor))
            linecache.clearcache()
            sys.modules.pop("bending", None)
            importlib.invalidate_caches()
            importlib.import_module("bending")
            found.append(identify_request(request(hrg.from_dict(spec))).key)
    finally:
        OPS.discard("bend")
        sys.modules.pop("bending", None)
    assert found[0] == found[2] != found[1]
    assert custom_ops_hash(tiny.plan) == ""
