"""The results in the folder of a study, a search or a single run: everything that reports are made of."""

from __future__ import annotations

import json
import shlex
import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hiresnet_graph.errors import RunError, SpecError, UsageError
from hiresnet_graph.files import similar_folder
from hiresnet_graph.formats import Column, format_command, format_count, html_table, number_column
from hiresnet_graph.spec.edge_set import PLUS
from hiresnet_graph.spec.problems import explain
from hiresnet_graph.spec.reader import SUFFIXES, is_study, parse, read
from hiresnet_graph.sweep.database import FINAL, RESTORE_HINT, State, open_for_reading
from hiresnet_graph.sweep.published import Published
from hiresnet_graph.train.record import (
    LEDGER,
    RESULT,
    SETTINGS,
    RunRecord,
    Seeds,
    read_record,
    read_settings,
)
from hiresnet_graph.train.run_folder import resume_hint

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NetworkInfo:
    """A network of a study: one variant under one setting of the grid.

    Attributes:
        label: Label of the variant.
        setting: Values chosen by the grid, those of the recipe (like `recipe.lr`) included; empty without a grid.
        plan: Hash of the compiled network.
        edges: Names of its skip edges, as edge sets write them (`stem>stage2`).
        same_as: Label of an earlier variant of this setting that is the same network, so that runs are shared; or "".
        isomorphic_to: Label of an earlier variant that is the same graph but for the names of its weights: its initial
            weights differ, so it is trained; or "".
    """

    label: str
    setting: Mapping[str, object]
    plan: str
    parameters: int
    macs: int
    edges: tuple[str, ...] = ()
    same_as: str = ""
    isomorphic_to: str = ""


@dataclass(frozen=True)
class RunRow:
    """One network of a study with one pair of seeds.

    Attributes:
        network: Index in `Results.networks`.
        key: Key of the run; rows of equal networks share it.
        record: The record of a complete or diverged run; None for all others.
        message: Why the run failed.
    """

    network: int
    seeds: Seeds
    key: str
    state: State
    attempts: int
    record: RunRecord | None
    message: str = ""


@dataclass(frozen=True)
class Results:
    """A study, or a single run as a study of one row. Networks and rows are in the order of the study.

    Attributes:
        baseline: Label of the variant that the others are compared with; None if the study has none.
        subsets_of: All edges of which the variants are subsets, if a subset rule made them; else empty.
        is_search: Whether a search chose the networks, so that settings have different numbers of seeds.
        published: Published results of the same networks.
        text: The study as YAML; empty for a single run.
    """

    name: str
    architecture: str
    data: str
    recipe: Mapping[str, object]
    baseline: str | None
    networks: tuple[NetworkInfo, ...]
    rows: tuple[RunRow, ...]
    subsets_of: tuple[str, ...] = ()
    is_search: bool = False
    published: Published | None = None
    text: str = ""

    def __repr__(self) -> str:
        return f"<Results {self.name} on {self.data}: {self._counts()}>"

    def _repr_html_(self) -> str:
        """The mean accuracies in a notebook."""
        columns = (
            Column("variant"),
            number_column("parameters"),
            number_column("n"),
            number_column("test accuracy"),
        )
        rows = [
            (
                f"{network.label} {dict(network.setting) or ''}".strip(),
                f"{network.parameters:,}",
                str(len(scores)),
                _mean_and_deviation(scores),
            )
            for network, scores in zip(self.networks, self._scores(), strict=True)
        ]
        caption = f"{self._counts()}. Mean (standard deviation) in percent. Statistics: make_report(results)."
        return html_table(columns, rows, f"{self.name} on {self.data}", caption)

    def to_frame(self) -> pd.DataFrame:
        """The runs as a pandas data frame, a row each; accuracies are fractions.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("a data frame requires pandas. Install it with 'pip install pandas'.") from None
        return pd.DataFrame([self._frame_row(row) for row in self.rows])

    def _frame_row(self, row: RunRow) -> dict[str, object]:
        network, record = self.networks[row.network], row.record
        return {
            "variant": network.label,
            **network.setting,
            "init_seed": row.seeds.init,
            "data_seed": row.seeds.data,
            "state": row.state,
            "parameters": network.parameters,
            "macs": network.macs,
            "edges": PLUS.join(network.edges),
            "best_epoch": record and record.best_epoch,
            "validation_accuracy": record and record.validation_accuracy,
            "test_accuracy": record and record.test_accuracy,
            "last_test_accuracy": record and record.last_test_accuracy,
            "time_s": record and record.time_s,
            "key": row.key,
        }

    def _counts(self) -> str:
        finished = sum(row.state in FINAL for row in self.rows)
        runs = format_count(len(self.rows), "run")
        return f"{format_count(len(self.networks), 'network')}, {finished} of {runs} finished"

    def _scores(self) -> list[list[float]]:
        """The test accuracies of each network, in percent."""
        found: list[list[float]] = [[] for _ in self.networks]
        for row in self.rows:
            if row.record is not None and row.record.test_accuracy is not None:
                found[row.network].append(100 * row.record.test_accuracy)
        return found


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
    return f"{statistics.fmean(values):.2f} ({deviation})"


def read_results(folder: Path | str) -> Results:
    """Read the folder of a study, a search or a single run; also while it is being trained.

    Raises:
        RunError: The folder is none of these, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not (folder / LEDGER).exists():
        record = read_record(folder) if folder.is_dir() else None
        if record is None:
            if folder.is_dir() and read_settings(folder) is not None:
                raise RunError(f"{folder}: the run is not finished, so it has no result yet. {resume_hint(folder)}")
            raise no_results(folder)
        return _single(record)
    with open_for_reading(folder / LEDGER) as database:
        study = study_row(database, folder)
        networks, index = network_rows(database)
        rows = database.execute(
            "SELECT network, init, rows.data, key, state, attempts, record, message FROM rows JOIN runs USING (key) "
            "WHERE in_study ORDER BY place"
        ).fetchall()
    records: dict[str, RunRecord] = {}
    found = []
    for network, init, data, key, state, attempts, record, message in rows:
        if record is not None and key not in records:
            records[key] = _record(record, folder / LEDGER)
        found.append(RunRow(index[network], Seeds(init, data), key, state, attempts, records.get(key), message))
    return Results(
        name=study["name"],
        architecture=study["architecture"],
        data=study["data"],
        recipe=json.loads(study["recipe"]),
        baseline=study["baseline"],
        networks=networks,
        rows=tuple(found),
        subsets_of=tuple(json.loads(study["subsets_of"])),
        is_search=bool(study["is_search"]),
        published=_published(study["text"], folder / LEDGER),
        text=study["text"],
    )


