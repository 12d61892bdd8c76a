"""The job's side of Slurm: a worker that takes one task after another out of its mailbox, until its time limit.

It survives the driver: it finishes its run, and waits some minutes for a new driver. Messages in both directions are
files in the folder of the study.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from hiresnet_graph.sweep.executors.actor import Worker
from hiresnet_graph.sweep.executors.base import ENDS, Failure, request_stop, stop_requested
from hiresnet_graph.sweep.executors.handshake import Handshake, TaskAccepted
from hiresnet_graph.sweep.executors.mailbox import Mailbox

WORKERS, EVENTS, TASKS, DRIVER = "workers", "events", "tasks", "driver"
# Time that an idle worker waits for a driver whose sign of life does not change.
ORPHANED_S = 600.0
_POLL_S = 0.5


class Assigned(NamedTuple):
    """A task for a process of the job, with its number among those of the job."""

    life: str
    number: int
    key: str
    work: Any


class Leave(NamedTuple):
    """The worker is to save its run and to end."""


class Joined(NamedTuple):
    """A worker has started, or has started again after its job was requeued.

    Attributes:
        life: Distinguishes it from earlier processes of the same job.
    """

    host: str
    life: str
    handshake: Handshake


class Answer(NamedTuple):
    """An event of a task, or whether the task was accepted."""

    life: str
    number: int
    event: Any


class Left(NamedTuple):
    """The worker has ended by itself."""

    life: str


class Served:
    """The work of a job.

    Args:
        folder: Folder of the mailboxes.
        home: Working folder of the driver.
        data: Folder of the driver's data sets.
    """

    def __init__(self, folder: Path, home: str, data: str | None, orphaned_s: float = ORPHANED_S) -> None:
        self._folder, self._home, self._data, self._orphaned_s = folder, home, data, orphaned_s

    def __call__(self, slot: str) -> None:
        """Work on the tasks of a slot."""
        # The limit of time, preemption and `scancel`: the handlers of submitit would end the run without a checkpoint.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, lambda number, frame: request_stop())
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        folder = self._folder / WORKERS / slot
        events, life = Mailbox(folder / EVENTS), f"{os.uname().nodename}-{os.getpid()}-{time.time_ns()}"
        worker = Worker(self._home, self._data)
        tasks = _Tasks(Mailbox(folder / TASKS), life, self._folder / DRIVER, self._orphaned_s)
        events.write(Joined(os.uname().nodename, life, worker.handshake(None)))
        threading.Thread(target=tasks.receive, daemon=True).start()
        while (task := tasks.next()) is not None:
            last = _work(worker, task, events, life)
            if isinstance(last, Failure) and last.kind != "usage":
                break  # memory or a device may be in any state: a new process takes the place of this one
        events.write(Left(life))


def _work(worker: Worker, task: Assigned, events: Mailbox, life: str) -> Any:
    """Train a run, and write its events; returns the last."""
    answer: Any = worker.start(task.key, task.work, None)
    events.write(Answer(life, task.number, answer))
    while isinstance(answer, TaskAccepted) or not (answer is None or isinstance(answer, ENDS)):
        answer = worker.next()
        events.write(Answer(life, task.number, answer))
    return answer


class _Tasks:
    """The tasks of a worker; a thread receives them while another is trained."""

    def __init__(self, mailbox: Mailbox, life: str, driver: Path, orphaned_s: float) -> None:
        self._mailbox, self._life, self._driver, self._orphaned_s = mailbox, life, driver, orphaned_s
        self._condition = threading.Condition()
        self._found: list[Assigned] = []

    def receive(self) -> None:
        """Queue the tasks that the driver sends."""
        while True:
            for message in self._mailbox.read():
                with self._condition:
                    if not isinstance(message, Assigned):
                        request_stop()
                    elif message.life == self._life:  # not of an earlier process
                        self._found.append(message)
                    self._condition.notify()
            time.sleep(_POLL_S)

    def next(self) -> Assigned | None:
        """The next task; None if the worker is to end, or no driver has shown itself for long."""
        sign, seen_s = self._sign(), time.monotonic()
        with self._condition:
            while not stop_requested():
                if self._found:
                    return self._found.pop(0)
                self._condition.wait(_POLL_S)
                if self._sign() != sign:
                    sign, seen_s = self._sign(), time.monotonic()
                elif time.monotonic() - seen_s > self._orphaned_s:
                    break
        return None

    def _sign(self) -> bytes:
        try:
            return self._driver.read_bytes()
        except OSError:
            return b""
