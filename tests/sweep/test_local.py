import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.sweep.executors import Failure, LocalExecutor, Lost, Task, TaskReport, local
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train import Finished, Paused, Started
from hiresnet_graph.train.record import LEDGER
from tests.sweep.works import Quick, study

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")


def task(label: str, folder: Path, seed: int = 0) -> Task:
    key, request = next(iter(study([label], [seed]).requests.items()))
    return Task(key, 1, Quick(request, folder / f"{label}{seed}"))


def collected(executor: LocalExecutor, until: Callable[[TaskReport], bool], times: int = 1) -> list[TaskReport]:
    """The reports up to the first ones of some kind."""
    found: list[TaskReport] = []
    deadline = time.monotonic() + 60
    while sum(map(until, found)) < times:
        assert time.monotonic() < deadline, found
        found += executor.reports(0.5)
    return found


def is_last(report: TaskReport) -> bool:
    return isinstance(report.event, Finished | Paused | Failure | Lost)


def worker_of(folder: Path) -> int:
    """The process that has worked on the run in a folder."""
    (name,) = (path.name for path in folder.glob("attempt*"))
    return int(name.partition("-")[2])


def has_ended(pid: int) -> bool:
    """Whether a process has ended; it may not have been waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_worker_that_ends_is_replaced(tmp_path: Path) -> None:
    with LocalExecutor(1) as executor:
        for label in ("none", "full", "usage", "in"):
            executor.submit(task(label, tmp_path))
        found = collected(executor, lambda report: report.key == task("in", tmp_path).key and is_last(report))
        ends = [report.event for report in found if is_last(report)]
        assert [type(event) for event in ends] == [Finished, Finished, Failure, Finished]
        assert isinstance(ends[2], Failure) and (ends[2].kind, ends[2].message) == ("usage", "the network is wrong.")
        assert 'raise UsageError("the network is wrong.")' in ends[2].traceback
        assert {report.worker for report in found} == {"cpu 0"}
        # all in one process
        assert len({worker_of(folder) for folder in tmp_path.iterdir()}) == 1

        executor.submit(task("dies", tmp_path))
        executor.submit(task("exits", tmp_path))
        executor.submit(task("silent", tmp_path))
        executor.submit(task("hungry", tmp_path))
        executor.submit(task("out", tmp_path))
        found = collected(executor, lambda report: report.key == task("out", tmp_path).key and is_last(report))
        ends = [report.event for report in found if is_last(report)]
        assert ends[0] == Lost("the worker process was killed, perhaps because memory ran out.")
        assert ends[1] == Lost("the worker process ended with exit code 7.")
        assert ends[2] == Failure("error", "the run ended without a result (its last event: Saved).")
        assert isinstance(ends[3], Failure) and ends[3].kind == "memory"
        assert isinstance(ends[4], Finished)
        # after a failure, a worker is replaced
        workers = {worker_of(tmp_path / f"{label}0") for label in ("dies", "exits", "silent", "hungry", "out")}
        assert len(workers) == 5
    assert all(has_ended(worker_of(folder)) for folder in tmp_path.iterdir())


def test_a_stopped_run_saves(tmp_path: Path) -> None:
    with LocalExecutor(2) as executor:
        for seed in range(4):
            executor.submit(task("slow", tmp_path, seed))
        collected(executor, lambda report: isinstance(report.event, Started), times=2)
        executor.stop()
        found = collected(executor, is_last, times=2)
        assert [report.event for report in found if is_last(report)] == [Paused(1), Paused(1)]
        assert executor.reports(0.3) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slow0", "slow1"]


def test_a_worker_saves_on_sigterm_and_another_resumes(tmp_path: Path) -> None:
    plan = study(["slow"], [0])
    with LocalExecutor(1) as executor, Ledger.open(tmp_path) as ledger:
        ledger.join(plan)

        def end_it(step: object) -> None:
            folder = tmp_path / "runs" / "slow-seed0"
            if len(list(folder.glob("attempt*"))) == 1:
                os.kill(worker_of(folder), signal.SIGTERM)

        train_all(ledger, plan.requests, executor, work=Quick, progress=end_it)
        assert (ledger.runs()[0].state, ledger.runs()[0].attempts) == ("complete", 2)
    assert len(list((tmp_path / "runs" / "slow-seed0").glob("attempt*"))) == 2


def test_a_silent_worker_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "HEARTBEAT_S", 0.1)
    with LocalExecutor(1, silence_s=1.5) as executor:
        executor.submit(task("stuck", tmp_path))
        collected(executor, lambda report: isinstance(report.event, Started))
        # the run sends nothing for long, but its worker does
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            assert not any(isinstance(report.event, Lost) for report in executor.reports(0.1))
        pid = worker_of(tmp_path / "stuck0")
        os.kill(pid, signal.SIGSTOP)
        (lost,) = collected(executor, is_last)
        assert lost.event == Lost("the worker process sent nothing for 1.5 s; it was ended.")
        assert has_ended(pid)
        executor.submit(task("none", tmp_path))
        assert isinstance(collected(executor, is_last)[-1].event, Finished)


def test_each_worker_has_its_cores_and_threads(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    assert local.core_groups(len(cores), 1) == {i: {core} for i, core in enumerate(cores)}
    assert local.core_groups(1, len(cores)) == {0: set(cores)}
    assert local.core_groups(len(cores) + 1, 1) == {}
    assert local.core_groups(1, max(1, len(cores) // 4)) == {} or len(cores) == 1
    with pytest.raises(UsageError, match="at least 1 worker with 1 thread and 1 device is required, not 0, 1 and 1"):
        LocalExecutor(0)


def test_each_worker_sees_its_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.worker_environment("cuda:1", 2)["CUDA_VISIBLE_DEVICES"] == "1"
    assert local.worker_environment("cuda", 2)["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in local.worker_environment("cpu", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert local.worker_environment("cuda:1", 1)["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def test_a_study_with_failures_of_all_kinds(tmp_path: Path) -> None:
    plan = study(["falls", "dies", "none", "usage"], [0])
    with LocalExecutor(2) as executor, Ledger.open(tmp_path) as ledger:
        ledger.join(plan)
        with pytest.raises(RunError) as error:
            train_all(ledger, plan.requests, executor, work=Quick)
    assert "run 'dies-seed0': the worker process was killed" in str(error.value)
    states = {run.name: (run.state, run.attempts) for run in read_status(tmp_path).runs}
    assert states == {
        "falls-seed0": ("complete", 3),
        "dies-seed0": ("failed", 3),
        "none-seed0": ("complete", 1),
        "usage-seed0": ("failed", 1),
    }
    assert [row.state for row in read_results(tmp_path).rows] == ["complete", "failed", "complete", "failed"]


DRIVER = """
import sys
from pathlib import Path
from hiresnet_graph.sweep.driver import Interrupted
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.ledger import Ledger
from tests.sweep.works import Quick, study

