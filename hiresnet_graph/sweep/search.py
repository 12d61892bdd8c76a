"""A search: a sampler proposes networks, a batch at a time; they are trained, and what they reach guides the next ones.

    name: cheap skips
    network: hiresnet18
    changes: {width: 8}
    search:
      space:
        edges: full                        # each edge of this set (over the study's `group`) is there or not
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

The ledger is the truth: the sampler is made anew for each batch from the trials in it, so a search that was killed goes
on as if nothing had happened, and proposes what it would have proposed. Test images have no say.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hiresnet_graph.errors import RunError, SpecError, UsageError
from hiresnet_graph.seeding import draw_integer
from hiresnet_graph.spec.source import parse
from hiresnet_graph.sweep.ablation import check_asked, devices_of, executor_of, kind_of
from hiresnet_graph.sweep.driver import Driver, Interrupted
from hiresnet_graph.sweep.executors import Executor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan, data_of, networks_of, planned
from hiresnet_graph.sweep.results import FINAL, LEDGER, NetworkInfo, Results, read_results, reading
from hiresnet_graph.sweep.space import Interval
from hiresnet_graph.sweep.study import Study, fail, read_study, study_of
from hiresnet_graph.sweep.variants import TRANSITIONS, edges_of
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from optuna import Study as Sampling
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Outcome = Literal["asked", "complete", "pruned", "known", "too-large", "no-network"]

_EDGE = "edge "  # before the name of an edge, in the parameters of a trial
# So many proposals in a row that train nothing new end a search.
_PATIENCE = 500


class Trial(BaseModel):
    """A proposal, as the ledger keeps it.

    Attributes:
        params: What the sampler chose.
        outcome: `known` if it was the same network as an earlier one; `too-large` or `no-network` (without some
            transitions nothing reaches the output) if it is not trained; `asked` while it is at work.
        label: The edges of the network, as an edge set.
        setting: The rest of what was chosen.
        keys: Of its runs.
        values: One for each objective; none of a trial that was given up or not trained.
        memory: What the sampler has noted for itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: dict[str, Any]
    outcome: Outcome
    label: str
    setting: dict[str, Any]
    parameters: int
    macs: int
    keys: tuple[str, ...]
    values: tuple[float, ...] = ()
    memory: dict[str, Any] = Field(default_factory=dict)


def search(
    study: Study | str | Path,
    *,
    out: Path | str,
    executor: str | Executor = "local",
    jobs: int | None = None,
    device: str = "auto",
    threads: int = 1,
    address: str | None = None,
    wait: bool = False,
    begun: Callable[[Space], None] | None = None,
    progress: Callable[[Trial, int], None] | None = None,
) -> Results:
    """Search for networks within the budget of a study, or go on with the search in a folder.

    What is proposed depends on the study alone, not on `jobs` or on interruptions.

    Args:
        study: A study with `search`, or its file; all other arguments as of `ablate`.
        begun: Called once, before anything is trained.
        progress: Called with each trial that has ended, and the number of runs that have ended so far.

    Raises:
        SpecError, UsageError: The search cannot be, or the folder holds another one. Nothing was trained.
        RunError: A run has failed; the others of its batch were trained.
        Interrupted: Ctrl-C. Finished runs are kept, others have saved a checkpoint.
    """
    if isinstance(study, str | Path):
        study = read_study(study)
    check_asked(jobs, threads, executor, address)
    devices = devices_of(device, executor)
    space = Space(study, device=kind_of(devices), threads=threads)
    with Ledger.open(out, wait=wait) as ledger:
        hunt = _Hunt(space, ledger)
        if begun is not None:
            begun(space)
        # One batch is at work at a time.
        runs = space.search.batch * len(study.seed_pairs)
        with (
            executor_of(
                executor, jobs=jobs, device=device, threads=threads, address=address, runs=runs, on=devices
            ) as workers,
            Driver(ledger, workers) as driver,
        ):
            hunt.run(driver, progress)
    return read_results(out)


def read_trials(folder: Path | str) -> tuple[Trial, ...]:
    """All proposals of the search in a folder, those that were not trained too, in their order.

    Raises:
        RunError: The ledger of the folder cannot be read.
    """
    with reading(Path(folder) / LEDGER) as database:
        rows = database.execute("SELECT content FROM trials ORDER BY number").fetchall()
    return tuple(Trial.model_validate_json(content) for (content,) in rows)


