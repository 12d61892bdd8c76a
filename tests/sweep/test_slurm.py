import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import MissingToolError, RunError, UsageError
from hiresnet_graph.sweep.executors import Failure, LocalExecutor, Lost, TaskReport
from hiresnet_graph.sweep.executors import slurm as slurm_module
from hiresnet_graph.sweep.executors.mailbox import Mailbox
from hiresnet_graph.sweep.executors.slurm import SlurmExecutor
from hiresnet_graph.sweep.executors.slurm_jobs import parse_slurm_options
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.train import EpochDone, Finished, Paused, Saved, Started
from tests.sweep.real_studies import Watched, real_study, trained, weights
from tests.sweep.test_local import collected, has_ended, is_last, task, worker_of

submitit = pytest.importorskip("submitit")

ROOT = str(Path(__file__).parents[2])


def test_messages_arrive_once_and_torn_ones_are_skipped(tmp_path: Path) -> None:
    mailbox, reader = Mailbox(tmp_path / "box"), Mailbox(tmp_path / "box")
    assert reader.read() == []
    mailbox.write({"a": 1})
    mailbox.write("b")
    assert reader.read() == [{"a": 1}, "b"] and reader.read() == []
    with mailbox.path.open("ab") as file:  # a writer that was killed
        file.write(b"\n0123abcd gASV")
    assert reader.read() == []
    mailbox.write("c")
    assert reader.read() == ["c"] and Mailbox(mailbox.path).read() == [{"a": 1}, "b", "c"]


def test_options_are_those_of_sbatch() -> None:
    assert parse_slurm_options("partition=gpu, time=2:00:00,gres=gpu:1,shard:2,mem_per_cpu=2G") == {
        "partition": "gpu",
        "time": "2:00:00",
        "gres": "gpu:1,shard:2",
        "mem-per-cpu": "2G",
    }
    for enough in ("0", "3", "3:00", "0:03:00", "1-0", "1-12:30", "0-00:03", "UNLIMITED"):
        assert parse_slurm_options(f"time={enough}") == {"time": enough}
    for text, message in {
        "gpu": "must be options of sbatch like 'partition=gpu,time=60,gres=gpu:1', not 'gpu'",
        "time=1": r"time=1 is too short: a worker saves its run 60 s before the end.* Set 3 minutes or more",
        "time=1:30": r"time=1:30 is too short",
        "time=00:02:59": r"time=00:02:59 is too short",
        "array=0-9": "'array' cannot be set: '--jobs' sets the number of jobs",
        "qos=a,qos=b": "'qos' is set twice",
    }.items():
        with pytest.raises(UsageError, match=message):
            ExecutionOptions("slurm", slurm=text).check()
    with pytest.raises(UsageError, match="'time=9' requires the executor 'slurm'"):
        ExecutionOptions(slurm="time=9").check()
    with pytest.raises(UsageError, match="workers of a Slurm cluster compute each run by itself"):
        ExecutionOptions("slurm", stack=8).check()


def test_what_is_missing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"needs 'sbatch', which is not on this machine\. Run the comm"):
        ExecutionOptions("slurm").make_executor(("cpu",), 1, tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingToolError, match=r"python -m pip install submitit\."):
        ExecutionOptions("slurm").make_executor(("cpu",), 1, tmp_path)


# ---- with processes of this machine as jobs


class LocalJobs:
    """Jobs that submitit starts on this machine."""

    def __init__(self, folder: Path, name: str, jobs: dict[str, Any]) -> None:
        self.executor, self.jobs = submitit.LocalExecutor(folder), jobs

    def submit(self, serve: Callable[[str], None], slots: Sequence[str]) -> list[str]:
        found = [self.executor.submit(serve, slot) for slot in slots]
        self.jobs |= {job.job_id: job for job in found}
        return [job.job_id for job in found]

    def states(self) -> Mapping[str, str]:
        return {name: "COMPLETED" if job.done() else "RUNNING" for name, job in self.jobs.items()}

    def cancel(self, ids: Sequence[str]) -> None:
        for name in ids:
            self.jobs[name]._process.terminate()
            self.jobs[name]._process.wait(20)

    def logs(self, job: str) -> Path:
        return self.executor.folder / f"{job}_*_log.out"


