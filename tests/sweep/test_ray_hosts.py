"""A Ray cluster of two hosts: namespaces of Linux with their own networks, processes, names and folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
STORE = 80 * 2**20
# Its own files: the folder of the study, of Ray and of the user, and the shared memory of the machine.
HOST = """
set -e
hostname {name}
for folder in {folder} /dev/shm; do mount -t tmpfs tmpfs $folder; done
mkdir {folder}/home {folder}/work
export HOME={folder}/home TMPDIR={folder} PYTHONPATH={root} RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
cd {folder}/work
{command}
"""
NODE = "--num-cpus=1 --object-store-memory={store} --node-ip-address={ip} --disable-usage-stats"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Two networks with a cable between them, and the address of each."""
    if not (shutil.which("ip") and shutil.which("unshare")) or os.geteuid() != 0:
        pytest.skip("network namespaces require root, ip and unshare")
    addresses = {f"hrg{os.getpid()}{letter}": f"10.231.0.{i}" for i, letter in enumerate("ab", 1)}
    first, second = addresses
    made = []
    try:
        for name in addresses:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces are not permitted: {error.stderr.strip()}")
            made.append(name)
        ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        for name, address in addresses.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "route", "add", "default", "dev", "eth0")
        yield addresses
    finally:
        for name in made:
            ip("netns", "delete", name)


@contextmanager
def host(name: str, folder: Path, command: str) -> Iterator[subprocess.Popen[str]]:
    """A command on a host; all processes of the host end with it."""
    script = HOST.format(name=name, folder=folder, root=ROOT, command=command)
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen(
        ["ip", "netns", "exec", name, "unshare", *spaces, "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a host, as by pulling its plug."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_continues_when_a_host_is_killed(hosts: dict[str, str]) -> None:
    """Checkpoints and results of the killed host went over the network: the hosts share no folder."""
    (first, head), (second, other) = hosts.items()
    with tempfile.TemporaryDirectory(prefix="hrg", dir="/tmp") as name:  # short, for the names of sockets
        folder = Path(name)
        start = f"{RAY} start --head --port=6379 --include-dashboard=false --temp-dir={folder}/ray"
        driver = f"{sys.executable} -m tests.sweep.ray_host {folder}/study {head}:6379"
        own, theirs = (NODE.format(store=STORE, ip=address) for address in (head, other))
        join = f"until {RAY} start --address={head}:6379 {theirs} --block; do sleep 2; done"
        with (
            host(first, folder, f"{start} {own} >/dev/null; {driver}") as one,
            host(second, folder, f"({join}) >/dev/null") as two,
        ):
            assert one.stdout is not None
            lines = iter(one.stdout.readline, "")
            assert next(line for line in lines if line.startswith("host ")) == f"host {second}\n"
            kill(two)
            result = json.loads(next(line for line in lines if line.startswith("{")))
        assert not list(folder.iterdir())  # nothing reached the file system of this machine
    assert result == {
        "equal": True,
        "runs": 4,
        "hosts": [first, second],
        "lost": [second],
        "resumed_at": result["resumed_at"],
    }
    # Only the epochs since the last checkpoint were repeated.
    assert len(result["resumed_at"]) == 1 and result["resumed_at"][0] >= 2
