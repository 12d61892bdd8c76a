"""Time, memory and size of the report of a large study: 64 subsets of edges, 5 seeds, 80 epochs.

    python -m benchmarks.report [--quick] [--json FILE]

The ledger is made of random accuracies, without training. Each command is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import finish, options, table, verdict
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.plan import make_plan
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.record import Environment, Epoch, RunRecord
from hiresnet_graph.train.request import RunRequest

EPOCHS, SEEDS = 80, 5
TARGET_S, TARGET_BYTES, TARGET_PAGE = 10, 10**9, 2 * 10**6
MACHINE = Environment(
    device="cpu",
    threads=1,
    channels_last=True,
    backend="eager",
    platform="none",
    python="3",
    torch="2",
    hiresnet_graph="0",
)

# A small process starts the command, because the system counts the memory of the one that starts it as well.
_MEASURE = """
import json, resource, subprocess, sys, time
command, start = [sys.executable, "-c", "from hiresnet_graph.cli import main; main()", *sys.argv[1:]], time.monotonic()
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
wall_s, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024.0}))
"""


def make_ledger(folder: Path, *, seeds: int, epochs: int) -> int:
    """A ledger with a finished record for each run; returns their number."""
    study = Study(
        network="hiresnet18", changes={"width": 8, "input.channels": 1}, subsets="all", seeds=seeds, data="digits"
    )  # type: ignore[arg-type]
    networks, source = networks_of(study), study.data_source()
    plan = make_plan(study, networks, source, source.load())
    rng = np.random.default_rng(0)
    with Ledger.open(folder) as ledger:
        ledger.join(plan)
        for row in plan.rows:
            if ledger.run(row.key).state == "waiting":
                request, network = plan.requests[row.key], plan.networks[row.network]
                ledger.adopt(row.key, random_record(row.key, request, network, rng, epochs))
        ledger.commit()
    return len(plan.requests)


def random_record(
    key: str, request: RunRequest, network: NetworkInfo, rng: np.random.Generator, count: int
) -> RunRecord:
    """A record of so many epochs with random accuracies."""
    accuracies = np.sort(rng.uniform(0.2, 0.9, count))
    epochs = tuple(
        Epoch(
            epoch=i + 1,
            lr=0.01,
            train_loss=1.0,
            train_accuracy=float(value),
            validation_loss=1.0,
            validation_accuracy=float(value),
            validation_top_k=1.0,
            time_s=1.0,
        )
        for i, value in enumerate(accuracies)
    )
    test = float(accuracies[-1]) + float(rng.normal(0, 0.01))
    return RunRecord(
        key=key,
        architecture="hiresnet18",
        variant=request.label,
        seeds=request.seeds,
        data="digits",
        data_fingerprint="none",
        recipe=request.recipe,
        plan=network.plan,
        parameters=network.parameters,
        macs=network.macs,
        outcome="complete",
        epochs=epochs,
        machine=MACHINE,
        time_s=1.0,
        best_epoch=count,
        validation_accuracy=float(accuracies[-1]),
        test_accuracy=test,
        test_top_k=1.0,
        last_test_accuracy=test,
        last_test_top_k=1.0,
    )


def measure(*words: str) -> dict[str, float]:
    """Wall and CPU time of a command in seconds, and its peak memory in bytes."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, *words], check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Make a ledger, and time the report as text and as a page."""
    given = options(__doc__)
    seeds, epochs = (1, 3) if given.quick else (SEEDS, EPOCHS)
    with tempfile.TemporaryDirectory() as name:
        folder, page = Path(name) / "study", Path(name) / "report.html"
        runs = make_ledger(folder, seeds=seeds, epochs=epochs)
        found = {"text": measure("report", str(folder)), "page": measure("report", str(folder), "--html", str(page))}
        size = page.stat().st_size
    rows = [
        (what, f"{cost['wall_s']:.1f} s", f"{cost['cpu_s']:.1f} s", f"{cost['bytes'] / 1e6:.0f} MB")
        for what, cost in found.items()
    ]
    cost = found["page"]
    text = (
        f"{runs} runs of {epochs} epochs.\n\n{table(('report', 'wall', 'CPU', 'peak memory'), rows)}\n\n"
        f"CPU time of the page: target {TARGET_S} s, {verdict(cost['cpu_s'], TARGET_S)}.\n"
        f"Peak memory of the page: target {TARGET_BYTES / 1e9:.0f} GB, {verdict(cost['bytes'], TARGET_BYTES)}.\n"
        f"Size of the page: {size / 1e6:.2f} MB, target {TARGET_PAGE / 1e6:.0f} MB, {verdict(size, TARGET_PAGE)}."
    )
    finish("report", text, {"runs": runs, "epochs": epochs, "page_bytes": size, **found}, given)


if __name__ == "__main__":
    main()