class Space:
    """What may be chosen in a study, and the networks that choices mean.

    Raises:
        SpecError, UsageError: The study is no search, or one that cannot be.
    """

    def __init__(self, study: Study, *, device: str = "cpu", threads: int = 1) -> None:
        from hiresnet_graph.data import load_dataset
        from hiresnet_graph.train.checks import match_input

        if study.search is None:
            hint = "Give it one, or train it with 'hrg ablate'."
            fail(study, (), "this study has no 'search': it names no space to search.", hint)
        self.search = study.search
        for key in ("variants", "subsets", "controls", "grid", "baseline"):
            if getattr(study, key):
                fail(study, (key,), f"a study with 'search' has no '{key}'.", "Take one of the two out.")
        self.study, self._device, self._threads = study, device, threads
        self._check_halving(study)
        network = study.base().override(study.changes) if study.changes else study.base()
        self.edges: tuple[str, ...] = ()
        if "edges" in self.search.space:
            self.edges = tuple(edges_of(network.with_edges(str(self.search.space["edges"]), study.group), study.group))
        self._source = data_of(study)
        self._dataset = match_input(load_dataset(self._source), network.plan)
        if self.search.runs < (seeds := len(study.seed_pairs)):
            message = f"a budget of {self.search.runs} runs does not do for one network with {seeds} seeds."
            fail(study, ("search", "runs"), message, "Write 'seeds: 1', or more runs.")
        self._check_values()

    def _check_values(self) -> None:
        """See that each value can be taken, before anything is trained.

        Raises:
            SpecError, UsageError: One cannot.
        """
        values = self._values()
        first: dict[str, Any] = {_EDGE + edge: True for edge in self.edges}
        first |= {key: of_key[0] for key, of_key in values.items()}
        self._check(first, next(iter(values), "edges"))
        for key, of_key in values.items():
            for value in of_key[1:]:
                self._check({**first, key: value}, key)

    def _values(self) -> dict[str, tuple[Any, ...]]:
        """What may be chosen besides edges: all values; of an interval its bounds."""
        return {
            key: (values.low, values.high) if isinstance(values, Interval) else values
            for key, values in self.search.space.items()
            if not isinstance(values, str)
        }

    def _check(self, params: Mapping[str, Any], key: str) -> None:
        try:
            self.plan(params)
        except SpecError as error:
            first = error.problems[0]
            own = first.path.split(".")[-1]
            fail(self.study, ("search", "space", own if own in self.search.space else key), first.message, first.hint)
        except UsageError as error:
            fail(self.study, ("search", "space", key), str(error))

    def _check_halving(self, study: Study) -> None:
        halving = self.search.halving
        if halving is not None and halving.first >= study.recipe.epochs:
            message = (
                f"the first rung ({halving.first}) must be below the epochs of the recipe ({study.recipe.epochs})."
            )
            fail(study, ("search", "halving", "first"), message)

    @property
    def size(self) -> float:
        """How many different choices there are."""
        number: float = 2 ** len(self.edges)
        for values in self.search.space.values():
            if isinstance(values, Interval):
                number *= values.high - values.low + 1 if values.is_whole else math.inf
            elif not isinstance(values, str):
                number *= len(values)
        return number

    def extreme(self, pick: Callable[[int, int], int]) -> NetworkInfo:
        """The smallest or largest network, with `min` or `max` as `pick`: one choice after the other at its extreme.

        That is the true one unless choices work against each other.
        """
        choices = {**{_EDGE + edge: (True, False) for edge in self.edges}, **self._values()}
        chosen = {key: values[0] for key, values in choices.items()}
        found = self.plan(chosen).networks[0]
        for key, values in choices.items():
            for value in values[1:]:
                plan = self.possible({**chosen, key: value})
                if plan is not None and pick(plan.networks[0].parameters, found.parameters) != found.parameters:
                    chosen[key], found = value, plan.networks[0]
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """The choices, in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {
            _EDGE + edge: CategoricalDistribution((False, True)) for edge in self.edges
        }
        for key, values in self.search.space.items():
            if isinstance(values, Interval):
                kind = IntDistribution if values.is_whole else FloatDistribution
                found[key] = kind(values.low, values.high, log=values.log)  # type: ignore[arg-type]
            elif not isinstance(values, str):
                found[key] = CategoricalDistribution(values)
        return found

    def network(self, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The edges that a choice means, as an edge set, and the rest of the choice."""
        chosen = " + ".join(edge for edge in self.edges if params[_EDGE + edge]) or "none"
        return chosen, {key: value for key, value in params.items() if not key.startswith(_EDGE)}

    def plan(self, params: Mapping[str, Any]) -> StudyPlan:
        """The runs of a choice, as a study of one network."""
        label, setting = self.network(params)
        update: dict[str, Any] = {"search": None, "grid": {key: (value,) for key, value in setting.items()}}
        if self.edges:
            update["variants"] = {label: label}
        study = self.study.model_copy(update=update)
        networks = networks_of(study)
        return planned(study, networks, self._source, self._dataset, device=self._device, threads=self._threads)

    def possible(self, params: Mapping[str, Any]) -> StudyPlan | None:
        """As `plan`; None for a choice of transitions that is no network."""
        try:
            return self.plan(params)
        except SpecError:
            if self.study.group != TRANSITIONS:
                raise
            return None


