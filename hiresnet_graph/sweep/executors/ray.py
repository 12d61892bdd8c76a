"""Workers on the nodes of a Ray cluster, or on this machine under Ray.

A worker is an actor: one process on one node, which trains one run after another. The driver draws events out of it,
call by call. Ray itself tries nothing again: what is lost is reported, and the driver decides. Before its first run a
worker shows that its code, its versions and its data are ours; a node where they are not is given no work.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from hiresnet_graph.data.kind import DATA_FOLDER
from hiresnet_graph.errors import HrgError, MissingToolError, RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.sweep.executors.actor import (
    Begun,
    Copy,
    Introduction,
    Probe,
    Unfit,
    Worker,
    key_and_fingerprint,
    own_copy,
)
from hiresnet_graph.sweep.executors.base import ENDS, Failure, Lost, Report, Task, Training
from hiresnet_graph.train.events import Event, Files, Finished, Saved
from hiresnet_graph.train.record import RESULT

# How often nodes that came or went are looked for.
_LOOK_S = 1.0
# Calls for events that a worker has at one time, so that it need not wait for the driver after each.
_CALLS_AHEAD = 2
# Workers of a node that may end in a row before they have said who they are; the node is given up then.
_FALSE_STARTS = 3
# Of a local Ray: a folder that is shared leaves nothing to send but small events, and Ray wants 75 MiB at least.
_LOCAL_STORE = 128 * 2**20
# The group of calls that are answered while a worker trains.
_CONTROL = "control"
# A wrong address would keep Ray trying for minutes.
_CONNECT_S = 5.0
# What Ray prints on stdout when a worker or a node is gone, which we report ourselves.
_PRINTED = (
    "A worker died or was killed|Raylet is terminated|The node with node id|have not registered within the timeout|"
    "running low on memory"
)


class RayExecutor:
    """Workers on the nodes of a Ray cluster; nodes may come and go.

    Args:
        address: Of a cluster that is there: `auto`, `HOST:PORT` or `ray://HOST:PORT`. None starts Ray on this machine
            and ends it again. If this process is connected to Ray already, that connection is used, and stays.
        workers: How many at most; as many as the nodes have room for, if left out.
        threads: CPUs that a run takes up; as many as its request has threads.
        gpus: GPUs that a run takes up; below 1, some runs share one. A worker sees its own alone, as `cuda`.
        shared_folder: Whether nodes see the folders of runs under the same path. If left out, each worker looks. Where
            they do not, checkpoints and results travel to the driver, and back to a worker that goes on with a run.

    Raises:
        MissingToolError: Ray is not installed.
        UsageError: There is no worker or no thread, or the number of GPUs cannot be.
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
                "workers: at least 1, with 1 thread and 0 GPUs, is wanted; "
                f"not {'all' if workers is None else workers}, {threads} and {gpus:g}."
            )
        self._ray = _import_ray()
        self._address, self._workers, self._threads, self._gpus = address, workers, threads, gpus
        self._shared_folder = shared_folder
        self._copy = own_copy()
        self._is_ours = False
        self._nodes: dict[str, _Node] = {}
        self._looked = -float("inf")
        self._refused: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()
        self._crew: list[_Member] = []
        self._reports: list[Report] = []

    def __enter__(self) -> Self:
        """Connect to the cluster, or start a local one.

        Raises:
            UsageError: There is no cluster at the address, it does not take us, or no node has room for a run.
        """
        if not self._ray.is_initialized():
            _connect(self._ray, self._address)
            self._is_ours = True
        if not self.slots:
            nodes = len(self._nodes)
            self.close()
            wanted = f"{self._threads} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
            raise UsageError(
                f"a run wants {wanted}, and none of the {nodes} nodes of the Ray cluster has as much. "
                "Let a run have less, or add a node."
            )
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers; and Ray, or the connection, if it is ours."""
        self.close()

    @property
    def slots(self) -> int:
        """How many runs the nodes that are there now have room for."""
        self._look()
        if self._nodes and not self._fit:
            return 1  # so that tasks are handed in, and told that they cannot be worked on
        room = sum(node.room for node in self._fit.values())
        return room if self._workers is None else min(room, self._workers)

    def submit(self, task: Task) -> None:
        """Take a task; it waits until a worker is free."""
        self._waiting.append(_Waiting(task))

    def reports(self, timeout_s: float) -> Sequence[Report]:
        """What has been said since the last call; waits up to `timeout_s` for the first.

        Raises:
            RunError: The connection to the cluster is lost.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._hand_out()
            self._listen(0.0 if self._reports else min(_LOOK_S, max(0.0, deadline - time.monotonic())))
            if self._reports or time.monotonic() >= deadline:
                break
        self._hand_out()
        found, self._reports = self._reports, []
        return found

    def stop(self) -> None:
        """Ask all tasks at work to save and to end, which they report as usual; tasks that wait are forgotten."""
        self._waiting.clear()
        for member in self._crew:
            if member.task is not None:
                # Beside the call for the next event, which is under way.
                member.actor.stop.options(concurrency_group=_CONTROL).remote()

    def close(self) -> None:
        """End all workers now. What they had not reported is lost."""
        self._waiting.clear()
        self._reports.clear()
        for member in tuple(self._crew):
            self._dismiss(member)
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False

    # ---- nodes

    def _look(self) -> None:
        """See which nodes are there."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        with self._connected():
            told = self._ray.nodes()
        self._nodes = {one["NodeID"]: _node(one, self._threads, self._gpus) for one in told if one["Alive"]}
        self._looked = time.monotonic()

    @property
    def _fit(self) -> dict[str, _Node]:
        return {name: node for name, node in self._nodes.items() if name not in self._refused}

    def _refuse(self, node: _Node, reason: str) -> None:
        """Give a node no work from now on."""
        if node.id in self._refused:
            return
        self._refused[node.id] = f"{node.host}: {reason}"
        if self._fit:
            warnings.warn(f"a node of the Ray cluster is left out. {node.host}: {reason}", RuntimeWarning, stacklevel=2)

    # ---- workers

    def _hand_out(self) -> None:
        """Give tasks that wait to idle workers, and start workers for the others."""
        self._look()
        fit = self._fit
        for member in tuple(self._crew):
            if member.state == "idle" and member.node.id not in fit:
                self._dismiss(member)
        for member in self._crew:
            if self._waiting and member.state == "idle":
                self._begin(member, self._waiting.popleft())
        starting = sum(member.state == "starting" for member in self._crew)
        taken = Counter(member.node.id for member in self._crew)
        for _ in range(min(len(self._waiting) - starting, self.slots - len(self._crew))):
            node = max(fit.values(), key=lambda node: node.room - taken[node.id], default=None)
            if node is not None and taken[node.id] < node.room:
                self._start(node)
                taken[node.id] += 1
        if self._nodes and not fit:
            why = Failure("usage", f"no node of the Ray cluster can train this. {' '.join(self._refused.values())}")
            self._reports += [Report(one.task.key, one.task.attempt, why, "ray") for one in self._waiting]
            self._waiting.clear()

    def _start(self, node: _Node) -> None:
        """Start a worker on a node; it is given work when it has said who it is."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor_class = self._ray.remote(concurrency_groups={_CONTROL: 1}, max_restarts=0, max_task_retries=0)(Worker)
        actor = actor_class.options(
            num_cpus=self._threads,
            num_gpus=self._gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(os.getcwd(), os.environ.get(DATA_FOLDER))
        probe = self._probe()
        calls = deque([actor.introduce.remote(probe)])
        self._crew.append(_Member(actor, node, probe, calls))

    def _probe(self) -> Probe | None:
        """A file beside the folders of runs, which a worker sees if they are shared."""
        work = self._waiting[0].task.work
        if self._shared_folder is not None or not isinstance(work, Training):
            return None
        token = secrets.token_hex(8)
        path = make_folder(work.folder.absolute().parent) / f".shared-{token}"
        write_atomic(path, token.encode())
        return Probe(path, token)

    def _begin(self, member: _Member, waiting: _Waiting) -> None:
        """Give a task to an idle worker."""
        work, files = waiting.task.work, None
        if isinstance(work, Training):
            work = replace(work, folder=work.folder.absolute())
            files = None if member.is_shared else _files_to_go_on(work.folder)
        member.state, member.waiting = "beginning", waiting
        member.calls.append(member.actor.begin.remote(waiting.task.key, work, files))
        member.calls.extend(member.actor.next.remote() for _ in range(_CALLS_AHEAD))

    def _dismiss(self, member: _Member) -> None:
        """End a worker and forget it."""
        self._crew.remove(member)
        member.forget_probe()
        with suppress(self._ray.exceptions.RayError, ConnectionError):
            self._ray.kill(member.actor)

    # ---- what workers say

    def _listen(self, timeout_s: float) -> None:
        """Take the oldest answer of each worker that has one."""
        members = {member.calls[0]: member for member in self._crew if member.calls}
        if not members:
            time.sleep(timeout_s)
            return
        calls = list(members)
        with self._connected():
            done, _ = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
            if done:
                done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in done:
            self._hear(members[call])

    def _hear(self, member: _Member) -> None:
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(member.calls.popleft())
        except ConnectionError as error:
            raise _gone(error) from error
        except errors.RayTaskError as error:  # what a run raises is an answer: this was raised around it
            self._bury(member, Failure.of(error.cause))
        except errors.OutOfMemoryError as error:
            self._bury(member, Failure("memory", f"{member}: {_reason(error)} Train fewer runs at a time."))
        except errors.ActorUnavailableError:  # its node is gone, perhaps, or the way to it
            self._bury(member, Lost(f"{member}: it cannot be reached any more."))
        except errors.RayError as error:
            self._bury(member, Lost(f"{member}: {_reason(error)}"))
        else:
            self._understand(member, answer)

    def _bury(self, member: _Member, event: Failure | Lost) -> None:
        """Forget a worker that is gone, or of which we cannot tell what it is at, and report its task."""
        self._dismiss(member)
        self._looked = -float("inf")
        if member.state == "starting":
            self._look()
            self._false_starts[member.node.id] += 1
            if self._false_starts[member.node.id] >= _FALSE_STARTS and member.node.id in self._nodes:
                why = event.reason if isinstance(event, Lost) else event.message
                self._refuse(member.node, f"workers end as soon as they begin: {why}")
        elif isinstance(event, Lost) and member.state == "beginning" and member.waiting and not member.waiting.is_moved:
            # It may have died long ago, while it was idle, which nobody noticed.
            self._waiting.appendleft(replace(member.waiting, is_moved=True))
        else:
            self._report(member, event)

    def _understand(self, member: _Member, answer: object) -> None:
        match answer:
            case None:  # a call too many: the run had ended
                pass
            case Introduction():
                self._meet(member, answer)
            case Begun():
                member.state = "working"
            case Unfit():
                assert member.waiting is not None
                self._refuse(member.node, _other_data(member.waiting.task, answer))
                self._waiting.appendleft(member.waiting)
                self._dismiss(member)
            case Saved() | Finished() if answer.files:
                self._keep(member, answer)
            case _:
                self._pass_on(member, answer)  # type: ignore[arg-type]

    def _meet(self, member: _Member, there: Introduction) -> None:
        """Let a worker take part if it has what we have."""
        member.forget_probe()
        member.pid = there.pid
        differences = list(_differences(here=self._copy, there=there.copy))
        if differences:
            self._refuse(member.node, f"{'; '.join(differences)}. Install the same on all machines.")
            self._dismiss(member)
            return
        member.is_shared = there.sees_probe if self._shared_folder is None else self._shared_folder
        member.state = "idle"
        del self._false_starts[member.node.id]

    def _keep(self, member: _Member, event: Saved | Finished) -> None:
        """Put files that came with an event where they would be if the worker had this folder, then pass it on."""
        assert member.task is not None and isinstance(member.task.work, Training)
        try:
            _write(member.task.work.folder, event)
        except HrgError as error:
            self._bury(member, Failure.of(error))
        else:
            self._pass_on(member, replace(event, files=()))

    def _pass_on(self, member: _Member, event: Event | Failure) -> None:
        self._report(member, event)
        if isinstance(event, Failure) and event.kind != "usage":
            # It may have left memory or a device in any state: a new process takes this one's place.
            self._dismiss(member)
        elif isinstance(event, ENDS):
            member.state, member.waiting = "idle", None
        else:
            member.calls.append(member.actor.next.remote())

    def _report(self, member: _Member, event: Event | Failure | Lost) -> None:
        if member.task is not None:
            self._reports.append(Report(member.task.key, member.task.attempt, event, str(member)))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise _gone(error) from error


@dataclass(frozen=True)
class _Node:
    """A machine of the cluster.

    Attributes:
        room: Workers that it can hold.
    """

    id: str
    host: str
    room: int


def _node(told: Mapping[str, Any], threads: int, gpus: float) -> _Node:
    has = told["Resources"]
    room = int(has.get("CPU", 0) // threads)
    if gpus:
        # A run is on one GPU, or has some of its own.
        room = min(room, int(has.get("GPU", 0)) * int(1 / gpus) if gpus < 1 else int(has.get("GPU", 0) // gpus))
    return _Node(told["NodeID"], told["NodeManagerHostname"], room)


@dataclass(frozen=True)
class _Waiting:
    """A task that waits for a worker; `is_moved` if one was gone before it began."""

    task: Task
    is_moved: bool = False


@dataclass(eq=False)
class _Member:
    """A worker as the driver knows it.

    Attributes:
        calls: Not answered yet, oldest first. They are answered in this order.
    """

    actor: Any
    node: _Node
    probe: Probe | None
    calls: deque[Any]
    state: Literal["starting", "idle", "beginning", "working"] = "starting"
    waiting: _Waiting | None = None
    is_shared: bool = False
    pid: int = 0

    @property
    def task(self) -> Task | None:
        return self.waiting.task if self.waiting is not None else None

    def forget_probe(self) -> None:
        if self.probe is not None:
            self.probe.path.unlink(missing_ok=True)
            self.probe = None

    def __str__(self) -> str:
        return f"{self.node.host} pid {self.pid}" if self.pid else self.node.host


# ---- files of runs where folders are not shared


def _files_to_go_on(folder: Path) -> Files:
    from hiresnet_graph.train.checkpoint import checkpoint_files

    return checkpoint_files(folder)


def _write(folder: Path, event: Saved | Finished) -> None:
    """Write what came from a worker into the folder of its run."""
    from hiresnet_graph.train.checkpoint import drop_checkpoints, store

    if isinstance(event, Saved):
        store(folder, event.files)
        return
    make_folder(folder)
    for name, content in sorted(event.files, key=lambda file: file[0] == RESULT):  # the result last
        write_atomic(folder / name, content)
    drop_checkpoints(folder)


# ---- whether a worker is like us


def _differences(here: Copy, there: Copy) -> Iterator[str]:
    for name in ("hiresnet_graph", "torch", "python"):
        was, is_ = getattr(here, name), getattr(there, name)
        if was != is_:
            yield f"{name} is {is_} there and {was} here"
    if here.code != there.code and here.hiresnet_graph == there.hiresnet_graph:
        yield f"the source of hiresnet_graph {here.hiresnet_graph} has hash {there.code} there and {here.code} here"


def _other_data(task: Task, there: Unfit) -> str:
    """Why a worker's key of a run is not ours."""
    if there.message:
        return there.message
    assert isinstance(task.work, Training)
    request = task.work.request
    fingerprint = key_and_fingerprint(request)[1]
    if fingerprint != there.fingerprint:
        return (
            f"data '{request.data.kind}' is other data there: its fingerprint is {there.fingerprint[:12]} there and "
            f"{fingerprint[:12]} here. Copy the same files to all machines."
        )
    return (
        f"run '{request.label}' has key {there.key[:12]} there and {task.key[:12]} here: the code of your own blocks "
        "and operations differs. Install the same on all machines."
    )


# ---- Ray


def _import_ray() -> Any:
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _PRINTED)
    try:
        import ray
    except ImportError:
        raise MissingToolError(
            "a Ray cluster needs the package ray. Install: python -m pip install 'hiresnet-graph[ray]'."
        ) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        UsageError: There is none, or it does not take us.
    """
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _LOCAL_STORE}
    elif address != "auto":
        _check_address(address)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at '{address}' " if address else ""
        raise UsageError(
            f"the Ray cluster {where}cannot be used: {_reason(error)} "
            "Start one with 'ray start --head', or leave the address out to use this machine alone."
        ) from error
    finally:
        if is_main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray sets its own


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"the address of a Ray cluster is 'auto', 'HOST:PORT' or 'ray://HOST:PORT', not '{address}'.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at '{address}': {error}. Ask 'ray status' on a machine of the cluster, start "
            "one with 'ray start --head', or leave the address out to use this machine alone."
        ) from None


def _gone(error: BaseException) -> RunError:
    return RunError(
        f"the Ray cluster is gone: {_reason(error)} Finished runs and checkpoints are kept; "
        "the same command goes on from there."
    )


def _reason(error: BaseException) -> str:
    """What an error of Ray comes down to, as one sentence."""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d+m", "", str(error)).splitlines() if line.strip()]
    why = [line for line in lines if line.startswith("The actor is dead because ")]
    text = why[0].removeprefix("The actor is dead because ").split(". ")[0] if why else (lines or [""])[-1]
    return (text or type(error).__name__).rstrip(".") + "."
