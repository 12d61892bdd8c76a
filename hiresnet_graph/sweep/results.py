"""What a study's folder, or the folder of one run, says so far: all that reports are made of."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.spec.problems import explain
from hiresnet_graph.sweep.lock import is_locked
from hiresnet_graph.train.record import METRICS, RunRecord, Seeds, read_record, read_settings

LEDGER, RUNS = "ledger.sqlite", "runs"
# Raised when the tables of the ledger change.
VERSION = 1
APPLICATION = 0x68726731  # tells a ledger from another SQLite file

# Counts the runs that no row of the study has any more.
OUTSIDE = "SELECT count(*) FROM runs WHERE key NOT IN (SELECT key FROM rows WHERE in_study)"

State = Literal["waiting", "running", "complete", "diverged", "failed", "pruned"]
STATES: tuple[State, ...] = get_args(State)
FINAL: tuple[State, ...] = ("complete", "diverged", "pruned")


@dataclass(frozen=True)
class NetworkInfo:
    """A network of a study: one variant under one setting of the grid's template parameters.

    Attributes:
        label: The variant's.
        setting: What the grid chose, field by field, those of the recipe (like `recipe.lr`) too; empty without a grid.
        plan: Hash of the compiled network.
        edges: Names of the skip edges that it has, as edge sets write them (`stem>stage2`).
        same_as: Label of an earlier variant of this setting that is the same network, so that runs are shared; or "".
        isomorphic_to: Label of an earlier variant that is the same graph but for the names of its weights: other random
            draws, so it is trained; or "".
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
        network: Place in `Results.networks`.
        key: Of the run; rows of equal networks have one.
        record: Of a run that is complete or has diverged; of a pruned one as far as it came.
        message: Why it failed.
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
        baseline: Label of the variant that the others are compared with; None if the study names none.
        subsets_of: All edges of which the variants are subsets, if they were made by a subset rule; else empty.
        is_search: Whether the rows were chosen by a search, so that settings have different numbers of seeds.
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


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        name: Of its folder: the variant's label, its setting and its seeds.
        network: Place in `Status.networks` of the first network that has it.
        epoch: How many epochs are done.
        epochs: How many it has when it is complete.
        validation_accuracy: Of the last epoch that is done.
        worker: Where its last attempt is, or was, at work.
        message: What was wrong with the last attempt that failed.
        traceback: Of that attempt.
        replicas: How many runs the program of its last attempt computes together.
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


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        is_alive: Whether a driver is at work on it.
        runs: Each once, in the order of the study.
        outside: How many runs are kept that are no part of the study any more.
        epoch_s: Computing time of an epoch, on average over those that are done; None before the first.
        way_on: Of a single run that is unfinished: what to do, as a sentence; of all else empty.
    """

    name: str
    is_alive: bool
    networks: tuple[NetworkInfo, ...]
    runs: tuple[RunStatus, ...]
    outside: int
    epoch_s: float | None
    way_on: str = ""

    @property
    def at_work(self) -> tuple[RunStatus, ...]:
        """The runs that are trained now; none without a driver, whatever the ledger says."""
        return tuple(run for run in self.runs if run.state == "running") if self.is_alive else ()

    @property
    def left_s(self) -> float | None:
        """How long the rest takes with as many programs at a time as now; None if that is not known."""
        if self.epoch_s is None or not self.at_work:
            return None
        epochs = sum(run.epochs - run.epoch for run in self.runs if run.state in ("waiting", "running"))
        # The time of a run's epoch is its share of that of its program.
        return epochs * self.epoch_s / sum(1 / run.replicas for run in self.at_work)


def read_results(folder: Path | str) -> Results:
    """What the folder of a study, a search or a single run holds; may be read while it is written.

    Raises:
        RunError: The folder is none of these, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not (folder / LEDGER).exists():
        record = read_record(folder) if folder.is_dir() else None
        if record is None:
            if folder.is_dir() and read_settings(folder) is not None:
                raise RunError(f"{folder}: the run in it is not finished, so it has no result yet. {_way_on(folder)}")
            raise _nothing(folder)
        return _single(record)
    with reading(folder / LEDGER) as database:
        study = _study(database, folder)
        networks, places = _networks(database)
        rows = database.execute(
            "SELECT network, init, rows.data, key, state, attempts, record, message FROM rows JOIN runs USING (key) "
            "WHERE in_study ORDER BY place"
        ).fetchall()
    records: dict[str, RunRecord] = {}
    found = []
    for network, init, data, key, state, attempts, record, message in rows:
        if record is not None and key not in records:
            records[key] = _record(record, folder / LEDGER)
        found.append(RunRow(places[network], Seeds(init, data), key, state, attempts, records.get(key), message))
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
    )


