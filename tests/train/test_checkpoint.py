"""Checkpoints: damaged ones are skipped, and a failed write leaves the previous ones."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.train import Paused, Started
from hiresnet_graph.train.checkpoint import Counters, delete_checkpoints, load_checkpoint, save_checkpoint
from tests.train.runs import events_of, finish, request, result_of, stop_after

WEIGHTS = {"a": torch.arange(24.0).reshape(1, 2, 3, 4), "b": torch.tensor([1, 2])}


def counters(epoch: int, step: int = 0) -> Counters:
    return Counters(key="k", epoch=epoch, step=step, epochs=(), time_s=1.5, epoch_time_s=0.0)


def place(folder: Path) -> tuple[int, int] | None:
    found = load_checkpoint(folder)
    return (found.counters.epoch, found.counters.step) if found else None


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "c": WEIGHTS["a"].contiguous(memory_format=torch.channels_last)}
    save_checkpoint(tmp_path, counters(3, 7), weights)
    found = load_checkpoint(tmp_path)
    assert found is not None and found.counters.model_copy(update={"strides": {}}) == counters(3, 7)
    for name, value in weights.items():
        read = found.tensors[name]
        assert torch.equal(read, value) and read.stride() == value.stride() and read.dtype == value.dtype
        assert read.data_ptr() % 64 == 0  # where torch puts its own tensors, too


def test_the_two_newest_are_retained(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for epoch, step in ((0, 9), (1, 0), (10, 0), (2, 5)):
        save_checkpoint(tmp_path, counters(epoch, step), WEIGHTS)
    assert names(tmp_path) == {f"{name}.{suffix}" for name in ("10-0", "2-5") for suffix in ("json", "safetensors")}
    assert place(tmp_path) == (10, 0)
    delete_checkpoints(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, suffix: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, counters(epoch), WEIGHTS)
    newest, chance = tmp_path / f"checkpoints/2-0.{suffix}", random.Random(suffix)
    whole = newest.read_bytes()
    damages = [b"", whole[: len(whole) // 2], whole[:-1], whole + b"\n\0"]
    for _ in range(50):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        damages.append(bytes(flipped))
    for damage in damages:
        newest.write_bytes(damage)
        assert place(tmp_path) == (1, 0), damage
    newest.unlink()
    assert place(tmp_path) == (1, 0)
    newest.write_bytes(whole)
    assert place(tmp_path) == (2, 0)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    assert place(tmp_path) is None


def test_a_renamed_checkpoint_is_skipped(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, counters(1), WEIGHTS)
    for suffix in ("json", "safetensors"):
        shutil.copy(tmp_path / f"checkpoints/1-0.{suffix}", tmp_path / f"checkpoints/5-0.{suffix}")
    assert place(tmp_path) == (1, 0)


@pytest.mark.parametrize("damage", ["newest", "all"])
def test_a_run_resumes_from_an_undamaged_checkpoint(tiny: hrg.Architecture, tmp_path: Path, damage: str) -> None:
    asked = request(tiny, epochs=4)
    finish(asked, tmp_path / "whole")
    folder = tmp_path / "damaged"
    assert events_of(asked, folder, until=3)[-1] == Paused(3)
    for path in (folder / "checkpoints").glob("3-0.*" if damage == "newest" else "*.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    events = events_of(asked, folder)
    assert isinstance(events[0], Started) and events[0].epoch == (2 if damage == "newest" else 0)
    assert result_of(folder) == result_of(tmp_path / "whole")


def test_checkpoints_of_another_run_are_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    events_of(request(tiny), tmp_path, until=1)
    for file in tmp_path.glob("*.*"):
        file.unlink()
    with pytest.raises(UsageError, match="holds checkpoints of another run"):
        events_of(request(tiny, lr=0.5), tmp_path)


# Writes checkpoints until no more can be written, then says what is there.
FILLING = """
import sys
from pathlib import Path

import torch

from hiresnet_graph.errors import RunError
from hiresnet_graph.train.checkpoint import Counters, load_checkpoint, save_checkpoint

folder = Path(sys.argv[1])
try:
    for epoch in range(1, 100):
        state = Counters(key="k", epoch=epoch, step=0, epochs=(), time_s=0, epoch_time_s=0)
        save_checkpoint(folder, state, {"a": torch.ones(epoch * 50_000)})
except RunError as error:
    print(error)
    print(epoch, load_checkpoint(folder).counters.epoch)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 2 MB, mounted for this process and its children; skipped without permission."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return tmp_path


def told(output: str, folder: str) -> None:
    """Check the message of the program, and that the previous checkpoint is intact."""
    message, numbers = output.splitlines()
    failed, kept = map(int, numbers.split())
    assert message.startswith(f"{folder}/checkpoints/{failed}-0.safetensors: cannot be written: ")
    assert kept == failed - 1 >= 1


def test_a_full_disk_leaves_the_previous_checkpoint(small_disk: Path) -> None:
    (small_disk / "disk").mkdir()
    (small_disk / "filling.py").write_text(FILLING)
    script = (
        f"mount -t tmpfs -o size=2m tmpfs disk && {sys.executable} filling.py disk/run && ls -A disk/run/checkpoints"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=small_disk, capture_output=True, text=True, timeout=100, check=True)
    *said, first, second, third, fourth = done.stdout.splitlines()
    told("\n".join(said), "disk/run")
    assert "No space left" in said[0]
    assert len({name.split(".")[0] for name in (first, second, third, fourth)}) == 2  # two checkpoints, and no rest


def test_a_quota_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with (tmp_path / "said").open("w") as sys.stdout:
            sys.argv[1:] = [str(tmp_path / "run")]
            exec(FILLING, {})
        os._exit(0)
    os.waitpid(pid, 0)
    told((tmp_path / "said").read_text(), str(tmp_path / "run"))
    assert names(tmp_path / "run") == {f"{epoch}-0.{suffix}" for epoch in (3, 4) for suffix in ("json", "safetensors")}


def test_a_folder_that_cannot_be_written_is_reported(tiny: hrg.Architecture, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(RunError, match="checkpoints"):
        finish(request(tiny), tmp_path)


def test_what_is_no_checkpoint_does_not_displace_those_that_are(tmp_path: Path) -> None:
    """Tensors without counters, as of a full disk or a killed process, and damaged checkpoints after the good ones."""
    for epoch in (5, 6):
        save_checkpoint(tmp_path, counters(epoch), WEIGHTS)
    for step in (40, 60):
        (tmp_path / f"checkpoints/6-{step}.safetensors").write_bytes(b"x" * 100)
    save_checkpoint(tmp_path, counters(6, 30), WEIGHTS)
    assert names(tmp_path) == {f"{name}.{suffix}" for name in ("6-0", "6-30") for suffix in ("json", "safetensors")}
    assert place(tmp_path) == (6, 30)


def test_a_resumed_run_deletes_damaged_checkpoints_after_its_start(tiny: hrg.Architecture, tmp_path: Path) -> None:
    requested = request(tiny)
    events_of(requested, tmp_path, until=1)
    (good,) = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    for suffix in ("json", "safetensors"):
        (tmp_path / f"checkpoints/90-0.{suffix}").write_bytes(b"{}")
        (tmp_path / f"checkpoints/91-0.{suffix}").write_bytes(b"{}")
    events_of(requested, tmp_path, stop=stop_after(2))
    left = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    assert good in left and not left & {"90-0", "91-0"} and len(left) == 2
    assert load_checkpoint(tmp_path) is not None
