"""The lock on a study's folder: one driver at a time, whatever any clock says.

The operating system holds it, and lets go when the process ends, however it ends. What the file says is for messages.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Self

from hiresnet_graph.errors import RunError, UsageError

LOCK = "lock"
# Longer than a look at the lock takes, so that `is_locked` elsewhere is not taken for a driver.
_LOOKS_S = 0.5
_NAP_S = 0.05


class FolderLock:
    """A folder that is this process's until `release`.

    Args:
        wait: For another process to let go of it.

    Raises:
        UsageError: Another process holds it.
        RunError: The lock cannot be taken, for want of permission or because the file system has no locks.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        path = folder / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another folder.") from error
        try:
            deadline = time.monotonic() + _LOOKS_S
            while not _taken(self._file, path):
                if not wait and time.monotonic() > deadline:
                    raise UsageError(
                        f"{folder} is in use: {_holder(path)} is training this study. Wait for it, stop it, or choose "
                        "another folder."
                    )
                time.sleep(_NAP_S)
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, holder, 0)
        except OSError as error:
            os.close(self._file)
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another folder.") from error
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let go of the folder. A second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def is_locked(folder: Path) -> bool:
    """Whether a driver is at work on a folder. Changes nothing, and needs no more than leave to read."""
    path = folder / LOCK
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _taken(file, path, shared=True)
    finally:
        os.close(file)


def _taken(file: int, path: Path, *, shared: bool = False) -> bool:
    """Take the lock if nobody has it."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise RunError(
                f"{path}: this file system has no locks ({error.strerror}), so two drivers could not be told apart. "
                "Choose a folder on another one, or have it mounted with locks (option 'flock')."
            ) from error
        raise
    return True


def _holder(path: Path) -> str:
    """Who says in the file that the lock is theirs."""
    try:
        holder = json.loads(path.read_bytes())
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
