"""The file `ledger.sqlite`: its tables, its version, and how it is opened for writing and for reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, get_args

from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep.snapshot import is_on_network, snapshot

RUNS = "runs"
# Raised when the tables change.
VERSION = 1
APPLICATION = 0x68726731  # distinguishes a ledger from other SQLite files

State = Literal["waiting", "running", "complete", "diverged", "failed", "pruned"]
STATES: tuple[State, ...] = get_args(State)
FINAL: tuple[State, ...] = ("complete", "diverged", "pruned")

RESTORE_HINT = (
    "Move the file away and start the same study in this folder: the finished runs in 'runs' are adopted, not trained "
    "again."
)

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
_JSON = {
    ("study", "recipe"): "object",
    ("study", "subsets_of"): "array",
    ("study", "execution"): "object",
    ("networks", "setting"): "object",
    ("networks", "edges"): "array",
    ("trials", "content"): "object",
}
"""The columns with JSON data, and the type of these."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The database of a ledger; its tables are created if the file is new.

    Raises:
        RunError: The file is damaged, or of another version.
    """
    database = sqlite3.connect(path, timeout=60, isolation_level=None, cached_statements=64)
    try:
        if is_on_network(path):
            # Without shared memory, which exists on one machine only, and visible to other machines after each commit.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = check_version(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if is_on_network(path) else 'NORMAL'}")
        if version == 0:
            database.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif (state := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(state)
        else:
            _check_content(database)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def open_for_reading(path: Path, *, may_be_empty: bool = False) -> Iterator[sqlite3.Connection]:
    """A consistent view of a ledger; nothing is written, even in a writable folder.

    A ledger on a network file system is copied first.

    Args:
        may_be_empty: A file without tables is no error.

    Raises:
        RunError: The ledger cannot be read, is damaged, or is of another version.
    """
    with ExitStack() as stack, ledger_errors(path):
        file, mode = path.resolve(), "ro"
        if is_on_network(path):
            file, mode = stack.enter_context(snapshot(path)), "rw"
        database = sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True, timeout=60, isolation_level=None)
        try:
            version = check_version(database, path)
            if version == 0 and not may_be_empty:
                raise RunError(f"{path}: this ledger is empty. {RESTORE_HINT}")
            database.execute("BEGIN")
            if version:
                _check_content(database)
            yield database
        finally:
            database.close()


def is_empty(database: sqlite3.Connection) -> bool:
    """Whether the database has no tables yet."""
    return not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def check_version(database: sqlite3.Connection, path: Path) -> int:
    """The version of a ledger's tables; 0 of an empty file.

    Raises:
        RunError: The file is not a ledger, or of another version.
    """
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    application = int(database.execute("PRAGMA application_id").fetchone()[0])
    if version == application == 0 and is_empty(database):
        return 0
    if application != APPLICATION or version != VERSION:
        found = f"version {version}, this hrg has {VERSION}" if application == APPLICATION else "not written by hrg"
        raise RunError(f"{path}: this is not a ledger of this version ({found}). {RESTORE_HINT}")
    return version


def _check_content(database: sqlite3.Connection) -> None:
    """Check what a person may have changed in a ledger and the tables themselves do not check.

    Raises:
        sqlite3.DatabaseError: A text is not the JSON data that it must be, a run has an unknown state, or its folder
            is not one below `runs`.
    """
    checks = []
    for (table, column), kind in _JSON.items():
        found_kind = f"iif(json_valid({column}), json_type({column}), '')"
        checks.append((f"{table}.{column}", table, f"{column} NOTNULL AND {found_kind} != '{kind}'"))
    checks.append(("runs.state", "runs", f"state NOT IN ({', '.join(map(repr, STATES))})"))
    checks.append(("runs.folder", "runs", "folder IN ('', '.', '..') OR folder GLOB '*[/\\]*'"))
    for name, table, fault in checks:
        found = database.execute(f"SELECT 1 FROM {table} WHERE {fault} LIMIT 1").fetchone()
        if found is not None:
            raise sqlite3.DatabaseError(f"an entry of {name} is wrong")


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a `RunError` with the path and what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RunError(f"{path}: {error}. Is the disk full, or is this folder not yours to write?") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # a subclass is a bug of this package
            raise
        raise RunError(f"{path}: is damaged ({' '.join(str(error).split())}). {RESTORE_HINT}") from error
