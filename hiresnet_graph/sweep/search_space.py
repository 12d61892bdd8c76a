"""The search space of a study: its choices, and the networks that they stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import Position, SpecError, UsageError
from hiresnet_graph.formats import format_count
from hiresnet_graph.spec.edge_set import write_edges
from hiresnet_graph.spec.marked import MarkedDict, MarkedList, marked, position_at
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.sweep.assignments import check_assignments, setting_name
from hiresnet_graph.sweep.grid import report_ineffective
from hiresnet_graph.sweep.networks import collected, network_of, networks_of
from hiresnet_graph.sweep.plan import StudyPlan, make_plan
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.search_settings import ValueRange
from hiresnet_graph.sweep.study import Study, fail, raise_if_any
from hiresnet_graph.sweep.variants import Variant, edges_of
from hiresnet_graph.train.checks import match_input

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from hiresnet_graph.data.dataset import Dataset

# In the parameters of a trial, before the name of an edge, and before a list or mapping as JSON.
_EDGE, _NESTED = "edge ", "json "


class SearchSpace:
    """The choices of a study with `search`.

    Args:
        with_data: Load the data, and check that they fit the networks.

    Raises:
        SpecError, UsageError: The study has no valid search; with all errors that are found.
    """

    def __init__(self, study: Study, *, with_data: bool = True) -> None:
        if study.search is None:
            hint = "Give it one, or train it with 'hrg ablate'."
            fail(study, (), "this study has no 'search', so there is no space to search.", hint)
        self.search = study.search
        study = study.model_copy(update={"prune": self.search.space.get("prune", study.prune)})
        self.study = study
        self.edges: tuple[str, ...] = ()
        self._dataset: Dataset | None = None
        problems = Problems(study.tree)
        self._check_settings(problems)
        with collected(problems):
            self._source = study.data_source()
            network = network_of(study)
            _ = network.plan
            check_assignments(study, network, (), problems)
            names = {key: setting_name(network, key) for key in self._values()}
            report_ineffective(study, self._values(), ("search", "space"), names, problems)
            self.edges = self._edges_of(network, problems)
            if with_data and not problems.found:
                self._dataset = match_input(load_dataset(self._source), network.plan, study.recipe.outputs)
            self._check_values(problems)
        raise_if_any(problems)
        self._check_limit(problems)
        raise_if_any(problems)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is valid and possibly unintended in the data, in sentences."""
        return self._dataset.remarks() if self._dataset is not None else ()

    def _check_settings(self, problems: Problems) -> None:
        """Check the fields of the study against each other."""
        study, halving = self.study, self.search.halving
        for key in ("variants", "subsets", "controls", "grid", "baseline", "published"):
            if getattr(study, key):
                problems.add((key,), f"a study with 'search' has no '{key}'.", "Remove one of the two.", key=True)
        if halving is not None and halving.first >= (epochs := study.recipe.epochs):
            message = f"the first rung ({halving.first}) must be below the epochs of the recipe ({epochs})."
            problems.add(("search", "halving", "first"), message)
        if self.search.runs < (seeds := len(study.seed_pairs)):
            budget, wanted = format_count(self.search.runs, "run"), format_count(seeds, "seed")
            message = f"a budget of {budget} is too small for one network with {wanted}."
            problems.add(("search", "runs"), message, "Write 'seeds: 1', or more runs.")

    def _edges_of(self, network: Architecture, problems: Problems) -> tuple[str, ...]:
        """The edges that are present or absent; none after an error is reported."""
        if "edges" not in self.search.space:
            return ()
        group, path = self.study.group, ("search", "space")
        full = Variant("", str(self.search.space["edges"]), group, path=path).apply(network, self.study.tree)
        try:
            return tuple(edges_of(full, group))
        except SpecError as error:
            problems.absorb(error)
        except UsageError as error:
            problems.add((*path, "edges"), str(error))
        return ()

    def _check_values(self, problems: Problems) -> None:
        """Check each value with a network, before anything is trained."""
        values = self._values()
        edges: dict[str, Any] = {_EDGE + edge: True for edge in self.edges}
        first = self.first
        before = len(problems.found)
        with collected(problems):
            self.plan(first)
        # If a first value is wrong, the others are checked one by one.
        rest = edges if len(problems.found) > before else first
        for key, of_key in values.items():
            for value in of_key if rest is edges else of_key[1:]:
                with collected(problems):
                    self.plan({**rest, key: value})

    def _check_limit(self, problems: Problems) -> None:
        """Check that some network of the space is within the limit."""
        for name, most in self.search.limit:
            if most is not None and (least := getattr(self.extreme(min, name), name)) > most:
                message = f"no network of the space is within {most:,} {name}: the smallest has {least:,}."
                problems.add(("search", "limit", name), message, "Raise the limit, or enlarge the space.")

    def _values(self) -> dict[str, tuple[Any, ...]]:
        """The choices besides edges: all values, or the bounds of a range."""
        return {
            key: (values.low, values.high) if isinstance(values, ValueRange) else values
            for key, values in self.search.space.items()
            if not isinstance(values, str)
        }

    @property
    def first(self) -> dict[str, Any]:
        """The choice of all edges, and of the first of the values of each key."""
        return {_EDGE + edge: True for edge in self.edges} | {key: values[0] for key, values in self._values().items()}

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

    def extreme(self, pick: Callable[[int, int], int], what: str = "parameters") -> NetworkInfo:
        """The smallest or largest network, with `min` or `max` as `pick`: each choice in turn at its extreme.

        It is the true extreme unless choices interact.

        Args:
            what: `parameters` or `macs`.
        """
        choices = {**{_EDGE + edge: (True, False) for edge in self.edges}, **self._values()}
        chosen = {key: values[0] for key, values in choices.items()}
        found = self.plan(chosen).networks[0]
        for key, values in choices.items():
            for value in values[1:]:
                plan = self.valid_plan({**chosen, key: value})
                if plan is None:
                    continue
                size, best = getattr(plan.networks[0], what), getattr(found, what)
                if pick(size, best) != best:
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
                found[key] = CategoricalDistribution([_as_scalar(value) for value in values])
        return found

    def network(self, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The edges of a choice, as an edge set, and the rest of the choice."""
        chosen = write_edges(edge for edge in self.edges if params[_EDGE + edge])
        rest = {key: value for key, value in params.items() if not key.startswith(_EDGE)}
        for key, value in rest.items():
            if isinstance(value, str) and value.startswith(_NESTED):
                rest[key] = json.loads(value.removeprefix(_NESTED))
        return chosen, rest

    def plan(self, params: Mapping[str, Any]) -> StudyPlan:
        """The runs of a choice, as a study of one network.

        Raises:
            SpecError, UsageError: A value is invalid, or the edges do not make a network.
        """
        label, setting = self.network(params)
        update: dict[str, Any] = {"search": None, "grid": {key: (value,) for key, value in setting.items()}}
        if self.edges:
            update["variants"] = {label: label}
        study = self.study.model_copy(update=update)
        study._tree = self._tree_of(label, setting)
        study._checks_rules = all(params[_EDGE + edge] for edge in self.edges)
        try:
            networks = networks_of(study)
        except SpecError as error:
            raise SpecError(replace(problem, path=_path_in_space(problem.path)) for problem in error.problems) from None
        return make_plan(study, networks, self._source, self._dataset)

    def _tree_of(self, label: str, setting: Mapping[str, Any]) -> MarkedDict:
        """The file as that of a choice: grid and variants stand where the search space has their values."""
        tree = self.study.tree
        space = tree["search"]["space"] if tree else None
        if not isinstance(space, MarkedDict):
            return tree
        grid = MarkedDict((), space.position)
        for key, value in setting.items():
            at = _value_position(space, key, value)
            grid[key] = MarkedList([value], at, None if at is None else [at])
            grid.key_positions |= {key: space.key_positions[key]} if key in space.key_positions else {}
            grid.value_positions |= {} if at is None else {key: at}
        tree = tree.without("search")
        tree["grid"] = grid
        if self.edges:
            tree["variants"] = marked({label: label}, position_at(space, ("edges",)))
        return tree

    def valid_plan(self, params: Mapping[str, Any]) -> StudyPlan | None:
        """As `plan`; None for a choice of edges that is not a valid network."""
        try:
            return self.plan(params)
        except (SpecError, UsageError):
            if not self.edges:
                raise
            return None


def _as_scalar(value: Any) -> Any:
    """A value as Optuna takes it: a list or mapping is a text."""
    return f"{_NESTED}{json.dumps(value, sort_keys=True)}" if isinstance(value, list | tuple | dict) else value


def _value_position(space: MarkedDict, key: str, value: Any) -> Position | None:
    """The position of one of the values of a key of the space, or of a bound."""
    values = space[key]
    items = values.items() if isinstance(values, dict) else enumerate(values)
    part = next((index for index, item in items if type(item) is type(value) and item == value), None)
    return position_at(space, (key,) if part is None else (key, part))


def _path_in_space(path: str) -> str:
    """The path in the study of a problem that a choice has."""
    if path.startswith("grid."):
        return f"search.space.{path.removeprefix('grid.')}".removesuffix("[0]")
    return "search.space.edges" if path.startswith("variants.") else path
