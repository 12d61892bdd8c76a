"""The search space of a study: its choices, and the networks that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.plan import StudyPlan, make_plan
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.search_settings import ValueRange
from hiresnet_graph.sweep.study import Study, fail
from hiresnet_graph.sweep.variants import TRANSITIONS, edges_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_EDGE = "edge "  # before the name of an edge, in the parameters of a trial


class SearchSpace:
    """The choices of a study with `search`.

    Raises:
        SpecError, UsageError: The study has no valid search.
    """

    def __init__(self, study: Study) -> None:
        from hiresnet_graph.data import load_dataset
        from hiresnet_graph.train.checks import match_input

        if study.search is None:
            hint = "Give it one, or train it with 'hrg ablate'."
            fail(study, (), "this study has no 'search', so there is no space to search.", hint)
        self.search = study.search
        for key in ("variants", "subsets", "controls", "grid", "baseline"):
            if getattr(study, key):
                fail(study, (key,), f"a study with 'search' has no '{key}'.", "Remove one of the two.")
        self.study = study
        self._check_halving(study)
        network = study.base().override(study.changes) if study.changes else study.base()
        self.edges: tuple[str, ...] = ()
        if "edges" in self.search.space:
            self.edges = tuple(edges_of(network.with_edges(str(self.search.space["edges"]), study.group), study.group))
        self._source = study.data_source()
        self._dataset = match_input(load_dataset(self._source), network.plan)
        if self.search.runs < (seeds := len(study.seed_pairs)):
            message = f"a budget of {self.search.runs} runs is too small for one network with {seeds} seeds."
            fail(study, ("search", "runs"), message, "Write 'seeds: 1', or more runs.")
        self._check_values()

    def _check_values(self) -> None:
        """Check each value with a network, before anything is trained.

        Raises:
            SpecError, UsageError: A value is invalid.
        """
        values = self._values()
        first: dict[str, Any] = {_EDGE + edge: True for edge in self.edges}
        first |= {key: of_key[0] for key, of_key in values.items()}
        self._check(first, next(iter(values), "edges"))
        for key, of_key in values.items():
            for value in of_key[1:]:
                self._check({**first, key: value}, key)

    def _values(self) -> dict[str, tuple[Any, ...]]:
        """The choices besides edges: all values, or the bounds of a range."""
        return {
            key: (values.low, values.high) if isinstance(values, ValueRange) else values
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
        """The number of different networks and recipes."""
        number: float = 2 ** len(self.edges)
        for values in self.search.space.values():
            if isinstance(values, ValueRange):
                number *= values.high - values.low + 1 if values.is_whole else math.inf
            elif not isinstance(values, str):
                number *= len(values)
        return number

    def extreme(self, pick: Callable[[int, int], int]) -> NetworkInfo:
        """The smallest or largest network, with `min` or `max` as `pick`: each choice in turn at its extreme.

        It is the true extreme unless choices interact.
        """
        choices = {**{_EDGE + edge: (True, False) for edge in self.edges}, **self._values()}
        chosen = {key: values[0] for key, values in choices.items()}
        found = self.plan(chosen).networks[0]
        for key, values in choices.items():
            for value in values[1:]:
                plan = self.valid_plan({**chosen, key: value})
                if plan is not None and pick(plan.networks[0].parameters, found.parameters) != found.parameters:
                    chosen[key], found = value, plan.networks[0]
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """The choices as distributions of Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {
            _EDGE + edge: CategoricalDistribution((False, True)) for edge in self.edges
        }
        for key, values in self.search.space.items():
            if isinstance(values, ValueRange):
                kind = IntDistribution if values.is_whole else FloatDistribution
                found[key] = kind(values.low, values.high, log=values.log)  # type: ignore[arg-type]
            elif not isinstance(values, str):
                found[key] = CategoricalDistribution(values)
        return found

    def network(self, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The edges of a choice, as an edge set, and the rest of the choice."""
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
        return make_plan(study, networks, self._source, self._dataset)

    def valid_plan(self, params: Mapping[str, Any]) -> StudyPlan | None:
        """As `plan`; None for a choice of transitions that is not a valid network."""
        try:
            return self.plan(params)
        except SpecError:
            if self.study.group != TRANSITIONS:
                raise
            return None
