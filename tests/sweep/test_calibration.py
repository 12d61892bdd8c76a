"""Which execution plan is chosen, of those that were measured."""

from collections.abc import Sequence
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import DigitsData
from hiresnet_graph.stack.grouping import SupergraphStack
from hiresnet_graph.sweep import Study, throughput
from hiresnet_graph.sweep import calibration as module
from hiresnet_graph.sweep.calibration import Calibration, CalibrationResult
from hiresnet_graph.sweep.execution import ExecutionPlan, WorkerLayout
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.executors.base import Lost, Task, TaskReport
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.sweep.throughput import Program
from hiresnet_graph.train import Paused, Recipe, RunRequest, Seeds
from tests.train.test_steps import WITHOUT_NORM

FEW, MANY = WorkerLayout(2, 1), WorkerLayout(1, 2)


def way(layout: WorkerLayout, backend: Any = "eager", stack: int = 1, device: str = "cpu") -> ExecutionPlan:
    return ExecutionPlan(device).using(layout, backend, stack)


class FakeProbe:
    """Replaces the worker processes: returns given throughputs, and records what is measured."""

    def __init__(self, speeds: dict[tuple[WorkerLayout, str, int], float], device: str) -> None:
        self.speeds, self.device, self.measured = speeds, device, list[ExecutionPlan]()

    def __enter__(self) -> "FakeProbe":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def images_s(self, layout: WorkerLayout, program: Program, floor: float = 0.0) -> float:
        plan = way(layout, _backend(program), len(program.requests), self.device)
        assert {request.threads for request in program.requests} == {layout.threads}
        self.measured.append(plan)
        return self.speeds.get((layout, plan.backend, plan.stack), 0.0)


def _backend(program: Program) -> str:
    if program.stack is None:
        return "eager"
    assert isinstance(program.stack, SupergraphStack)
    return program.stack.backend if len(program.requests) > 1 else "graph"


def measured(
    tiny: hrg.Architecture,
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[tuple[WorkerLayout, str, int], float],
    devices: tuple[str, ...],
    remaining: int | None = None,
    **fields: Any,
) -> tuple[Calibration, FakeProbe]:
    monkeypatch.setattr(module, "memory_budget", lambda devices, workers: None)
    study = Study(network=tiny, **{"variants": ("none", "full"), "seeds": 20, "recipe": Recipe(epochs=80), **fields})
    prepared = prepare_study(study, None, ExecutionOptions(stack="auto"))
    assert prepared.dataset is not None
    device = devices[0].split(":")[0]
    probe = FakeProbe(speeds, device)
    plan, default = prepared.plan, ExecutionPlan(device)
    left = dict(prepared.remaining) if remaining is None else dict.fromkeys(prepared.missing, remaining)
    calibration = Calibration(prepared.networks, plan, prepared.groups, prepared.dataset, left, devices, default)
    monkeypatch.setattr(calibration, "_probe", lambda layouts: probe)
    return calibration, probe


def chosen(
    tiny: hrg.Architecture,
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[tuple[WorkerLayout, str, int], float],
    *,
    layouts: Sequence[WorkerLayout] = (FEW, MANY),
    devices: tuple[str, ...] = ("cpu",),
    **fields: Any,
) -> tuple[CalibrationResult, list[ExecutionPlan]]:
    calibration, probe = measured(tiny, monkeypatch, speeds, devices, **fields)
    return calibration.choose(layouts), probe.measured


def test_stacks_are_chosen_only_if_clearly_faster(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 800.0, (FEW, "stacked", 4): 900.0}
    result, seen = chosen(tiny, monkeypatch, {**speeds, (FEW, "stacked", 16): 1030.0, (MANY, "stacked", 4): 500.0})
    assert result.plan == way(FEW) and way(FEW, "stacked", 16) in seen
    result, seen = chosen(tiny, monkeypatch, {**speeds, (FEW, "stacked", 16): 1500.0, (MANY, "stacked", 4): 500.0})
    assert result.plan == way(FEW, "stacked", 16)
    assert result.chosen is not None and result.chosen.images_s == 1500.0
    assert str(result).startswith(
        "Fastest on this machine: 2 workers x 1 thread, 16 runs as one program (stacked). Images per second: 1,000 "
        "(2 workers x 1 thread, each run by itself (eager)), 800 ("
    )


