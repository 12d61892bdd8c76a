"""Studies whose runs are really computed together: what comes out does not depend on how they are cut into stacks."""

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
from hiresnet_graph.sweep import Study, ablate
from hiresnet_graph.sweep import calibration as calibration_module
from hiresnet_graph.sweep.ablation import Begun, way_asked
from hiresnet_graph.sweep.calibration import Calibration, Choice
from hiresnet_graph.sweep.driver import train_all
from hiresnet_graph.sweep.executors import LocalExecutor, StackTraining
from hiresnet_graph.sweep.ledger import Execution, Ledger
from hiresnet_graph.sweep.plan import data_of, networks_of, planned
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.stacks import Stack, buckets_of
from hiresnet_graph.sweep.ways import Crew, Way
from hiresnet_graph.train import EpochDone, Recipe, RunEvent, StackEnded
from tests.conftest import TINY
from tests.sweep.test_ablation import results
from tests.sweep.works import Inline

RECIPE = Recipe(epochs=2, batch_size=200)


def study(arch: hrg.Architecture, **fields: Any) -> Study:
    return Study(network=arch, **{"variants": ("p1", "p2", "none"), "seeds": 3, "recipe": RECIPE, **fields})


def test_the_same_comes_out_of_stacks_of_any_size(tiny: hrg.Architecture, tmp_path: Path) -> None:
    begun: list[Begun] = []
    grid = {"lr": (0.01, 0.003)}
    larger = study(tiny, variants={"p1": "p1", "none": "none", "wide": {"width": 5}}, seeds=[0, 1], grid=grid)
    found = ablate(larger, out=tmp_path / "8", executor=Inline(), stack=8, begun=begun.append)
    assert begun[0].note == "12 runs as 2 programs of at most 8 (stacked)."
    ablate(larger, out=tmp_path / "3", executor=Inline(), stack=3)
    assert results(tmp_path / "8") == results(tmp_path / "3") and len(results(tmp_path / "8")) == 12
    machines = {row.record.machine for row in found.rows if row.record is not None}
    assert {(machine.backend, machine.replicas) for machine in machines} == {("stacked", 8), ("stacked", 4)}
    # nor on what else is trained; a run that could be in no stack is trained alone, as without
    ablate(study(tiny, variants=["p1"], seeds=[1, 2]), out=tmp_path / "2", executor=Inline(), stack=16)
    assert results(tmp_path / "2")["p1-seed1"][1] == results(tmp_path / "8")["p1-lr=0.01-seed1"][1]  # type: ignore[index]
    single = study(tiny, variants=["p2"], seeds=[1])
    told = "Each run is computed by itself: no two of them go together"
    ablate(single, out=tmp_path / "1", executor=Inline(), stack=4, begun=begun.append)
    alone = ablate(single, out=tmp_path / "0", executor=Inline())
    assert begun[-1].note.startswith(told) and results(tmp_path / "1") == results(tmp_path / "0")
    record = alone.rows[0].record
    assert record is not None and (record.machine.backend, record.machine.replicas) == ("eager", 1)


def test_a_study_goes_on_as_it_began(tiny: hrg.Architecture, tmp_path: Path) -> None:
    begun: list[Begun] = []
    small, large = study(tiny, seeds=1), study(tiny, seeds=2)
    ablate(small, out=tmp_path, executor=Inline(), stack=4)
    for stack in (6, "off", "auto"):
        ablate(small, out=tmp_path, executor=Inline(), stack=stack, begun=begun.append)
    notes = [one.note for one in begun]
    assert notes[0] == ""  # the size of stacks changes nothing
    assert notes[1].startswith(
        "This study goes on as it began, so that all runs round alike: with backend=stacked, not eager"
    )
    assert notes[2] == ""
    ablate(large, out=tmp_path, executor=Inline(), stack="off", begun=begun.append)
    assert begun[-1].note.endswith("3 runs as 1 program (stacked).")
    assert {row.record.machine.backend for row in read_results(tmp_path).rows if row.record} == {"stacked"}
    with pytest.raises(UsageError, match=r"compute each run by itself\. Go on with the executor 'local'"):
        ablate(large, out=tmp_path, executor="ray")
    with pytest.raises(UsageError, match=r"stack: workers of a Ray cluster compute each run by itself"):
        ablate(large, out=tmp_path / "new", executor="ray", stack=4)
    assert not (tmp_path / "new").exists()
    ablate(small, out=tmp_path / "own", executor=Inline(), stack="auto", begun=begun.append)
    assert begun[-1].note == (
        "Each run is computed by itself: what is fastest is measured for workers of this machine."
    )


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


def test_ctrl_c_saves_all_runs_and_another_size_goes_on_with_them(tmp_path: Path) -> None:
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


def test_auto_leaves_a_short_study_as_it_is(tiny: hrg.Architecture, tmp_path: Path) -> None:
    begun: list[Begun] = []
    asked: list[bool] = []
    how: dict[str, Any] = {"jobs": 1, "threads": 1, "begun": begun.append, "measuring": lambda: asked.append(True)}
    found = ablate(study(tiny), out=tmp_path, stack="auto", **how)
    assert asked == [True]
    assert begun[0].note.startswith(
        "Measured on this machine, the fastest way is 1 worker x 1 thread, each run by itself (eager). Images a second:"
    )
    assert {row.record.machine.backend for row in found.rows if row.record} == {"eager"}


