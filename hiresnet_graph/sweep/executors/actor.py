"""A worker on a cluster, which trains one run after another for a driver on another machine.

Neither Ray nor submitit is imported here, and torch only with the first run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiresnet_graph.data.kind import DATA_FOLDER
from hiresnet_graph.errors import HrgError
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Training, request_stop
from hiresnet_graph.sweep.executors.handshake import Handshake, Mismatch, Probe, TaskAccepted, own_fingerprint
from hiresnet_graph.train.events import Event, Files
from hiresnet_graph.train.request import RunRequest


class Worker:
    """A process of the cluster that trains: a Ray actor, or a Slurm job. Its methods are called one after another.

    Args:
        folder: Working folder of the driver, so that relative paths mean the same here, if it exists.
        data: Folder of the driver's data sets; the setting of this machine takes precedence.
    """

    def __init__(self, folder: str, data: str | None) -> None:
        with suppress(OSError):
            os.chdir(folder)
        if data is not None:
            os.environ.setdefault(DATA_FOLDER, data)
        self._events: Iterator[Event] | None = None
        self._own_folder: Path | None = None
        self._verified: set[str] = set()

    def handshake(self, probe: Probe | None) -> Handshake:
        """The versions of this worker, and whether it sees the driver's folder."""
        sees_probe = False
        if probe is not None:
            with suppress(OSError):
                sees_probe = probe.path.read_text() == probe.token and os.access(probe.path.parent, os.W_OK)
        return Handshake(own_fingerprint(), os.getpid(), sees_probe)

    def start(self, key: str, work: Any, files: Files | None) -> TaskAccepted | Mismatch:
        """Start a task.

        Args:
            files: Files of the checkpoint to resume from, if this machine does not see the folder of the run.
        """
        if isinstance(work, Training):
            mismatch = self._verify(key, work.request)
            if mismatch is not None:
                return mismatch
            if files is not None:
                from hiresnet_graph.train.checkpoint import write_checkpoint

                self._own_folder = Path(tempfile.mkdtemp(prefix="hrg-"))
                if files:
                    write_checkpoint(self._own_folder, files)
                work = replace(work, folder=self._own_folder, ship_files=True)
        self._events = iter(work())
        return TaskAccepted()

    def _verify(self, key: str, request: RunRequest) -> Mismatch | None:
        """Compare the key of the first run on each data set with the key computed here."""
        from hiresnet_graph.train.identity import identify_request

        data = f"{request.data.kind} {request.data.model_dump_json()}"
        if data in self._verified:
            return None
        try:
            own = identify_request(request)
        except HrgError as error:
            return Mismatch(message=str(error))
        if own.key != key:
            return Mismatch(key=own.key, fingerprint=own.data_fingerprint)
        self._verified.add(data)
        return None

    def next(self) -> Event | Failure | None:
        """Continue the run until its next event; None if there is no run."""
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
        """Request the run to save and to pause."""
        request_stop()
