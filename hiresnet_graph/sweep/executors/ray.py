"""Workers on the nodes of a Ray cluster, or on this machine under Ray.

A worker is an actor: one process on one node, which trains one run after another. The driver fetches its events call by
call. Ray itself retries nothing: lost tasks are reported, and the driver decides. Before its first run a worker shows
that its code, its versions and its data equal the driver's; a node where they differ is given no work.
"""

from __future__ import annotations

import os
import secrets
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from hiresnet_graph.data.kind import DATA_FOLDER
from hiresnet_graph.errors import HrgError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.sweep.executors.actor import Worker
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Lost, Task, TaskReport, Training
from hiresnet_graph.sweep.executors.handshake import (
    Handshake,
    Mismatch,
    Probe,
    TaskAccepted,
    explain_mismatch,
    find_differences,
    own_fingerprint,
)
from hiresnet_graph.sweep.executors.ray_cluster import Node, connect, connection_lost, import_ray, reason
from hiresnet_graph.train.events import Event, Files, Finished, Saved
from hiresnet_graph.train.record import RESULT

# Interval between two looks for nodes that joined or left.
_REFRESH_S = 1.0
# Calls for events that a worker has queued, so that it need not wait for the driver after each.
_CALLS_AHEAD = 2
# Consecutive workers of a node that may end before their handshake; then the node is given up.
_MAX_FALSE_STARTS = 3
# The concurrency group of calls that are answered while a worker trains.
_CONTROL = "control"


