"""The progress of a study, a search or a single run, as `hrg status` shows it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from hiresnet_graph.errors import RunError, SpecError
from hiresnet_graph.files import parse_json
from hiresnet_graph.spec.reader import parse
from hiresnet_graph.sweep.database import RESTORE_HINT, RUNS, State, open_for_reading
from hiresnet_graph.sweep.results import NetworkInfo, network_rows, no_results, study_row
from hiresnet_graph.sweep.search_settings import SearchSettings
from hiresnet_graph.train.lock import is_locked
from hiresnet_graph.train.record import (
    LEDGER,
    METRICS,
    SPEC,
    RunRecord,
    Seeds,
    Settings,
    read_record,
    read_settings,
    stored_cursors,
    study_folder,
)
from hiresnet_graph.train.run_folder import resume_hint

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class RunStatus:
    """The progress of a run.

    Attributes:
        name: Name of its folder: label, setting and seeds.
        network: Index in `Status.networks` of the first network with this run.
        epoch: Epochs that are finished.
        epochs: Epochs of the complete run.
        validation_accuracy: Validation accuracy of the last finished epoch.
        worker: Worker of the last attempt.
        message: Error message of the last failed attempt.
        traceback: Traceback of that attempt.
        replicas: Runs in the program of the last attempt.
        has_checkpoint: Whether a run that waits has a checkpoint, perhaps in its first epoch.
    """

    key: str
    name: str
    network: int
    seeds: Seeds
    state: State
    attempts: int
    epoch: int
    epochs: int
    validation_accuracy: float | None
    worker: str
    message: str
    traceback: str
    replicas: int = 1
    has_checkpoint: bool = False

    @property
    def is_started(self) -> bool:
        """Whether a run that is trained next resumes."""
        return self.epoch > 0 or self.has_checkpoint


class Budget(NamedTuple):
    """The budget of a search.

    Attributes:
        runs: Number of runs.
        is_open: Whether the search has not ended; it may end below its budget, if it finds no further network.
        epochs: Epochs of the networks that it will still propose, less those of its runs that it will prune.
    """

    runs: int
    is_open: bool
    epochs: int


@dataclass(frozen=True)
class Status:
    """The progress of a study.

    Attributes:
        is_alive: Whether a process is training it.
        runs: Each run once, in the order of the study.
        outside: Number of runs that were begun and are not part of the study any more.
        epoch_s: Mean computing time of an epoch on machines like those that train now; None before the first.
        resume_hint: How to resume an unfinished single run; otherwise empty.
        budget: That of a search; None of a study or a run.
    """

    name: str
    is_alive: bool
    networks: tuple[NetworkInfo, ...]
    runs: tuple[RunStatus, ...]
    outside: int
    epoch_s: float | None
    resume_hint: str = ""
    budget: Budget | None = None

    @property
    def running(self) -> tuple[RunStatus, ...]:
        """The runs that are being trained; none without a driver."""
        return tuple(run for run in self.runs if run.state == "running") if self.is_alive else ()

    @property
    def left_s(self) -> float | None:
        """Estimated remaining time with the current number of programs; None if unknown."""
        if self.epoch_s is None or not self.running:
            return None
        epochs = sum(run.epochs - run.epoch for run in self.runs if run.state in ("waiting", "running"))
        epochs += 0 if self.budget is None else self.budget.epochs
        # The recorded time of an epoch of a run is its share of the time of its program.
        return epochs * self.epoch_s / sum(1 / run.replicas for run in self.running)


def read_status(folder: Path | str) -> Status:
    """The progress of the study, search or single run in a folder; also while it is being trained.

    Raises:
        RunError: The folder is none of these, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not (folder / LEDGER).exists():
        return _single_status(folder)
    # Checked first: a driver that ends meanwhile has written everything before it releases the lock.
    is_alive = is_locked(folder)
    with open_for_reading(folder / LEDGER) as database:
        study = study_row(database, folder)
        networks, index = network_rows(database)
        rows = database.execute(
            """
            SELECT key, runs.folder, network, init, rows.data, runs.state, attempts, done, epochs, accuracy,
                   ifnull(worker, ''), runs.message, ifnull(traceback, ''),
                   ifnull(json_extract(machine, '$.replicas'), 1), min(place) AS first
            FROM rows JOIN runs USING (key) LEFT JOIN attempts USING (key)
            LEFT JOIN (SELECT key, max(epoch) AS done, accuracy FROM curves WHERE split = 'validation' GROUP BY key)
                USING (key)
            WHERE in_study AND (n IS NULL OR n = attempts) GROUP BY key ORDER BY first
            """
        ).fetchall()
        outside = database.execute(
            "SELECT count(*) FROM runs WHERE attempts > 0 AND key NOT IN (SELECT key FROM rows WHERE in_study)"
        ).fetchone()[0]
        # Epochs that other machines have trained before say nothing about the time left on these.
        epoch_s = database.execute(
            """
            WITH last AS (
                SELECT key, runs.state AS state, printf('%s %s %s', json_extract(machine, '$.platform'),
                    json_extract(machine, '$.device'), json_extract(machine, '$.threads')) AS machine
                FROM runs JOIN attempts USING (key) WHERE n = runs.attempts AND machine IS NOT NULL
            )
            SELECT avg(time_s) FROM curves JOIN last USING (key)
            WHERE split = 'train' AND machine IN (SELECT machine FROM last WHERE state = 'running')
            """
        ).fetchone()[0]
        asked = database.execute(
            "SELECT content FROM trials WHERE json_extract(content, '$.outcome') = 'asked'"
        ).fetchall()
    runs = []
    for key, name, network, init, data, state, attempts, epoch, epochs, accuracy, *last in rows:
        worker, message, traceback, replicas, _ = last
        now: State = "waiting" if state == "running" and not is_alive else state
        seeds = Seeds(init, data)
        saved = now == "waiting" and attempts > 0 and bool(stored_cursors(folder / RUNS / name))
        progress = (attempts, epoch or 0, epochs, accuracy)
        place = index[network]
        runs.append(RunStatus(key, name, place, seeds, now, *progress, worker, message, traceback, replicas, saved))
    budget = None
    if study["is_search"]:
        batch = {key for (content,) in asked for key in json.loads(content)["keys"]}
        budget = _budget(_search_settings(study["text"], folder / LEDGER), runs, batch)
    return Status(study["name"], is_alive, networks, tuple(runs), outside, epoch_s, budget=budget)


