"""Ledgers on network file systems: the driver writes them without shared memory, and readers copy them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep import snapshot
from hiresnet_graph.sweep.database import open_for_reading
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.train.record import LEDGER
from tests.sweep.works import epoch, record, study

ROOT = Path(__file__).parents[2]
SFTP = Path("/usr/lib/openssh/sftp-server")
# Commits one run after the other, each with two epochs and its record; then waits until it is killed.
WRITER = """
import sys
from pathlib import Path
from hiresnet_graph.sweep import snapshot
from hiresnet_graph.sweep.ledger import Ledger
from tests.sweep.works import epoch, record, study

folder, mounts, runs = sys.argv[1:]
snapshot._MOUNTS = Path(mounts)
plan = study(("one",), range(int(runs)))
with Ledger.open(folder) as ledger:
    ledger.join(plan)
    print("joined", flush=True)
    for key, request in plan.requests.items():
        ledger.start_attempt(key, 1, "cpu 0")
        for number in (1, 2):
            ledger.record_epoch(key, 1, epoch(number))
        ledger.finish(key, 1, record(request))
        ledger.commit()
    sys.stdin.read()
"""


@contextmanager
def writer(folder: Path, mounts: Path, runs: int) -> Iterator[None]:
    """A process that fills a ledger, and is killed in the end."""
    command = [sys.executable, "-c", WRITER, str(folder), str(mounts), str(runs)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "joined\n"
            yield
        finally:
            process.kill()


def assert_consistent_while_written(folder: Path, times: int) -> None:
    """Read a ledger that is being written: every view has whole commits, and later ones have more of them."""
    counts = []
    while len(counts) < times or counts[-1] == 0:
        with open_for_reading(folder / LEDGER) as database:
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            states = dict(database.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())
            curves = database.execute("SELECT key, count(*) FROM curves GROUP BY key").fetchall()
        assert set(states) <= {"complete", "waiting"}
        assert len(curves) == states.get("complete", 0) and {number for _, number in curves} <= {4}
        counts.append(len(curves))
    assert counts == sorted(counts)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the table of mounts calls one of NFS."""
    folder = tmp_path / "a share"
    folder.mkdir()
    table = tmp_path / "mounts"
    table.write_text(f"disk / ext4 rw 0 0\nserver:/a {str(folder).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n")
    monkeypatch.setattr(snapshot, "_MOUNTS", table)
    return folder


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs", "fuse.glusterfs", "9p", "beegfs_nodev", "cifs"])
def test_network_file_systems_are_known(network: Path, kind: str) -> None:
    table = snapshot._MOUNTS
    table.write_text(table.read_text().replace("nfs4", kind))
    assert snapshot.is_on_network(network / LEDGER)
    assert not snapshot.is_on_network(network.parent / LEDGER)
    table.write_text(table.read_text().replace(kind, "fuseblk"))
    assert not snapshot.is_on_network(network / LEDGER)


def slow_copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(1 << 16):
            written.write(chunk)
            time.sleep(0.004)


@pytest.mark.parametrize("runs", [300, pytest.param(6000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("writes_to_network", [True, False])
def test_copies_are_consistent_while_the_ledger_is_written(
    network: Path, tmp_path: Path, writes_to_network: bool, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on another machine than the one to whose disk it is written; copies are slow, as over a network."""
    monkeypatch.setattr(snapshot.shutil, "copyfile", slow_copy)
    mounts = snapshot._MOUNTS if writes_to_network else Path("/proc/mounts")
    with writer(network / "study", mounts, runs):
        assert_consistent_while_written(network / "study", 4 if runs < 1000 else 20)
        assert (network / "study" / "ledger.sqlite-shm").exists() != writes_to_network
        assert read_status(network / "study").is_alive
        assert len(read_results(network / "study").rows) == runs
    # What a killed driver has committed is there for readers, and for the next driver.
    before = sum(run.state == "complete" for run in read_status(network / "study").runs)
    with Ledger.open(network / "study") as ledger:
        assert ledger.counts()["complete"] == before > 0


def test_readers_leave_the_folder_as_it_is(network: Path) -> None:
    plan = study()
    with Ledger.open(network) as ledger:
        ledger.join(plan)
        key = next(iter(plan.requests))
        ledger.start_attempt(key, 1, "cpu 0")
        ledger.record_epoch(key, 1, epoch(1))
        ledger.commit()
        before = {path.name: path.read_bytes() for path in network.iterdir()}
        assert read_status(network).runs[0].epoch == 1
        assert {path.name: path.read_bytes() for path in network.iterdir()} == before
        assert ledger.finish(key, 1, record(plan.requests[key]))
    assert sorted(path.name for path in network.iterdir()) == ["ledger.sqlite", "lock"]
    assert read_results(network).rows[0].state == "complete"


def test_a_damaged_ledger_is_reported(network: Path) -> None:
    with Ledger.open(network) as ledger:
        ledger.join(study())
    content = bytearray((network / LEDGER).read_bytes())
    content[4096:8192] = b"\xff" * 4096
    (network / LEDGER).write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        read_status(network)


def test_a_ledger_that_changes_all_the_time_is_not_read(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.open(network) as ledger:
        ledger.join(study())
    copy = snapshot._copy
    times = iter(range(10**9, 10**9 + 1000))

    def touched(path: Path, target: Path) -> None:
        copy(path, target)
        second = next(times)
        os.utime(path, (second, second))

    monkeypatch.setattr(snapshot, "_copy", touched)
    with pytest.raises(RunError, match=r"is being written all the time\. Try again"):
        read_status(network)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("sshfs") and SFTP.exists() and Path("/dev/fuse").exists()), reason="no sshfs")
@pytest.mark.parametrize("writes_to_network", [True, False])
def test_a_ledger_on_sshfs(tmp_path: Path, writes_to_network: bool) -> None:
    """A real network file system: the writer on it, or on the server itself; the reader always on it."""
    served, mount, connect = tmp_path / "served", tmp_path / "mount", tmp_path / "connect"
    served.mkdir()
    mount.mkdir()
    connect.write_text(f"#!/bin/sh\nexec {SFTP}\n")
    connect.chmod(0o755)
    subprocess.run(["sshfs", "-o", f"ssh_command={connect}", f"host:{served}", str(mount)], check=True, timeout=30)
    try:
        assert snapshot.is_on_network(mount / LEDGER)
        with writer((mount if writes_to_network else served) / "study", Path("/proc/mounts"), 3000):
            assert_consistent_while_written(mount / "study", 12)
        time.sleep(1)  # until the mount has written what the killed process left
        before = sum(run.state == "complete" for run in read_status(mount / "study").runs)
        with Ledger.open(mount / "study") as ledger:
            assert ledger.counts()["complete"] == before > 0
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=True, timeout=30)
