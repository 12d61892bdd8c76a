"""Studies and several processes on the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.train import read_record
from tests.conftest import TINY
from tests.gpu.two_processes import without_norm
from tests.train.runs import finish
from tests.train.test_train import PROGRAM

ROOT = Path(__file__).parents[2]


def run(folder: Path, *command: str) -> str:
    """The output of a Python command that must succeed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("stack", ["off", "4", "auto"])
def test_ablate(device: str, tmp_path: Path, stack: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    program = ["-m", "hiresnet_graph.cli", "ablate", "tiny.yaml", "--variants", "none,full", "--seeds", "2"]
    run(tmp_path, *program, "--data", "digits", "--epochs", "2", "--device", device, "--stack", stack, "-o", "out")
    records = [row.record for row in read_results(tmp_path / "out").rows]
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    assert [record.machine.device for record in records if record is not None] == [name] * 4
    if stack == "4":
        assert {record.machine.replicas for record in records if record is not None} == {4}


def assert_similar(folder: Path, other: Path) -> None:
    ours, theirs = read_record(folder), read_record(other)
    assert ours is not None and theirs is not None and ours.key == theirs.key
    for epoch, expected in zip(ours.epochs, theirs.epochs, strict=True):
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
        assert epoch.validation_loss == pytest.approx(expected.validation_loss, rel=1e-3)


def test_two_processes_share_one_device(device: str, tmp_path: Path) -> None:
    run(ROOT, "-m", "tests.gpu.two_processes", str(tmp_path / "two"), device)
    finish(without_norm(device), tmp_path / "one")
    assert_similar(tmp_path / "two", tmp_path / "one")


def test_two_gpus_train_like_one(gpu: torch.device, tmp_path: Path) -> None:
    if (count := torch.cuda.device_count()) < 2:
        pytest.skip(f"NCCL requires two GPUs, and there is {count}")
    (tmp_path / "spec.yaml").write_text(without_norm("cpu").spec)
    (tmp_path / "program.py").write_text(PROGRAM)
    run(tmp_path, "program.py", "one", "cuda")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(tmp_path, *launch, "program.py", "two", "cuda")
    assert_similar(tmp_path / "two", tmp_path / "one")
