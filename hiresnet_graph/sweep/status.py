"""The progress of a study, a search or a single run, as `hrg status` shows it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hiresnet_graph.errors import RunError
from hiresnet_graph.files import parse_json
from hiresnet_graph.sweep.database import RUNS, State, open_for_reading
from hiresnet_graph.sweep.results import NetworkInfo, network_rows, no_results, resume_hint, study_row
from hiresnet_graph.train.lock import is_locked
from hiresnet_graph.train.record import LEDGER, METRICS, Seeds, read_record, read_settings, stored_cursors, study_folder


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


@dataclass(frozen=True)
class Status:
    """The progress of a study.

    Attributes:
        is_alive: Whether a process is training it.
        runs: Each run once, in the order of the study.
        outside: Number of runs that were begun and are not part of the study any more.
        epoch_s: Mean computing time of an epoch on machines like those that train now; None before the first.
        resume_hint: How to resume an unfinished single run; otherwise empty.
    """

    name: str
    is_alive: bool
    networks: tuple[NetworkInfo, ...]
    runs: tuple[RunStatus, ...]
    outside: int
    epoch_s: float | None
    resume_hint: str = ""

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
    runs = []
    for key, name, network, init, data, state, attempts, epoch, epochs, accuracy, *last in rows:
        worker, message, traceback, replicas, _ = last
        now: State = "waiting" if state == "running" and not is_alive else state
        seeds = Seeds(init, data)
        saved = now == "waiting" and attempts > 0 and bool(stored_cursors(folder / RUNS / name))
        progress = (attempts, epoch or 0, epochs, accuracy)
        place = index[network]
        runs.append(RunStatus(key, name, place, seeds, now, *progress, worker, message, traceback, replicas, saved))
    return Status(study["name"], is_alive, networks, tuple(runs), outside, epoch_s)


def _single_status(folder: Path) -> Status:
    """The status of the run in a folder: of a single run, or of one run of a study."""
    record = read_record(folder) if folder.is_dir() else None
    settings = read_settings(folder) if record is None and folder.is_dir() else None
    found = record or settings
    if found is None:
        raise no_results(folder)
    try:
        content = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        lines = [parse_json(line) for line in content if line.endswith("}")]
        validations = [(line["epoch"], line["accuracy"]) for line in lines if line["split"] == "validation"]
        times = [float(line["time_s"]) for line in lines if line["split"] == "train"]
    except (OSError, ValueError, TypeError, KeyError):  # missing, being written, or changed by others
        validations, times = [], []
    is_alive = record is None and _is_trained(folder)
    run = RunStatus(
        key=found.key,
        name=folder.name,
        network=0,
        seeds=found.seeds,
        state=record.outcome if record else "running" if is_alive else "waiting",
        attempts=1,
        epoch=validations[-1][0] if validations else 0,
        epochs=found.recipe.epochs,
        validation_accuracy=validations[-1][1] if validations else None,
        worker=record.machine.device if record else "" if settings is None else settings.device,
        message="",
        traceback="",
        replicas=record.machine.replicas if record else 1,
        has_checkpoint=record is None and bool(stored_cursors(folder)),
    )
    network = NetworkInfo(found.variant or found.architecture, {}, found.plan, 0, 0)
    epoch_s = sum(times) / len(times) if times else None
    hint = "" if record or is_alive else resume_hint(folder)
    return Status(found.architecture, is_alive, (network,), (run,), 0, epoch_s, hint)


def _is_trained(folder: Path) -> bool:
    """Whether a process trains the unfinished run in a folder: its own, or the driver of its study."""
    study = study_folder(folder)
    if study is None:
        return is_locked(folder)
    with suppress(RunError):  # the study may be damaged
        return any(run.name == folder.resolve().name for run in read_status(study).running)
    return False
