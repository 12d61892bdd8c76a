"""`hrg train`: messages, results, and resuming."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from hiresnet_graph.cli.commands.train import _TrainReporter
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.train.single_trainer import SingleTrainer
from tests.train.states import TEXT

SMALL = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]


pytestmark = pytest.mark.usefixtures("folder")


def record_of(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def test_train_never_replaces_a_run_without_fresh(hrg, folder):
    result = hrg("train", *SMALL, "--variant", "in", "--epochs", "2", "--seed", "4", "-o", "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("run: test accuracy ")
    first, last = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert first.startswith("epoch 1/2  loss ") and ", train " in first and ", validation " in first
    assert " img/s, ETA " in first and " img/s" in last and "ETA" not in last
    record = record_of(folder)
    assert (record["variant"], record["seeds"], record["recipe"]["epochs"]) == ("in", [4, 4], 2)

    exported = hrg("compile", *SMALL, "--variant", "in", "--weights", "run/model.safetensors", "-o", "run.pt2")
    assert exported.exit_code == 0, exported.stderr
    misfit = hrg("compile", *SMALL, "width=3", "--weights", "run/model.safetensors", "-o", "other.pt2")
    assert misfit.exit_code == 2 and not (folder / "other.pt2").exists()

    again = hrg("train", *SMALL, "--variant", "in", "--epochs", "2", "--seed", "4", "-o", "run")
    assert (again.exit_code, again.stdout) == (0, result.stdout) and "finished already" in again.stderr
    other = hrg("train", *SMALL, "--epochs", "1", "-o", "run")
    assert other.exit_code == 2 and "recipe.epochs was 2, now 1" in other.stderr and "--fresh" in other.stderr
    assert record_of(folder) == record
    assert hrg("train", *SMALL, "--epochs", "1", "-o", "run", "--fresh").exit_code == 0
    assert record_of(folder)["seeds"] == [0, 0]


def test_a_run_is_never_replaced_by_one_that_starts_from_it(hrg, folder):
    assert hrg("train", *SMALL, "--epochs", "1", "-o", "run").exit_code == 0
    record = record_of(folder)
    for weights in ("run", "run/model.safetensors", folder / "run"):
        for option in ([], ["--fresh"]):
            again = hrg("train", *SMALL, "--epochs", "1", "--weights", weights, "-o", "run", *option)
            assert again.exit_code == 2 and "--fresh" not in again.stderr
            assert "model.safetensors' is read by this command, and training would replace it in 'run'" in again.stderr
    assert record_of(folder) == record and (folder / "run" / "model.safetensors").exists()


def test_a_dry_run_lists_how_parameters_are_trained(hrg, folder):
    fields = ["no_decay=[norms, biases]", "weight_decay=0.05", "freeze=[stem]", "lr_scale={head: 2}"]
    options = [word for field in fields for word in ("--recipe", field)]
    result = hrg("train", *SMALL, "--dry-run", "--lr", "0.1", *options)
    assert result.exit_code == 0 and not any(folder.iterdir())
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if "." in line.split()[0]}
    assert rows["stem.conv.weight"][1:] == ["frozen", "-"] and rows["head.linear.bias"] == ["10", "0.2", "-"]
    assert rows["head.linear.weight"][1:] == ["0.2", "0.05"] and rows["stage1.block1.norm1.weight"][1:] == ["0.1", "-"]
    wrong = hrg("train", *SMALL, "--dry-run", "--recipe", "freeze=[stm]")
    assert wrong.exit_code == 2 and "recipe.freeze: 'stm' matches no tensor" in wrong.stderr
    wrong = hrg("train", *SMALL, "--dry-run", "--recipe", "losses={haed: 1}")
    assert wrong.exit_code == 2 and "recipe.losses: 'hiresnet18' has no output 'haed'" in wrong.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "nosuch"], "nosuch"),
        (["--weights", "missing.pt"], "missing.pt: cannot be read"),
        (["--weights", "narrow"], "narrow/model.safetensors: these weights belong to another network"),
        (["--device", "cuda:99"], "device 'cuda:99' is a GPU, but"),
        (["--batch-size", "2000"], "('--batch-size 1294')"),
        (["head.classes=7"], "'hiresnet18' gives 7, but data 'digits' has 10 classes"),
        (["-o", "narrow"], "narrow holds another run"),
        (["-o", "narrow", "--weights", "narrow"], "is read by this command"),
        (["-o", "study"], "study holds a study, not a run"),
        (["-o", "study/runs/one"], "study/runs/one belongs to the study in"),
    ],
    ids=str,
)
def test_a_dry_run_checks_all_that_training_does(hrg, folder, args, message, narrow):
    (folder / "study").mkdir()
    (folder / "study" / "ledger.sqlite").touch()
    shutil.copytree(narrow, folder / "narrow")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dry = hrg("train", *SMALL, *args, "--dry-run")
    assert dry.exit_code == 2 and message in dry.stderr and dry.stdout == "", dry.output
    real = hrg("train", *SMALL, *args, *([] if "-o" in args else ["-o", "x"]))
    assert real.exit_code == 2 and message in real.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The folder of a run of a narrower network."""
    import hiresnet_graph

    path = tmp_path_factory.mktemp("runs") / "narrow"
    small = {"input.channels": 1, "input.height": 8, "input.width": 8}
    net = hiresnet_graph.load("hiresnet18").override({"width": 1, **small})
    hiresnet_graph.train.train(net, out=path, recipe=hiresnet_graph.train.Recipe(epochs=1, batch_size=1294))
    return path


