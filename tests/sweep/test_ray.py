import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import NpzData
from hiresnet_graph.errors import MissingToolError, UsageError
from hiresnet_graph.sweep.executors import Failure, LocalExecutor, Lost, Task, TaskReport, Training
from hiresnet_graph.sweep.executors import ray as ray_module
from hiresnet_graph.sweep.executors.ray import RayExecutor
from hiresnet_graph.train import (
    EpochDone,
    Finished,
    Paused,
    RunRequest,
    Saved,
    Started,
    identify_request,
)
from tests.sweep.real_studies import Watched, real_study, trained, weights
from tests.sweep.test_local import collected, has_ended, is_last, task, worker_of

ray = pytest.importorskip("ray")

STORE = 80 * 2**20
ROOT = str(Path(__file__).parents[2])


class WatchedRay(Watched, RayExecutor):
    """Calls a function with each report."""

    def said(self, kind: type) -> list[Any]:
        return [report.event for report in self.seen if isinstance(report.event, kind)]


def nothing(report: TaskReport) -> None:
    pass


def add_node(cluster: Any) -> None:
    """A node of one CPU, without the handler of SIGTERM that Ray sets in the process that starts it."""
    handler = signal.getsignal(signal.SIGTERM)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, which are ended afterwards."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handler = signal.getsignal(signal.SIGTERM)
        cluster = Cluster(
            True, head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        )
        signal.signal(signal.SIGTERM, handler)
        try:
            add_node(cluster)
            yield cluster
        finally:
            cluster.shutdown()


def test_without_ray_the_installation_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingToolError, match=r"python -m pip install ray\."):
        RayExecutor()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("somewhere", r"is 'auto', 'HOST:PORT' or 'ray://HOST:PORT', not 'somewhere'"),
        ("ray://127.0.0.1:1", r"no Ray cluster answers at 'ray://127\.0\.0\.1:1': .*refused"),
    ],
)
def test_a_wrong_address_is_reported_at_once(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message), RayExecutor(address):
        pass


@pytest.mark.slow
def test_a_local_ray_works_like_local_processes(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with RayExecutor(workers=1) as executor:
        assert executor.slots == 1
        for label in ("none", "full", "usage", "in"):
            executor.submit(task(label, tmp_path))
        found = collected(executor, is_last, 4)
        ends = [report.event for report in found if is_last(report)]
        assert [type(event) for event in ends] == [Finished, Finished, Failure, Finished], ends
        assert ends[2].kind == "usage" and ends[2].message == "the network is wrong."
        assert len({worker_of(folder) for folder in tmp_path.iterdir()}) == 1
        assert {report.worker.partition(" pid ")[2] for report in found} == {str(worker_of(tmp_path / "in0"))}

        for label in ("dies", "exits", "silent", "hungry", "out"):
            executor.submit(task(label, tmp_path))
        found = collected(executor, is_last, 5)
        ends = [report.event for report in found if is_last(report)]
        assert [type(event) for event in ends] == [Lost, Lost, Failure, Failure, Finished]
        assert "process has died" in ends[0].reason
        assert ends[2].message == "the run ended without a result." and ends[3].kind == "memory"

        executor.submit(task("slow", tmp_path))
        executor.submit(task("p1", tmp_path))
        collected(executor, lambda report: isinstance(report.event, EpochDone))
        executor.stop()
        found = collected(executor, is_last)
        assert isinstance(found[-1].event, Paused) and found[-1].key == task("slow", tmp_path).key
        pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("*/attempt*")]
    assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) == before
    assert all(map(has_ended, pids))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def node_of(cluster: Any, worker: str) -> Any:
    """The node of a worker; None for the node of the driver."""
    parent = parent_of(int(worker.partition(" pid ")[2]))
    for node in cluster.worker_nodes:
        if node.all_processes["raylet"][0].process.pid == parent:
            return node
    return None


