"""Consistent copies of a ledger on a network file system, for readers.

SQLite's locks are unreliable there, and its shared memory exists on one machine only, so that readers never open the
file. The driver alone does, and the lock of the folder makes sure that there is one.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.errors import RunError

# Prefixes of the names of Linux; file systems of FUSE may be on a network, and their memory maps are not shared.
_NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "pvfs", "orangefs", "panfs"),
    *("wekafs", "virtiofs", "vboxsf", "drvfs", "fuse."),
)
_MOUNTS = Path("/proc/mounts")
_SIDE_FILES = ("-wal", "-journal")
_ATTEMPTS = 40
_UNSOUND = 3  # network file systems may show old contents or times for a moment
# Longer than the resolution of the times of files: what is written after it shows in them.
_TICK_S = 0.03


def is_on_network(path: Path) -> bool:
    """Whether a file lies on a network file system, as far as the operating system shows."""
    try:
        mounts = [line.split(" ")[1:3] for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    real = path.resolve()
    kinds = {len(at): kind for at, kind in mounts if real.is_relative_to(_unescaped(at))}
    return bool(kinds) and kinds[max(kinds)].startswith(_NETWORK_FILE_SYSTEMS)


def _unescaped(mount: str) -> str:
    """A folder of the table of mounts, in which spaces and some other characters are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount)


@contextmanager
def snapshot(path: Path) -> Iterator[Path]:
    """A copy of a ledger as of its last commit, in a temporary folder; also while it is being written.

    SQLite changes the database file only while a file beside it holds what completes or undoes the change. So a copy of
    a database that did not change meanwhile, and then of that file, is consistent.

    Raises:
        RunError: The file cannot be read, or changes all the time.
    """
    with tempfile.TemporaryDirectory(prefix="hrg-") as folder:
        copy = Path(folder) / path.name
        failure, unsound = "", 0
        for _ in range(_ATTEMPTS):
            try:
                before = _Version.of(path)
                time.sleep(_TICK_S)
                _copy(path, copy)
                is_unchanged = _Version.of(path) == before
            except OSError as error:  # also while it is replaced on the server
                failure = f"cannot be read: {error.strerror}"
                continue
            failure = "is being written all the time"
            if not is_unchanged:
                continue
            # A copy that stays unsound is one of a damaged ledger, which is reported as such.
            if unsound == _UNSOUND or _is_sound(copy):
                yield copy
                return
            unsound += 1
        raise RunError(f"{path}: {failure}. Try again, or on the machine that writes it.")


class _Version(NamedTuple):
    """What changes with a database file or with the start of its log."""

    modified_ns: int
    size: int
    header: bytes
    log_header: bytes

    @classmethod
    def of(cls, path: Path) -> _Version:
        with path.open("rb") as file:  # opening it makes a network file system ask the server
            header = file.read(100)
            status = path.stat()
        log = b""
        with suppress(FileNotFoundError), _beside(path, _SIDE_FILES[0]).open("rb") as file:
            log = file.read(32)
        return cls(status.st_mtime_ns, status.st_size, header, log)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _copy(path: Path, copy: Path) -> None:
    """Copy a database, and after it its log or journal."""
    shutil.copyfile(path, copy)
    for suffix in _SIDE_FILES:
        target = _beside(copy, suffix)
        target.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(_beside(path, suffix), target)


def _is_sound(copy: Path) -> bool:
    """Whether a copy is whole."""
    try:
        with closing(sqlite3.connect(copy)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False