def test_a_dry_run_of_a_finished_run_and_without_its_data(hrg, folder, narrow, monkeypatch):
    monkeypatch.setenv("HRG_DATA", str(folder))
    same = ["hiresnet18", "width=1", *SMALL[2:], "--epochs", "1", "--batch-size", "1294", "-o", narrow, "--dry-run"]
    done = hrg("train", *same)
    assert done.exit_code == 0 and "This run is finished already." in done.stderr and "stem.conv.weight" in done.stdout
    missing = hrg("train", "hiresnet18", "--data", "cifar10", "--dry-run")
    assert missing.exit_code == 0 and "stem.conv.weight" in missing.stdout
    assert missing.stderr.startswith("The data are missing, so what depends on them was not checked: ")


RECIPES = {
    "mixup": "true",
    "cutmix": "-1",
    "ema": "1",
    "patience": "0",
    "class_weights": "even",
    "accumulate": "0",
    "no_decay": "3",
    "losses": "{head: 0}",
    "checkpoint": "yes",
    "rand_augment": "31",
    "random_erasing": "2",
    "precision": "fp8",
}


def test_wrong_fields_of_the_recipe_are_named_with_their_option_or_line(hrg, folder):
    for field, value in RECIPES.items():
        alone = hrg("train", *SMALL, "--dry-run", "--recipe", f"{field}={value}")
        assert alone.exit_code == 2 and f"--recipe {field}={value}: expected " in alone.stderr
    lines = [f"  {field}: {value}\n" for field, value in RECIPES.items()]
    (folder / "s.yaml").write_text("network: hiresnet18\nvariants: [full]\ndata: digits\nrecipe:\n" + "".join(lines))
    study = hrg("ablate", "s.yaml", "--dry-run", "--no-calibrate")
    assert study.exit_code == 1
    found = [line.partition(": expected")[0] for line in study.stderr.splitlines() if line.startswith("s.yaml:")]
    assert found == [f"s.yaml:{5 + i}:{5 + len(field)}: recipe.{field}" for i, field in enumerate(RECIPES)]


