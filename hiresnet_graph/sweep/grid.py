"""The grid of a study: every combination of its values, in the recipe and in the network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.sweep.assignments import setting_name
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.variants import StudyPath, override
from hiresnet_graph.train.recipe import EXECUTION_FIELDS, Recipe, make_recipe


class Setting(NamedTuple):
    """One combination of the grid.

    Attributes:
        values: The chosen values; those of the recipe have keys like `recipe.lr`.
        network: The network with these values.
        recipe: The recipe with these values.
    """

    values: Mapping[str, object]
    network: Architecture
    recipe: Recipe


MAX_SETTINGS = 10_000


def grid_settings(study: Study, base: Architecture, problems: Problems) -> list[Setting]:
    """All combinations of the grid; empty after errors are reported. Without a grid, the study as it is."""
    before = len(problems.found)
    names = {key: setting_name(base, key) for key in study.grid}
    combinations = math.prod(map(len, study.grid.values()))
    if combinations > MAX_SETTINGS:
        message = f"the grid has {combinations:,} combinations; the limit is {MAX_SETTINGS:,}."
        problems.add(("grid",), message, "Leave out values, or use 'hrg search'.")
        return []
    checked = [key for key in study.grid if _check_key(base, key, problems)]
    for key in checked:
        _check_values(key, study.grid[key], problems)
    _check_fields(study, {key: names[key] for key in checked}, problems)
    if len(problems.found) > before:
        return []
    found = []
    for choice in itertools.product(*(enumerate(values) for values in study.grid.values())):
        network, fields, setting = base, study.recipe.model_dump(exclude_unset=True), dict[str, object]()
        for (key, name), (i, value) in zip(names.items(), choice, strict=True):
            setting[name] = value
            if name.startswith("recipe."):
                fields[name.removeprefix("recipe.")] = value
            else:
                network = override(network, name, value, study.tree, ("grid", key, i), ("grid", key))
        try:
            found.append(Setting(setting, network, make_recipe(fields)))
        except UsageError as error:
            problems.add(("grid",), str(error))
    report_ineffective(study, study.grid, ("grid",), names, problems)
    return found


def report_ineffective(
    study: Study,
    values: Mapping[str, Sequence[object]],
    path: StudyPath,
    names: Mapping[str, str],
    problems: Problems,
) -> None:
    """Report fields of the recipe whose values make no difference, whatever the others are: all are the same run.

    Args:
        values: The values of each key; of a range its bounds.
        path: Of the mapping that has these keys.
        names: What `setting_name` gives for each key.
    """
    keys = [key for key in values if names[key].startswith("recipe.")]
    fields = [names[key].removeprefix("recipe.") for key in keys]
    computed = _computed(study.recipe, fields, [values[key] for key in keys])
    for i, (key, field) in enumerate(zip(keys, fields, strict=True)):
        if len(values[key]) > 1 and (field in EXECUTION_FIELDS or (computed and _is_without_effect(computed, i))):
            message = f"'{field}' has no effect on what a run computes, so runs with its different values are the same."
            hint = "Leave it out, or set the other field that makes use of it."
            if field in EXECUTION_FIELDS:
                hint = f"Set it in 'recipe'; to compare speeds, train with each '{field}' apart."
            problems.add((*path, key), message, hint, key=True)


def _computed(
    recipe: Recipe, fields: Sequence[str], values: Sequence[Sequence[object]]
) -> dict[tuple[int, ...], object]:
    """What the recipe computes for each choice, by the indices of its values; nothing if one is invalid."""
    if math.prod(map(len, values)) > MAX_SETTINGS:
        return {}
    found: dict[tuple[int, ...], object] = {}
    for choice in itertools.product(*(range(len(of_field)) for of_field in values)):
        chosen = {field: of_field[i] for field, of_field, i in zip(fields, values, choice, strict=True)}
        try:
            found[choice] = make_recipe(recipe.model_dump(exclude_unset=True) | chosen).mathematics()
        except UsageError:  # reported elsewhere
            return {}
    return found


def _is_without_effect(computed: Mapping[tuple[int, ...], object], i: int) -> bool:
    """Whether choices that differ in one field alone always compute the same."""
    return all(own == computed[*choice[:i], 0, *choice[i + 1 :]] for choice, own in computed.items())


def _check_key(base: Architecture, key: str, problems: Problems) -> bool:
    """Whether a key may be one of a grid; if it is ambiguous, or unknown to the recipe, that is reported."""
    params, field = base.tree.get("params"), key.removeprefix("recipe.")
    if key in Recipe.model_fields and isinstance(params, dict) and key in params:
        message = f"'{key}' is a field of the recipe and a param of the network."
        problems.add(("grid", key), message, f"Write 'recipe.{key}' or 'params.{key}'.", key=True)
    elif key != field and field not in Recipe.model_fields:
        hint = did_you_mean(field, Recipe.model_fields)
        problems.add(("grid", key), f"the recipe has no field '{field}'.", hint, key=True)
    else:
        return True
    return False


def _check_values(key: str, values: tuple[object, ...], problems: Problems) -> None:
    if not values:
        problems.add(("grid", key), "at least one value is required.")
    for i, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:i]):
            problems.add(("grid", key, i), "this value is given twice.", "Leave it out.")


def _check_fields(study: Study, names: Mapping[str, str], problems: Problems) -> None:
    """Report the values of fields of the recipe that are valid with no values of the other keys."""
    fixed = study.recipe.model_dump(exclude_unset=True)
    fields = {key: name.removeprefix("recipe.") for key, name in names.items() if name.startswith("recipe.")}

    def refusal(chosen: Mapping[str, object]) -> str:
        try:
            make_recipe({**fixed, **{fields[key]: value for key, value in chosen.items()}})
        except UsageError as error:
            return str(error)
        return ""

    alone = {key: [refusal({key: value}) for value in study.grid[key]] for key in fields}
    valid = {key: list(itertools.compress(study.grid[key], (not reason for reason in alone[key]))) for key in fields}
    for key, reasons in alone.items():
        others = {other: valid[other] or study.grid[other] for other in fields if other != key}
        for i, reason in enumerate(reasons):
            choices = (dict(zip(others, choice, strict=True)) for choice in itertools.product(*others.values()))
            if reason and all(refusal({**choice, key: study.grid[key][i]}) for choice in choices):
                problems.add(("grid", key, i), reason)