if __name__ == "__main__":
    plan = study(["none", "slow"], [0])
    try:
        with LocalExecutor(2) as executor, Ledger.open(sys.argv[1]) as ledger:
            ledger.join(plan)
            train_all(ledger, plan.requests, executor, work=Quick,
                      progress=lambda step: print(step.state, step.name, flush=True))
    except Interrupted as stop:
        print(stop, flush=True)
        sys.exit(130)
"""


def test_a_script_without_a_main_guard_is_reported(tmp_path: Path) -> None:
    body = DRIVER.partition('if __name__ == "__main__":\n')
    (tmp_path / "script.py").write_text(body[0] + "if True:\n" + body[2].replace("work=Quick", "work=Quick, retries=0"))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "study"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert "slow-seed0': the worker process could not start (exit code 1)" in done.stderr
    assert "'if __name__ == \"__main__\":' around its code" in done.stderr


def wait_for_attempt(ledger: Path, label: str) -> None:
    """Wait until the ledger has an attempt at a run."""
    deadline = time.monotonic() + 10
    while True:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as reader:
            rows = reader.execute("SELECT attempts FROM runs WHERE folder LIKE ?", (f"%{label}%",)).fetchall()
        if rows and rows[0][0] == 1:
            return
        assert time.monotonic() < deadline, rows
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["ctrl-c", "terminate", "kill"])
def test_no_worker_outlives_its_driver(tmp_path: Path, how: str) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, tmp_path / "driver.py", tmp_path / "study"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as driver:
        assert driver.stdout is not None and driver.stderr is not None
        for line in driver.stdout:
            if line == "running slow-seed0\n":
                break
        wait_for_attempt(tmp_path / "study" / LEDGER, "slow")
        if how == "ctrl-c":
            os.killpg(driver.pid, signal.SIGINT)
        else:
            driver.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
        # all pipes are closed: no worker is left
        rest, errors = driver.communicate(timeout=30)
    slow = tmp_path / "study" / "runs" / "slow-seed0"
    if how != "kill":
        assert driver.returncode == 130, errors
        assert "of 2 runs are finished and kept in" in rest and errors == ""
        assert (slow / "saved").read_text() == "1"
    deadline = time.monotonic() + 10
    while not has_ended(worker_of(slow)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with Ledger.open(tmp_path / "study") as ledger:
        state = ledger.runs()[1]
        assert (state.state, state.attempts, state.paused_at) == ("waiting", 1, None if how == "kill" else 1)