def test_every_field_of_the_recipe_can_be_set(hrg, folder):
    fields = ["optimizer=sgd", "momentum=0.8", "schedule=one-cycle", "clip_norm=1e-1", "top_k=3", "nesterov=true"]
    options = [word for field in fields for word in ("--recipe", field)]
    one_step = ["--epochs", "1", "--batch-size", "1294"]
    result = hrg("train", *SMALL, *one_step, "--threads", "1", "--device", "cpu", *options, "-o", "run")
    assert result.exit_code == 0, result.stderr
    record = record_of(folder)
    expected = dict(optimizer="sgd", momentum=0.8, schedule="one-cycle", clip_norm=0.1, top_k=3, nesterov=True)
    assert expected.items() <= record["recipe"].items() and record["machine"]["device"] == "cpu"


def test_a_run_that_diverges_is_exit_code_1(hrg):
    result = hrg("train", *SMALL, "--epochs", "1", "--lr", "1e30", "-o", "run")
    assert result.exit_code == 1 and result.stdout.startswith("run: diverged at step ")


def test_ctrl_c_saves_a_checkpoint_and_prints_how_to_resume(hrg, folder, monkeypatch):
    args = ["train", *SMALL, "--epochs", "3", "--recipe", "augment=flip"]
    assert hrg(*args, "-o", "full").exit_code == 0
    train_step, steps = SingleTrainer._train_step, []

    def pressed(self, *others):
        steps.append(1)
        if len(steps) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(self, *others)

    monkeypatch.setattr(SingleTrainer, "_train_step", pressed)
    result = hrg(*args, "-o", "run")
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: a checkpoint is in run. Resume with: hrg train --resume run"
    )
    status = hrg("status", "run").stdout
    assert "1 run; 1 paused." in status and "It is not being trained. Resume it with: hrg train --resume run" in status
    resumed = hrg("train", "--resume", "run", "--threads", "1")
    assert resumed.exit_code == 0 and "epoch 1/3" not in resumed.stderr and "epoch 3/3" in resumed.stderr
    assert "The run is resumed: 1 of 3 epochs finished.\n" in resumed.stderr
    assert (folder / "run/last.safetensors").read_bytes() == (folder / "full/last.safetensors").read_bytes()


def test_the_same_command_resumes_a_run_in_its_first_epoch_and_says_so(hrg, folder, monkeypatch):
    args = ["train", *SMALL, "--epochs", "2", "-o", "run"]
    train_step, steps = SingleTrainer._train_step, []

    def pressed(self, *others):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(self, *others)

    monkeypatch.setattr(SingleTrainer, "_train_step", pressed)
    first = hrg(*args)
    assert first.exit_code == 130 and "a checkpoint is in run" in first.stderr and "resumed" not in first.stderr
    status = hrg("status", "run").stdout
    assert "1 run; 1 paused." in status and "0/2" in status.splitlines()[-1]
    again = hrg(*args)
    assert again.exit_code == 0 and "The run is resumed: 0 of 2 epochs finished.\n" in again.stderr
    assert "resumed" not in hrg(*args).stderr


def test_a_run_is_trained_by_one_process_at_a_time(hrg, folder):
    args = [*SMALL, "--epochs", "1000", "-o", "run"]
    with subprocess.Popen(
        [sys.executable, "-m", "hiresnet_graph.cli", "train", *args], stderr=subprocess.DEVNULL
    ) as running:
        limit = time.monotonic() + 120
        while not (folder / "run" / "run.json").exists() and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        status = hrg("status", "run").stdout.splitlines()
        assert "1 run; 1 running." in status[0] and status[1] == "It is being trained now."
        assert json.loads(hrg("status", "run", "--json").stdout)["alive"] is True
        assert "It is being trained now." in hrg("report", "run").stderr
        for command in (["train", *args], ["train", *args, "--fresh"], ["train", "--resume", "run"]):
            second = hrg(*command)
            assert second.exit_code == 2 and f"run is in use: process {running.pid} on " in second.stderr
        running.kill()
    after = hrg("status", "run").stdout
    assert "running" not in after and "It is not being trained. Resume it with: hrg train --resume run" in after