def test_a_driver_that_comes_back_finds_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setattr(slurm_module, "_STATES_S", 0.5)
    jobs: dict[str, Any] = {}
    runs = tmp_path / "runs"
    make = partial(SlurmExecutor, tmp_path, make_jobs=partial(LocalJobs, jobs=jobs))
    first = make().__enter__()
    for label in ("none", "usage", "slow"):
        first.submit(task(label, runs))
    found = collected(first, lambda report: report.key == task("slow", runs).key and isinstance(report.event, Started))
    assert [type(report.event) for report in found if is_last(report)] == [Finished, Failure]
    del first  # a killed driver; the job is at work

    second = make().__enter__()
    assert len(jobs) == 1
    for label in ("slow", "full"):
        second.submit(task(label, runs))
    found = collected(second, lambda report: isinstance(report.event, EpochDone))
    assert isinstance(found[0].event, Started) and found[0].key == task("slow", runs).key  # reported again
    os.kill(worker_of(runs / "slow0"), signal.SIGUSR2)  # as at the limit of time
    found += collected(second, is_last, 2)
    assert [type(report.event) for report in found if is_last(report)] == [Paused, Finished]  # a new job
    assert len(jobs) == 2 and len({worker_of(folder) for folder in runs.iterdir()}) == 2
    second.submit(task("dies", runs))
    (lost,) = (report.event for report in collected(second, is_last) if is_last(report))
    assert isinstance(lost, Lost) and "its job has ended (completed). Its log: " in lost.reason
    second.close()
    assert all(has_ended(worker_of(folder)) for folder in runs.iterdir()) and all(job.done() for job in jobs.values())
    assert not list((tmp_path / "slurm" / "workers").iterdir())


def test_jobs_that_never_answer_end_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(LocalJobs):
        def submit(self, serve: Callable[[str], None], slots: Sequence[str]) -> list[str]:
            self.jobs |= dict.fromkeys(slots, "")
            return list(slots)

        def states(self) -> Mapping[str, str]:
            return dict.fromkeys(self.jobs, "FAILED")

    monkeypatch.setattr(slurm_module, "_STATES_S", 0.0)
    monkeypatch.setattr(Broken, "cancel", lambda self, ids: None)
    with SlurmExecutor(tmp_path, make_jobs=partial(Broken, jobs={})) as executor:
        executor.submit(task("none", tmp_path))
        with pytest.raises(RunError, match=r"3 jobs in a row have ended .* \(failed\). Nodes must see .*_log.out"):
            executor.reports(5)


# ---- with a Slurm of one node

