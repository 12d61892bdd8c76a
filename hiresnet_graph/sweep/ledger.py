"""The ledger of a study: what was asked for, how far each run is, and what came out. SQLite, in the study's folder.

<study>/ledger.sqlite
<study>/lock
<study>/runs/<label>[-<setting>]-seed<k>/

Only the driver writes it, under the folder's lock; whoever wants to look reads it with `read_results`. A result that a
worker has written and the driver has not yet noted lies in the run's folder, and is taken over when the study goes on.
Nothing here asks what time it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import make_folder
from hiresnet_graph.sweep.lock import FolderLock
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.results import (
    APPLICATION,
    FINAL,
    LEDGER,
    OUTSIDE,
    RUNS,
    STATES,
    VERSION,
    State,
    check_version,
    is_empty,
    reading,
)
from hiresnet_graph.sweep.results import told_errors as _told
from hiresnet_graph.train.record import RESULT, Environment, Epoch, RunRecord, Seeds
from hiresnet_graph.train.request import RunRequest

_SCHEMA = """
CREATE TABLE study (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    name TEXT NOT NULL, architecture TEXT NOT NULL, data TEXT NOT NULL, data_fingerprint TEXT NOT NULL,
    recipe TEXT NOT NULL, baseline TEXT, subsets_of TEXT NOT NULL, is_search INTEGER NOT NULL,
    text TEXT NOT NULL, execution TEXT
);
CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    place INTEGER NOT NULL, in_study INTEGER NOT NULL,
    label TEXT NOT NULL, setting TEXT NOT NULL, plan TEXT NOT NULL, parameters INTEGER NOT NULL, macs INTEGER NOT NULL,
    edges TEXT NOT NULL, same_as TEXT NOT NULL, isomorphic_to TEXT NOT NULL
);
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    folder TEXT NOT NULL UNIQUE, epochs INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', attempts INTEGER NOT NULL DEFAULT 0, paused_at INTEGER,
    record TEXT, message TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE rows (
    network INTEGER NOT NULL REFERENCES networks, init INTEGER NOT NULL, data INTEGER NOT NULL,
    key TEXT NOT NULL REFERENCES runs,
    place INTEGER NOT NULL, in_study INTEGER NOT NULL,
    PRIMARY KEY (network, init, data, key)
) WITHOUT ROWID;
CREATE TABLE attempts (
    key TEXT NOT NULL REFERENCES runs, n INTEGER NOT NULL,
    worker TEXT NOT NULL, machine TEXT, state TEXT NOT NULL, message TEXT NOT NULL DEFAULT '',
    traceback TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (key, n)
) WITHOUT ROWID;
CREATE TABLE curves (
    key TEXT NOT NULL REFERENCES runs, epoch INTEGER NOT NULL, split TEXT NOT NULL,
    loss REAL, accuracy REAL, top_k REAL, time_s REAL,
    PRIMARY KEY (key, epoch, split)
) WITHOUT ROWID;
CREATE TABLE trials (number INTEGER PRIMARY KEY, content TEXT NOT NULL);
"""
# Where SQLite's write-ahead log must not be used: its shared memory is that of one machine.
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "fuse.sshfs")

AttemptState = Literal["running", "complete", "diverged", "pruned", "failed", "lost", "paused"]


@dataclass(frozen=True)
class Execution:
    """How the runs of a study are computed: fixed when it starts, but for `stack`, so that all of them round alike.

    Attributes:
        device: `cpu` or `cuda`.
        threads: Of the CPU, for each run.
        channels_last: None if it was left to the training program.
        backend: As of `ways.Backend`.
        stack: Runs that are computed together, at most.
    """

    device: str
    threads: int
    channels_last: bool | None
    compile: bool
    backend: str = "eager"
    stack: int = 1

    @classmethod
    def of(cls, request: RunRequest, backend: str = "eager", stack: int = 1) -> Self:
        """How a run would be computed if it was the first of its study."""
        recipe = request.recipe
        return cls(request.device.split(":")[0], request.threads, recipe.channels_last, recipe.compile, backend, stack)

    def kept_over(self, wanted: Self) -> tuple[Self, str]:
        """How a study that began like this goes on, and a sentence for people if that is not as wanted.

        The size of stacks is as wanted, since it changes no bit.
        """
        kept = dataclasses.replace(self, stack=wanted.stack) if wanted.backend == self.backend else self
        before, asked = dataclasses.asdict(kept), dataclasses.asdict(wanted)
        told = ", ".join(f"{name}={before[name]}, not {asked[name]}" for name in before if before[name] != asked[name])
        note = f"This study goes on as it began, so that all runs round alike: with {told}."
        return kept, f"{note} Choose another folder for another way." if told else ""

    def applied(self, request: RunRequest) -> RunRequest:
        """The request, computed like this; nothing that its key is made of changes."""
        recipe = request.recipe.model_copy(update={"channels_last": self.channels_last, "compile": self.compile})
        return dataclasses.replace(request, recipe=recipe, threads=self.threads)


_EXECUTION = "SELECT execution FROM study WHERE EXISTS (SELECT 1 FROM attempts)"
_STATE = "key, folder, state, attempts, epochs, paused_at, message"


class RunState(NamedTuple):
    """How far a run is.

    Attributes:
        folder: Where its files are.
        epochs: How many it has when it is complete.
        paused_at: The epoch after which it waits to go on, if it was paused.
    """

    key: str
    folder: Path
    state: State
    attempts: int
    epochs: int
    paused_at: int | None = None
    message: str = ""


class Ledger:
    """The ledger of a folder, open for writing. Use `open`; leaving the context closes it.

    What is written is safe against the end of this process after `commit`, and comes to the disk a little later: what a
    power failure takes is found again in the folders of the runs.
    """

    def __init__(self, folder: Path, lock: FolderLock, database: sqlite3.Connection) -> None:
        self.folder, self._lock, self._database = folder, lock, database
        self._is_closed = False
        self._at_work: dict[str, int] = {}  # the attempt of each run that is at work

    @classmethod
    def open(cls, folder: Path | str, *, wait: bool = False) -> Self:
        """The ledger of a study's folder, which is made if it is not there. Runs that were at work wait again.

        Args:
            wait: If another driver is at work in the folder, wait for its end.

        Raises:
            UsageError: Another driver is at work there, or the folder is that of a single run.
            RunError: The folder cannot be written, or its ledger is broken or of another version.
        """
        folder = Path(folder)
        if os.path.exists(folder / RESULT):  # unlike `Path.exists`, False in a folder that cannot be read
            raise _single(folder)
        lock = FolderLock(make_folder(folder), wait=wait)
        try:
            with _told(folder / LEDGER):
                database = _opened(folder / LEDGER)
                database.execute(
                    "UPDATE attempts SET state = 'lost', message = 'the driver ended' WHERE state = 'running'"
                )
                database.execute("UPDATE runs SET state = 'waiting' WHERE state = 'running'")
        except BaseException:
            lock.release()
            raise
        return cls(folder, lock, database)

    @staticmethod
    def would_refuse(folder: Path | str, plan: StudyPlan) -> str:
        """Why `open` and `join` would refuse this plan for a folder; empty if they would not. Changes nothing there.

        Raises:
            RunError: The ledger in the folder cannot be read, or is broken or of another version.
        """
        folder = Path(folder)
        if os.path.exists(folder / RESULT):
            return str(_single(folder))
        if not os.path.exists(folder / LEDGER):
            return ""
        with reading(folder / LEDGER) as database:
            if is_empty(database):
                return ""
            try:
                _refuse_changes(lambda statement: database.execute(statement).fetchall(), folder, plan)
            except UsageError as error:
                return str(error)
        return ""

    @staticmethod
    def begun_as(folder: Path | str) -> Execution | None:
        """How the runs of the study in a folder are computed, if one has begun. Changes nothing there.

        Raises:
            RunError: The ledger in the folder cannot be read, or is broken or of another version.
        """
        path = Path(folder) / LEDGER
        if not os.path.exists(path):
            return None
        with reading(path) as database:
            return None if is_empty(database) else _execution(database.execute(_EXECUTION).fetchall())

    def close(self) -> None:
        """Commit, and let go of the folder. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self.commit()
            # One file instead of three, so that a copy of the folder is whole; not while somebody reads.
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
        """Make all that was written safe, and visible to readers."""
        if self._database.in_transaction:
            with _told(self.folder / LEDGER):
                self._database.execute("COMMIT")

    @contextmanager
    def _at_once(self) -> Iterator[None]:
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
        with _told(self.folder / LEDGER):
            if not self._database.in_transaction:
                self._database.execute("BEGIN IMMEDIATE")
            return self._database.execute(statement, values)

    def _read(self, statement: str, *values: object) -> list[Any]:
        with _told(self.folder / LEDGER):
            return self._database.execute(statement, values).fetchall()

    # ---- what is asked for

    def join(self, plan: StudyPlan, *, accept_changes: bool = False, is_search: bool = False) -> None:
        """Make this plan the study of the folder. New runs are added to those that are there, finished ones are kept.

        Rows of before that the plan has no more are kept and left out of results; a plan that has them again finds
        them. Written in full or not at all.

        Args:
            accept_changes: A label, with its setting and seeds, may mean another run than it did.

        Raises:
            UsageError: It does mean another run, or the folder holds another study: on another network or other data,
                or one that has no run in common with this plan.
        """
        if not accept_changes:
            _refuse_changes(self._read, self.folder, plan)
        with self._at_once():
            self._write_study(plan, is_search)
            self._write_runs(plan)
            self._write_rows(plan)

    def _write_study(self, plan: StudyPlan, is_search: bool) -> None:
        values = (
            plan.name,
            plan.architecture,
            plan.data,
            plan.data_fingerprint,
            json.dumps(dict(plan.recipe)),
            plan.baseline,
            json.dumps(list(plan.subsets_of)),
            is_search,
            plan.text,
        )
        names = "name, architecture, data, data_fingerprint, recipe, baseline, subsets_of, is_search, text"
        updates = ", ".join(f"{name} = excluded.{name}" for name in names.split(", "))
        self._write(
            f"INSERT INTO study (only, {names}) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            f"ON CONFLICT (only) DO UPDATE SET {updates}",
            *values,
        )

    def _write_runs(self, plan: StudyPlan) -> None:
        known = dict(self._read("SELECT key, folder FROM runs"))
        taken = set(known.values())
        for row in plan.rows:
            if row.key in known:
                continue
            network, request = plan.networks[row.network], plan.requests[row.key]
            folder = run_folder(network.same_as or network.label, network.setting, row.seeds)
            # A label that means another run than it did: the old one keeps its folder.
            folder = f"{folder}-{row.key[:8]}" if folder in taken else folder
            self._write(
                "INSERT INTO runs (key, folder, epochs) VALUES (?, ?, ?)", row.key, folder, request.recipe.epochs
            )
            known[row.key] = folder
            taken.add(folder)

    def _write_rows(self, plan: StudyPlan) -> None:
        ids = {
            (label, _canonical(json.loads(setting)), digest): number
            for number, label, setting, digest in self._read("SELECT id, label, setting, plan FROM networks")
        }
        self._write("UPDATE networks SET in_study = 0")
        self._write("UPDATE rows SET in_study = 0")
        numbers = []
        for place, network in enumerate(plan.networks):
            number = ids.get((network.label, _canonical(network.setting), network.plan))
            self._write(
                "INSERT OR REPLACE INTO networks (id, place, in_study, label, setting, plan, parameters, macs, edges, "
                "same_as, isomorphic_to) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?)",
                number,
                place,
                network.label,
                json.dumps(dict(network.setting)),
                network.plan,
                network.parameters,
                network.macs,
                json.dumps(list(network.edges)),
                network.same_as,
                network.isomorphic_to,
            )
            numbers.append(number if number is not None else self._read("SELECT last_insert_rowid()")[0][0])
        for place, row in enumerate(plan.rows):
            self._write(
                "INSERT OR REPLACE INTO rows (network, init, data, key, place, in_study) VALUES (?, ?, ?, ?, ?, 1)",
                numbers[row.network],
                row.seeds.init,
                row.seeds.data,
                row.key,
                place,
            )

    @property
    def execution(self) -> Execution | None:
        """How the runs of the study are computed, if one has begun."""
        return _execution(self._read(_EXECUTION))

    def settle(self, wanted: Execution) -> tuple[Execution, str]:
        """How the runs of the study that was joined are computed: as wanted until one has begun, then as it was.

        The size of stacks is always as wanted, unless they are computed in another way.

        Returns:
            That, and a sentence for people if it is not as wanted.

        Raises:
            UsageError: The study began on another kind of device.
        """
        kept = self.execution
        if kept is None:
            self._write("UPDATE study SET execution = ?", json.dumps(dataclasses.asdict(wanted)))
            return wanted, ""
        if kept.device != wanted.device:
            raise UsageError(
                f"{self.folder}: this study began on '{kept.device}', and '{wanted.device}' rounds differently. Go on "
                f"with '--device {kept.device}', or choose another folder."
            )
        execution, note = kept.kept_over(wanted)
        if execution != kept:
            self._write("UPDATE study SET execution = ?", json.dumps(dataclasses.asdict(execution)))
        return execution, note

    def limit_stack(self, most: int) -> Execution:
        """Compute fewer runs together from now on, since memory is too small for more."""
        kept = self.execution
        assert kept is not None
        lowered = dataclasses.replace(kept, stack=min(kept.stack, most))
        self._write("UPDATE study SET execution = ?", json.dumps(dataclasses.asdict(lowered)))
        return lowered

    # ---- how far it is

    def runs(self) -> list[RunState]:
        """Each run of the study once, in the order of its rows."""
        return [
            self._state(*values)
            for values in self._read(
                f"SELECT {_STATE} FROM runs JOIN (SELECT key, min(place) AS place FROM rows WHERE in_study GROUP BY "
                "key) USING (key) ORDER BY place"
            )
        ]

    def run(self, key: str) -> RunState:
        """How far one run is."""
        return self._state(*self._read(f"SELECT {_STATE} FROM runs WHERE key = ?", key)[0])

    def _state(self, key: str, folder: str, *rest: Any) -> RunState:
        return RunState(key, self.folder / RUNS / folder, *rest)

    def missing(self) -> list[RunState]:
        """The runs that are not finished, in the order of the study: those that wait, are at work, or have failed."""
        return [run for run in self.runs() if run.state not in FINAL]

    def counts(self) -> dict[State, int]:
        """How many runs of the study are in each state."""
        found = self._read(
            "SELECT state, count(*) FROM runs WHERE key IN (SELECT key FROM rows WHERE in_study) GROUP BY state"
        )
        return {**dict.fromkeys(STATES, 0), **dict(found)}

    @property
    def outside(self) -> int:
        """How many runs are kept that are no part of the study any more."""
        return int(self._read(OUTSIDE)[0][0])

    # ---- what happens

    def begin(self, key: str, attempt: int, worker: str) -> None:
        """An attempt at a run is at work."""
        self._at_work[key] = attempt
        self._write("UPDATE runs SET state = 'running', attempts = ? WHERE key = ?", attempt, key)
        self._write("INSERT INTO attempts (key, n, worker, state) VALUES (?, ?, ?, 'running')", key, attempt, worker)

    def is_at_work(self, key: str, attempt: int) -> bool:
        """Whether this attempt is the one that counts. What another one says is refused by all that follows."""
        return self._at_work.get(key) == attempt

    def note_start(self, key: str, attempt: int, machine: Environment, epoch: int) -> bool:
        """An attempt has begun to train, after this epoch; what the curves have of later ones is done anew.

        Returns:
            Whether the attempt is the one that counts; False, and nothing is written, if it is not. So do the others.
        """
        if not self.is_at_work(key, attempt):
            return False
        self._write("UPDATE attempts SET machine = ? WHERE key = ? AND n = ?", machine.model_dump_json(), key, attempt)
        self._write("DELETE FROM curves WHERE key = ? AND epoch > ?", key, epoch)
        return True

    def note_epoch(self, key: str, attempt: int, epoch: Epoch) -> bool:
        """An epoch is done; one that was there is replaced."""
        if not self.is_at_work(key, attempt):
            return False
        self._write(
            "INSERT OR REPLACE INTO curves VALUES (?, ?, 'train', ?, ?, NULL, ?), (?, ?, 'validation', ?, ?, ?, ?)",
            *(key, epoch.epoch, epoch.train_loss, epoch.train_accuracy, epoch.time_s),
            *(key, epoch.epoch, epoch.validation_loss, epoch.validation_accuracy, epoch.validation_top_k, epoch.time_s),
        )
        return True

    def finish(self, key: str, attempt: int, record: RunRecord) -> bool:
        """A run is complete, has diverged, or was pruned."""
        if not self._end(key, attempt, record.outcome):
            return False
        self._finish(key, record)
        return True

    def adopt(self, key: str, record: RunRecord) -> None:
        """Take a result of a run that is not at work: left in its folder when a driver ended, or pruned by a search."""
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

    def pause(self, key: str, attempt: int, epoch: int) -> bool:
        """A run waits to go on after this epoch."""
        if not self._end(key, attempt, "paused"):
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
        """An attempt has failed or its worker is gone; the run waits for another one, unless this was the last."""
        if not self._end(key, attempt, state, message, traceback):
            return False
        self._write(
            "UPDATE runs SET state = ?, message = ? WHERE key = ?", "failed" if final else "waiting", message, key
        )
        return True

    def _end(self, key: str, attempt: int, state: AttemptState, message: str = "", traceback: str = "") -> bool:
        if not self.is_at_work(key, attempt):
            return False
        del self._at_work[key]
        self._write(
            "UPDATE attempts SET state = ?, message = ?, traceback = ? WHERE key = ? AND n = ?",
            *(state, message, traceback, key, attempt),
        )
        return True

    def prune(self, key: str) -> None:
        """Give up a run that waits: a search has found better ones."""
        self._write("UPDATE runs SET state = 'pruned' WHERE key = ? AND state = 'waiting'", key)

    def best_validation(self, key: str) -> float | None:
        """The highest validation accuracy of a run so far; None before its first epoch."""
        found = self._read("SELECT max(accuracy) FROM curves WHERE key = ? AND split = 'validation'", key)
        return None if found[0][0] is None else float(found[0][0])

    @property
    def text(self) -> str:
        """The study of the folder as a file; empty if there is none yet."""
        found = self._read("SELECT text FROM study")
        return found[0][0] if found else ""

    def write_trial(self, number: int, content: Mapping[str, object]) -> None:
        """Keep what a search says of one of its trials, as JSON data; one that was there is replaced."""
        self._write("INSERT OR REPLACE INTO trials VALUES (?, ?)", number, json.dumps(dict(content)))

    def trials(self) -> dict[int, dict[str, Any]]:
        """What a search has kept, by number, in that order."""
        rows = self._read("SELECT number, content FROM trials ORDER BY number")
        return {number: json.loads(content) for number, content in rows}