class _Hunt:
    """A search at work."""

    def __init__(self, space: Space, ledger: Ledger) -> None:
        self._space, self._ledger, self._search = space, ledger, space.search
        self._networks: list[NetworkInfo] = []
        self._rows: list[PlannedRow] = []
        self._requests: dict[str, RunRequest] = {}
        self._tell: Callable[[], None] = lambda: None
        self._trials = {number: Trial.model_validate(content) for number, content in ledger.trials().items()}
        self._refuse_another_sampler()
        for trial in self._trials.values():
            if trial.outcome == "no-network":
                continue
            plan = space.plan(trial.params)
            if tuple(row.key for row in plan.rows) != trial.keys:
                raise UsageError(
                    f"{ledger.folder} holds a search of other runs: its network, data, recipe or seeds have changed. "
                    "Choose another folder."
                )
            if trial.outcome in ("asked", "complete", "pruned"):
                self._add(plan)

    def _refuse_another_sampler(self) -> None:
        """Compare with the search in the folder: the budget may change, and nothing else.

        Raises:
            UsageError: The folder holds another search.
        """
        text, folder = self._ledger.text, self._ledger.folder
        if not text:
            return
        old = study_of(parse(text, f"{folder}/{LEDGER}")).search
        if old is None:
            raise UsageError(f"{folder} holds a study that is no search. Choose another folder.")
        for field in type(old).model_fields:
            before, now = getattr(old, field), getattr(self._search, field)
            if field != "runs" and before != now:
                raise UsageError(
                    f"{folder} holds another search ({field}: {before}, now {now}). Choose another folder."
                )

    @property
    def _done(self) -> int:
        """How many runs there are so far."""
        return len(self._requests)

    def run(self, driver: Driver, progress: Callable[[Trial, int], None] | None) -> None:
        """Ask, train, note; until the budget is used up or nothing new is left."""
        batch = [number for number, trial in self._trials.items() if trial.outcome == "asked"]
        if batch:
            self._join()
        else:
            batch = self._ask()
        ended = sum(len(trial.keys) for trial in self._trials.values() if trial.outcome in ("complete", "pruned"))
        untold: list[int] = []

        def tell() -> None:
            nonlocal ended
            for number in list(untold):
                trial = self._trials[number]
                if all(self._ledger.run(key).state in FINAL for key in trial.keys):
                    untold.remove(number)
                    ended += len(trial.keys)
                    if progress is not None:
                        progress(self._settled(trial), ended)

        self._tell = tell
        while batch:
            untold += batch
            try:
                self._train(driver, batch)
            except Interrupted as error:
                raise Interrupted(error.done, self._search.runs, self._ledger.folder, is_budget=True) from None
            tell()
            unsettled = [n for n, trial in self._trials.items() if trial.outcome == "known" and not trial.values]
            for number in [*batch, *unsettled]:
                self._settle(number)
            self._ledger.commit()
            batch = self._ask()

    # ---- asking

    def _ask(self) -> list[int]:
        """The next batch, noted in the ledger; empty if the budget is used up, or nothing new comes."""
        batch: list[int] = []
        in_vain = 0
        seeds = len(self._space.study.seed_pairs)
        wanted = min(self._search.batch, (self._search.runs - self._done) // seeds)
        while len(batch) < wanted and in_vain < _PATIENCE and len(self._seen()) < self._space.size:
            number = len(self._trials)
            trial, plan = self._proposed()
            self._trials[number] = trial
            if trial.outcome == "asked" and plan is not None:
                self._add(plan)
                batch.append(number)
                in_vain = 0
            else:
                in_vain += 1
                if trial.outcome == "known" and not any(set(trial.keys) & set(self._trials[n].keys) for n in batch):
                    self._settle(number)
            self._note(number)
        if batch:
            self._join()
        self._ledger.commit()
        return batch

    def _proposed(self) -> tuple[Trial, StudyPlan | None]:
        """What the sampler proposes next, knowing all trials so far; and its runs, if it is a network."""
        sampling = self._sampling()
        asked = sampling.ask(self._space.distributions())
        plan, limit = self._space.possible(asked.params), self._search.limit
        network = None if plan is None else plan.networks[0]
        outcome: Outcome = "asked"
        if plan is None:
            outcome = "no-network"
        elif any(most is not None and getattr(network, name) > most for name, most in limit):
            outcome = "too-large"
        elif plan.rows[0].key in self._requests:
            outcome = "known"
        label, setting = self._space.network(asked.params)
        trial = Trial(
            params=asked.params,
            outcome=outcome,
            label=label,
            setting=setting,
            parameters=0 if network is None else network.parameters,
            macs=0 if network is None else network.macs,
            keys=() if plan is None else tuple(row.key for row in plan.rows),
            memory=sampling.trials[-1].system_attrs,
        )
        return trial, plan

    def _seen(self) -> set[str]:
        return {repr(sorted(trial.params.items())) for trial in self._trials.values()}

    def _sampling(self) -> Sampling:
        """Optuna's study of all trials so far; nothing else decides what is proposed next."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if name == "accuracy" else down for name in self._search.objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampling = optuna.create_study(directions=directions, sampler=self._sampler())
        distributions = self._space.distributions()
        sampling.add_trials([_frozen(trial, distributions) for trial in self._trials.values()])
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
        """Train the networks of a batch: all to the end, or halved again and again."""
        going = [self._trials[number] for number in batch]
        halving, epochs = self._search.halving, self._space.study.recipe.epochs
        rung = halving.first if halving is not None else epochs
        while halving is not None and rung < epochs:
            self._work(driver, going, rung)
            ranked = sorted(going, key=lambda trial: -self._accuracy(trial))  # of equal ones, the first proposed
            going = ranked[: max(1, len(ranked) // halving.factor)]
            for trial in ranked[len(going) :]:
                for key in trial.keys:
                    self._ledger.prune(key)
            rung *= halving.factor
        self._work(driver, going, None)

    def _work(self, driver: Driver, trials: Sequence[Trial], until: int | None) -> None:
        """Train the runs of trials up to an epoch, or to their ends.

        Raises:
            RunError: One has failed; the others are as far as was asked.
        """
        waiting: deque[str] = deque()
        for key in (key for trial in trials for key in trial.keys):
            run = self._ledger.run(key)
            is_there = until is not None and run.paused_at is not None and run.paused_at >= until
            if run.state not in FINAL and not is_there:
                waiting.append(key)
        failures: list[str] = []
        self._tell()
        while waiting or driver.busy:
            while waiting and driver.room > 0:
                key = waiting.popleft()
                driver.submit(key, self._requests[key], until=until)
            for ended in driver.wait():
                if ended.state == "failed":
                    failures.append(f"run '{self._ledger.run(ended.key).folder.name}': {ended.message}")
            self._tell()
        if failures:
            raise RunError("\n".join([*failures, "All else is kept. The same command tries again."]))

    def _accuracy(self, trial: Trial) -> float:
        """Mean over the seeds of the best validation accuracy so far; 0 for a run without one."""
        return statistics.fmean(self._ledger.best_validation(key) or 0.0 for key in trial.keys)

    def _settle(self, number: int) -> None:
        """Note how a trial has ended, as far as it has."""
        self._trials[number] = self._settled(self._trials[number])
        self._note(number)

    def _settled(self, trial: Trial) -> Trial:
        """The trial with what came out of its runs so far."""
        states = {self._ledger.run(key).state for key in trial.keys}
        values: tuple[float, ...] = ()
        outcome: Outcome = "pruned" if "pruned" in states else "complete"
        if states <= {"complete", "diverged"}:
            costs = {"parameters": float(trial.parameters), "macs": float(trial.macs)}
            values = tuple(costs.get(name, self._accuracy(trial)) for name in self._search.objectives)
        if trial.outcome == "known":
            outcome = "known"
        return trial.model_copy(update={"outcome": outcome, "values": values})

    # ---- the ledger

    def _note(self, number: int) -> None:
        self._ledger.write_trial(number, self._trials[number].model_dump(mode="json"))

    def _add(self, plan: StudyPlan) -> None:
        place = len(self._networks)
        self._last = plan
        self._networks += plan.networks
        self._rows += [dataclasses.replace(row, network=place) for row in plan.rows]
        self._requests |= plan.requests

    def _join(self) -> None:
        """Make all networks so far the study of the folder."""
        whole = dataclasses.replace(
            self._last,
            baseline=None,
            networks=tuple(self._networks),
            rows=tuple(self._rows),
            requests=self._requests,
            subsets_of=(),
            text=self._space.study.to_yaml(),
        )
        self._ledger.join(whole, is_search=True)


def _frozen(trial: Trial, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    # A proposal that is at work counts as one, so that the next is another; one that was given up told nothing.
    state = TrialState.COMPLETE if trial.values else TrialState.RUNNING
    if not trial.values and trial.outcome in ("pruned", "too-large", "no-network"):
        state = TrialState.PRUNED
    return create_trial(
        params=trial.params,
        distributions=distributions,
        values=list(trial.values) or None,
        state=state,
        system_attrs=trial.memory,
    )
