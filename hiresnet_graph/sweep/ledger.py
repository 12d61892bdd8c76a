"""The ledger of a study: its rows, the state of each run, and the results. SQLite, in the folder of the study.

<study>/ledger.sqlite
<study>/lock
<study>/runs/<label>[-<setting>]-seed<k>/

Only the driver writes the ledger, under the lock of the folder; `read_results` and `read_status` read it. A result that
a worker has written and the driver has not yet recorded lies in the folder of the run, and is adopted when the study is
resumed, also by a new ledger: the key in the folder says which run it holds. Nothing here depends on the time of day.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import make_folder
from hiresnet_graph.sweep.compatibility import canonical, changes_refusal, single_run_refusal
from hiresnet_graph.sweep.database import (
    FINAL,
    RUNS,
    STATES,
    State,
    is_empty,
    ledger_errors,
    open_for_reading,
    open_for_writing,
)
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.folders import find_unrecorded, run_folder
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.train.lock import FolderLock
from hiresnet_graph.train.record import LEDGER, Environment, Epoch, RunRecord

AttemptState = Literal["running", "complete", "diverged", "failed", "lost", "paused"]

# The execution plan is frozen as soon as a run was started.
_FROZEN = "SELECT execution FROM study WHERE EXISTS (SELECT 1 FROM attempts)"
_RECORDING = "SELECT key FROM runs WHERE iif(json_valid(record), json_extract(record, '$.recipe.record_gradients'), 0)"
_STATE = "key, folder, state, attempts, epochs, paused_at, message"
_Read = Callable[..., list[Any]]


class RunState(NamedTuple):
    """The state of a run.

    Attributes:
        folder: Folder of its files.
        epochs: Epochs of the complete run.
        paused_at: The epoch after which it was paused.
    """

    key: str
    folder: Path
    state: State
    attempts: int
    epochs: int
    paused_at: int | None = None
    message: str = ""


class StoredStudy(NamedTuple):
    """What a folder holds before a plan is joined to it.

    Attributes:
        runs: All runs by key, those of earlier plans included; and the finished runs of the plan in folders that the
            ledger does not know, which it adopts when it joins the plan.
        execution: The frozen execution plan; None before the first run was started.
        refusal: Why the plan does not fit the folder; empty if it does.
        recording: Finished runs with norms of gradients, by key; empty if the plan requests none.
    """

    runs: Mapping[str, RunState] = {}
    execution: ExecutionPlan | None = None
    refusal: str = ""
    recording: frozenset[str] = frozenset()


def read_stored(folder: Path | str, plan: StudyPlan, *, accept_changes: bool = False) -> StoredStudy:
    """What a folder holds, compared with a plan. Changes nothing; the folder need not exist.

    Args:
        accept_changes: As for `Ledger.join`.

    Raises:
        RunError: The ledger in the folder cannot be read, is damaged, or is of another version.
    """
    folder = Path(folder)
    if refusal := single_run_refusal(folder):
        return StoredStudy(refusal=refusal)
    if not os.path.exists(folder / LEDGER):
        return _stored(lambda text, *values: [], folder, plan, accept_changes)
    with open_for_reading(folder / LEDGER, may_be_empty=True) as database:
        if is_empty(database):
            return _stored(lambda text, *values: [], folder, plan, accept_changes)
        return _stored(lambda text, *values: database.execute(text, values).fetchall(), folder, plan, accept_changes)


class Ledger:
    """The ledger of a folder, open for writing. Created by `open`; leaving the context closes it.

    After `commit`, everything written survives the end of this process. It reaches the disk a little later: what a
    power failure takes is found again in the folders of the runs.
    """

    def __init__(self, folder: Path, lock: FolderLock, database: sqlite3.Connection) -> None:
        self.folder, self._lock, self._database = folder, lock, database
        self._is_closed = False
        self._current: dict[str, int] = {}  # the running attempt of each run

    @classmethod
    def open(cls, folder: Path | str, *, wait: bool = False) -> Self:
        """Open the ledger of a folder, which is created if missing. Runs of a previous driver wait again.

        Args:
            wait: Wait for the end of another driver.

        Raises:
            UsageError: Another driver uses the folder, or the folder holds a single run.
            RunError: The folder cannot be written, or its ledger is damaged or of another version.
        """
        folder = Path(folder)
        if refusal := single_run_refusal(folder):
            raise UsageError(refusal)
        lock = FolderLock(make_folder(folder), wait=wait)
        try:
            with ledger_errors(folder / LEDGER):
                database = open_for_writing(folder / LEDGER)
                database.execute(
                    "UPDATE attempts SET state = 'lost', message = 'the driver ended' WHERE state = 'running'"
                )
                database.execute("UPDATE runs SET state = 'waiting' WHERE state = 'running'")
        except BaseException:
            lock.release()
            raise
        return cls(folder, lock, database)

    def close(self) -> None:
        """Commit and release the folder. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self.commit()
            # One file instead of three, so that a copy of the folder is complete; not while a reader is active.
            with suppress(sqlite3.Error):
                self._database.execute("PRAGMA busy_timeout = 0")
                self._database.execute("PRAGMA journal_mode = DELETE")
        finally:
            self._database.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def is_dirty(self) -> bool:
        """Whether something was written since the last commit."""
        return self._database.in_transaction

    def commit(self) -> None:
        """Make everything written safe, and visible to readers."""
        if self._database.in_transaction:
            with ledger_errors(self.folder / LEDGER):
                self._database.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of a block or nothing."""
        self.commit()
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self.commit()

    def _write(self, statement: str, *values: object) -> sqlite3.Cursor:
        with ledger_errors(self.folder / LEDGER):
            if not self._database.in_transaction:
                self._database.execute("BEGIN IMMEDIATE")
            return self._database.execute(statement, values)

    def _read(self, statement: str, *values: object) -> list[Any]:
        with ledger_errors(self.folder / LEDGER):
            return self._database.execute(statement, values).fetchall()

    # ---- the study

    def stored(self, plan: StudyPlan, *, accept_changes: bool = False) -> StoredStudy:
        """What the folder holds, compared with a plan."""
        return _stored(self._read, self.folder, plan, accept_changes)

    def join(self, plan: StudyPlan, *, accept_changes: bool = False, is_search: bool = False) -> None:
        """Make a plan the study of the folder: new runs are added, finished ones are kept. All or nothing is written.

        Rows that the plan no longer has are kept and left out of results, until a plan has them again.

        Args:
            accept_changes: A label, with its setting and seeds, may refer to another run than before.

        Raises:
            UsageError: A label refers to another run than before, or the folder holds another study: of another
                network or on other data, or one that shares no run with this plan.
        """
        if not accept_changes and (refusal := changes_refusal(self._read, self.folder, plan)):
            raise UsageError(refusal)
        with self._transaction():
            self._write_study(plan, is_search)
            self._write_runs(plan)
            self._write_rows(plan)

    def _write_study(self, plan: StudyPlan, is_search: bool) -> None:
        values = {
            "name": plan.name,
            "architecture": plan.architecture,
            "data": plan.data,
            "data_fingerprint": plan.data_fingerprint,
            "recipe": json.dumps(dict(plan.recipe)),
            "baseline": plan.baseline,
            "subsets_of": json.dumps(list(plan.subsets_of)),
            "is_search": is_search,
            "text": plan.text,
        }
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        self._write(
            f"INSERT INTO study (only, {', '.join(values)}) VALUES (1{', ?' * len(values)}) "
            f"ON CONFLICT (only) DO UPDATE SET {updates}",
            *values.values(),
        )

    def _write_runs(self, plan: StudyPlan) -> None:
        known = dict(self._read("SELECT key, folder FROM runs"))
        unrecorded = find_unrecorded(self.folder / RUNS, known.values())
        by_key = {run.key: run for run in reversed(unrecorded)}
        names = (*known.values(), *(run.name for run in unrecorded))
        taken = {name.casefold() for name in names}  # some file systems ignore case
        for row in plan.rows:
            if row.key in known:
                continue
            network, request = plan.networks[row.network], plan.requests[row.key]
            found = by_key.get(row.key)
            folder = run_folder(network.same_as or network.label, network.setting, row.seeds)
            if found is not None:
                folder = found.name
            elif folder.casefold() in taken:  # by another run, to which the label referred before
                folder = f"{folder}-{row.key[:8]}"
            self._write(
                "INSERT INTO runs (key, folder, epochs) VALUES (?, ?, ?)", row.key, folder, request.recipe.epochs
            )
            if found is not None and found.record is not None:
                self.adopt(row.key, found.record)
            known[row.key] = folder
            taken.add(folder.casefold())

    def _write_rows(self, plan: StudyPlan) -> None:
        ids = {
            (label, canonical(json.loads(setting)), digest): number
            for number, label, setting, digest in self._read("SELECT id, label, setting, plan FROM networks")
        }
        self._write("UPDATE networks SET in_study = 0")
        self._write("UPDATE rows SET in_study = 0")
        numbers = []
        for place, network in enumerate(plan.networks):
            number = ids.get((network.label, canonical(network.setting), network.plan))
            self._write(
                "INSERT OR REPLACE INTO networks (id, place, in_study, label, setting, plan, parameters, macs, edges, "
                "same_as, isomorphic_to) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(number, place, network.label, json.dumps(dict(network.setting)), network.plan, network.parameters),
                *(network.macs, json.dumps(list(network.edges)), network.same_as, network.isomorphic_to),
            )
            numbers.append(number if number is not None else self._read("SELECT last_insert_rowid()")[0][0])
        for place, row in enumerate(plan.rows):
            self._write(
                "INSERT OR REPLACE INTO rows (network, init, data, key, place, in_study) VALUES (?, ?, ?, ?, ?, 1)",
                *(numbers[row.network], row.seeds.init, row.seeds.data, row.key, place),
            )

    @property
    def text(self) -> str:
        """The study of the folder as a file; empty if there is none yet."""
        found = self._read("SELECT text FROM study")
        return found[0][0] if found else ""

    @property
    def execution(self) -> ExecutionPlan | None:
        """The frozen execution plan; None before the first run was started."""
        return _frozen(self._read)

    def freeze_execution(self, execution: ExecutionPlan) -> None:
        """Store how the runs of the study are computed."""
        self._write("UPDATE study SET execution = ?", execution.to_json())

    # ---- the state of its runs

    def runs(self) -> list[RunState]:
        """Each run of the study once, in the order of its rows."""
        return [
            _state(self.folder, *values)
            for values in self._read(
                f"SELECT {_STATE} FROM runs JOIN (SELECT key, min(place) AS place FROM rows WHERE in_study GROUP BY "
                "key) USING (key) ORDER BY place"
            )
        ]

    def run(self, key: str) -> RunState:
        """The state of one run."""
        return _state(self.folder, *self._read(f"SELECT {_STATE} FROM runs WHERE key = ?", key)[0])

    def missing(self) -> list[RunState]:
        """The unfinished runs, in the order of the study: waiting, running or failed."""
        return [run for run in self.runs() if run.state not in FINAL]

    def counts(self) -> dict[State, int]:
        """The number of runs of the study in each state."""
        found = self._read(
            "SELECT state, count(*) FROM runs WHERE key IN (SELECT key FROM rows WHERE in_study) GROUP BY state"
        )
        return {**dict.fromkeys(STATES, 0), **dict(found)}

    def best_validation(self, key: str) -> float | None:
        """The highest validation accuracy of a run so far; None before its first epoch."""
        found = self._read("SELECT max(accuracy) FROM curves WHERE key = ? AND split = 'validation'", key)
        return None if found[0][0] is None else float(found[0][0])

    # ---- what happens to a run

    def start_attempt(self, key: str, attempt: int, worker: str) -> None:
        """Record that a worker has started an attempt at a run."""
        self._current[key] = attempt
        self._write("UPDATE runs SET state = 'running', attempts = ? WHERE key = ?", attempt, key)
        self._write("INSERT INTO attempts (key, n, worker, state) VALUES (?, ?, ?, 'running')", key, attempt, worker)

    def is_current(self, key: str, attempt: int) -> bool:
        """Whether this attempt is the running one. The methods below refuse reports of all others."""
        return self._current.get(key) == attempt

    def record_start(self, key: str, attempt: int, machine: Environment, epoch: int) -> bool:
        """Record that an attempt has started to train after an epoch; curves of later epochs are deleted.

        Returns:
            Whether the attempt is the current one; otherwise nothing is written. The same holds for the methods below.
        """
        if not self.is_current(key, attempt):
            return False
        self._write("UPDATE attempts SET machine = ? WHERE key = ? AND n = ?", machine.model_dump_json(), key, attempt)
        self._write("DELETE FROM curves WHERE key = ? AND epoch > ?", key, epoch)
        return True

    def record_epoch(self, key: str, attempt: int, epoch: Epoch) -> bool:
        """Record a finished epoch; an earlier record of it is replaced."""
        if not self.is_current(key, attempt):
            return False
        self._write_epoch(key, epoch)
        return True

    def _write_epoch(self, key: str, epoch: Epoch) -> None:
        self._write(
            "INSERT OR REPLACE INTO curves VALUES (?, ?, 'train', ?, ?, NULL, ?), (?, ?, 'validation', ?, ?, ?, ?)",
            *(key, epoch.epoch, epoch.train_loss, epoch.train_accuracy, epoch.time_s),
            *(key, epoch.epoch, epoch.validation_loss, epoch.validation_accuracy, epoch.validation_top_k, epoch.time_s),
        )

    def finish(self, key: str, attempt: int, record: RunRecord) -> bool:
        """Record the result of a run that is complete or has diverged."""
        if not self._end_attempt(key, attempt, record.outcome):
            return False
        self._finish(key, record)
        return True

    def adopt(self, key: str, record: RunRecord) -> None:
        """Record a result found in the folder of a run that the ledger did not record."""
        self._write(
            "UPDATE attempts SET state = ?, message = '' FROM runs "
            "WHERE attempts.key = ? AND runs.key = attempts.key AND n = runs.attempts",
            *(record.outcome, key),
        )
        self._finish(key, record)

    def _finish(self, key: str, record: RunRecord) -> None:
        self._write(
            "UPDATE runs SET state = ?, record = ?, paused_at = NULL, message = '' WHERE key = ?",
            *(record.outcome, record.model_dump_json(), key),
        )
        # Epochs whose events were lost, or were before this ledger.
        recorded = self._read("SELECT count(*) FROM curves WHERE key = ? AND split = 'validation'", key)[0][0]
        for epoch in record.epochs if recorded < len(record.epochs) else ():
            self._write_epoch(key, epoch)

    def pause(self, key: str, attempt: int, epoch: int) -> bool:
        """Record that a run was paused after an epoch."""
        if not self._end_attempt(key, attempt, "paused"):
            return False
        self._write("UPDATE runs SET state = 'waiting', paused_at = ? WHERE key = ?", epoch, key)
        return True

    def fail(
        self,
        key: str,
        attempt: int,
        message: str,
        *,
        state: Literal["failed", "lost"] = "failed",
        final: bool = False,
        traceback: str = "",
    ) -> bool:
        """Record that an attempt failed or lost its worker; the run waits for another attempt unless this was final."""
        if not self._end_attempt(key, attempt, state, message, traceback):
            return False
        self._write(
            "UPDATE runs SET state = ?, message = ? WHERE key = ?", "failed" if final else "waiting", message, key
        )
        return True

    def _end_attempt(self, key: str, attempt: int, state: AttemptState, message: str = "", traceback: str = "") -> bool:
        if not self.is_current(key, attempt):
            return False
        del self._current[key]
        self._write(
            "UPDATE attempts SET state = ?, message = ?, traceback = ? WHERE key = ? AND n = ?",
            *(state, message, traceback, key, attempt),
        )
        return True

    def prune(self, key: str) -> None:
        """Give up a waiting run, because a search has found better ones."""
        self._write("UPDATE runs SET state = 'pruned' WHERE key = ? AND state = 'waiting'", key)

    # ---- the trials of a search

    def write_trial(self, number: int, content: Mapping[str, object]) -> None:
        """Store a trial of a search as JSON data, replacing an earlier version of it."""
        self._write("INSERT OR REPLACE INTO trials VALUES (?, ?)", number, json.dumps(dict(content), allow_nan=False))

    def trials(self) -> dict[int, str]:
        """The stored trials by number, in that order, as JSON."""
        return dict(self._read("SELECT number, content FROM trials ORDER BY number"))


def _stored(read: _Read, folder: Path, plan: StudyPlan, accept_changes: bool) -> StoredStudy:
    runs = {values[0]: _state(folder, *values) for values in read(f"SELECT {_STATE} FROM runs")}
    recording = frozenset[str]()
    if any(request.recipe.record_gradients for request in plan.requests.values()):
        recording = frozenset(key for (key,) in read(_RECORDING))
    known = set(runs)
    for run in reversed(find_unrecorded(folder / RUNS, [run.folder.name for run in runs.values()])):
        if (record := run.record) is not None and run.key in plan.requests and run.key not in known:
            epochs = record.recipe.epochs
            runs[run.key] = RunState(run.key, folder / RUNS / run.name, record.outcome, 0, epochs)
            recording |= {run.key} if record.recipe.record_gradients else set()
    refusal = "" if accept_changes else changes_refusal(read, folder, plan)
    return StoredStudy(runs, _frozen(read), refusal, recording)


def _frozen(read: _Read) -> ExecutionPlan | None:
    stored = read(_FROZEN)
    return ExecutionPlan.from_json(stored[0][0]) if stored and stored[0][0] is not None else None


def _state(folder: Path, key: str, name: str, *rest: Any) -> RunState:
    return RunState(key, folder / RUNS / name, *rest)