def _execution(stored: list[Any]) -> Execution | None:
    return Execution(**json.loads(stored[0][0])) if stored and stored[0][0] is not None else None


def run_folder(label: str, setting: Mapping[str, object], seeds: Seeds) -> str:
    """Name of the folder of a run, below `runs`."""
    told = "".join(f"-{name.rpartition('.')[2]}={_told_value(value)}" for name, value in setting.items())
    return f"{_plain(label)}{_plain(told) if told else ''}-seed{str(seeds).replace('/', '-')}"


def _told_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(label: str) -> str:
    """A label as part of a file name that no shell minds; different for different labels."""
    text = label.replace(">", "-to-").replace(" + ", "+").replace("without ", "without-")
    if re.fullmatch(r"[\w.+=-]{1,100}", text, re.ASCII) and text not in (".", ".."):
        return text
    return re.sub(r"[^\w.+=-]+", "_", text, flags=re.ASCII)[:80] + "-" + hashlib.sha256(label.encode()).hexdigest()[:8]


def _canonical(setting: Mapping[str, object]) -> str:
    return json.dumps(dict(setting), sort_keys=True)


def _refuse_changes(read: Callable[[str], list[Any]], folder: Path, plan: StudyPlan) -> None:
    """Compare a plan with the study of a folder.

    Args:
        read: Gives the rows of a statement on its ledger.

    Raises:
        UsageError: It is another study, or a label with its setting and seeds means another run.
    """
    before = read("SELECT name, architecture, data, data_fingerprint, recipe FROM study")
    if not before:
        return
    name, architecture, data, fingerprint, recipe = before[0]
    if architecture != plan.architecture:
        raise _changed(folder, f"a study of '{architecture}', not of '{plan.architecture}'")
    if (data, fingerprint) != (plan.data, plan.data_fingerprint):
        now = f"now {plan.data}" if data != plan.data else "now with other images or another split"
        raise _changed(folder, f"a study on other data ({data}, {now})")
    old = {
        (label, _canonical(json.loads(setting)), init, seed): (key, network)
        for label, setting, network, init, seed, key in read(
            "SELECT label, setting, plan, init, data, key FROM rows JOIN networks ON networks.id = network "
            "WHERE rows.in_study"
        )
    }
    for row in plan.rows:
        network = plan.networks[row.network]
        at = (network.label, _canonical(network.setting), row.seeds.init, row.seeds.data)
        key, old_plan = old.get(at, (row.key, network.plan))
        if old_plan != network.plan:
            raise _changed(folder, f"another network as '{network.label}'")
        if key != row.key:
            told = _difference(json.loads(recipe), plan.recipe)
            raise _changed(
                folder,
                f"a study with another recipe ({told})"
                if told
                else "runs of another training program, or of other blocks of yours",
            )
    # Runs of an even earlier plan count too: who goes back to it finds them.
    if old and not {key for (key,) in read("SELECT key FROM runs")} & {row.key for row in plan.rows}:
        number = len({key for key, _ in old.values()})
        runs = f"{number} run{'' if number == 1 else 's'}, none of which this one has"
        raise _changed(folder, f"another study ('{name}': {runs})")


