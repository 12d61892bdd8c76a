"""Which way is chosen, of those that were measured."""

from collections.abc import Sequence
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import DigitsData
from hiresnet_graph.sweep import Study, speed
from hiresnet_graph.sweep import calibration as module
from hiresnet_graph.sweep.calibration import Calibration, Choice, disk_bytes
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.executors.base import Lost, Report, Task
from hiresnet_graph.sweep.plan import data_of, networks_of, planned
from hiresnet_graph.sweep.speed import Program
from hiresnet_graph.sweep.stacks import buckets_of
from hiresnet_graph.sweep.ways import Crew, Way
from hiresnet_graph.train import Paused, Recipe, RunRequest, Seeds

FEW, MANY = Crew(2, 1), Crew(1, 2)


class Environment:
    """Stands for worker processes: tells speeds that were thought out, and notes what it is asked for."""

    def __init__(self, speeds: dict[tuple[Crew, str, int], float]) -> None:
        self.speeds, self.asked = speeds, list[Way]()

    def __enter__(self) -> "Environment":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def images_s(self, crew: Crew, program: Program, floor: float = 0.0) -> float:
        way = Way(crew, program.backend, len(program.requests))
        self.asked.append(way)
        return self.speeds.get((crew, way.backend, way.stack), 0.0)


def measured(
    tiny: hrg.Architecture,
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[tuple[Crew, str, int], float],
    devices: tuple[str, ...],
    **fields: Any,
) -> tuple[Calibration, Environment]:
    monkeypatch.setattr(module, "room_of", lambda devices, workers: None)
    study = Study(network=tiny, **{"variants": ("none", "full"), "seeds": 20, "recipe": Recipe(epochs=80), **fields})
    networks, source = networks_of(study), data_of(study)
    dataset = source.load()
    plan = planned(study, networks, source, dataset)
    machine = Environment(speeds)
    calibration = Calibration(networks, plan, buckets_of(networks, plan), dataset, plan.requests, devices)
    monkeypatch.setattr(calibration, "_gauge", lambda crews: machine)
    return calibration, machine


def chosen(
    tiny: hrg.Architecture,
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[tuple[Crew, str, int], float],
    *,
    crews: Sequence[Crew] = (FEW, MANY),
    devices: tuple[str, ...] = ("cpu",),
    **fields: Any,
) -> tuple[Choice, list[Way]]:
    calibration, machine = measured(tiny, monkeypatch, speeds, devices, **fields)
    return calibration.choose(crews), machine.asked


def test_stacks_must_be_worth_it(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 800.0, (FEW, "stacked", 4): 900.0}
    choice, asked = chosen(tiny, monkeypatch, {**speeds, (FEW, "stacked", 16): 1030.0, (MANY, "stacked", 4): 500.0})
    assert choice.way == Way(FEW) and Way(FEW, "stacked", 16) in asked
    choice, asked = chosen(tiny, monkeypatch, {**speeds, (FEW, "stacked", 16): 1500.0, (MANY, "stacked", 4): 500.0})
    assert choice.way == Way(FEW, "stacked", 16)
    assert choice.estimate is not None and choice.estimate.images_s == 1500.0
    assert str(choice).startswith(
        "Measured on this machine, the fastest way is 2 workers x 1 thread, 16 runs as one program (stacked). Images a "
        "second: 1,000 (2 workers x 1 thread, each run by itself (eager)), 800 ("
    )