def _published(text: str, path: Path) -> Published | None:
    """The published results in the text of a study."""
    try:
        found = parse(text, str(path)).get("published") if text else None
        return None if found is None else Published.model_validate(found)
    except (SpecError, ValidationError) as error:
        raise RunError(f"{path}: the study in it cannot be read ({error}). {RESTORE_HINT}") from None


def _record(text: str, path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        problem = explain(error)[0]
        raise RunError(f"{path}: a result in it is not of this version ({problem}). {RESTORE_HINT}") from None


def _single(record: RunRecord) -> Results:
    network = NetworkInfo(record.variant or record.architecture, {}, record.plan, record.parameters, record.macs)
    return Results(
        name=record.architecture,
        architecture=record.architecture,
        data=record.data,
        recipe=record.recipe.model_dump(mode="json"),
        baseline=None,
        networks=(network,),
        rows=(RunRow(0, record.seeds, record.key, record.outcome, 1, record),),
    )


def study_row(database: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    """The row of the study in a ledger, by column.

    Raises:
        RunError: The ledger has no study yet.
    """
    names = "name", "architecture", "data", "recipe", "baseline", "subsets_of", "is_search", "text"
    row = database.execute(f"SELECT {', '.join(names)} FROM study").fetchone()
    if row is None:
        raise no_results(folder)
    return dict(zip(names, row, strict=True))


def network_rows(database: sqlite3.Connection) -> tuple[tuple[NetworkInfo, ...], dict[int, int]]:
    """The networks of the study, and the index of each by its number in the ledger."""
    rows = database.execute(
        "SELECT id, label, setting, plan, parameters, macs, edges, same_as, isomorphic_to FROM networks "
        "WHERE in_study ORDER BY place"
    ).fetchall()
    networks = tuple(
        NetworkInfo(label, json.loads(setting), plan, parameters, macs, tuple(json.loads(edges)), same_as, isomorphic)
        for _, label, setting, plan, parameters, macs, edges, same_as, isomorphic in rows
    )
    return networks, {row[0]: index for index, row in enumerate(rows)}


def no_results(folder: Path) -> RunError:
    """The error for a folder that is none of a study, a search or a run."""
    if folder.is_file():
        return RunError(_is_a_file(folder))
    if not folder.is_dir():
        name = shlex.quote(str(folder))
        creates = f"'hrg ablate ... -o {name}' creates one with a study, 'hrg train ... -o {name}' one with a run."
        return RunError(f"{folder}: there is no such folder. {similar_folder(folder) or creates}")
    if (begin := _begin_hint(folder)) is not None:
        return RunError(f"{folder}: the study in it has not been started. Start it with: {begin}")
    return RunError(
        f"{folder}: holds no study and no finished run. 'hrg ablate' and 'hrg train' create one; give the folder that "
        "was their '--output'."
    )


def _is_a_file(path: Path) -> str:
    """What to give instead of a file: the folder that it is in, or that a command would create."""
    noun = f"{path} is a file, and not the folder of a study or a run."
    if any((path.parent / name).exists() for name in (LEDGER, RESULT, SETTINGS)):
        return f"{noun} Give the folder that it is in: {shlex.quote(str(path.parent))}"
    if path.suffix.lower() in SUFFIXES:
        name = shlex.quote(str(path))
        return f"{noun} 'hrg ablate {name} ... -o DIR' and 'hrg train {name} -o DIR' create one; give DIR."
    return f"{noun} Give the folder that was the '--output' of 'hrg ablate' or 'hrg train'."


def _begin_hint(folder: Path) -> str | None:
    """The command that starts the study whose file is in a folder; None if there is none, or several."""
    studies = []
    for path in sorted(folder.iterdir()):
        with suppress(SpecError, OSError):
            if path.suffix.lower() in SUFFIXES and is_study(str(path)):
                studies.append(path)
    if len(studies) != 1:
        return None
    command = "search" if "search" in read(studies[0]) else "ablate"
    return format_command(command, studies[0], "-o", folder)