def test_what_is_settled_is_not_measured_once_more() -> None:
    def choose() -> Choice:
        raise AssertionError("nothing is to be measured")

    crews = [Crew(4, 1), Crew(1, 4)]
    before = Execution("cpu", 2, None, False, "stacked", 7)
    assert way_asked("auto", None, crews, before, choose) == (Way(Crew(4, 2), "stacked", 7), None)
    assert way_asked("auto", 3, crews[:1], before, choose)[0].crew.threads == 3  # the ledger says that it is not so
    assert way_asked("off", None, crews, before, choose) == (Way(Crew(4, 1)), None)
    assert way_asked(9, None, crews, None, choose) == (Way(Crew(4, 1), "stacked", 9), None)
    assert way_asked("auto", None, crews, None, None) == (Way(Crew(4, 1)), None)


def test_calibration_measures_what_is_run(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_module, "_SHORT_S", 0.0)
    many = study(tiny, seeds=8, recipe=Recipe(epochs=20, batch_size=32))
    networks, source = networks_of(many), data_of(many)
    dataset = source.load()
    plan = planned(many, networks, source, dataset)
    buckets = buckets_of(networks, plan)
    calibration = Calibration(networks, plan, buckets, dataset, list(plan.requests), ("cpu",))
    choice = calibration.choose([Crew(1, 1)])
    alone, four, most = choice.measured
    assert [each.way for each in choice.measured] == [
        Way(Crew(1, 1)),
        Way(Crew(1, 1), "stacked", 4),
        Way(Crew(1, 1), "stacked", 16),
    ]
    # small networks are known to gain much from being computed together
    assert most.images_s > 1.5 * alone.images_s > 0 and four.images_s > 0
    assert choice.way.backend == "stacked" and choice.estimate in choice.measured
    images = 24 * 20 * len(dataset.split.train)
    assert images / most.images_s < most.time_s < 1.5 * images / most.images_s


@dataclass(frozen=True)
class Crowded(StackTraining):
    """Training for which memory runs out after the first checkpoints, unless few runs take part."""

    most: int = 3

    def __call__(self) -> Iterator[RunEvent | StackEnded]:
        for event in super().__call__():
            yield event
            if (
                len(self.request.runs) > self.most
                and isinstance(event, RunEvent)
                and isinstance(event.event, EpochDone)
            ):
                torch.empty(1 << 60)


def test_without_memory_halves_go_on_from_the_checkpoints(tiny: hrg.Architecture, tmp_path: Path) -> None:
    many = study(tiny, seeds=2)
    networks, source = networks_of(many), data_of(many)
    plan = planned(many, networks, source, source.load())
    (bucket,) = buckets_of(networks, plan)
    stack = Stack(bucket.keys, bucket.whole.to_yaml(), "stacked")
    with Ledger.open(tmp_path / "halved") as ledger, LocalExecutor(1) as executor:
        ledger.join(plan)
        settled, _ = ledger.settle(Execution.of(next(iter(plan.requests.values())), "stacked", 6))
        train_all(ledger, plan.requests, executor, stacks=[stack], stack_work=Crowded, execution=settled)
        assert ledger.execution is not None and ledger.execution.stack == 3
    found = read_results(tmp_path / "halved")
    assert [(row.state, row.attempts) for row in found.rows] == [("complete", 2)] * 6
    assert {row.record.machine.replicas for row in found.rows if row.record} == {3}
    ablate(many, out=tmp_path / "whole", executor=Inline(), stack=6)
    assert results(tmp_path / "halved") == results(tmp_path / "whole")


def test_where_there_is_memory_for_no_stack_runs_are_trained_alone(tiny: hrg.Architecture, tmp_path: Path) -> None:
    few = study(tiny, seeds=1)
    networks, source = networks_of(few), data_of(few)
    plan = planned(few, networks, source, source.load())
    (bucket,) = buckets_of(networks, plan)
    stack = Stack(bucket.keys, bucket.whole.to_yaml(), "stacked")
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        settled, _ = ledger.settle(Execution.of(next(iter(plan.requests.values())), "stacked", 6))
        crowded = partial(Crowded, most=0)
        train_all(ledger, plan.requests, Inline(), stacks=[stack], stack_work=crowded, execution=settled)
    rows = read_results(tmp_path).rows
    assert [(row.state, row.attempts) for row in rows] == [("complete", 2)] * 3
    assert {(row.record.machine.backend, row.record.machine.replicas) for row in rows if row.record} == {("eager", 1)}


def test_a_checkpoint_that_cannot_be_read_stops_no_other_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    few = study(tiny, seeds=1)
    networks, source = networks_of(few), data_of(few)
    plan = planned(few, networks, source, source.load())
    with Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        ledger.settle(Execution.of(next(iter(plan.requests.values())), "stacked", 6))
        first = ledger.runs()[0]
        ledger.begin(first.key, 1, "here")
        (first.folder / "checkpoints" / "1-0.json").mkdir(parents=True)
    with pytest.raises(RunError, match=r"this checkpoint cannot be read(.|\n)*2 of 3 runs are finished"):
        ablate(few, out=tmp_path, executor=Inline(), stack=6)
