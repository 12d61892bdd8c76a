"""Studies whose runs are computed together: results do not depend on the stacks."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.stack.grouping import SupergraphWork
from hiresnet_graph.sweep import Study, ablate
from hiresnet_graph.sweep import calibration as calibration_module
from hiresnet_graph.sweep.calibration import CalibrationResult
from hiresnet_graph.sweep.execution import ExecutionPlan, WorkerLayout
from hiresnet_graph.sweep.executors import LocalExecutor, StackTraining
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.options import ExecutionOptions, resume_execution
from hiresnet_graph.sweep.prepare import PreparedStudy, choose_execution, prepare_study
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.stacks import RunStack
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train import EpochDone, Recipe
from hiresnet_graph.train.events import RunEvent, StackEnded
from tests.conftest import TINY
from tests.sweep.test_ablation import results
from tests.sweep.works import Inline

RECIPE = Recipe(epochs=2, batch_size=200)


def study(arch: hrg.Architecture, **fields: Any) -> Study:
    return Study(network=arch, **{"variants": ("p1", "p2", "none"), "seeds": 3, "recipe": RECIPE, **fields})


def test_results_do_not_depend_on_the_size_of_stacks(tiny: hrg.Architecture, tmp_path: Path) -> None:
    started: list[PreparedStudy] = []
    grid = {"lr": (0.01, 0.003)}
    larger = study(tiny, variants={"p1": "p1", "none": "none", "wide": {"width": 5}}, seeds=[0, 1], grid=grid)
    found = ablate(larger, out=tmp_path / "8", executor=Inline(), stack=8, started=started.append)
    assert started[0].messages == ("12 runs as 2 programs of at most 8 (stacked).",)
    ablate(larger, out=tmp_path / "3", executor=Inline(), stack=3)
    assert results(tmp_path / "8") == results(tmp_path / "3") and len(results(tmp_path / "8")) == 12
    machines = {row.record.machine for row in found.rows if row.record is not None}
    assert {(machine.backend, machine.replicas) for machine in machines} == {("stacked", 8), ("stacked", 4)}
    # nor on the other runs; a run in no stack is trained as without stacks
    ablate(study(tiny, variants=["p1"], seeds=[1, 2]), out=tmp_path / "2", executor=Inline(), stack=16)
    assert results(tmp_path / "2")["p1-seed1"][1] == results(tmp_path / "8")["p1-lr=0.01-seed1"][1]  # type: ignore[index]
    single = study(tiny, variants=["p2"], seeds=[1])
    message = "Each run is computed by itself: no two runs can be stacked"
    ablate(single, out=tmp_path / "1", executor=Inline(), stack=4, started=started.append)
    alone = ablate(single, out=tmp_path / "0", executor=Inline())
    assert started[-1].messages[0].startswith(message) and results(tmp_path / "1") == results(tmp_path / "0")
    record = alone.rows[0].record
    assert record is not None and (record.machine.backend, record.machine.replicas) == ("eager", 1)


def test_a_study_is_resumed_as_it_was_started(tiny: hrg.Architecture, tmp_path: Path) -> None:
    started: list[PreparedStudy] = []
    small, large = study(tiny, seeds=1), study(tiny, seeds=2)
    ablate(small, out=tmp_path, executor=Inline(), stack=4)
    for stack in (6, "off", "auto"):
        ablate(small, out=tmp_path, executor=Inline(), stack=stack, started=started.append)
    messages = [" ".join(one.messages) for one in started]
    assert messages[0] == ""  # the size of stacks changes nothing
    assert messages[1].startswith(
        "The study keeps the settings it was started with, so that all runs are comparable: backend=stacked, not eager"
    )
    assert messages[2] == ""
    ablate(large, out=tmp_path, executor=Inline(), stack="off", started=started.append)
    assert started[-1].messages[-1] == "3 runs as 1 program (stacked)."
    assert {row.record.machine.backend for row in read_results(tmp_path).rows if row.record} == {"stacked"}
    with pytest.raises(UsageError, match=r"compute each run by itself\. Resume it with the executor 'local'"):
        ablate(large, out=tmp_path, executor="ray")
    with pytest.raises(UsageError, match=r"stack: workers of a Ray cluster compute each run by itself"):
        ablate(large, out=tmp_path / "new", executor="ray", stack=4)
    assert not (tmp_path / "new").exists()
    ablate(small, out=tmp_path / "own", executor=Inline(), stack="auto", started=started.append)
    assert started[-1].messages == ("Each run is computed by itself: 'auto' measures workers of this machine only.",)


STUDY = f"""
name: killed
network:{TINY.replace(chr(10), chr(10) + "  ")}
variants: [full, p2, none]
seeds: 2
data: {{kind: synthetic, images: 600, channels: 1, size: 8}}
recipe: {{epochs: 80, batch_size: 100}}
"""


def command(folder: Path, stack: int) -> list[str]:
    program = [sys.executable, "-m", "hiresnet_graph.cli", "ablate", "study.yaml", "-o", str(folder / "out")]
    return [*program, "--stack", str(stack), "--jobs", "1"]


@pytest.mark.slow
def test_ctrl_c_saves_all_runs_and_another_stack_size_resumes_them(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    first = subprocess.Popen(command(tmp_path, 6), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "out/runs/none-seed1/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 8:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    assert "Interrupted: 0 of 6 runs are finished" in first.communicate()[1]
    places = [sorted(path.name for path in run.glob("checkpoints/*.json")) for run in (tmp_path / "out/runs").iterdir()]
    assert len(places) == 6 and places[0] and places.count(places[0]) == 6
    second = subprocess.run(command(tmp_path, 3), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "6 runs as 2 programs of at most 3 (stacked)." in second.stderr
    ablate(tmp_path / "study.yaml", out=tmp_path / "whole", executor=Inline(), stack=3)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert {row.attempts for row in read_results(tmp_path / "out").rows} == {2}


@pytest.mark.slow
def test_auto_does_not_stack_a_short_study(tiny: hrg.Architecture, tmp_path: Path) -> None:
    started: list[PreparedStudy] = []
    asked: list[bool] = []
    how: dict[str, Any] = {"jobs": 1, "threads": 1, "started": started.append, "measuring": lambda: asked.append(True)}
    found = ablate(study(tiny), out=tmp_path, stack="auto", **how)
    assert asked == [True]
    assert (
        started[0]
        .messages[0]
        .startswith("Fastest on this machine: 1 worker x 1 thread, each run by itself (eager). Images per second:")
    )
    assert {row.record.machine.backend for row in found.rows if row.record} == {"eager"}


def test_options_and_the_frozen_plan_determine_the_execution() -> None:
    default = ExecutionPlan(workers=4)
    frozen = ExecutionPlan("cpu", 2, None, False, "stacked", 7)
    measured = CalibrationResult(ExecutionPlan(threads=4), ())

    def requested(stack: int | str | None, threads: int | None = None, frozen: ExecutionPlan | None = frozen) -> Any:
        return choose_execution(default, ExecutionOptions(stack=stack, threads=threads), frozen, measured)

    resumed = default.using(WorkerLayout(4, 2), "stacked", 7)
    assert requested("auto") == requested(None) == resumed
    other = requested("auto", 3)  # which the frozen plan refuses
    assert other.threads == 3
    plan, message = resume_execution(frozen, other, ExecutionOptions(jobs=4), ("cpu",), 10)
    assert plan == resumed and "threads=2, not 3" in message
    assert requested("off") == default.using(WorkerLayout(4, 2)), "threads that are not given are the frozen ones"
    assert requested(9) == default.using(WorkerLayout(4, 2), "stacked", 9)
    assert requested(None, frozen=None) == default and requested("auto", frozen=None) == measured.plan
    assert choose_execution(default, ExecutionOptions(stack="auto"), None, None) == default


def test_calibration_measures_real_programs(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_module, "_SHORT_S", 0.0)
    many = study(tiny, seeds=8, recipe=Recipe(epochs=20, batch_size=32))
    prepared = prepare_study(many, None, ExecutionOptions(stack="auto", jobs=1, threads=1, device="cpu"))
    result = prepared.calibration_result
    assert result is not None and prepared.dataset is not None
    alone, four, most = result.measured
    one, default = WorkerLayout(1, 1), ExecutionPlan()
    assert [each.plan for each in result.measured] == [
        default,
        default.using(one, "stacked", 4),
        default.using(one, "stacked", 16),
    ]
    # small networks gain much from being stacked
    assert most.images_s > 1.5 * alone.images_s > 0 and four.images_s > 0
    assert prepared.execution == result.plan and result.plan.backend == "stacked"
    assert prepared.estimate == result.chosen and result.chosen in result.measured
    images = 24 * 20 * len(prepared.dataset.split.train)
    assert images / most.images_s < most.time_s < 1.5 * images / most.images_s


@dataclass(frozen=True)
class Crowded(StackTraining):
    """Training in which memory runs out after the first checkpoints, unless the stack is small."""

    most: int = 3

    def __call__(self) -> Iterator[RunEvent | StackEnded]:
        for event in super().__call__():
            yield event
            assert isinstance(self.work, SupergraphWork)
            is_crowded = len(self.work.request.runs) > self.most
            if is_crowded and isinstance(event, RunEvent) and isinstance(event.event, EpochDone):
                torch.empty(1 << 60)


def as_one_stack(study: Study) -> tuple[PreparedStudy, RunStack, ExecutionPlan]:
    prepared = prepare_study(study, None, ExecutionOptions(stack=6, device="cpu"))
    (group,) = prepared.groups
    return prepared, group.stack(group.keys, "stacked"), prepared.execution


def test_halves_resume_from_checkpoints_when_memory_runs_out(tiny: hrg.Architecture, tmp_path: Path) -> None:
    many = study(tiny, seeds=2)
    prepared, stack, execution = as_one_stack(many)
    with Ledger.open(tmp_path / "halved") as ledger, LocalExecutor(1) as executor:
        ledger.join(prepared.plan)
        train_all(ledger, prepared.plan.requests, executor, execution, stacks=[stack], stack_work=Crowded)
        assert ledger.execution is not None and ledger.execution.stack == 3
    found = read_results(tmp_path / "halved")
    assert [(row.state, row.attempts) for row in found.rows] == [("complete", 2)] * 6
    assert {row.record.machine.replicas for row in found.rows if row.record} == {3}
    ablate(many, out=tmp_path / "whole", executor=Inline(), stack=6)
    assert results(tmp_path / "halved") == results(tmp_path / "whole")


def test_runs_are_trained_alone_without_memory_for_a_stack(tiny: hrg.Architecture, tmp_path: Path) -> None:
    prepared, stack, execution = as_one_stack(study(tiny, seeds=1))
    with Ledger.open(tmp_path) as ledger:
        ledger.join(prepared.plan)
        crowded = partial(Crowded, most=0)
        train_all(ledger, prepared.plan.requests, Inline(), execution, stacks=[stack], stack_work=crowded)
    rows = read_results(tmp_path).rows
    assert [(row.state, row.attempts) for row in rows] == [("complete", 2)] * 3
    assert {(row.record.machine.backend, row.record.machine.replicas) for row in rows if row.record} == {("eager", 1)}


def test_an_unreadable_checkpoint_stops_no_other_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    few = study(tiny, seeds=1)
    prepared, _, execution = as_one_stack(few)
    with Ledger.open(tmp_path) as ledger:
        ledger.join(prepared.plan)
        ledger.freeze_execution(execution)
        first = ledger.runs()[0]
        ledger.start_attempt(first.key, 1, "here")
        (first.folder / "checkpoints" / "1-0.json").mkdir(parents=True)
    with pytest.raises(RunError, match=r"this checkpoint cannot be read(.|\n)*2 of 3 runs are finished"):
        ablate(few, out=tmp_path, executor=Inline(), stack=6)


@pytest.mark.parametrize(
    ("given", "expected"), [("off", (2, "stacked", 3)), (4, (2, "stacked", 4)), (None, (2, "stacked", 3))]
)
def test_a_resumed_plan_keeps_threads_and_backend(given: int | str | None, expected: tuple[int, str, int]) -> None:
    frozen = ExecutionPlan(threads=2, backend="stacked", stack=3)
    options = ExecutionOptions(stack=given)
    requested = choose_execution(ExecutionPlan(), options, frozen, None)
    resumed, message = frozen.reconciled(requested)
    assert (resumed.threads, resumed.backend, resumed.stack) == expected
    assert "threads" not in message
    branches = ExecutionPlan(backend="branches", stack=8)
    resumed, message = branches.reconciled(choose_execution(ExecutionPlan(), ExecutionOptions(stack=4), branches, None))
    assert (resumed.backend, resumed.stack, message) == ("branches", 4, "")
