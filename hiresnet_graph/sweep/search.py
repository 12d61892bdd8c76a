"""A search: a sampler proposes networks in batches; they are trained, and their accuracies guide the next proposals.

    name: cheap skips
    network: hiresnet18
    changes: {width: 8}
    search:
      space:
        edges: full                        # each edge of this set (of the study's `group`) is present or absent
        width: [8, 12, 16]                 # a key of `changes`, or a field of the recipe, with its values
        lr: {low: 0.001, high: 0.03, log: true}
      sampler: nsga2                       # tpe, nsga2, random, brute-force
      objectives: [accuracy, parameters]   # validation accuracy alone; or with parameters or macs
      runs: 40                             # the budget
      limit: {parameters: 300000}          # larger networks are not trained
      batch: 4                             # networks that are proposed together
      halving: {first: 2, factor: 2}       # successive halving inside a batch
    seeds: 1                               # of each network; the mean counts
    data: cifar10
    recipe: {epochs: 20}

The sampler is rebuilt for each batch from the trials in the ledger, so an interrupted search is resumed with the
proposals that it would have made. Test images have no influence.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiresnet_graph.errors import RunError
from hiresnet_graph.seeding import draw_integer
from hiresnet_graph.sweep.database import FINAL, open_for_reading
from hiresnet_graph.sweep.driver import Driver, Interrupted
from hiresnet_graph.sweep.executors import Executor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan
from hiresnet_graph.sweep.results import NetworkInfo, Results, read_results
from hiresnet_graph.sweep.search_prepare import PreparedSearch, prepare_search
from hiresnet_graph.sweep.search_trials import TRAINED, Outcome, Trial
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.record import LEDGER
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from optuna import Study as Sampling
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

# This many proposals in a row without a new network end a search.
_PATIENCE = 500


def search(
    study: Study | str | Path,
    *,
    out: Path | str,
    executor: str | Executor = "local",
    jobs: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    address: str | None = None,
    slurm: str | None = None,
    wait: bool = False,
    started: Callable[[PreparedSearch], None] = lambda prepared: None,
    progress: Callable[[Trial, int], None] | None = None,
) -> Results:
    """Search for networks within the budget of a study, or resume the search in a folder.

    Proposals depend on the study alone, not on `jobs` or on interruptions.

    Args:
        study: A study with `search`, or its file; all other arguments as for `ablate`.
        started: Called once, before training.
        progress: Called with each trial that has ended, and the number of runs that have ended so far.

    Raises:
        SpecError, UsageError: The search is invalid, or the folder holds another one. Nothing was trained.
        RunError: A run has failed; the others of its batch were trained.
        Interrupted: Ctrl-C. Finished runs are kept, running ones have saved a checkpoint.
    """
    options = ExecutionOptions(executor, jobs, device, threads, address=address, slurm=slurm)
    prepared = prepare_search(study, out, options)
    with Ledger.open(out, wait=wait) as ledger:
        prepared = prepared.with_ledger(ledger)
        started(prepared)
        execution = prepared.execution
        loop = SearchLoop(prepared, ledger)
        with (
            options.make_executor(prepared.devices, execution.threads, out, prepared.batch_runs) as workers,
            Driver(ledger, workers, execution) as driver,
        ):
            loop.run(driver, progress)
    return read_results(out)


class SearchLoop:
    """Proposes, trains and records networks until the budget is used up."""

    def __init__(self, prepared: PreparedSearch, ledger: Ledger) -> None:
        self._space, self._ledger, self._search = prepared.space, ledger, prepared.space.search
        self._execution = prepared.execution
        self._networks: list[NetworkInfo] = []
        self._rows: list[PlannedRow] = []
        self._requests: dict[str, RunRequest] = {}
        self._with_epochs: dict[str, Callable[[str, int], str]] = {}
        self._report: Callable[[], None] = lambda: None
        self._trials = dict(prepared.stored.trials)
        for number, plan in prepared.plans.items():
            if self._trials[number].outcome in TRAINED:
                self._add(plan)

    def run(self, driver: Driver, progress: Callable[[Trial, int], None] | None) -> None:
        """Propose, train and record, until the budget is used up or there is no new network."""
        batch = [number for number, trial in self._trials.items() if trial.outcome == "asked"]
        if batch:
            self._join()
        else:
            batch = self._propose_batch()
        has_ended = set(TRAINED) - {"asked"}
        ended = sum(len(trial.keys) for trial in self._trials.values() if trial.outcome in has_ended)
        unreported: list[int] = []

        def report() -> None:
            nonlocal ended
            for number in list(unreported):
                trial = self._trials[number]
                if all(self._ledger.run(key).state in FINAL for key in trial.keys):
                    unreported.remove(number)
                    ended += len(trial.keys)
                    if progress is not None:
                        progress(self._with_result(trial), ended)

        self._report = report
        while batch:
            unreported += batch
            try:
                self._train(driver, batch)
            except Interrupted as error:
                raise Interrupted(
                    error.done, self._search.runs, self._ledger.folder, error.saved, is_budget=True
                ) from None
            report()
            waiting = [n for n, trial in self._trials.items() if trial.outcome == "known" and not trial.values]
            for number in [*batch, *waiting]:
                self._record_result(number)
            # Results are committed with the next batch: as long as the search has not ended, there is a trial `asked`.
            batch = self._propose_batch()

    # ---- proposals

    def _propose_batch(self) -> list[int]:
        """The next batch, stored in the ledger; empty if the budget is used up, or no new network is proposed."""
        batch: list[int] = []
        in_vain = 0
        seeds = len(self._space.study.seed_pairs)
        size = min(self._search.batch, (self._search.runs - len(self._requests)) // seeds)
        while len(batch) < size and in_vain < _PATIENCE and len(self._proposed()) < self._space.size:
            number = len(self._trials)
            trial, plan = self._propose()
            self._trials[number] = trial
            if trial.outcome == "asked" and plan is not None:
                self._add(plan)
                batch.append(number)
                in_vain = 0
            else:
                in_vain += 1
                if trial.outcome == "known" and not any(set(trial.keys) & set(self._trials[n].keys) for n in batch):
                    self._record_result(number)
            self._store(number)
        if batch:
            self._join()
        self._ledger.commit()
        return batch

    def _propose(self) -> tuple[Trial, StudyPlan | None]:
        """The next proposal of the sampler, given all trials; and its runs, if it is a valid network."""
        sampling = self._sampling()
        proposal = sampling.ask(self._space.distributions())
        plan, limit = self._space.valid_plan(proposal.params), self._search.limit
        network = None if plan is None else plan.networks[0]
        outcome: Outcome = "asked"
        if plan is None:
            outcome = "no-network"
        elif any(most is not None and getattr(network, name) > most for name, most in limit):
            outcome = "too-large"
        elif plan.rows[0].key in self._requests:
            outcome = "known"
        label, setting = self._space.network(proposal.params)
        trial = Trial(
            params=proposal.params,
            outcome=outcome,
            label=label,
            setting=setting,
            parameters=0 if network is None else network.parameters,
            macs=0 if network is None else network.macs,
            keys=() if plan is None else tuple(row.key for row in plan.rows),
            memory=sampling.trials[-1].system_attrs,
        )
        return trial, plan

    def _proposed(self) -> set[str]:
        """The different proposals so far."""
        return {repr(sorted(trial.params.items())) for trial in self._trials.values()}

    def _sampling(self) -> Sampling:
        """Optuna's study of all trials; it determines the next proposal."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if name == "accuracy" else down for name in self._search.objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampling = optuna.create_study(directions=directions, sampler=self._sampler())
        distributions = self._space.distributions()
        outcomes = {trial.keys: trial.outcome for trial in self._trials.values() if trial.outcome in TRAINED}
        for trial in self._trials.values():
            sampling.add_trial(_frozen(trial, outcomes.get(trial.keys, trial.outcome), distributions))
        return sampling

    def _sampler(self) -> BaseSampler:
        from optuna import samplers

        seed = draw_integer(self._search.seed, len(self._trials), bits=31)
        batch = self._search.batch
        if self._search.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=max(10, batch))
        if self._search.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=max(2, batch))
        if self._search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.BruteForceSampler(seed=seed)

    # ---- training

    def _train(self, driver: Driver, batch: Sequence[int]) -> None:
        """Train the networks of a batch: all to the end, or with successive halving."""
        numbers = list(batch)
        if (halving := self._search.halving) is not None:
            for rung in halving.rungs(self._space.study.recipe.epochs):
                self._train_until(driver, numbers, rung)
                ranked = self._ranked(numbers, rung)
                numbers = ranked[: halving.kept(len(ranked))]
                for key in (key for number in ranked[len(numbers) :] for key in self._trials[number].keys):
                    self._ledger.prune(key)
        self._train_until(driver, numbers, None)

    def _train_until(self, driver: Driver, numbers: Sequence[int], until: int | None) -> None:
        """Train the runs of trials up to an epoch, or to their ends.

        Raises:
            RunError: A run has failed; the others were trained.
        """
        waiting: deque[str] = deque()
        for key in (key for number in numbers for key in self._trials[number].keys):
            run = self._ledger.run(key)
            is_done = until is not None and run.paused_at is not None and run.paused_at >= until
            if run.state not in FINAL and not is_done:
                waiting.append(key)
        failures: list[str] = []
        self._report()
        while waiting or driver.active_runs:
            while waiting and driver.free_slots > 0:
                key = waiting.popleft()
                driver.submit(key, self._requests[key], until=until)
            for end in driver.wait():
                if end.state == "failed":
                    failures.append(f"run '{self._ledger.run(end.key).folder.name}': {end.message}")
            self._report()
        if failures:
            raise RunError("\n".join([*failures, "All other runs are kept. The same command tries again."]))

    def _ranked(self, numbers: Sequence[int], rung: int) -> list[int]:
        """Trials by their accuracy at a rung, the best one first; of equal ones, the first proposed.

        Later epochs have no influence, so a resumed search repeats the decisions that were made before.
        """
        self._ledger.commit()
        best = _best_accuracies(self._ledger.folder, rung)
        accuracies = {number: _accuracy(self._trials[number], best.get) for number in numbers}
        return sorted(numbers, key=lambda number: (-accuracies[number], number))

    # ---- results

    def _record_result(self, number: int) -> None:
        self._trials[number] = self._with_result(self._trials[number])
        self._store(number)

    def _with_result(self, trial: Trial) -> Trial:
        """The trial with the results of its runs so far."""
        states = {self._ledger.run(key).state for key in trial.keys}
        values: tuple[float, ...] = ()
        outcome: Outcome = "pruned" if "pruned" in states else "complete"
        if "diverged" in states and outcome == "complete":
            outcome = "diverged"
        elif states == {"complete"}:
            costs = {"parameters": float(trial.parameters), "macs": float(trial.macs)}
            accuracy = _accuracy(trial, self._ledger.best_validation)
            values = tuple(costs.get(name, accuracy) for name in self._search.objectives)
        if trial.outcome == "known":
            outcome = "known"
        return trial.model_copy(update={"outcome": outcome, "values": values})

    def _store(self, number: int) -> None:
        self._ledger.write_trial(number, self._trials[number].model_dump(mode="json"))

    def _add(self, plan: StudyPlan) -> None:
        index = len(self._networks)
        self._last = plan
        self._networks += plan.networks
        self._rows += [dataclasses.replace(row, network=index) for row in plan.rows]
        self._requests |= plan.requests
        self._with_epochs |= dict.fromkeys(plan.requests, plan.key_with_epochs)

    def _join(self) -> None:
        """Make all networks so far the study of the folder."""
        plan = dataclasses.replace(
            self._last,
            baseline=None,
            networks=tuple(self._networks),
            rows=tuple(self._rows),
            requests=self._requests,
            subsets_of=(),
            text=self._space.study.to_yaml(),
            key_with_epochs=lambda key, epochs: self._with_epochs[key](key, epochs),
        )
        self._ledger.join(plan, is_search=True)
        self._ledger.freeze_execution(self._execution)


