"""`train` and `resume_run`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import MissingToolError, RunError, UsageError
from hiresnet_graph.train import Epoch, Recipe, RunRecord, Seeds, read_record, train
from hiresnet_graph.train.single import read_request, resume_run
from hiresnet_graph.train.single_trainer import SingleTrainer
from tests.train.runs import events_of, finish, request, result_of

QUICK = Recipe(epochs=3, batch_size=200)


def test_a_run_is_trained_and_its_epochs_are_reported(tiny: hrg.Architecture, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    steps: list[tuple[int, int, int]] = []
    record = train(
        tiny.variant("full"),
        out=tmp_path / "verb",
        recipe=QUICK,
        seed=Seeds(2, 3),
        on_epoch=seen.append,
        on_step=lambda *place: steps.append(place),
    )
    assert (record.architecture, record.variant, record.data, record.seeds) == ("tiny", "full", "digits", Seeds(2, 3))
    assert tuple(seen) == record.epochs
    assert steps == [(epoch, step, 7) for epoch in (1, 2, 3) for step in range(1, 8)]
    assert read_record(tmp_path / "verb") == record
    finish(request(tiny.variant("full"), Seeds(2, 3), epochs=3), tmp_path / "run")
    same = {**result_of(tmp_path / "run"), "variant": "full"}
    assert result_of(tmp_path / "verb") == same


def test_a_data_set_in_memory_cannot_be_loaded_again(tiny: hrg.Architecture, tmp_path: Path) -> None:
    digits = load_dataset("digits")
    record = train(tiny, out=tmp_path / "memory", data=digits, recipe=QUICK)
    assert record.key == train(tiny, out=tmp_path / "named", data="digits", recipe=QUICK).key
    with pytest.raises(RunError, match="images in memory"):
        resume_run(tmp_path / "memory")


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no such signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminated_run_resumes(tiny: hrg.Architecture, tmp_path: Path, number: int) -> None:
    def end(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (2, 3):
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, out=tmp_path / "ended", recipe=QUICK, on_step=end)
    assert signal.getsignal(signal.SIGTERM) == before
    seen: list[Epoch] = []
    record = resume_run(tmp_path / "ended", on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [2, 3]
    assert resume_run(tmp_path / "ended") == record
    train(tiny, out=tmp_path / "whole", recipe=QUICK)
    assert result_of(tmp_path / "ended") == result_of(tmp_path / "whole")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run to resume: run\.json"):
        resume_run(tmp_path)
    (tmp_path / "run.json").write_text('{"key": 3}')
    with pytest.raises(RunError, match=r"run\.json: this was not written by this version"):
        resume_run(tmp_path)


@pytest.mark.parametrize("missing", ["run.json", "spec.yaml"])
def test_a_run_without_its_settings_or_its_spec_cannot_be_resumed(
    tiny: hrg.Architecture, tmp_path: Path, missing: str
) -> None:
    events_of(request(tiny), tmp_path, until=1)
    (tmp_path / missing).unlink()
    with pytest.raises(RunError) as error:
        read_request(tmp_path)
    assert str(error.value) == f"{tmp_path}: there is no run to resume: run.json or spec.yaml is missing."


def test_the_folder_of_a_study_is_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    for attempt in (lambda: train(tiny, out=tmp_path, recipe=QUICK, resume=False), lambda: resume_run(tmp_path)):
        with pytest.raises(UsageError, match=r"holds a study, .*'hrg ablate'"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_folder_of_a_study_keeps_its_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    folder, quick = tmp_path / "runs" / "one", Recipe(epochs=1, batch_size=500)
    record = train(tiny, out=folder, recipe=quick)
    (tmp_path / "ledger.sqlite").touch()
    before = files_in(tmp_path)
    for recipe, resume, message in (
        (quick, False, "starting over would replace a run of the study"),
        (Recipe(epochs=2, batch_size=500), True, "it holds another run: recipe.epochs was 1, now 2"),
        (Recipe(epochs=1, batch_size=600), True, "it holds another run: recipe.batch_size was 500, now 600"),
    ):
        with pytest.raises(UsageError, match=f"one belongs to the study in .*, and {message}. Choose another folder."):
            train(tiny, out=folder, recipe=recipe, resume=resume)
    with pytest.raises(UsageError, match=r"two belongs to the study in .*, and it holds no run yet"):
        train(tiny, out=tmp_path / "runs" / "two", recipe=quick)
    assert files_in(tmp_path) == before
    assert train(tiny, out=folder, recipe=quick) == resume_run(folder) == record
    (folder / "result.json").unlink()  # as of a run that a study has begun
    assert resume_run(folder).key == record.key


def test_starting_over_replaces_the_run_and_nothing_else(tiny: hrg.Architecture, tmp_path: Path) -> None:
    first = train(tiny, out=tmp_path, recipe=QUICK)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.0").write_text("")
    with pytest.raises(UsageError, match="the batch size is 2,000, but data"):
        train(tiny, out=tmp_path, recipe=Recipe(batch_size=2000), resume=False)
    assert read_record(tmp_path) == first
    second = train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=500), resume=False)
    assert read_record(tmp_path) == second != first
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or path.name == "tensorboard"]


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_starting_over_never_deletes_the_weights_that_the_run_starts_from(
    tiny: hrg.Architecture, tmp_path: Path
) -> None:
    folder, quick = tmp_path / "run", Recipe(epochs=1, batch_size=500)
    train(tiny, out=folder, recipe=quick)
    before = files_in(folder)
    (tmp_path / "link").symlink_to(folder)
    for weights in (folder, folder / "model.safetensors", folder / "last.safetensors", tmp_path / "link"):
        with pytest.raises(UsageError, match="holds the weights that this run starts from"):
            train(tiny, out=folder, recipe=quick, weights=weights, resume=False)
        assert files_in(folder) == before
    own = folder / "own.safetensors"  # in the folder, but no file of the run
    own.write_bytes((folder / "model.safetensors").read_bytes())
    record = train(tiny, out=folder, recipe=quick, weights=own, resume=False)
    assert record.weights is not None and record.weights.source == str(own) and read_record(folder) == record


def test_a_start_that_fails_deletes_nothing(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=500))
    before = files_in(tmp_path)

    def fail(trainer: SingleTrainer, index: int) -> None:
        raise RunError("no memory")

    monkeypatch.setattr(SingleTrainer, "initialize", fail)
    with pytest.raises(RunError, match="no memory"):
        train(tiny, out=tmp_path, recipe=QUICK, resume=False)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("resume", [True, False])
def test_files_that_no_run_has_written_are_never_deleted(tiny: hrg.Architecture, tmp_path: Path, resume: bool) -> None:
    quick = Recipe(epochs=1, batch_size=500)
    foreign = [tmp_path / name for name in ("tensorboard/notes.txt", "checkpoints/notes.txt")]
    for file in foreign:
        file.parent.mkdir()
        file.write_text("mine")
    own = tmp_path / "checkpoints" / "10-0.safetensors"
    own.write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(UsageError, match=r"holds no run, but files 'checkpoints/10-0\.\*'"):
        train(tiny, out=tmp_path, recipe=quick, resume=resume)
    assert files_in(tmp_path) == before
    own.unlink()
    for again in (resume, False):
        train(tiny, out=tmp_path, recipe=quick, resume=again)
        assert [file.read_text() for file in foreign] == ["mine", "mine"]


def test_an_invalid_result_is_reported(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "result.json").write_text('{"key": 3}')
    with pytest.raises(RunError, match=r"result\.json: .*This is not a result of this version"):
        read_record(tmp_path)
    (tmp_path / "result.json").write_text("")
    with pytest.raises(RunError, match=r"result\.json: Invalid JSON"):
        read_record(tmp_path)


def test_tensorboard_has_each_curve_once(tiny: hrg.Architecture, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def end(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (2, 3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny, out=tmp_path, recipe=QUICK, tensorboard=True, on_step=end)
    record = resume_run(tmp_path, tensorboard=True)
    assert resume_run(tmp_path, tensorboard=True) == record  # finished long ago
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in board.Scalars("accuracy/validation")]
    assert found == [(e.epoch, pytest.approx(e.validation_accuracy)) for e in record.epochs]
    assert {"loss/train", "loss/validation", "accuracy/train", "accuracy/test", "lr"} <= set(board.Tags()["scalars"])


def test_without_tensorboard_nothing_is_trained(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingToolError, match="pip install tensorboard"):
        train(tiny, out=tmp_path / "run", recipe=QUICK, tensorboard=True)
    assert not (tmp_path / "run").exists()


# A network without batch norm: its statistics are those of one process.
PROGRAM = """
import sys
import hiresnet_graph as hrg
from hiresnet_graph.train import Recipe, train

