"""Successive halving and divergence in a search, on given validation accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.sweep.driver import Driver, Interrupted
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.search import SearchLoop
from hiresnet_graph.sweep.search_prepare import prepare_search
from hiresnet_graph.sweep.search_settings import SearchSettings
from hiresnet_graph.sweep.search_trials import Trial, read_trials
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.study import Study
from tests.sweep.scripted import EPOCHS, NAN, Curves, Scripted, searched


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
        loop = SearchLoop(prepare_search(study, None).with_ledger(ledger), ledger)
        with Driver(ledger, Scripted(ledger=ledger, curves=curves)) as driver:
            loop.run(driver, None)
        states = [trial.state for trial in loop._sampling().trials]
    outcomes = {trial.outcome for trial in read_trials(tmp_path)}
    assert outcomes == {"diverged", "known"}
    assert set(states) == {TrialState.PRUNED}


def test_the_epochs_of_a_batch() -> None:
    settings = SearchSettings.model_validate({"space": {"edges": "full"}, "batch": 9, "halving": {"first": 2}})
    assert settings.halving is not None
    assert settings.halving.rungs(9) == (2, 4, 8) and settings.halving.rungs(8) == (2, 4)
    assert settings.batch_epochs(9, 9) == 9 * 2 + 4 * 2 + 2 * 4 + 1
    assert settings.batch_epochs(0, 9) == 0
    assert settings.model_copy(update={"halving": None}).batch_epochs(9, 9) == 81


def test_a_search_that_was_stopped_at_the_end_of_a_batch_is_open(tiny: hrg.Architecture, tmp_path: Path) -> None:
    """All of its runs are complete then; one that has ended below its budget is not open."""
    curves: Curves = {number: [0.5] * EPOCHS for number in range(8)}
    ended: list[int] = []

    def stop(trial: Trial, runs: int) -> None:
        ended.append(runs)
        if len(ended) == 2:
            raise KeyboardInterrupt

    how = {"sampler": "brute-force", "runs": 100, "batch": 2}
    with pytest.raises(KeyboardInterrupt):
        searched(tiny, tmp_path, curves, progress=stop, **how)
    status = read_status(tmp_path)
    assert [run.state for run in status.runs] == ["complete"] * 2
    assert status.budget is not None and (status.budget.runs, status.budget.is_open) == (100, True)
    searched(tiny, tmp_path, curves, **how)
    status = read_status(tmp_path)
    assert len(status.runs) == 8
    assert status.budget is not None and (status.budget.runs, status.budget.is_open) == (100, False)