def test_other_threads_may_be_fastest(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, _ = chosen(tiny, monkeypatch, {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 1100.0})
    assert choice.way == Way(MANY)


def test_what_is_far_slower_is_given_up_for_its_workers(
    tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 800.0, (FEW, "stacked", 4): 150.0}
    choice, asked = chosen(tiny, monkeypatch, speeds)
    assert choice.way == Way(FEW)
    assert asked == [Way(FEW), Way(MANY), Way(FEW, "stacked", 4), Way(MANY, "stacked", 4)]


def test_without_stacks_runs_are_measured_alone(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Crew(1, 1)
    single = {"variants": ("none",), "seeds": 1, "recipe": Recipe(epochs=8000)}
    calibration, machine = measured(tiny, monkeypatch, {(one, "eager", 1): 1000.0}, ("cpu",), **single)
    found = calibration.estimate(Way(one, "stacked", 4))
    assert machine.asked == [Way(one)] and found is not None and found.images_s == 1000.0
    compiled = {"recipe": Recipe(epochs=8000, compile=True)}
    speeds = {(one, "eager", 1): 1000.0, (one, "graph", 1): 3000.0}
    choice, asked = chosen(tiny, monkeypatch, speeds, crews=[one], devices=("cuda:0",), **compiled)
    assert choice.way == Way(one) and asked == [Way(one)]


def test_workers_that_were_ended_begin_again_before_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Ending(LocalExecutor):
        """One whose workers prepare, and die over all else."""

        def submit(self, task: Task) -> None:
            seen.append(type(task.work).__name__)

        def reports(self, timeout_s: float) -> Sequence[Report]:
            return [Report("0", 0, Paused(0) if seen[-1] == "_Preparation" else Lost("gone."), "here")]

    monkeypatch.setattr(speed, "LocalExecutor", Ending)
    request = RunRequest(spec="", label="", seeds=Seeds(0, 0), data=DigitsData(), recipe=Recipe())
    with speed.Gauge([Crew(1, 1)], ("cpu",), DigitsData()) as gauge:
        assert [gauge.images_s(Crew(1, 1), Program((request,), "")) for _ in range(2)] == [0.0, 0.0]
    assert seen == ["_Preparation", "_Sample"] * 2


def test_a_short_study_is_not_measured_further(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(FEW, "eager", 1): 1e6, (MANY, "eager", 1): 1e5, (FEW, "stacked", 16): 1e9}
    choice, asked = chosen(tiny, monkeypatch, speeds)
    assert choice.way == Way(FEW) and asked == [Way(FEW), Way(MANY)]


def test_what_cannot_be_measured_is_as_usual(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, _ = chosen(tiny, monkeypatch, {})
    assert choice.way == Way(FEW) and choice.estimate is None
    assert str(choice) == (
        "No way to train could be measured, so this is the usual one: 2 workers x 1 thread, each run by itself (eager)."
    )


def test_workers_without_work_count(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs keep two workers busy for as long as four: one worker with two threads may be done earlier."""
    few = {"variants": ("none",), "seeds": 3, "recipe": Recipe(epochs=8000)}
    choice, asked = chosen(tiny, monkeypatch, {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 900.0}, **few)
    assert choice.way == Way(MANY)
    # with two workers there are no three runs for a stack
    assert [way for way in asked if way.backend == "stacked"] == [Way(MANY, "stacked", 3)]


def test_a_gpu_is_tried_with_larger_and_larger_stacks(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Crew(1, 1)
    speeds = {(one, "eager", 1): 1000.0, (one, "graph", 1): 3000.0, (one, "branches", 2): 3600.0}
    speeds |= {(one, "branches", 4): 3700.0, (one, "branches", 8): 9000.0}
    speeds |= {(one, "stacked", 4): 2000.0, (one, "stacked", 8): 3500.0, (one, "stacked", 16): 5000.0}
    choice, asked = chosen(tiny, monkeypatch, speeds, crews=[one], devices=("cuda:0",))
    assert [(way.backend, way.stack) for way in asked] == [
        ("eager", 1),
        ("graph", 1),
        ("branches", 2),
        ("branches", 4),  # hardly better: no larger one is tried
        ("stacked", 4),
        ("stacked", 8),
        ("stacked", 16),
        ("stacked", 32),  # there is no memory for it
    ]
    assert choice.way == Way(one, "stacked", 16)


def test_checkpoints_of_all_runs_at_work_take_room(tiny: hrg.Architecture) -> None:
    study = Study(network=tiny, variants=("none", "full"), seeds=4)
    networks, source = networks_of(study), data_of(study)
    plan = planned(study, networks, source, None)
    alone, together = (disk_bytes(networks, plan, plan.requests, at_work) for at_work in (1, 8))
    weights = 4 * (tiny.cost().parameters + tiny.cost().buffers)
    assert 8 * 6 * weights < together - alone < 8 * 7 * weights + 1
