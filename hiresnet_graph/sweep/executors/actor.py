"""The worker's side of a Ray cluster: an actor that trains, and how it shows that it may.

Nothing of Ray is imported here, and torch only with the first run.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from hiresnet_graph.data.kind import DATA_FOLDER
from hiresnet_graph.errors import HrgError
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Training, ask_to_stop
from hiresnet_graph.train.events import Event, Files
from hiresnet_graph.train.request import RunRequest


class Copy(NamedTuple):
    """What must be the same wherever runs of a study are trained.

    Attributes:
        code: Hash of all source files of this package.
    """

    code: str
    hiresnet_graph: str
    torch: str
    python: str


@functools.cache
def own_copy() -> Copy:
    """What this process runs on."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    python = ".".join(platform.python_version_tuple()[:2])
    return Copy(digest.hexdigest()[:12], version("hiresnet-graph"), version("torch"), python)


class Probe(NamedTuple):
    """A file that nobody can see by chance."""

    path: Path
    token: str


def key_and_fingerprint(request: RunRequest) -> tuple[str, str]:
    """The key of a run, and the fingerprint of its data, as this machine has them."""
    from hiresnet_graph.train.identity import identify_request

    identity = identify_request(request)
    return identity.key, identity.data_fingerprint


class Introduction(NamedTuple):
    """Who a worker is."""

    copy: Copy
    pid: int
    sees_probe: bool


class Begun(NamedTuple):
    """A worker has taken a task."""


class Unfit(NamedTuple):
    """A worker cannot make the run that was asked for: why, or what its own key and data are."""

    message: str = ""
    key: str = ""
    fingerprint: str = ""


class Worker:
    """A process of the cluster that trains; an actor of Ray, whose methods are called one after another.

    Args:
        folder: Where the driver is: relative paths mean the same here, if it is there.
        data: Where the driver looks for data sets; this machine's own setting goes before.
    """

    def __init__(self, folder: str, data: str | None) -> None:
        with suppress(OSError):
            os.chdir(folder)
        if data is not None:
            os.environ.setdefault(DATA_FOLDER, data)
        self._events: Iterator[Event] | None = None
        self._own_folder: Path | None = None
        self._proven: set[str] = set()

    def introduce(self, probe: Probe | None) -> Introduction:
        """Say who this is."""
        sees = False
        if probe is not None:
            with suppress(OSError):
                sees = probe.path.read_text() == probe.token and os.access(probe.path.parent, os.W_OK)
        return Introduction(own_copy(), os.getpid(), sees)

    def begin(self, key: str, work: Any, files: Files | None) -> Begun | Unfit:
        """Take a task.

        Args:
            files: Of the checkpoint to go on from, if the folder of the run cannot be seen from here.
        """
        if isinstance(work, Training):
            unfit = self._prove(key, work.request)
            if unfit is not None:
                return unfit
            if files is not None:
                from hiresnet_graph.train.checkpoint import store

                self._own_folder = Path(tempfile.mkdtemp(prefix="hrg-"))
                if files:
                    store(self._own_folder, files)
                work = replace(work, folder=self._own_folder, ship_files=True)
        self._events = iter(work())
        return Begun()

    def _prove(self, key: str, request: RunRequest) -> Unfit | None:
        """Compute the first key of each data set anew."""
        data = f"{request.data.kind} {request.data.model_dump_json()}"
        if data in self._proven:
            return None
        try:
            own, fingerprint = key_and_fingerprint(request)
        except HrgError as error:
            return Unfit(message=str(error))
        if own != key:
            return Unfit(key=own, fingerprint=fingerprint)
        self._proven.add(data)
        return None

    def next(self) -> Event | Failure | None:
        """Go on until the run says something; None if there is no run."""
        if self._events is None:
            return None
        event: Event | Failure
        try:
            event = next(self._events, Failure("error", "the run ended without a result."))
        except Exception as error:
            event = Failure.of(error)
        if isinstance(event, ENDS):
            self._events = None
            if self._own_folder is not None:
                shutil.rmtree(self._own_folder, ignore_errors=True)
                self._own_folder = None
        return event

    def stop(self) -> None:
        """Let the run save and pause."""
        ask_to_stop()
