"""The driver on one of two hosts without a shared folder: `python -m tests.sweep.ray_host FOLDER ADDRESS`.

Prints `host NAME` once a run on the other host has saved its second epoch; then that host is expected to be killed.
Prints the results as JSON at the end.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import hiresnet_graph as hrg
from hiresnet_graph.sweep.executors import LocalExecutor, Lost, TaskReport
from hiresnet_graph.sweep.executors.ray import RayExecutor
from hiresnet_graph.train import Saved, Started
from tests.conftest import TINY
from tests.sweep.real_studies import Watched, real_study, trained, weights


class WatchedRay(Watched, RayExecutor):
    """Calls a function with each report."""


def main(folder: Path, address: str) -> None:
    plan = real_study(hrg.loads(TINY, "tiny.yaml"), epochs=12)
    hosts: set[str] = set()

    def watch(report: TaskReport) -> None:
        host = report.worker.partition(" pid ")[0]
        is_new = host not in hosts and host != platform.node()
        if isinstance(report.event, Saved) and report.event.epoch >= 2 and is_new:
            hosts.add(host)
            print(f"host {host}", flush=True)

    executor = WatchedRay(address, watch)
    with executor:
        while executor.slots < 2:  # until the other host has joined
            time.sleep(0.5)
        found = trained(folder / "ray", plan, executor)
    expected = trained(folder / "local", plan, LocalExecutor(1))
    again = [one.event.epoch for one in executor.seen if one.attempt > 1 and isinstance(one.event, Started)]
    results = {
        "equal": found == expected and weights(folder / "ray") == weights(folder / "local"),
        "runs": len(weights(folder / "ray")),
        "hosts": sorted({report.worker.partition(" pid ")[0] for report in executor.seen}),
        "lost": [one.worker.partition(" pid ")[0] for one in executor.seen if isinstance(one.event, Lost)],
        "resumed_at": again,
    }
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