def run_folders(folder: Path | str) -> dict[str, Path]:
    """Key of each run of the study or single run in a folder -> the run's own folder, which may be missing.

    Raises:
        RunError: As for `read_status`.
    """
    folder = Path(folder)
    is_study = (folder / LEDGER).exists()
    return {run.key: folder / RUNS / run.name if is_study else folder for run in read_status(folder).runs}


def _search_settings(text: str, path: Path) -> SearchSettings:
    """The settings of the search in the text of a study."""
    try:
        return SearchSettings.model_validate(parse(text, str(path)).get("search"))
    except (SpecError, ValidationError) as error:
        raise RunError(f"{path}: the study in it cannot be read ({error}). {RESTORE_HINT}") from None


def _budget(search: SearchSettings, runs: Sequence[RunStatus], batch: set[str]) -> Budget:
    """The budget of a search with these runs.

    Args:
        batch: Keys of the runs of the networks that are trained now; none if the search has ended.
    """
    if not batch:
        return Budget(search.runs, False, 0)
    seeds = max(1, sum(run.network == 0 for run in runs))
    epochs = max(run.epochs for run in runs)
    whole, rest = divmod(max(0, search.runs - len(runs)) // seeds, search.batch)
    further = seeds * (whole * search.batch_epochs(search.batch, epochs) + search.batch_epochs(rest, epochs))
    pruned = 0
    if search.halving is not None:
        now = [run for run in runs if run.key in batch]
        left = max(0, seeds * search.batch_epochs(len(now) // seeds, epochs) - sum(run.epoch for run in now))
        pruned = max(0, sum(run.epochs - run.epoch for run in now if run.state in ("waiting", "running")) - left)
    return Budget(search.runs, True, further - pruned)


def _single_status(folder: Path) -> Status:
    """The status of the run in a folder: of a single run, or of one run of a study."""
    record = read_record(folder) if folder.is_dir() else None
    settings = read_settings(folder) if folder.is_dir() else None
    found = settings or record
    if found is None:
        raise no_results(folder)
    # The record may be that of a shorter run, which this one continues.
    ended = record if record is not None and record.key == found.key else None
    try:
        content = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        lines = [parse_json(line) for line in content if line.endswith("}")]
        validations = [(line["epoch"], line["accuracy"]) for line in lines if line["split"] == "validation"]
        times = [float(line["time_s"]) for line in lines if line["split"] == "train"]
    except (OSError, ValueError, TypeError, KeyError):  # missing, being written, or changed by others
        validations, times = [], []
    is_alive = ended is None and _is_trained(folder)
    run = RunStatus(
        key=found.key,
        name=folder.name,
        network=0,
        seeds=found.seeds,
        state=ended.outcome if ended else "running" if is_alive else "waiting",
        attempts=1,
        epoch=validations[-1][0] if validations else 0,
        epochs=found.recipe.epochs,
        validation_accuracy=validations[-1][1] if validations else None,
        worker=ended.machine.device if ended else "" if settings is None else settings.device,
        message="",
        traceback="",
        replicas=ended.machine.replicas if ended else 1,
        has_checkpoint=ended is None and bool(stored_cursors(folder)),
    )
    epoch_s = sum(times) / len(times) if times else None
    hint = "" if ended or is_alive else resume_hint(folder)
    return Status(found.architecture, is_alive, (_single_network(folder, found, record),), (run,), 0, epoch_s, hint)


def _single_network(folder: Path, found: RunRecord | Settings, record: RunRecord | None) -> NetworkInfo:
    """The network of a run; its size is that of a record, or else counted, or 0 without a readable spec."""
    name, parameters, macs = found.variant or found.architecture, 0, 0
    if record is not None and record.plan == found.plan:
        parameters, macs = record.parameters, record.macs
    else:
        from hiresnet_graph.architecture import load

        with suppress(SpecError, OSError):
            cost = load(folder / SPEC).cost()
            parameters, macs = cost.parameters, cost.macs
    return NetworkInfo(name, {}, found.plan, parameters, macs)


def _is_trained(folder: Path) -> bool:
    """Whether a process trains the unfinished run in a folder: its own, or the driver of its study."""
    study = study_folder(folder)
    if study is None:
        return is_locked(folder)
    with suppress(RunError):  # the study may be damaged
        return any(run.name == folder.resolve().name for run in read_status(study).running)
    return False
