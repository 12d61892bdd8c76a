"""Workers on this machine: processes of their own, one for each GPU or for a group of cores.

A worker takes one task after another. It ends with the driver, however that ends, since the pipe between them is then
closed; it leads a process group of its own, so that a Ctrl-C at the terminal does not reach it, and what it starts ends
with it. Nothing of torch is imported here: a worker does that when it unpickles its first task.
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
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Lost, Report, Task, ask_to_stop, stop_asked
from hiresnet_graph.train.events import Event

HEARTBEAT_S = 5.0
# A worker beats in a thread, whatever its task does: one that is silent for so long is stuck or stopped.
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
    """A process, and what it is at."""

    number: int
    name: str
    process: SpawnProcess
    pipe: Connection
    heard: float
    task: Task | None = None
    is_up: bool = False  # has said something
    is_spent: bool = False  # takes no more tasks and ends by itself


class LocalExecutor:
    """Processes of this machine.

    Args:
        workers: How many. They start when there is something to do.
        devices: `cpu`, or GPUs like `cuda:0`, given to the workers in turn; each worker sees its own alone, as `cuda`.
        threads: Of the CPU, for each worker. Where the workers fill all cores, each is bound to as many of its own.
        silence_s: A worker that was not heard of for so long is ended.

    Raises:
        UsageError: There is no worker, no thread or no device.
    """

    def __init__(
        self, workers: int, *, devices: Sequence[str] = ("cpu",), threads: int = 1, silence_s: float = SILENCE_S
    ) -> None:
        if workers < 1 or threads < 1 or not devices:
            raise UsageError(
                f"workers: at least 1, with 1 thread and 1 device, is wanted; not {workers}, {threads} and "
                f"{len(devices)}."
            )
        self._devices, self._threads, self._silence_s = tuple(devices), threads, silence_s
        self._groups = core_groups(workers, threads) if self._devices == ("cpu",) else {}
        self._workers: dict[int, _Worker | None] = dict.fromkeys(range(workers))
        self._waiting: deque[Task] = deque()
        self._reports: list[Report] = []
        self._looked = time.monotonic()
        self._is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """How many tasks can be worked on at one time."""
        return len(self._workers)

    def submit(self, task: Task) -> None:
        """Take a task; a free worker begins with it at once."""
        self._waiting.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give tasks that wait to workers that are free: those that are there, then new ones."""
        for number in sorted(self._workers, key=lambda number: self._workers[number] is None):
            if not self._waiting or self._is_stopping:
                return
            worker = self._workers[number]
            if worker is None:
                worker = self._workers[number] = self._started(number)
            if worker.task is None and not worker.is_spent:
                worker.task = self._waiting.popleft()
                # A worker that has just died is noticed, with its task, when its pipe is read.
                with suppress(OSError):
                    worker.pipe.send_bytes(pickle.dumps(worker.task.work))

    def _started(self, number: int) -> _Worker:
        device = self._devices[number % len(self._devices)]
        ours, theirs = multiprocessing.Pipe()
        # Fresh processes: a fork of one that has used torch or threads may hang.
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, self._groups.get(number), HEARTBEAT_S), name=f"hrg worker {number}"
        )
        with _environment(_variables(device, self._threads)), _signals_held_back():
            process.start()
        theirs.close()
        return _Worker(number, f"{device.split(':')[0]} {number}", process, ours, time.monotonic())

    def reports(self, timeout_s: float) -> Sequence[Report]:
        """What has been said since the last call; waits up to `timeout_s` for the first."""
        workers = {worker.pipe: worker for worker in self._workers.values() if worker is not None}
        deadline = time.monotonic() + timeout_s
        while True:
            for pipe in wait(list(workers), max(0.0, 0 if self._reports else deadline - time.monotonic())):
                assert isinstance(pipe, Connection)
                self._listen(workers[pipe])
                if pipe.closed:
                    del workers[pipe]
            if self._reports or time.monotonic() >= deadline:
                break
        self._end_silent(timeout_s)
        self._hand_out()
        found, self._reports = self._reports, []
        return found

    def _listen(self, worker: _Worker) -> None:
        """Take what a worker has said; a closed pipe says that it is gone."""
        worker.heard = time.monotonic()
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
            self._bury(worker, "")

    def _report(self, worker: _Worker, event: object) -> None:
        assert worker.task is not None
        self._reports.append(Report(worker.task.key, worker.task.attempt, event, worker.name))  # type: ignore[arg-type]

    def _bury(self, worker: _Worker, reason: str) -> None:
        """Make room for a new worker; the task of this one is lost."""
        code = _ended(worker)
        if worker.task is not None:
            self._report(worker, Lost(reason or _why(code, worker.is_up)))
        self._workers[worker.number] = None

    def _end_silent(self, timeout_s: float) -> None:
        """End workers that were not heard of for long. Time in which this process stood still does not count."""
        now = time.monotonic()
        pause, self._looked = now - self._looked - timeout_s, now
        for worker in list(self._workers.values()):
            if worker is None:
                continue
            if pause > HEARTBEAT_S:
                worker.heard = min(now, worker.heard + pause)
            # A new one reads the driver's script and all that it imports before it beats.
            if now - worker.heard > self._silence_s * (1 if worker.is_up else 10):
                self._bury(worker, f"the worker process was silent for {self._silence_s:g} s, and was ended.")

    def stop(self) -> None:
        """Ask all tasks at work to save and to end, which they report as usual; tasks that wait are forgotten."""
        self._is_stopping = True
        self._waiting.clear()
        for worker in self._workers.values():
            if worker is not None:
                with suppress(OSError):
                    worker.pipe.send_bytes(_STOP)

    def close(self) -> None:
        """End all workers now. What they had not reported is lost."""
        self._waiting.clear()
        self._reports.clear()
        for number, worker in self._workers.items():
            if worker is not None:
                _ended(worker)
                self._workers[number] = None