def test_epochs_that_are_done_take_no_time(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    def time_s(remaining: int | None) -> float:
        calibration, _ = measured(tiny, monkeypatch, {(FEW, "eager", 1): 1000.0}, ("cpu",), remaining)
        found = calibration.estimate(way(FEW))
        assert found is not None
        return found.time_s

    all_epochs, half, none = time_s(None), time_s(40), time_s(0)
    assert half - none == pytest.approx((all_epochs - none) / 2)
    assert 0 < none < 0.02 * all_epochs  # the test images


def test_other_threads_may_be_fastest(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = chosen(tiny, monkeypatch, {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 1100.0})
    assert result.plan == way(MANY)


def test_a_much_slower_stack_ends_the_measurement_of_a_layout(
    tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 800.0, (FEW, "stacked", 4): 150.0}
    result, seen = chosen(tiny, monkeypatch, speeds)
    assert result.plan == way(FEW)
    assert seen == [way(FEW), way(MANY), way(FEW, "stacked", 4), way(MANY, "stacked", 4)]


def test_runs_that_cannot_be_stacked_are_measured_alone(
    tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = WorkerLayout(1, 1)
    single = {"variants": ("none",), "seeds": 1, "recipe": Recipe(epochs=8000)}
    calibration, probe = measured(tiny, monkeypatch, {(one, "eager", 1): 1000.0}, ("cpu",), **single)
    found = calibration.estimate(way(one, "stacked", 4))
    assert probe.measured == [way(one)] and found is not None and found.images_s == 1000.0
    compiled = {"recipe": Recipe(epochs=8000, compile=True)}
    speeds = {(one, "eager", 1): 1000.0, (one, "graph", 1): 3000.0}
    result, seen = chosen(tiny, monkeypatch, speeds, layouts=[one], devices=("cuda:0",), **compiled)
    assert result.plan == way(one, device="cuda") and seen == [result.plan]


def test_workers_that_were_ended_are_restarted_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Ending(LocalExecutor):
        """Workers that are prepared, and end with every other task."""

        def submit(self, task: Task) -> None:
            seen.append(type(task.work).__name__)

        def reports(self, timeout_s: float) -> Sequence[TaskReport]:
            return [TaskReport("0", 0, Paused(0) if seen[-1] == "_Preparation" else Lost("gone."), "here")]

    monkeypatch.setattr(throughput, "LocalExecutor", Ending)
    request = RunRequest(spec="", label="", seeds=Seeds(0, 0), data=DigitsData(), recipe=Recipe())
    with throughput.ThroughputProbe([WorkerLayout(1, 1)], ("cpu",), DigitsData()) as probe:
        assert [probe.images_s(WorkerLayout(1, 1), Program((request,))) for _ in range(2)] == [0.0, 0.0]
    assert seen == ["_Preparation", "_Sample"] * 2


def test_early_stopping_does_not_end_a_measurement() -> None:
    recipe = Recipe(epochs=9, batch_size=1294, patience=1)
    net = hrg.loads(WITHOUT_NORM, "net.yaml")  # with such a rate, its accuracy stays the same
    request = RunRequest(net.to_yaml(), "", Seeds(0, 0), DigitsData(), recipe)
    advance, _ = throughput._Sample(Program((request,)), 0.0)._started()
    assert "tested" not in [advance() for _ in range(4)]


def test_stacks_are_not_measured_for_a_short_study(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(FEW, "eager", 1): 1e6, (MANY, "eager", 1): 1e5, (FEW, "stacked", 16): 1e9}
    result, seen = chosen(tiny, monkeypatch, speeds)
    assert result.plan == way(FEW) and seen == [way(FEW), way(MANY)]


def test_the_default_is_used_if_nothing_can_be_measured(
    tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = chosen(tiny, monkeypatch, {})
    assert result.plan == way(FEW) and result.chosen is None
    assert str(result) == (
        "No execution plan could be measured; the default is used: 2 workers x 1 thread, each run by itself (eager)."
    )


def test_idle_workers_count(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers need as long for three runs as for four, so one worker with two threads may be faster."""
    few = {"variants": ("none",), "seeds": 3, "recipe": Recipe(epochs=8000)}
    result, seen = chosen(tiny, monkeypatch, {(FEW, "eager", 1): 1000.0, (MANY, "eager", 1): 900.0}, **few)
    assert result.plan == way(MANY)
    # with two workers there are no three runs for a stack
    assert [plan for plan in seen if plan.backend == "stacked"] == [way(MANY, "stacked", 3)]


def test_stack_sizes_are_doubled_on_a_gpu(tiny: hrg.Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    one = WorkerLayout(1, 1)
    speeds = {(one, "eager", 1): 1000.0, (one, "graph", 1): 3000.0, (one, "branches", 2): 3600.0}
    speeds |= {(one, "branches", 4): 3700.0, (one, "branches", 8): 9000.0}
    speeds |= {(one, "stacked", 4): 2000.0, (one, "stacked", 8): 3500.0, (one, "stacked", 16): 5000.0}
    result, seen = chosen(tiny, monkeypatch, speeds, layouts=[one], devices=("cuda:0",))
    assert [(plan.backend, plan.stack) for plan in seen] == [
        ("eager", 1),
        ("graph", 1),
        ("branches", 2),
        ("branches", 4),  # hardly faster: larger ones are not measured
        ("stacked", 4),
        ("stacked", 8),
        ("stacked", 16),
        ("stacked", 32),  # there is no memory for it
    ]
    assert result.plan == way(one, "stacked", 16, "cuda")


def test_the_disk_estimate_includes_checkpoints_of_running_runs(tiny: hrg.Architecture) -> None:
    study = Study(network=tiny, variants=("none", "full"), seeds=4)

    def disk(jobs: int) -> int:
        return prepare_study(study, None, ExecutionOptions(jobs=jobs, threads=1)).disk_bytes

    weights = 4 * (tiny.cost().parameters + tiny.cost().buffers)
    assert 8 * 6 * weights < disk(8) - disk(1) < 8 * 7 * weights + 1