@pytest.mark.slow
def test_all_processes_end_with_a_killed_driver(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.sweep.test_ray import RayExecutor, collected, task
with RayExecutor(workers=1) as executor:
    executor.submit(task("stuck", Path({str(tmp_path)!r})))
    collected(executor, lambda report: True)
    print("at work", flush=True)
    executor.reports(1000)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert driver.stdout is not None and driver.stdout.readline() == "at work\n"
    worker = worker_of(tmp_path / "stuck0")
    raylet = parent_of(worker)
    assert not has_ended(worker) and not has_ended(raylet)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 60
    while not (has_ended(worker) and has_ended(raylet)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_study_continues_when_a_node_is_removed(tmp_path: Path, tiny: hrg.Architecture, cluster: Any) -> None:
    plan = real_study(tiny, epochs=12)  # long enough to remove a node, on a busy machine, too
    expected = trained(tmp_path / "local", plan, LocalExecutor(2))
    removed: list[str] = []

    def take_away(report: TaskReport) -> None:
        node = None if removed else node_of(cluster, report.worker)
        if isinstance(report.event, Saved) and report.event.epoch == 2 and node is not None:
            assert executor.slots == 2
            cluster.remove_node(node, allow_graceful=False)
            removed.append(report.worker)

    executor = WatchedRay(cluster.address, take_away)
    try:
        assert trained(tmp_path / "ray", plan, executor) == expected
    finally:
        for _ in removed:
            add_node(cluster)
    (lost,) = (report for report in executor.seen if isinstance(report.event, Lost))
    assert lost.worker == removed[0] and re.search("cannot be reached|has died", lost.event.reason)
    # only the epochs since the last checkpoint were repeated
    (again,) = (one.event for one in executor.seen if one.attempt == 2 and isinstance(one.event, Started))
    assert again.epoch >= 2
    assert len({report.worker for report in executor.seen}) == 2
    assert weights(tmp_path / "ray") == weights(tmp_path / "local") and len(weights(tmp_path / "ray")) == 4
    assert not list(tmp_path.rglob(".shared-*"))


@pytest.mark.slow
def test_checkpoints_are_sent_where_folders_are_not_shared(
    tmp_path: Path, tiny: hrg.Architecture, cluster: Any
) -> None:
    plan = real_study(tiny, epochs=6)
    expected = trained(tmp_path / "local", plan, LocalExecutor(2))
    killed: list[int] = []

    def kill(report: TaskReport) -> None:
        folders = set((tmp_path / "ray" / "runs").iterdir()) if killed else set()
        assert all(len(list(folder.glob("checkpoints/*"))) <= 4 for folder in folders)
        if isinstance(report.event, Saved) and report.event.epoch == 3 and len(killed) < 2:
            assert report.event.files == ()
            assert len(list((tmp_path / "ray").glob("runs/*/checkpoints/*-0.json"))) >= 2
            killed.append(int(report.worker.partition(" pid ")[2]))
            os.kill(killed[-1], signal.SIGKILL)

    executor = WatchedRay(cluster.address, kill, shared_folder=False)
    assert trained(tmp_path / "ray", plan, executor) == expected
    assert len(killed) == 2 and len(executor.said(Lost)) == 2
    assert all(one.event.epoch >= 3 for one in executor.seen if one.attempt > 1 and isinstance(one.event, Started))
    assert weights(tmp_path / "ray") == weights(tmp_path / "local")
    ours, theirs = (sorted(path.name for path in (tmp_path / name).glob("runs/*/*")) for name in ("ray", "local"))
    assert ours == theirs


@pytest.mark.slow
def test_nodes_with_other_versions_are_refused(
    tmp_path: Path, tiny: hrg.Architecture, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, request = next(iter(real_study(tiny, epochs=1).requests.items()))
    own = ray_module.own_fingerprint()

    def message(key: str = key, request: RunRequest = request) -> str:
        """The message of a task that no node accepts; the first refused node is a warning."""
        with RayExecutor(cluster.address) as executor:
            for name in ("one", "two"):
                executor.submit(Task(key, 1, Training(request, tmp_path / "runs" / name)))
            with pytest.warns(RuntimeWarning, match="a node of the Ray cluster is left out"):
                first, second = collected(executor, is_last, 2)
            assert executor.slots == 1
        assert isinstance(first.event, Failure) and first.event.kind == "usage" and first.event == second.event
        assert first.event.message.count(f"{platform.node()}: ") == 2  # both nodes
        return first.event.message

    assert f"run 'original' has key {key[:12]} there and {'0' * 12} here" in message(key="0" * 24)
    missing = replace(request, data=NpzData(file=tmp_path / "here.npz"))
    assert "here.npz" in message(request=missing)
    identity = identify_request(request)._replace(data_fingerprint="0" * 64)
    monkeypatch.setattr("hiresnet_graph.train.identity.identify_request", lambda request: identity)
    assert "data 'digits' is other data there: its fingerprint is " in message(key="0" * 24)
    monkeypatch.setattr(ray_module, "own_fingerprint", lambda: own._replace(code="abc"))
    assert f"the source of hiresnet_graph {own.hiresnet_graph} has hash {own.code} there and abc here" in message()
    monkeypatch.setattr(ray_module, "own_fingerprint", lambda: own._replace(torch="1.0"))
    assert f"torch is {own.torch} there and 1.0 here" in message()
