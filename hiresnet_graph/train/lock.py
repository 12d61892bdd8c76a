"""The lock on the folder of a study or of a single run: one process trains there at a time, independent of any clock.

The operating system holds the lock and releases it when the process ends, however it ends. The content of the file is
for messages only.
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
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# Longer than `is_locked` holds the lock, so that a process that only checks is not mistaken for a driver.
_PROBE_S = 0.5
_POLL_S = 0.05


class FolderLock:
    """Exclusive use of a folder until `release`.

    Args:
        wait: Wait until another process releases the folder.
        is_required: Whether a file system without locks is an error; otherwise the folder is used without one there.

    Raises:
        UsageError: Another process holds the lock.
        RunError: The lock file cannot be written, or the file system has no locks.
    """

    def __init__(self, folder: Path, *, wait: bool = False, is_required: bool = True) -> None:
        path = folder / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another folder.") from error
        try:
            deadline = time.monotonic() + _PROBE_S
            while not _acquire(self._file):
                if not wait and time.monotonic() > deadline:
                    raise UsageError(
                        f"{folder} is in use: {_holder(path)} is training there. Wait for it, stop it, or choose "
                        "another folder."
                    )
                time.sleep(_POLL_S)
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, holder, 0)
        except OSError as error:
            if error.errno in _NO_LOCKS and not is_required:
                return
            os.close(self._file)
            if error.errno in _NO_LOCKS:
                raise RunError(
                    f"{path}: this file system has no locks ({error.strerror}), so two drivers could train the same "
                    "study. Choose a folder on another file system, or mount this one with locks (option 'flock')."
                ) from error
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another folder.") from error
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Release the folder. A second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def is_locked(folder: Path) -> bool:
    """Whether a process trains in a folder. Read permission suffices; nothing is changed."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _acquire(file, shared=True)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # nobody can hold one
            return False
        raise
    finally:
        os.close(file)


def _acquire(file: int, *, shared: bool = False) -> bool:
    """Acquire the lock unless another process holds it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    """The holder that the lock file names."""
    try:
        holder = json.loads(path.read_bytes())
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