def _record(text: str, path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        raise RunError(f"{path}: a result in it is not of this version ({explain(error)[0]}). {_ANEW}") from None


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


def read_status(folder: Path | str) -> Status:
    """How far the study, the search or the single run of a folder is; may be read while it is trained.

    Raises:
        RunError: The folder is none of these, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not (folder / LEDGER).exists():
        return _single_status(folder)
    # Asked first: a driver that ends meanwhile has written all it knows before it lets go.
    is_alive = is_locked(folder)
    with reading(folder / LEDGER) as database:
        study = _study(database, folder)
        networks, places = _networks(database)
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
        outside = database.execute(OUTSIDE).fetchone()[0]
        epoch_s = database.execute("SELECT avg(time_s) FROM curves WHERE split = 'train'").fetchone()[0]
    runs = []
    for key, name, network, init, data, state, attempts, done, epochs, accuracy, *told, _ in rows:
        now: State = "waiting" if state == "running" and not is_alive else state
        runs.append(
            RunStatus(
                key,
                name,
                places[network],
                Seeds(init, data),
                now,
                attempts,
                done or 0,
                epochs,
                accuracy,
                *told,
            )
        )
    return Status(study["name"], is_alive, networks, tuple(runs), outside, epoch_s)


def finished_keys(folder: Path | str) -> frozenset[str]:
    """Keys of the finished runs that a study's folder keeps, those of earlier plans too; there may be none yet.

    Raises:
        RunError: The ledger of the folder cannot be read.
    """
    path = Path(folder) / LEDGER
    if not path.exists():
        return frozenset()
    with reading(path) as database:
        if is_empty(database):
            return frozenset()
        rows = database.execute(f"SELECT key FROM runs WHERE state IN ({', '.join('?' * len(FINAL))})", FINAL)
        return frozenset(key for (key,) in rows)


def _single_status(folder: Path) -> Status:
    """Of a run that no study keeps. Nothing tells whether it is trained just now."""
    record = read_record(folder) if folder.is_dir() else None
    told = record or (read_settings(folder) if folder.is_dir() else None)
    if told is None:
        raise _nothing(folder)
    try:
        lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines() if line.endswith("}")]
    except (OSError, ValueError):  # not yet there, or just being written
        lines = []
    seen = [line for line in lines if line["split"] == "validation"]
    times = [line["time_s"] for line in lines if line["split"] == "train"]
    run = RunStatus(
        key=told.key,
        name=folder.name,
        network=0,
        seeds=told.seeds,
        state=record.outcome if record else "waiting",
        attempts=1,
        epoch=seen[-1]["epoch"] if seen else 0,
        epochs=told.recipe.epochs,
        validation_accuracy=seen[-1]["accuracy"] if seen else None,
        worker=record.machine.device if record else "",
        message="",
        traceback="",
        replicas=record.machine.replicas if record else 1,
    )
    network = NetworkInfo(told.variant or told.architecture, {}, told.plan, 0, 0)
    epoch_s = sum(times) / len(times) if times else None
    return Status(told.architecture, False, (network,), (run,), 0, epoch_s, "" if record else _way_on(folder))


def _way_on(folder: Path) -> str:
    """How a run that is unfinished goes on; if a study keeps it, that is the study's matter."""
    study = folder.resolve().parent.parent
    if (study / LEDGER).exists():
        return f"It belongs to a study: {shlex.join(['hrg', 'status', str(study)])}"
    return f"Unless it is being trained just now, go on with: {shlex.join(['hrg', 'train', '--resume', str(folder)])}"


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger as it is at one moment; nothing is written, not even where its folder may be written."""
    with told_errors(path):
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60, isolation_level=None)
        try:
            check_version(database, path)
            database.execute("BEGIN")
            yield database
        finally:
            database.close()


def _study(database: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    names = "name", "architecture", "data", "recipe", "baseline", "subsets_of", "is_search"
    row = database.execute(f"SELECT {', '.join(names)} FROM study").fetchone()
    if row is None:
        raise _nothing(folder)
    return dict(zip(names, row, strict=True))


def _networks(database: sqlite3.Connection) -> tuple[tuple[NetworkInfo, ...], dict[int, int]]:
    """The networks of the study, and the place of each by its number in the ledger."""
    rows = database.execute(
        "SELECT id, label, setting, plan, parameters, macs, edges, same_as, isomorphic_to FROM networks "
        "WHERE in_study ORDER BY place"
    ).fetchall()
    networks = tuple(
        NetworkInfo(label, json.loads(setting), plan, parameters, macs, tuple(json.loads(edges)), same_as, isomorphic)
        for _, label, setting, plan, parameters, macs, edges, same_as, isomorphic in rows
    )
    return networks, {row[0]: place for place, row in enumerate(rows)}


def _nothing(folder: Path) -> RunError:
    if not folder.is_dir():
        return RunError(f"{folder}: there is no such folder. 'hrg ablate ... -o {folder}' makes one with a study.")
    return RunError(
        f"{folder}: holds no study and no finished run. 'hrg ablate' and 'hrg train' make one; give the folder that "
        "was their '--output'."
    )


def is_empty(database: sqlite3.Connection) -> bool:
    """Whether the file of a ledger was made, and nothing written into it."""
    return not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def check_version(database: sqlite3.Connection, path: Path) -> int:
    """The version of a ledger's tables; 0 of a file that is empty.

    Raises:
        RunError: It is not ours, or of another version.
    """
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    application = int(database.execute("PRAGMA application_id").fetchone()[0])
    if version == application == 0 and is_empty(database):
        return 0
    if application != APPLICATION or version != VERSION:
        told = f"version {version}, this hrg has {VERSION}" if application == APPLICATION else "not written by hrg"
        raise RunError(f"{path}: is no ledger of this version ({told}). {_ANEW}")
    return version


_ANEW = (
    "Move the file away and start the same study in this folder: the finished runs that lie in 'runs' are taken over, "
    "not trained again."
)


@contextmanager
def told_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into ours, with the path and what to do.

    Raises:
        RunError: The ledger cannot be read or written.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RunError(f"{path}: {error}. Is the disk full, or is this folder not yours to write?") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # our own mistake
            raise
        told = " ".join(str(error).split())
        raise RunError(f"{path}: is broken ({told}). {_ANEW}") from error
