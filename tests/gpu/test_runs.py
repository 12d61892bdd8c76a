"""Runs on the device: results, repeats, interruptions, precisions, memory formats, compilation, data."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import OutOfMemory
from hiresnet_graph.train import RunRecord
from hiresnet_graph.train.environment import tf32_products
from tests.train.runs import RECIPES, events_of, finish, request, result_of, stop_after

ROOT = Path(__file__).parents[2]


@pytest.fixture
def noisy(tiny: hrg.Architecture) -> hrg.Architecture:
    """The tiny network with dropout."""
    return tiny.override({"head.dropout": 0.3})


def similar(found: RunRecord, usual: RunRecord, tolerance: float) -> None:
    for epoch, other in zip(found.epochs, usual.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert epoch.validation_loss == pytest.approx(other.validation_loss, rel=tolerance)


def test_a_run_learns_and_is_that_of_the_cpu(tiny: hrg.Architecture, device: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"epochs": 6, "batch_size": 50, "augment": "none"}
    record = finish(request(tiny, device=device, **fields), tmp_path / "here").record
    assert record.outcome == "complete" and record.test_accuracy is not None and record.test_accuracy > 0.8
    assert record.machine.device == ("cpu" if device == "cpu" else torch.cuda.get_device_name(device))
    slow = {"epochs": 2, "optimizer": "sgd", "lr": 0.01, "batch_size": 200}
    ours, theirs = (
        finish(request(tiny, device=one, **slow), tmp_path / f"slow {one}").record for one in (device, "cpu")
    )
    similar(ours, theirs, 1e-2)


@pytest.mark.parametrize("name", RECIPES)
def test_interrupted_runs_and_repeats_have_the_same_bits(
    noisy: hrg.Architecture, device: str, repeatable: None, tmp_path: Path, name: str
) -> None:
    requested, chance = request(noisy, device=device, **RECIPES[name]), random.Random(name)
    finish(requested, tmp_path / "whole")
    finish(requested, tmp_path / "again")
    while not (tmp_path / "pieces" / "result.json").exists():
        events_of(requested, tmp_path / "pieces", stop=stop_after(chance.randint(3, 9)))
        torch.rand(3, device=device)  # the global random numbers do not matter
    whole = result_of(tmp_path / "whole")
    assert result_of(tmp_path / "again") == whole
    assert result_of(tmp_path / "pieces") == whole


def test_a_killed_run_is_resumed(tiny: hrg.Architecture, device: str, repeatable: None, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu.killed", str(tmp_path / "killed"), device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed" / "result.json").exists()
    events = events_of(request(tiny, device=device), tmp_path / "killed")
    assert events[0].epoch == 1  # type: ignore[union-attr]
    finish(request(tiny, device=device), tmp_path / "whole")
    assert result_of(tmp_path / "killed") == result_of(tmp_path / "whole")


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_a_precision_gives_similar_results(tiny: hrg.Architecture, device: str, tmp_path: Path, precision: str) -> None:
    fields: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01}
    usual = finish(request(tiny, device=device, **fields), tmp_path / "usual").record
    found = finish(request(tiny, device=device, **fields, precision=precision), tmp_path / precision).record
    similar(found, usual, 0.05)


def test_only_tf32_rounds_products(gpu: torch.device) -> None:
    if torch.cuda.get_device_capability(gpu) < (8, 0):
        pytest.skip("this GPU has no TF32")
    a, b = (torch.randn(512, 512, device=gpu, dtype=torch.float64) for _ in range(2))
    x, weight = torch.randn(2, 64, 16, 16, device=gpu).double(), torch.randn(64, 64, 3, 3, device=gpu).double()
    for tf32 in (False, True):
        with tf32_products(tf32):
            product = (a.float() @ b.float()).double()
            features = torch.nn.functional.conv2d(x.float(), weight.float(), padding=1).double()
        exact = torch.nn.functional.conv2d(x, weight, padding=1)
        errors = [float((product - a @ b).norm() / (a @ b).norm()), float((features - exact).norm() / exact.norm())]
        assert all((error > 1e-5) == tf32 for error in errors), (tf32, errors)


def test_channels_last_gives_similar_results(tiny: hrg.Architecture, device: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "device": device}
    records = [finish(request(tiny, **fields, channels_last=last), tmp_path / str(last)).record for last in (0, 1)]
    assert [record.machine.channels_last for record in records] == [False, True]
    similar(*records, 1e-3)


def test_a_compiled_network_gives_similar_results(tiny: hrg.Architecture, gpu: torch.device, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "device": str(gpu), "epochs": 1, "drop_last": True}
    usual = finish(request(tiny, **fields), tmp_path / "usual").record
    found = finish(request(tiny, **fields, compile=True), tmp_path / "compiled").record
    assert found.machine.backend == "compile"
    similar(found, usual, 1e-2)


def test_batches_are_on_the_device_and_those_of_the_cpu(device: str) -> None:
    data = load_dataset("digits")
    ours, theirs = (Loader(data, device=torch.device(one), augment="crop+flip", seed=3) for one in (device, "cpu"))
    assert ours.images_NCHW is not None and ours.images_NCHW.device.type == torch.device(device).type
    for (x, labels), (other, others) in zip(ours.training(2, 100), theirs.training(2, 100), strict=True):
        assert x.device == ours.images_NCHW.device == labels.device
        assert torch.equal(x.cpu(), other) and torch.equal(labels.cpu(), others)


def test_short_memory_is_reported(tiny: hrg.Architecture, gpu: torch.device, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(gpu) + (16 << 20)) / total, gpu)
    try:
        with pytest.raises(OutOfMemory, match=r"not enough memory .*Choose a smaller recipe\.batch_size"):
            finish(request(tiny.override({"width": 512}), device=str(gpu), batch_size=1000), tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
