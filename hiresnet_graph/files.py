"""Output files and folders: checks before writing, and atomic writes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from hiresnet_graph.errors import HrgError, RunError, UsageError, similar


def write_atomic(path: Path, content: bytes, error: type[HrgError] = RunError) -> None:
    """Write a file completely or not at all, even if the power fails.

    Raises:
        error: The file cannot be written; its previous content is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # a device or a pipe, like /dev/stdout
            path.write_bytes(content)
            return
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror}.") from reason


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable; not possible, nor needed, where folders cannot be opened (Windows)."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def parse_json(text: str | bytes) -> Any:
    """JSON data that others may have written.

    Raises:
        ValueError: This is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: It cannot be read, or is a pipe or a device, whose content may never end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path.read_bytes()


def is_file(path: Path | str) -> bool:
    """Whether a path leads to a file: not to a folder, which hides no shipped spec of the same name."""
    return os.path.exists(path) and not os.path.isdir(path)


def check_output(target: Path) -> None:
    """Refuse a file that cannot be written, before its content is computed.

    Raises:
        UsageError: The path is a folder, or its folder does not exist or is not writable.
    """
    if target.is_dir():
        raise UsageError(f"'{target}' is a folder. Give the name of a file.")
    if not target.parent.is_dir():
        raise UsageError(f"the folder '{target.parent}' of '{target.name}' does not exist. Create it first.")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"'{target}' cannot be written: no permission to write into '{target.parent}'.")


def similar_folder(path: Path) -> str:
    """A sentence with the folder that a missing one was probably meant to be; empty if none beside it is similar."""
    try:
        beside = [one.name for one in path.parent.iterdir() if one.is_dir()]
    except OSError:
        return ""
    close = similar(path.name, beside)
    return f"Did you mean '{path.with_name(close)}'?" if close else ""


def make_folder(path: Path) -> Path:
    """The folder, created if needed.

    Raises:
        RunError: It cannot be created.
    """
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: this folder cannot be created: {error.strerror}.") from error
    return path


def check_folder(path: Path) -> None:
    """Check that neither the path nor one of its parents is a file; the folder need not exist.

    Raises:
        RunError: One of them is a file.
    """
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    if file == path:
        raise RunError(f"{path} is a file; give a folder.")
    if file is not None:
        raise RunError(f"{path}: this folder cannot be created: {file} is a file.")
