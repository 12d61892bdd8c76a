"""Workers in the jobs of a Slurm cluster.

Each job is a worker that trains one run after another. The driver and its workers exchange messages through files in
the folder of the study, which all nodes must see under the same path. So a job does not end with the driver: when the
driver comes back, it reads what its workers have done meanwhile. Slurm decides whether a job still exists.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from hiresnet_graph.data.kind import DATA_FOLDER
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Lost, Task, TaskReport
from hiresnet_graph.sweep.executors.handshake import (
    Mismatch,
    TaskAccepted,
    explain_mismatch,
    find_differences,
    own_fingerprint,
)
from hiresnet_graph.sweep.executors.mailbox import Mailbox
from hiresnet_graph.sweep.executors.slurm_jobs import ENDED, Jobs, SlurmJobs
from hiresnet_graph.sweep.executors.slurm_worker import (
    DRIVER,
    EVENTS,
    TASKS,
    WORKERS,
    Assigned,
    Joined,
    Leave,
    Left,
    Served,
)

FOLDER = "slurm"
_JOB, _NAME = "job", "name"
_READ_S, _STATES_S, _SIGN_S = 0.5, 5.0, 10.0
# Time after which an idle worker without a task is dismissed, since its node may be of use to others.
_IDLE_S = 60.0
# Consecutive jobs that may end before their worker has answered; then the study is given up.
_MAX_FALSE_STARTS = 3


class SlurmExecutor:
    """Workers in the jobs of a Slurm cluster; each job takes tasks until its time limit.

    Args:
        folder: Folder of the study, on a file system that all nodes share.
        options: Options of `sbatch`, by name.
        workers: Number of jobs at one time.
        threads: CPUs per job; the number of threads of a request.
        gpus: GPUs per job, unless the options request some.
        make_jobs: Makes the jobs from a folder for scripts and logs, and the name of the jobs.

    Raises:
        MissingToolError: submitit is not installed, or this machine has no Slurm.
        UsageError: The number of workers is below 1.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str] | None = None,
        *,
        workers: int = 1,
        threads: int = 1,
        gpus: int = 0,
        make_jobs: Callable[[Path, str], Jobs] | None = None,
    ) -> None:
        if workers < 1 or threads < 1 or gpus < 0:
            raise UsageError(
                f"workers: at least 1 job with 1 thread and 0 GPUs is required, not {workers}, {threads} and {gpus}."
            )
        make = make_jobs or partial(SlurmJobs, options=options or {}, threads=threads, gpus=gpus)
        self._folder, self._max_workers = make_folder(folder.absolute() / FOLDER), workers
        name = self._folder / _NAME
        if not name.exists():
            write_atomic(name, f"hrg-{secrets.token_hex(4)}".encode())
        self._jobs = make(make_folder(self._folder / "jobs"), name.read_text())
        self._fingerprint = own_fingerprint()
        self._workers: list[_SlurmWorker] = []
        self._waiting: deque[Task] = deque()
        self._reports: list[TaskReport] = []
        self._false_starts = 0
        self._refusal = ""
        self._is_stopping = False
        self._read_s = self._states_s = self._sign_s = -float("inf")

    def __enter__(self) -> Self:
        """Find the workers that still run, and submit jobs for the others.

        Raises:
            UsageError: Slurm refuses the options.
            RunError: Slurm does not answer.
        """
        states = self._jobs.states()
        if states is None:
            raise RunError("Slurm does not answer: 'squeue' fails. Ask the administrator of the cluster.")
        active = {job for job, state in states.items() if state not in ENDED}
        for folder in sorted(make_folder(self._folder / WORKERS).iterdir()):
            job = folder / _JOB
            if job.exists() and job.read_text() in active:
                self._workers.append(_SlurmWorker.found(folder, job.read_text()))
            else:
                shutil.rmtree(folder, ignore_errors=True)
        self._jobs.cancel(sorted(active - {worker.job for worker in self._workers}))
        self._give_sign()
        self._read()
        self._submit_jobs(self._max_workers - len(self._workers))
        return self

    def __exit__(self, *error: object) -> None:
        """Cancel all jobs."""
        self.close()

    @property
    def slots(self) -> int:
        """Number of jobs at one time, whether they have started or not."""
        return self._max_workers

    def submit(self, task: Task) -> None:
        """Accept a task. A worker of an earlier driver continues the run that it trains."""
        for worker in self._workers:
            if worker.orphan is not None and worker.orphan.key == task.key:
                if worker.orphan.work == task.work:
                    self._adopt(worker, task)
                    return
                self._dismiss(worker)
                break
        self._waiting.append(task)

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        """The reports since the last call; waits up to `timeout_s` for the first.

        Raises:
            RunError: Jobs end before their workers have answered.
            UsageError: Slurm refuses further jobs.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._refresh()
            if self._reports or time.monotonic() >= deadline:
                break
            time.sleep(max(0.0, min(_READ_S / 2, deadline - time.monotonic())))
        found, self._reports = self._reports, []
        return found

    def stop(self) -> None:
        """Request all running tasks to save and to end, which they report as usual; waiting tasks are dropped."""
        self._is_stopping = True
        self._waiting.clear()
        for worker in self._workers:
            worker.tasks.write(Leave())

    def close(self) -> None:
        """Cancel all jobs. Events that were not reported are lost."""
        self._waiting.clear()
        self._reports.clear()
        for worker in self._workers:
            shutil.rmtree(worker.folder, ignore_errors=True)
        self._jobs.cancel([worker.job for worker in self._workers])
        self._workers.clear()

    # ---- jobs

    def _submit_jobs(self, number: int) -> None:
        if number < 1:
            return
        slots = [secrets.token_hex(6) for _ in range(number)]
        folders = [make_folder(self._folder / WORKERS / slot) for slot in slots]
        for folder in folders:
            (folder / TASKS).touch()
        served = Served(self._folder, os.getcwd(), os.environ.get(DATA_FOLDER))
        try:
            ids = self._jobs.submit(served, slots)
        except BaseException:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        for folder, job in zip(folders, ids, strict=True):
            write_atomic(folder / _JOB, job.encode())
            self._workers.append(_SlurmWorker(folder, job))

    def _dismiss(self, worker: _SlurmWorker) -> None:
        """Cancel the job of a worker and forget it."""
        self._jobs.cancel([worker.job])
        self._forget(worker)

    def _forget(self, worker: _SlurmWorker) -> None:
        """Remove a worker and its mailboxes."""
        self._workers.remove(worker)
        shutil.rmtree(worker.folder, ignore_errors=True)

    def _give_sign(self) -> None:
        """Show idle workers that there is a driver."""
        if time.monotonic() - self._sign_s > _SIGN_S:
            write_atomic(self._folder / DRIVER, secrets.token_hex(8).encode())
            self._sign_s = time.monotonic()

    def _refresh(self) -> None:
        """Read the messages of the workers and the states of their jobs, but not too often, and assign tasks."""
        self._give_sign()
        now = time.monotonic()
        if now - self._states_s >= _STATES_S:
            states, self._states_s = self._jobs.states(), now
            self._read()  # a job that has ended meanwhile has written its last message
            for worker in tuple(self._workers):
                state = "" if states is None else states.get(worker.job, "COMPLETED")
                if state in ENDED:
                    self._on_ended(worker, state)
        elif now - self._read_s >= _READ_S:
            self._read()
        self._assign_tasks()

    def _on_ended(self, worker: _SlurmWorker, state: str) -> None:
        """Forget a worker whose job has ended, and report its task."""
        self._forget(worker)
        text = " ".join(filter(None, [f"its job has ended ({state.lower()}).", ENDED[state]]))
        if worker.task is not None:
            self._report(worker, Lost(f"{worker}: {text} Its log: {self._jobs.logs(worker.job)}"))
        elif not worker.life and state != "CANCELLED":
            self._false_starts += 1
            if self._false_starts >= _MAX_FALSE_STARTS:
                raise RunError(
                    f"{self._false_starts} jobs in a row have ended before they could train. {worker}: {text} Nodes "
                    f"must see {self._folder} and {sys.executable} under these paths. Its log, if it could be written: "
                    f"{self._jobs.logs(worker.job)}"
                )

    def _assign_tasks(self) -> None:
        """Assign waiting tasks to idle workers, submit jobs for the others, and dismiss workers without a task."""
        if self._is_stopping:
            return
        if self._refusal:
            for task in self._waiting:
                self._reports.append(TaskReport(task.key, task.attempt, Failure("usage", self._refusal), "slurm"))
            self._waiting.clear()
        for worker in tuple(self._workers):
            if not worker.is_idle:
                continue
            if self._waiting:
                worker.assign(self._waiting.popleft())
            elif time.monotonic() - worker.idle_s > _IDLE_S:
                self._dismiss(worker)
        starting = sum(not worker.life for worker in self._workers)
        self._submit_jobs(min(len(self._waiting) - starting, self._max_workers - len(self._workers)))

    # ---- messages of workers

    def _read(self) -> None:
        self._read_s = time.monotonic()
        for worker in tuple(self._workers):
            for message in worker.events.read():
                self._on_message(worker, message)

    def _on_message(self, worker: _SlurmWorker, message: Any) -> None:
        if worker not in self._workers:
            return
        if isinstance(message, Joined):
            self._on_joined(worker, message)
        elif message.life != worker.life:
            pass  # of an earlier process of a requeued job
        elif isinstance(message, Left):
            self._forget(worker)
            if worker.task is not None:
                self._waiting.appendleft(worker.task)  # it was sent to a worker that was about to end
        elif worker.sent is not None and message.number == worker.sent.number:
            self._on_answer(worker, message.event)

    def _on_joined(self, worker: _SlurmWorker, message: Joined) -> None:
        if worker.task is not None:
            self._report(worker, Lost(f"{worker}: its job was requeued."))
            worker.task = None
        worker.life, worker.host, worker.idle_s = message.life, message.host, time.monotonic()
        self._false_starts = 0
        differences = list(find_differences(here=self._fingerprint, there=message.handshake.fingerprint))
        if differences:
            if worker.sent is None:
                self._refusal = (
                    f"no node of the Slurm cluster can train this. {worker.host}: {'; '.join(differences)}. "
                    "Install the same on all machines."
                )
            self._dismiss(worker)

    def _on_answer(self, worker: _SlurmWorker, event: Any) -> None:
        if isinstance(event, TaskAccepted):
            return
        if isinstance(event, Mismatch) and worker.task is not None:
            event = Failure("usage", f"{worker.host}: {explain_mismatch(worker.task, event)}")
        if worker.task is None:
            worker.unclaimed.append(event)
        else:
            self._report(worker, event)
        if isinstance(event, (*ENDS, Mismatch)):
            worker.task, worker.is_busy, worker.idle_s = None, False, time.monotonic()
            worker.unclaimed.clear()

    def _adopt(self, worker: _SlurmWorker, task: Task) -> None:
        """Let a worker continue the run of a task, and report what it has done so far."""
        worker.task = task
        for event in worker.unclaimed:
            self._report(worker, event)
        worker.unclaimed.clear()

    def _report(self, worker: _SlurmWorker, event: Any) -> None:
        assert worker.task is not None
        self._reports.append(TaskReport(worker.task.key, worker.task.attempt, event, str(worker)))


@dataclass(eq=False)
class _SlurmWorker:
    """A job as the driver sees it.

    Attributes:
        folder: Its mailboxes.
        life: Of its process; empty before that has joined.
        sent: The last task that was sent to it.
        is_busy: Whether that has not ended.
        task: The task of this driver, which it works on.
        unclaimed: Events of a task of an earlier driver, until this one submits the same task.
    """

    folder: Path
    job: str
    life: str = ""
    host: str = ""
    sent: Assigned | None = None
    is_busy: bool = False
    task: Task | None = None
    unclaimed: list[Any] = field(default_factory=list)
    idle_s: float = 0.0

    def __post_init__(self) -> None:
        self.events, self.tasks = Mailbox(self.folder / EVENTS), Mailbox(self.folder / TASKS)

    @classmethod
    def found(cls, folder: Path, job: str) -> Self:
        """A worker of an earlier driver."""
        worker = cls(folder, job)
        for message in worker.tasks.read():
            if isinstance(message, Assigned):
                worker.sent, worker.is_busy = message, True
        return worker

    @property
    def is_idle(self) -> bool:
        """Whether it has joined and has no task; that of an earlier process is none."""
        return bool(self.life) and not (self.is_busy and self.sent is not None and self.sent.life == self.life)

    @property
    def orphan(self) -> Assigned | None:
        """The task of an earlier driver that it works on."""
        return self.sent if self.task is None and not self.is_idle else None

    def assign(self, task: Task) -> None:
        """Send a task."""
        number = 1 if self.sent is None else self.sent.number + 1
        self.task, self.sent, self.is_busy = task, Assigned(self.life, number, task.key, task.work), True
        self.tasks.write(self.sent)

    def __str__(self) -> str:
        return f"{self.host} job {self.job}" if self.host else f"job {self.job}"
