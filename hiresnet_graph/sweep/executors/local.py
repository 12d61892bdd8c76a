"""Workers on this machine: one process for each GPU or group of cores.

A worker takes one task after another. It ends with the driver, however that ends, because the pipe between them is then
closed. It leads its own process group, so that Ctrl-C at the terminal does not reach it and its children end with it.
torch is not imported here; a worker imports it when it unpickles its first task.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Self

from hiresnet_graph.errors import UsageError
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Lost, Task, TaskReport, request_stop, stop_requested

HEARTBEAT_S = 5.0
# Heartbeats come from a thread of the worker, whatever its task does: a worker without them is stuck or stopped.
SILENCE_S = 120.0
_STOP = b""
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass
class _Worker:
    """A worker process and its task."""

    number: int
    name: str
    process: SpawnProcess
    pipe: Connection
    last_message_s: float
    task: Task | None = None
    is_up: bool = False  # has sent a message
    is_spent: bool = False  # takes no more tasks and ends by itself


class LocalExecutor:
    """Processes of this machine.

    Args:
        workers: Number of workers. They start with the first tasks.
        devices: `cpu`, or GPUs like `cuda:0`, assigned to the workers in turn; each worker sees its own, as `cuda`.
        threads: CPU threads per worker. If the workers fill all cores, each is bound to its own cores.
        silence_s: Time without a message after which a worker is ended.

    Raises:
        UsageError: The number of workers, threads or devices is below 1.
    """

    def __init__(
        self, workers: int, *, devices: Sequence[str] = ("cpu",), threads: int = 1, silence_s: float = SILENCE_S
    ) -> None:
        if workers < 1 or threads < 1 or not devices:
            raise UsageError(
                f"workers: at least 1 worker with 1 thread and 1 device is required, not {workers}, {threads} and "
                f"{len(devices)}."
            )
        self._devices, self._threads, self._silence_s = tuple(devices), threads, silence_s
        self._groups = core_groups(workers, threads) if self._devices == ("cpu",) else {}
        self._workers: dict[int, _Worker | None] = dict.fromkeys(range(workers))
        self._waiting: deque[Task] = deque()
        self._reports: list[TaskReport] = []
        self._checked_s = time.monotonic()
        self._is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """Number of tasks that can be worked on at one time."""
        return len(self._workers)

    def submit(self, task: Task) -> None:
        """Accept a task; a free worker starts it at once."""
        self._waiting.append(task)
        self._assign_tasks()

    def _assign_tasks(self) -> None:
        """Assign waiting tasks to free workers: first to running ones, then to new ones."""
        for number in sorted(self._workers, key=lambda number: self._workers[number] is None):
            if not self._waiting or self._is_stopping:
                return
            worker = self._workers[number]
            if worker is None:
                worker = self._workers[number] = self._start_worker(number)
            if worker.task is None and not worker.is_spent:
                worker.task = self._waiting.popleft()
                # A worker that has just died is detected, with its task, when its pipe is read.
                with suppress(OSError):
                    worker.pipe.send_bytes(pickle.dumps(worker.task.work))

    def _start_worker(self, number: int) -> _Worker:
        device = self._devices[number % len(self._devices)]
        ours, theirs = multiprocessing.Pipe()
        # Spawned processes: a fork of one that has used torch or threads may hang.
        process = multiprocessing.get_context("spawn").Process(
            target=_worker_main, args=(theirs, self._groups.get(number), HEARTBEAT_S), name=f"hrg worker {number}"
        )
        with _environment(worker_environment(device, self._threads)), _interrupt_blocked():
            process.start()
        theirs.close()
        return _Worker(number, f"{device.split(':')[0]} {number}", process, ours, time.monotonic())

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        """The reports since the last call; waits up to `timeout_s` for the first."""
        workers = {worker.pipe: worker for worker in self._workers.values() if worker is not None}
        deadline = time.monotonic() + timeout_s
        while True:
            for pipe in wait(list(workers), max(0.0, 0 if self._reports else deadline - time.monotonic())):
                assert isinstance(pipe, Connection)
                self._receive(workers[pipe])
                if pipe.closed:
                    del workers[pipe]
            if self._reports or time.monotonic() >= deadline:
                break
        self._end_silent(timeout_s)
        self._assign_tasks()
        found, self._reports = self._reports, []
        return found

    def _receive(self, worker: _Worker) -> None:
        """Receive the messages of a worker; a closed pipe means that it has ended."""
        worker.last_message_s = time.monotonic()
        try:
            while worker.pipe.poll():
                event, is_last = pickle.loads(worker.pipe.recv_bytes())
                worker.is_up = True
                if event is None or worker.task is None:  # a heartbeat
                    continue
                self._report(worker, event)
                if isinstance(event, ENDS):
                    worker.task, worker.is_spent = None, is_last
        except (EOFError, OSError):
            self._on_worker_lost(worker, "")

    def _report(self, worker: _Worker, event: object) -> None:
        assert worker.task is not None
        task = worker.task
        self._reports.append(TaskReport(task.key, task.attempt, event, worker.name))  # type: ignore[arg-type]

    def _on_worker_lost(self, worker: _Worker, reason: str) -> None:
        """Report the task of a worker as lost, and make room for a new worker."""
        code = _kill(worker)
        if worker.task is not None:
            self._report(worker, Lost(reason or _exit_reason(code, worker.is_up)))
        self._workers[worker.number] = None

    def _end_silent(self, timeout_s: float) -> None:
        """End workers without a message for too long. Time in which this process was suspended does not count."""
        now = time.monotonic()
        pause, self._checked_s = now - self._checked_s - timeout_s, now
        for worker in list(self._workers.values()):
            if worker is None:
                continue
            if pause > HEARTBEAT_S:
                worker.last_message_s = min(now, worker.last_message_s + pause)
            # A new worker imports the driver's script before its first heartbeat.
            if now - worker.last_message_s > self._silence_s * (1 if worker.is_up else 10):
                self._on_worker_lost(
                    worker, f"the worker process sent nothing for {self._silence_s:g} s; it was ended."
                )

    def stop(self) -> None:
        """Request all running tasks to save and to end, which they report as usual; waiting tasks are dropped."""
        self._is_stopping = True
        self._waiting.clear()
        for worker in self._workers.values():
            if worker is not None:
                with suppress(OSError):
                    worker.pipe.send_bytes(_STOP)

    def close(self) -> None:
        """End all workers immediately. Events that were not reported are lost."""
        self._waiting.clear()
        self._reports.clear()
        for number, worker in self._workers.items():
            if worker is not None:
                _kill(worker)
                self._workers[number] = None


def core_groups(workers: int, threads: int) -> dict[int, set[int]]:
    """The cores of each worker, if the workers leave no room for another one; otherwise empty.

    If cores are left, other programs probably use them, and the system schedules better than a fixed binding.
    """
    if not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))
    if not len(cores) - threads < workers * threads <= len(cores):
        return {}
    return {i: set(cores[i * threads : (i + 1) * threads]) for i in range(workers)}


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Environment variables of a worker, which must be set before its imports."""
    found = dict.fromkeys(_THREADS, str(threads))
    kind, _, number = device.partition(":")
    if kind == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name.strip() for name in visible.split(",") if name.strip()]
        index = int(number or 0)
        found["CUDA_VISIBLE_DEVICES"] = names[index] if index < len(names) else str(index)
    return found


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes started within have these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Processes started within do not receive Ctrl-C; this process still does."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Starting it later, with the first process, would unblock Ctrl-C.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(worker: _Worker) -> int:
    """Kill a worker and its children if it is still running; returns its exit code, negative for a signal."""
    process = worker.process
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(OSError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    worker.pipe.close()
    process.join()
    code = process.exitcode or 0
    process.close()
    return code


def _exit_reason(code: int, is_up: bool) -> str:
    if code == -signal.SIGKILL:
        return "the worker process was killed, perhaps because memory ran out."
    if code < 0:
        return f"the worker process was ended by signal {-code}."
    if not is_up:
        return (
            f"the worker process could not start (exit code {code}). A script needs 'if __name__ == \"__main__\":' "
            "around its code, because workers import it."
        )
    return f"the worker process ended with exit code {code}."


# ---- in the worker


class _DriverPipe:
    """The worker's end of the pipe to the driver. If the pipe breaks, the worker exits."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self.tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, event: object, *, is_last: bool = False) -> None:
        """Send an event; None is a heartbeat."""
        content = pickle.dumps((event, is_last))
        try:
            with self._lock:
                self._pipe.send_bytes(content)
        except OSError:
            _exit()

    def receive(self) -> None:
        """Queue the tasks that the driver sends."""
        try:
            while True:
                content = self._pipe.recv_bytes()
                if content == _STOP:
                    request_stop()
                else:
                    self.tasks.put(content)
        except (EOFError, OSError):
            _exit()

    def send_heartbeats(self, interval_s: float) -> None:
        """Send a heartbeat in each interval."""
        while True:
            time.sleep(interval_s)
            self.send(None)


def _worker_main(pipe: Connection, cores: set[int] | None, heartbeat_s: float) -> None:
    """Work on tasks until the driver has ended or ends this process."""
    is_idle = True

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        request_stop()
        if is_idle:
            _exit()

    if hasattr(os, "setpgid"):
        with suppress(OSError):
            os.setpgid(0, 0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
    driver = _DriverPipe(pipe)
    driver.send(None)
    threading.Thread(target=driver.receive, daemon=True).start()
    threading.Thread(target=driver.send_heartbeats, args=(heartbeat_s,), daemon=True).start()
    while True:
        content = driver.tasks.get()
        is_idle = False
        last = _last_event(content, driver)
        # A failure may leave memory or a device in any state: a new process takes the place of this one.
        is_last = stop_requested() or (isinstance(last, Failure) and last.kind != "usage")
        driver.send(last, is_last=is_last)
        if is_last:
            _exit()
        is_idle = True


def _last_event(content: bytes, driver: _DriverPipe) -> object:
    """Work on a task and send all of its events but the last, which is returned."""
    event: object = None
    try:
        for event in pickle.loads(content)():
            if not isinstance(event, ENDS):
                driver.send(event)
    except Exception as error:
        return Failure.of(error)
    if isinstance(event, ENDS):
        return event
    return Failure("error", f"the run ended without a result (its last event: {type(event).__name__}).")


def _exit() -> None:
    """Kill this worker and its children immediately."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