arch = hrg.loads(open("spec.yaml").read())
recipe = Recipe(epochs=3, batch_size=431, optimizer="sgd", lr=0.05, clip_norm=1.0)
train(arch, out=sys.argv[1], recipe=recipe, device=sys.argv[2], data="digits", checkpoint_s=0)
"""


@pytest.mark.slow
def test_several_processes_train_like_a_single_one(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """1,294 images in batches of 431: the last batch has one image, and two of the three processes none of it."""
    arch = tiny.override({"stem.norm": "none", "stage*.norm": "none", "skips.projection": {"norm": "none"}})
    (tmp_path / "spec.yaml").write_text(arch.to_yaml())
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "program.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in ([sys.executable, "program.py", "one", "cpu"], [*launch, "three", "cpu"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    one, three = read_record(tmp_path / "one"), read_record(tmp_path / "three")
    assert isinstance(one, RunRecord) and isinstance(three, RunRecord) and one.key == three.key
    for a, b in zip(one.epochs, three.epochs, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-4)
        assert b.train_accuracy == pytest.approx(a.train_accuracy, abs=3e-3)
        assert b.validation_loss == pytest.approx(a.validation_loss, rel=1e-4)
    weights = [hrg.load_run(tmp_path / name).model("last").state_dict() for name in ("one", "three")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-4), name