class RayExecutor:
    """Workers on the nodes of a Ray cluster; nodes may come and go.

    Args:
        address: Address of a running cluster: `auto`, `HOST:PORT` or `ray://HOST:PORT`. None starts Ray on this machine
            and ends it again. An existing connection of this process is used, and stays open.
        workers: Maximum number of workers (default: as many as the nodes have room for).
        threads: CPUs per run; the number of threads of its request.
        gpus: GPUs per run; below 1, several runs share one. A worker sees its own GPUs only, as `cuda`.
        shared_folder: Whether nodes see the folders of runs under the same path (default: each worker checks). If not,
            checkpoints and results are sent to the driver, and back to a worker that resumes a run.

    Raises:
        MissingToolError: Ray is not installed.
        UsageError: The number of workers, threads or GPUs is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        threads: int = 1,
        gpus: float = 0.0,
        shared_folder: bool | None = None,
    ) -> None:
        if threads < 1 or gpus < 0 or (workers is not None and workers < 1):
            raise UsageError(
                "workers: at least 1 worker with 1 thread and 0 GPUs is required, "
                f"not {'all' if workers is None else workers}, {threads} and {gpus:g}."
            )
        self._ray = import_ray()
        self._address, self._max_workers, self._threads, self._gpus = address, workers, threads, gpus
        self._shared_folder = shared_folder
        self._fingerprint = own_fingerprint()
        self._owns_connection = False
        self._nodes: dict[str, Node] = {}
        self._refreshed_s = -float("inf")
        self._refused: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()
        self._waiting: deque[_WaitingTask] = deque()
        self._workers: list[_RayWorker] = []
        self._reports: list[TaskReport] = []

    def __enter__(self) -> Self:
        """Connect to the cluster, or start a local one.

        Raises:
            UsageError: There is no cluster at the address, it refuses the connection, or no node has room for a run.
        """
        if not self._ray.is_initialized():
            connect(self._ray, self._address)
            self._owns_connection = True
        if not self.slots:
            nodes = len(self._nodes)
            self.close()
            required = f"{self._threads} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
            raise UsageError(
                f"a run requires {required}, and none of the {nodes} nodes of the Ray cluster has as many. "
                "Give each run fewer, or add a node."
            )
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers; and Ray, or the connection, if this executor opened it."""
        self.close()

    @property
    def slots(self) -> int:
        """Number of runs that the current nodes have room for."""
        self._refresh_nodes()
        if self._nodes and not self._accepted:
            return 1  # so that a task is submitted, and fails with the reason
        capacity = sum(node.capacity for node in self._accepted.values())
        return capacity if self._max_workers is None else min(capacity, self._max_workers)

    def submit(self, task: Task) -> None:
        """Accept a task; it waits until a worker is free."""
        self._waiting.append(_WaitingTask(task))

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        """The reports since the last call; waits up to `timeout_s` for the first.

        Raises:
            RunError: The connection to the cluster is lost.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._assign_tasks()
            self._receive(0.0 if self._reports else min(_REFRESH_S, max(0.0, deadline - time.monotonic())))
            if self._reports or time.monotonic() >= deadline:
                break
        self._assign_tasks()
        found, self._reports = self._reports, []
        return found

    def stop(self) -> None:
        """Request all running tasks to save and to end, which they report as usual; waiting tasks are dropped."""
        self._waiting.clear()
        for worker in self._workers:
            if worker.task is not None:
                # Concurrent with the pending call for the next event.
                worker.actor.stop.options(concurrency_group=_CONTROL).remote()

    def close(self) -> None:
        """End all workers immediately. Events that were not reported are lost."""
        self._waiting.clear()
        self._reports.clear()
        for worker in tuple(self._workers):
            self._dismiss(worker)
        if self._owns_connection:
            self._ray.shutdown()
            self._owns_connection = False

    # ---- nodes

    def _refresh_nodes(self) -> None:
        """Update the list of nodes, unless that was done a moment ago."""
        if time.monotonic() - self._refreshed_s < _REFRESH_S:
            return
        with self._connected():
            nodes = self._ray.nodes()
        self._nodes = {one["NodeID"]: Node.of(one, self._threads, self._gpus) for one in nodes if one["Alive"]}
        self._refreshed_s = time.monotonic()

    @property
    def _accepted(self) -> dict[str, Node]:
        return {name: node for name, node in self._nodes.items() if name not in self._refused}

    def _refuse(self, node: Node, why: str) -> None:
        """Give a node no work from now on."""
        if node.id in self._refused:
            return
        self._refused[node.id] = f"{node.host}: {why}"
        if self._accepted:
            warnings.warn(f"a node of the Ray cluster is left out. {node.host}: {why}", RuntimeWarning, stacklevel=2)

    # ---- workers

    def _assign_tasks(self) -> None:
        """Assign waiting tasks to idle workers, and start workers for the others."""
        self._refresh_nodes()
        accepted = self._accepted
        for worker in tuple(self._workers):
            if worker.state == "idle" and worker.node.id not in accepted:
                self._dismiss(worker)
        for worker in self._workers:
            if self._waiting and worker.state == "idle":
                self._assign(worker, self._waiting.popleft())
        starting = sum(worker.state == "starting" for worker in self._workers)
        taken = Counter(worker.node.id for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self.slots - len(self._workers))):
            node = max(accepted.values(), key=lambda node: node.capacity - taken[node.id], default=None)
            if node is not None and taken[node.id] < node.capacity:
                self._start_worker(node)
                taken[node.id] += 1
        if self._nodes and not accepted:
            why = f"no node of the Ray cluster can train this. {' '.join(self._refused.values())}"
            for waiting in self._waiting:
                task = waiting.task
                self._reports.append(TaskReport(task.key, task.attempt, Failure("usage", why), "ray"))
            self._waiting.clear()

    def _start_worker(self, node: Node) -> None:
        """Start a worker on a node; it is assigned tasks after its handshake."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor_class = self._ray.remote(concurrency_groups={_CONTROL: 1}, max_restarts=0, max_task_retries=0)(Worker)
        actor = actor_class.options(
            num_cpus=self._threads,
            num_gpus=self._gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(os.getcwd(), os.environ.get(DATA_FOLDER))
        probe = self._probe()
        calls = deque([actor.handshake.remote(probe)])
        self._workers.append(_RayWorker(actor, node, probe, calls))

    def _probe(self) -> Probe | None:
        """A file beside the folders of runs, which a worker sees if the folders are shared."""
        work = self._waiting[0].task.work
        if self._shared_folder is not None or not isinstance(work, Training):
            return None
        token = secrets.token_hex(8)
        path = make_folder(work.folder.absolute().parent) / f".shared-{token}"
        write_atomic(path, token.encode())
        return Probe(path, token)

    def _assign(self, worker: _RayWorker, waiting: _WaitingTask) -> None:
        """Assign a task to an idle worker."""
        work, files = waiting.task.work, None
        if isinstance(work, Training):
            work = replace(work, folder=work.folder.absolute())
            files = None if worker.sees_folder else _checkpoint_files(work.folder)
        worker.state, worker.assigned = "assigned", waiting
        worker.calls.append(worker.actor.start.remote(waiting.task.key, work, files))
        worker.calls.extend(worker.actor.next.remote() for _ in range(_CALLS_AHEAD))

    def _dismiss(self, worker: _RayWorker) -> None:
        """End a worker and forget it."""
        self._workers.remove(worker)
        worker.delete_probe()
        with suppress(self._ray.exceptions.RayError, ConnectionError):
            self._ray.kill(worker.actor)

    # ---- answers of workers

    def _receive(self, timeout_s: float) -> None:
        """Handle the oldest answer of each worker that has one."""
        pending = {worker.calls[0]: worker for worker in self._workers if worker.calls}
        if not pending:
            time.sleep(timeout_s)
            return
        calls = list(pending)
        with self._connected():
            done, _ = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
            if done:
                done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in done:
            self._on_answer(pending[call])

    def _on_answer(self, worker: _RayWorker) -> None:
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(worker.calls.popleft())
        except ConnectionError as error:
            raise connection_lost(error) from error
        except errors.RayTaskError as error:  # exceptions of a run are answers: this was raised around it
            self._on_worker_lost(worker, Failure.of(error.cause))
        except errors.OutOfMemoryError as error:
            message = f"{worker}: {reason(error)} Train fewer runs at a time."
            self._on_worker_lost(worker, Failure("memory", message))
        except errors.ActorUnavailableError:  # its node has left, perhaps, or is unreachable
            self._on_worker_lost(worker, Lost(f"{worker}: it cannot be reached any more."))
        except errors.RayError as error:
            self._on_worker_lost(worker, Lost(f"{worker}: {reason(error)}"))
        else:
            self._dispatch(worker, answer)

    def _on_worker_lost(self, worker: _RayWorker, event: Failure | Lost) -> None:
        """Forget a worker that has ended, or whose state is unknown, and report its task."""
        self._dismiss(worker)
        self._refreshed_s = -float("inf")
        if worker.state == "starting":
            self._refresh_nodes()
            self._false_starts[worker.node.id] += 1
            if self._false_starts[worker.node.id] >= _MAX_FALSE_STARTS and worker.node.id in self._nodes:
                why = event.reason if isinstance(event, Lost) else event.message
                self._refuse(worker.node, f"workers end as soon as they start: {why}")
        elif (
            isinstance(event, Lost) and worker.state == "assigned" and worker.assigned and not worker.assigned.is_moved
        ):
            # It may have died earlier, while it was idle and nothing was expected of it.
            self._waiting.appendleft(replace(worker.assigned, is_moved=True))
        else:
            self._report(worker, event)

    def _dispatch(self, worker: _RayWorker, answer: object) -> None:
        match answer:
            case None:  # to a surplus call: the run had ended
                pass
            case Handshake():
                self._on_handshake(worker, answer)
            case TaskAccepted():
                worker.state = "working"
            case Mismatch():
                assert worker.assigned is not None
                self._refuse(worker.node, explain_mismatch(worker.assigned.task, answer))
                self._waiting.appendleft(worker.assigned)
                self._dismiss(worker)
            case Saved() | Finished() if answer.files:
                self._on_files(worker, answer)
            case _:
                self._on_event(worker, answer)  # type: ignore[arg-type]

    def _on_handshake(self, worker: _RayWorker, there: Handshake) -> None:
        """Accept a worker whose versions equal the driver's."""
        worker.delete_probe()
        worker.pid = there.pid
        differences = list(find_differences(here=self._fingerprint, there=there.fingerprint))
        if differences:
            self._refuse(worker.node, f"{'; '.join(differences)}. Install the same on all machines.")
            self._dismiss(worker)
            return
        worker.sees_folder = there.sees_probe if self._shared_folder is None else self._shared_folder
        worker.state = "idle"
        del self._false_starts[worker.node.id]

    def _on_files(self, worker: _RayWorker, event: Saved | Finished) -> None:
        """Write the files of an event into the folder of the run, then report it."""
        assert worker.task is not None and isinstance(worker.task.work, Training)
        try:
            _write_files(worker.task.work.folder, event)
        except HrgError as error:
            self._on_worker_lost(worker, Failure.of(error))
        else:
            self._on_event(worker, replace(event, files=()))

    def _on_event(self, worker: _RayWorker, event: Event | Failure) -> None:
        self._report(worker, event)
        if isinstance(event, Failure) and event.kind != "usage":
            # A failure may leave memory or a device in any state: a new process takes the place of this one.
            self._dismiss(worker)
        elif isinstance(event, ENDS):
            worker.state, worker.assigned = "idle", None
        else:
            worker.calls.append(worker.actor.next.remote())

    def _report(self, worker: _RayWorker, event: Event | Failure | Lost) -> None:
        if worker.task is not None:
            self._reports.append(TaskReport(worker.task.key, worker.task.attempt, event, str(worker)))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise connection_lost(error) from error


@dataclass(frozen=True)
class _WaitingTask:
    """A task that waits for a worker; `is_moved` if a worker ended before it accepted the task."""

    task: Task
    is_moved: bool = False


@dataclass(eq=False)
class _RayWorker:
    """A worker as the driver sees it.

    Attributes:
        calls: Calls without an answer, oldest first. They are answered in this order.
    """

    actor: Any
    node: Node
    probe: Probe | None
    calls: deque[Any]
    state: Literal["starting", "idle", "assigned", "working"] = "starting"
    assigned: _WaitingTask | None = None
    sees_folder: bool = False
    pid: int = 0

    @property
    def task(self) -> Task | None:
        return self.assigned.task if self.assigned is not None else None

    def delete_probe(self) -> None:
        if self.probe is not None:
            self.probe.path.unlink(missing_ok=True)
            self.probe = None

    def __str__(self) -> str:
        return f"{self.node.host} pid {self.pid}" if self.pid else self.node.host


# ---- files of runs where folders are not shared


def _checkpoint_files(folder: Path) -> Files:
    from hiresnet_graph.train.checkpoint import checkpoint_files

    return checkpoint_files(folder)


def _write_files(folder: Path, event: Saved | Finished) -> None:
    """Write the files that a worker has sent into the folder of its run."""
    from hiresnet_graph.train.checkpoint import delete_checkpoints, write_checkpoint

    if isinstance(event, Saved):
        write_checkpoint(folder, event.files)
        return
    make_folder(folder)
    for name, content in sorted(event.files, key=lambda file: file[0] == RESULT):  # the result last
        write_atomic(folder / name, content)
    delete_checkpoints(folder)
