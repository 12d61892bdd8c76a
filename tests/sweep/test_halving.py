"""Successive halving and divergence in a search, on given validation accuracies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.files import make_folder
from hiresnet_graph.sweep.driver import Driver, Interrupted
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.executors.base import TaskReport, Training
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.search import SearchLoop, Trial, read_trials
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.events import EpochDone, Event, Finished, Paused, Started
from tests.sweep.works import MACHINE, Inline, epoch, record

NAN = math.nan
EPOCHS = 4
Curves = dict[int, Sequence[float]]


@dataclass
class Scripted(Inline):
    """An executor whose runs have given validation accuracies; NaN is an epoch in which a run diverges.

    Attributes:
        curves: The accuracies after each epoch, by number of the run in the order of proposals.
        limit: Number of tasks before Ctrl-C.
    """

    ledger: Ledger | None = None
    curves: Curves | None = None
    limit: int = -1

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if not self.tasks:
            return []
        if self.limit == 0:
            raise KeyboardInterrupt
        self.limit -= 1
        task = self.tasks.popleft()
        assert self.ledger is not None and self.curves is not None and isinstance(task.work, Training)
        number = [run.key for run in self.ledger.runs()].index(task.key)
        events = list(self._train(task.work, task.key, self.curves[number]))
        return [TaskReport(task.key, task.attempt, event, "here") for event in events]

    @staticmethod
    def _train(work: Training, key: str, curve: Sequence[float]) -> Iterator[Event]:
        saved = make_folder(work.folder) / "saved"
        done = int(saved.read_text()) if saved.exists() else 0
        yield Started(done, MACHINE)
        for number in range(done + 1, (work.until or EPOCHS) + 1):
            if math.isnan(curve[number - 1]):
                yield Finished(record(work.request, outcome="diverged").model_copy(update={"key": key}))
                return
            yield EpochDone(epoch(number).model_copy(update={"validation_accuracy": curve[number - 1]}))
            saved.write_text(str(number))
        if work.until is not None:
            yield Paused(work.until)
        else:
            yield Finished(record(work.request).model_copy(update={"key": key}))


def searched(arch: hrg.Architecture, folder: Path, curves: Curves, stop: int = -1, **how: Any) -> tuple[Trial, ...]:
    """The trials of a search of as many networks as there are curves, in one batch unless another size is given."""
    settings = {"space": {"edges": "full"}, "sampler": "random", "runs": len(curves), "batch": len(curves), **how}
    study = Study.model_validate({"network": arch, "recipe": {"epochs": EPOCHS}, "seeds": 1, "search": settings})
    with Ledger.open(folder) as ledger:
        execution = ExecutionPlan()
        loop = SearchLoop(SearchSpace(study), ledger, execution)
        with Driver(ledger, Scripted(ledger=ledger, curves=curves, limit=stop), execution) as driver:
            loop.run(driver, None)
    return read_trials(folder)


def trained(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.outcome != "known"]


HALVING = {"first": 1, "factor": 2}
CROSSING = {0: [0.7, 0.9, 0.9, 0.9], 1: [0.8, 0.9, 0.9, 0.9], 2: [0.1] * 4, 3: [0.1] * 4}
LATE = {0: [0.5, 0.9, 0.9, 0.9], 1: [0.6, 0.7, 0.7, 0.7], 2: [0.8, NAN, NAN, NAN], 3: [0.7, 0.85, 0.95, 0.95]}


@pytest.mark.parametrize("curves", [CROSSING, LATE], ids=["ties", "divergence"])
def test_an_interrupted_search_with_halving_makes_the_same_decisions(
    tiny: hrg.Architecture, tmp_path: Path, curves: Curves
) -> None:
    whole = searched(tiny, tmp_path / "whole", curves, halving=HALVING)
    assert [trial.outcome for trial in trained(whole)].count("complete") == 1
    interruptions = 0
    for stop in range(8):
        try:
            searched(tiny, tmp_path / str(stop), curves, stop, halving=HALVING)
        except Interrupted:
            interruptions += 1
        assert searched(tiny, tmp_path / str(stop), curves, halving=HALVING) == whole
    assert interruptions == 7  # after 0 to 6 of 4 + 2 + 1 tasks


def test_of_equal_networks_the_first_proposed_is_kept(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """Also where the second was better at an earlier rung."""
    found = trained(searched(tiny, tmp_path, CROSSING, halving=HALVING))
    assert [trial.outcome for trial in found] == ["complete", "pruned", "pruned", "pruned"]


def test_epochs_after_a_rung_have_no_influence_on_it(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """Run 0 would be best at the second rung, but was behind at the first; run 2 does not reach the second."""
    found = trained(searched(tiny, tmp_path, LATE, halving=HALVING))
    assert [(trial.outcome, trial.values) for trial in found] == [
        ("pruned", ()),
        ("pruned", ()),
        ("diverged", ()),
        ("complete", (0.95,)),
    ]


@pytest.mark.parametrize("halving", [HALVING, None])
def test_a_diverged_run_has_no_value_and_ranks_last(
    tiny: hrg.Architecture, tmp_path: Path, halving: dict[str, int] | None
) -> None:
    """Whatever its accuracy was before it diverged."""
    curves = {0: [0.95, 0.99, NAN, NAN], 1: [NAN] * 4, 2: [0.3] * 4, 3: [0.2] * 4}
    found = trained(searched(tiny, tmp_path, curves, halving=halving and {"first": 3, "factor": 3}))
    last = ("complete", (0.2,)) if halving is None else ("pruned", ())
    assert [(trial.outcome, trial.values) for trial in found] == [
        ("diverged", ()),
        ("diverged", ()),
        ("complete", (0.3,)),
        last,
    ]
    states = [row.state for row in read_results(tmp_path).rows]
    assert states == ["diverged", "diverged", "complete", last[0]]


def test_the_sampler_is_not_led_to_networks_that_diverge(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """A diverged trial, and a proposal of the same network, are no trials with a value, and have ended."""
    from optuna.trial import TrialState

    curves: Curves = {number: [0.9, NAN, NAN, NAN] for number in range(6)}
    settings = {"space": {"edges": "full", "prune": "dead"}, "sampler": "random", "runs": 6, "batch": 2}
    study = Study.model_validate({"network": tiny, "recipe": {"epochs": EPOCHS}, "seeds": 1, "search": settings})
    with Ledger.open(tmp_path) as ledger:
        loop = SearchLoop(SearchSpace(study), ledger, ExecutionPlan())
        with Driver(ledger, Scripted(ledger=ledger, curves=curves)) as driver:
            loop.run(driver, None)
        states = [trial.state for trial in loop._sampling().trials]
    outcomes = {trial.outcome for trial in read_trials(tmp_path)}
    assert outcomes == {"diverged", "known"}
    assert set(states) == {TrialState.PRUNED}