def test_a_run_of_a_study_is_not_trained_beside_its_study(hrg, folder):
    common = ["--epochs", "1", "--batch-size", "1294"]
    assert hrg("ablate", *SMALL, "--variants", "none", "--seeds", "1", *common, "-o", "study").exit_code == 0
    run = folder / "study" / "runs" / "none-seed0"
    (run / "result.json").unlink()
    with Ledger.open(folder / "study"):
        second = hrg("train", "--resume", run)
        assert second.exit_code == 2 and "study is in use" in second.stderr
    assert hrg("train", "--resume", run).exit_code == 0


def test_warnings_are_printed_before_training(hrg, folder):
    (folder / "states.yaml").write_text(TEXT)
    args = ["--epochs", "1", "--batch-size", "1294"]
    fields = ["--recipe", "loss_steps=last", "--recipe", "checkpoint_steps=2"]
    late = hrg("train", "states.yaml", "steps=2", *args, *fields, "-o", "late")
    assert late.exit_code == 0, late.stderr
    warnings = [line for line in late.stderr.splitlines() if line.startswith("Warning: ")]
    assert warnings[0].startswith("Warning: states.yaml:1") and "not reach the readout" in warnings[0]
    assert warnings[-1] == (
        "Warning: 'loss_steps' has no effect: one step is read out. 'time.readout=all' reads out all steps."
    )
    plain = hrg("train", *SMALL, *args, *fields, "-o", "plain")
    assert "Warning: 'checkpoint_steps' has no effect: 'hiresnet18' does not run in time." in plain.stderr
    full = hrg("train", "states.yaml", "time.readout=all", *args, *fields, "-o", "full")
    assert full.exit_code == 0 and "Warning" not in full.stderr
    assert json.loads((folder / "full" / "result.json").read_text())["recipe"]["checkpoint_steps"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["unet", "-o", "x"], "10 classes"),
        (
            [*SMALL, "--recipe", "loss_steps=lst", "-o", "x"],
            "--recipe loss_steps=lst: expected 'last', 'mean', or a list of",
        ),
        ([*SMALL, "--data", "digts", "-o", "x"], "digits"),
        ([*SMALL, "--lr", "-1", "-o", "x"], "expected a number greater than 0"),
        ([*SMALL, "--epochs", "0", "-o", "x"], "--epochs"),
        ([*SMALL, "--batch-size", "2000", "-o", "x"], "('--batch-size 1294')"),
        ([*SMALL, "--recipe", "epohcs=3", "-o", "x"], "there is no field 'epohcs'. Did you mean 'epochs'?"),
        ([*SMALL, "--recipe", "lr=0", "-o", "x"], "--recipe lr=0: expected a number greater than 0, got 0."),
        ([*SMALL, "--recipe", "lr", "-o", "x"], "--recipe lr: expected a field and its value"),
        ([*SMALL, "--lr", "1", "--recipe", "lr=1", "-o", "x"], "'lr' is set twice"),
        ([*SMALL, "--device", "cuda:9", "-o", "x"], "device 'cuda:9' is a GPU"),
        ([*SMALL, "--data", "npz:nosuch.npz", "-o", "x"], "nosuch.npz"),
        ([*SMALL], "--output DIR"),
        (["-o", "x"], "a SPEC is required"),
        ([*SMALL, "--resume", "x"], "--resume x: the folder determines its run"),
        (["--resume", "x", "--fresh"], "--resume x: the folder determines its run"),
    ],
)
def test_errors_are_wrong_usage(hrg, folder, args, message):
    result = hrg("train", *args)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resume", "x"], "x: there is no run to resume"),
        (["--resume", "file"], "file is a file; give a folder."),
        ([*SMALL, "-o", "file"], "file is a file; give a folder."),
        ([*SMALL, "-o", "file/x"], "file is a file."),
    ],
)
def test_a_folder_that_cannot_be_used_is_exit_code_1(hrg, folder, args, message):
    (folder / "file").write_text("")
    result = hrg("train", *args)
    assert result.exit_code == 1 and message in result.stderr, result.stderr