CONF = """
ClusterName=hrg
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """munged, slurmctld and slurmd of this machine, with all files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, os.uname().nodename.split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        ports = [free_port(), free_port()]
        (folder / "slurm.conf").write_text(
            CONF.format(host=self.host, user=getpass.getuser(), folder=folder, ports=ports)
        )
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
        files |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
        self.daemons = {}
        # `-f`: even if others may write into the folder of temporary files.
        self.start("munged", "--foreground", "-f", *(f"--{name}={path}" for name, path in files.items()))
        wait_for(files["socket"].exists)
        self.start("slurmctld", "-D", "-i")
        self.start("slurmd", "-D", "-N", self.host)
        wait_for(lambda: "idle" in self.shell("sinfo", "--noheader"))

    def start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen([name, *options], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def shell(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True).stdout


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if os.geteuid() or any(shutil.which(name) is None for name in ("munged", "slurmctld", "slurmd", "sbatch")):
        pytest.skip("needs slurm-wlm and munge, and to be root: apt-get install slurm-wlm munge")
    # pytest's own folders are closed to munge's clients.
    with tempfile.TemporaryDirectory(prefix="slurm") as name, pytest.MonkeyPatch.context() as patch:
        Path(name).chmod(0o755)
        patch.setenv("SLURM_CONF", f"{name}/slurm.conf")
        patch.setenv("PYTHONPATH", ROOT)
        found = Slurm(Path(name))
        yield found
        subprocess.run(["scancel", "--user", getpass.getuser()])
        wait_for(lambda: not found.shell("squeue", "--noheader"))
        for daemon in list(found.daemons):
            found.daemons[daemon].terminate()
            found.daemons[daemon].wait()


class WatchedSlurm(Watched, SlurmExecutor):
    """Calls a function with each report."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_is_cancelled_and_slurmd_killed_and_the_bits_are_the_same(
    tmp_path: Path, tiny: hrg.Architecture, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = real_study(tiny, epochs=60)  # long enough to be disturbed, on a fast machine, too
    expected = trained(tmp_path / "local", plan, LocalExecutor(2))
    queues: list[str] = []
    cancelled: list[str] = []

    def disturb(report: TaskReport) -> None:
        if isinstance(report.event, Saved) and report.event.epoch == 2 and not cancelled:
            queues.append(slurm.shell("squeue"))
            cancelled.append(report.worker.rpartition(" ")[2])
            slurm.shell("scancel", cancelled[0])
        if isinstance(report.event, Saved) and report.event.epoch == 4 and len(queues) == 1:
            slurm.kill("slurmd")
            queues.append(slurm.shell("squeue"))
            slurm.start("slurmd", "-D", "-N", slurm.host)

    executor = WatchedSlurm(tmp_path / "slurm", disturb, options={"time": "10"}, workers=2)
    assert trained(tmp_path / "slurm", plan, executor) == expected
    assert weights(tmp_path / "slurm") == weights(tmp_path / "local") and len(weights(tmp_path / "slurm")) == 4
    # The first job has left its node; one in its place may wait already.
    assert [re.findall(r"main hrg-\w+ +root +(R|CG)\b", queue).count("R") for queue in queues] == [2, 1]
    assert all(queue.count("main hrg-") >= 2 for queue in queues)
    with capsys.disabled():
        print("", *queues, sep="\n")
    paused = [report for report in executor.seen if isinstance(report.event, Paused | Lost)]
    assert {report.worker.rpartition(" ")[2] for report in paused} >= set(cancelled)
    assert all(one.event.epoch >= 2 for one in executor.seen if one.attempt > 1 and isinstance(one.event, Started))
    assert "Bypassing" not in "".join(path.read_text() for path in tmp_path.glob("slurm/slurm/jobs/*.out"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_requeued_job_resumes_its_run_and_a_wrong_partition_is_refused(
    tmp_path: Path, tiny: hrg.Architecture, slurm: Slurm
) -> None:
    with (
        pytest.raises(UsageError, match=r"sbatch refuses the job: invalid partition specified: gpu\. Change"),
        SlurmExecutor(tmp_path, {"partition": "gpu"}),
    ):
        pass
    plan = real_study(tiny, epochs=6)
    expected = trained(tmp_path / "local", plan, LocalExecutor(2))
    requeued: list[str] = []

    def requeue(report: TaskReport) -> None:
        if isinstance(report.event, Saved) and report.event.epoch == 2 and not requeued:
            requeued.append(report.worker.rpartition(" ")[2])
            slurm.shell("scontrol", "requeue", requeued[0])

    executor = WatchedSlurm(tmp_path / "slurm", requeue, options={"time": "10", "begin": "now"}, workers=1)
    assert trained(tmp_path / "slurm", plan, executor) == expected
    assert len(requeued) == 1 and weights(tmp_path / "slurm") == weights(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_job_reaches_its_time_limit(
    tmp_path: Path, tiny: hrg.Architecture, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm signals a job one to two minutes before the limit of three; the run continues in a new job at its step."""
    trained(tmp_path / "short", real_study(tiny, epochs=4), LocalExecutor(1))
    times = [row.record.time_s for row in read_results(tmp_path / "short").rows if row.record is not None]
    # Four minutes in all, if the machine stays as fast.
    plan = real_study(tiny, epochs=round(240 * 4 / sum(times)))
    ended: list[str] = []

    def at_the_end(report: TaskReport) -> None:
        if isinstance(report.event, Paused):
            ended.append(slurm.shell("squeue", "--Format=JobID,State,TimeUsed,TimeLimit"))

    executor = WatchedSlurm(tmp_path / "slurm", at_the_end, options={"time": "3"}, workers=1)
    found = trained(tmp_path / "slurm", plan, executor)
    with capsys.disabled():
        print("", *ended, sep="\n")
    assert ended and "3:00" in ended[0]
    jobs = [report.worker for report in executor.seen if isinstance(report.event, Started)]
    assert len(set(jobs)) >= 2 and not any(isinstance(report.event, Lost) for report in executor.seen)
    again = [one.event for one in executor.seen if one.attempt > 1 and isinstance(one.event, Started)]
    assert again and all(event.epoch > 0 for event in again)
    assert found == trained(tmp_path / "local", plan, LocalExecutor(2))
    assert weights(tmp_path / "slurm") == weights(tmp_path / "local")
