"""Whether a planned study may continue the study that a folder holds already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.database import RUNS
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan
from hiresnet_graph.train.differences import SAME, RequestedRun, differences
from hiresnet_graph.train.recipe import EXECUTION_FIELDS, FIXED_RATES, Recipe
from hiresnet_graph.train.record import RunRecord, Settings, has_run, read_settings


def single_run_refusal(folder: Path) -> str:
    """Why no study can be trained in the folder of a single run, finished or not; empty for other folders."""
    return f"{folder} holds a single run. Choose another folder for a study." if has_run(folder) else ""


def changes_refusal(read: Callable[..., list[Any]], folder: Path, plan: StudyPlan) -> str:
    """Why a plan is not a continuation of the study in a folder; empty if it is, or if there is no study yet.

    Without the data, the keys of the plan's runs are unknown: then its networks and its recipe alone are compared.

    Args:
        read: Returns the rows of an SQL statement, with its values, on the ledger of the folder.
    """
    found = _difference(read, folder, plan)
    if not found:
        return ""
    return (
        f"{folder} holds {found}. Choose another folder; or accept the change with '--accept-changes': the previous "
        "runs are then kept, and left out of reports."
    )


def _difference(read: Callable[..., list[Any]], folder: Path, plan: StudyPlan) -> str:
    stored = read("SELECT name, architecture, data, data_fingerprint, recipe FROM study")
    if not stored:
        return ""
    name, architecture, data, fingerprint, recipe = stored[0]
    if architecture != plan.architecture:
        return f"a study of '{architecture}', not of '{plan.architecture}'"
    has_data = bool(plan.data_fingerprint)
    if has_data and (data, fingerprint) != (plan.data, plan.data_fingerprint):
        now = f"now {plan.data}" if data != plan.data else "now with other images or another split"
        return f"a study on other data ({data}, {now})"
    stored_rows = {
        (label, canonical(json.loads(setting)), init, seed): (key, network, epochs)
        for label, setting, network, init, seed, key, epochs in read(
            "SELECT label, setting, networks.plan, init, data, key, epochs FROM rows "
            "JOIN networks ON networks.id = network JOIN runs USING (key) WHERE rows.in_study"
        )
    }
    recipes = json.loads(recipe), plan.recipe
    is_continued = False
    for row in plan.rows:
        network = plan.networks[row.network]
        at = (network.label, canonical(network.setting), row.seeds.init, row.seeds.data)
        key, stored_plan, epochs = stored_rows.get(at, (row.key, network.plan, 0))
        if stored_plan != network.plan:
            return f"another network as '{network.label}'"
        if not has_data:
            is_continued = is_continued or at in stored_rows
        elif key == row.key:
            continue
        elif plan.continues(row.key, key, epochs):
            is_continued = True
        else:
            changed = _changed_fields(*recipes)
            if changed:
                return f"a study with another recipe ({changed})"
            return _other_run(read, folder, key, plan, row)
    if not has_data and (changed := _changes_without_data(*recipes)):
        return f"a study with another recipe ({changed})"
    # Runs of earlier plans count too: a plan that returns to them finds them.
    if (
        stored_rows
        and not is_continued
        and not {key for (key,) in read("SELECT key FROM runs")} & {row.key for row in plan.rows}
    ):
        runs = format_count(len({key for key, *_ in stored_rows.values()}), "run")
        return f"another study ('{name}': {runs}, none of which is part of this one)"
    return ""


def _other_run(read: Callable[..., list[Any]], folder: Path, key: str, plan: StudyPlan, row: PlannedRow) -> str:
    """What a row was before, with the same recipe: the run of a key that is not the planned one."""
    network, found = plan.networks[row.network], _stored_run(read, folder, key)
    if found is not None:
        facts = (plan.architecture, network.label, network.plan, row.seeds, plan.data, plan.data_fingerprint)
        weights = plan.requests[row.key].weights
        different = list(differences(found, RequestedRun(*facts, found.recipe, weights)))
        if different != [SAME]:
            return f"another run as '{network.label}' ({'; '.join(different)})"
    return "runs of another version of the training code, or of your blocks"


def _stored_run(read: Callable[..., list[Any]], folder: Path, key: str) -> RunRecord | Settings | None:
    """What is known of a run: its record in the ledger, or what its folder has since it was begun; None for neither."""
    ((name, record),) = read("SELECT folder, record FROM runs WHERE key = ?", key)
    try:
        return read_settings(folder / RUNS / name) if record is None else RunRecord.model_validate_json(record)
    except (RunError, ValidationError):  # of an older version
        return None


def canonical(setting: Mapping[str, object]) -> str:
    """A setting as text, for comparison."""
    return json.dumps(dict(setting), sort_keys=True)


def _changed_fields(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """What has changed in a recipe; and why more epochs, if these are the change, do not continue the runs."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in EXECUTION_FIELDS]
    changed = ", ".join(f"{name}={old.get(name)}, now {new.get(name)}" for name in names)
    if names == ["epochs"] and new["schedule"] not in FIXED_RATES:
        changed += f"; with '{new['schedule']}', all rates depend on the number of epochs"
    return changed


def _changes_without_data(stored: Mapping[str, object], planned: Mapping[str, object]) -> str:
    """What has changed in a recipe, as far as that is known without the data, which determine the augmentation."""
    before, now = Recipe.model_validate(stored), Recipe.model_validate(planned)
    if now.has_fixed_rates and before.epochs < now.epochs:
        before = before.model_copy(update={"epochs": now.epochs})
    old, new = ({**recipe.mathematics(), "augment": None, "crop_padding": None} for recipe in (before, now))
    return _changed_fields(old, new)