def test_of_several_processes_one_prints(monkeypatch, capsys):
    from hiresnet_graph.train import Recipe

    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        reporter = _TrainReporter(Recipe(epochs=3), "cpu")
        reporter.message("a network")
        with reporter.running(Path("folder")):
            for step in (1, 2):
                reporter.step(1, step, 2)
        with pytest.raises(KeyboardInterrupt if rank == "0" else typer.Exit), reporter.running(Path("folder")):
            raise KeyboardInterrupt
        assert ("a network" in capsys.readouterr().err) == (rank == "0")


@pytest.mark.parametrize("columns", [30, 60, 200])
def test_a_terminal_of_any_width_has_a_bar_on_one_line(columns, monkeypatch, capsys):
    from hiresnet_graph.train import Epoch, Recipe

    monkeypatch.setattr("hiresnet_graph.cli.progress.has_colors", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    reporter = _TrainReporter(Recipe(epochs=20), "cpu")
    numbers = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_top_k")
    with reporter.running(Path("folder")):
        reporter.epoch(Epoch(epoch=5, lr=0.1, time_s=60, **dict.fromkeys(numbers, 0.5)))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n").split("\n")
    shown = [line for line in last if "5/20" in line]
    assert shown and all("━" * 3 in line and len(line) <= columns for line in shown)
    assert ("val 50.00 %, ETA 15 min" in shown[-1]) == (columns == 60)
    assert ("loss 0.500, train 50.00 %, validation 50.00 %, ETA 15 min" in shown[-1]) == (columns == 200)


def test_weights_that_do_not_fit_are_listed_and_random(hrg, folder):
    small = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]
    short = ["--epochs", "1", "--batch-size", "600"]
    assert hrg("train", *small, "--edges", "none", *short, "-o", "base").exit_code == 0
    refused = hrg("train", *small, *short, "--weights", "base", "-o", "tuned")
    assert refused.exit_code == 2 and not (folder / "tuned").exists()
    assert "the network has edges that the weights lack: 'edges." in refused.stderr
    assert "To keep initial values for what does not fit: '--reinit'" in refused.stderr
    result = hrg("train", *small, *short, "--weights", "base", "--reinit", "--recipe", "freeze=[stem]", "-o", "tuned")
    assert result.exit_code == 0, result.stderr
    assert "base/model.safetensors lacks 'edges.stage1__stage2.conv.weight', " in result.stderr
    assert json.loads((folder / "tuned" / "result.json").read_text())["weights"]["reinit"] is True
    alone = hrg("train", *small, *short, "--reinit", "-o", "other")
    assert alone.exit_code == 2 and "it requires '--weights FILE'" in alone.stderr
    resumed = hrg("train", "--resume", "tuned", "--weights", "base")
    assert resumed.exit_code == 2 and "the folder determines its run" in resumed.stderr
    inside = hrg("train", *small, *short, "--weights", "base/model.safetensors", "-o", "base")
    assert inside.exit_code == 2 and "'base/model.safetensors' is read by this command" in inside.stderr
    study = hrg("ablate", *small, "--variants", "none,full", "--weights", "base", "--seeds", "1", *short, "--dry-run")
    assert study.exit_code == 2 and "variant 'full': base/model.safetensors: the network has edges" in study.stderr
    study = hrg(
        "ablate", *small, "--variants", "none,full", "--weights", "base", "--reinit", "--dry-run", "--no-calibrate"
    )
    assert study.exit_code == 0 and "full: base/model.safetensors lacks 'edges." in study.stderr