def _accuracy(trial: Trial, best: Callable[[str], float | None]) -> float:
    """Mean over the seeds of a trial of their best validation accuracies; below all others if one has none."""
    found = [best(key) for key in trial.keys]
    return statistics.fmean(each for each in found if each is not None) if None not in found else -math.inf


def _best_accuracies(folder: Path, rung: int) -> dict[str, float]:
    """The best validation accuracy of each run up to a rung; none of a run that diverged before its end."""
    with open_for_reading(folder / LEDGER) as database:
        found = database.execute(
            """
            SELECT key, max(iif(epoch <= :rung, accuracy, NULL)) FROM curves JOIN runs USING (key)
            WHERE split = 'validation' GROUP BY key HAVING state != 'diverged' OR max(epoch) >= :rung
            """,
            {"rung": rung},
        )
        return dict(found.fetchall())


def _frozen(trial: Trial, outcome: Outcome, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial for Optuna.

    Args:
        outcome: That of the trial that has trained its network.
    """
    from optuna.trial import TrialState, create_trial

    # A proposal that is being trained counts as running, so that the next differs.
    state = TrialState.COMPLETE if trial.values else TrialState.PRUNED
    if not trial.values and outcome == "asked":
        state = TrialState.RUNNING
    return create_trial(
        params=trial.params,
        distributions=distributions,
        values=list(trial.values) or None,
        state=state,
        system_attrs=trial.memory,
    )