def core_groups(workers: int, threads: int) -> dict[int, set[int]]:
    """The cores of each worker, if the workers leave no room for another one; otherwise none is bound to any.

    Where there is room, other programs are likely to use it: the system then knows better where to run a worker.
    """
    if not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))
    if not len(cores) - threads < workers * threads <= len(cores):
        return {}
    return {i: set(cores[i * threads : (i + 1) * threads]) for i in range(workers)}


def _variables(device: str, threads: int) -> dict[str, str]:
    """What the environment of a worker says, before anything is imported there."""
    found = dict.fromkeys(_THREADS, str(threads))
    kind, _, number = device.partition(":")
    if kind == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        ours = [name.strip() for name in visible.split(",") if name.strip()]
        index = int(number or 0)
        found["CUDA_VISIBLE_DEVICES"] = ours[index] if index < len(ours) else str(index)
    return found


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started in here have these variables."""
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
def _signals_held_back() -> Iterator[None]:
    """Start processes in here that do not see Ctrl-C; none is lost for this process."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It is started with the first process, and lets Ctrl-C through again when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(worker: _Worker) -> int:
    """Kill a worker and all that it has started, if it still lives; gives its exit code, below 0 that of a signal."""
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


def _why(code: int, is_up: bool) -> str:
    if code == -signal.SIGKILL:
        return "the worker process was killed, perhaps for want of memory."
    if code < 0:
        return f"the worker process was ended by signal {-code}."
    if not is_up:
        return (
            f"the worker process could not start (exit code {code}). A script wants 'if __name__ == \"__main__\":' "
            "around what it does, since workers read it, too."
        )
    return f"the worker process ended with exit code {code}."


# ---- in the worker


def _work(pipe: Connection, cores: set[int] | None, heartbeat_s: float) -> None:
    """What a worker process does, until the driver is gone or ends it."""
    is_idle = True

    def asked_to_end(number: int, frame: FrameType | None) -> None:
        ask_to_stop()
        if is_idle:
            _end()

    if hasattr(os, "setpgid"):
        with suppress(OSError):
            os.setpgid(0, 0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, asked_to_end)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    lock = threading.Lock()

    def say(event: object, *, is_last: bool = False) -> None:
        content = pickle.dumps((event, is_last))
        try:
            with lock:
                pipe.send_bytes(content)
        except OSError:
            _end()

    def listen() -> None:
        try:
            while True:
                content = pipe.recv_bytes()
                if content == _STOP:
                    ask_to_stop()
                else:
                    tasks.put(content)
        except (EOFError, OSError):
            _end()

    def beat() -> None:
        while True:
            time.sleep(heartbeat_s)
            say(None)

    say(None)
    threading.Thread(target=listen, daemon=True).start()
    threading.Thread(target=beat, daemon=True).start()
    while True:
        content = tasks.get()
        is_idle = False
        event: Event | Failure | None = None
        try:
            for event in pickle.loads(content)():
                if not isinstance(event, ENDS):
                    say(event)
            if not isinstance(event, ENDS):
                event = Failure("error", f"the run ended without a result (its last word: {type(event).__name__}).")
        except Exception as error:
            event = Failure.of(error)
        # What failed may have left memory or a device in any state: a new process takes this one's place.
        is_last = stop_asked() or (isinstance(event, Failure) and event.kind != "usage")
        say(event, is_last=is_last)
        if is_last:
            _end()
        is_idle = True


def _end() -> None:
    """End this worker and all that it has started, in the middle of whatever they do."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