def _single(folder: Path) -> UsageError:
    return UsageError(f"{folder} holds a single run. Choose another folder for a study.")


def _changed(folder: Path, told: str) -> UsageError:
    return UsageError(
        f"{folder} holds {told}. Choose another folder; or accept the change with '--accept-changes': the runs of "
        "before are then kept, and left out of reports."
    )


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """The fields that differ, with what they were and are."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}={old.get(name)}, now {new.get(name)}" for name in names)


def _opened(path: Path) -> sqlite3.Connection:
    """The database, with its tables.

    Raises:
        RunError: It is broken, or of another version.
    """
    database = sqlite3.connect(path, timeout=60, isolation_level=None, cached_statements=64)
    try:
        version = check_version(database, path)
        mode = "DELETE" if _is_on_network(path) else "WAL"
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            database.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif (state := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(state)
    except BaseException:
        database.close()
        raise
    return database


def _is_on_network(path: Path) -> bool:
    """Whether a file lies on a file system that several machines share, as far as this system tells."""
    try:
        mounts = [line.split(" ")[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    place = path.resolve()
    kinds = {len(at): kind for at, kind in mounts if place.is_relative_to(at.replace("\\040", " "))}
    return bool(kinds) and kinds[max(kinds)].startswith(_NETWORK_FILE_SYSTEMS)
