"""A study of 20,480 runs: time and memory to plan, compare, list and report it, also while 64 workers train it.

    python -m benchmarks.scale [--quick] [--json FILE]

All 64 subsets of the skips of a small hiresnet18, 32 settings of the recipe, 10 seeds, 12 epochs. Seven eighths of the
runs have records with random accuracies. Worker processes "train" the others: runs that compute nothing and report an
epoch each second. Each command is a process of its own; targets are for its CPU time, which other programs on the
machine disturb less, and for its peak memory.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ledger import Nothing
from benchmarks.measure import finish, options, table, verdict
from benchmarks.report import measure, random_record
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.plan import StudyPlan, plan_study
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train.events import EpochDone, Event
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.request import RunRequest

EPOCHS, WORKERS, EPOCH_S = 12, 64, 1.0
TARGET_BYTES = 1.5e9
_SHARE = 8  # one run in so many is not finished
_RATES = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03)
_DECAYS = (0.0, 0.0001, 0.001, 0.01)


def study_of(quick: bool) -> Study:
    """The study."""
    return Study(
        network="hiresnet18",
        changes={"width": 8, "input.channels": 1, "input.height": 8, "input.width": 8},
        subsets="leave-one-out" if quick else "all",
        seeds=2 if quick else 10,
        data="digits",
        recipe=Recipe(epochs=EPOCHS),
        grid={"lr": _RATES[:2] if quick else _RATES, "weight_decay": _DECAYS[:1] if quick else _DECAYS},
    )


def fill(folder: Path, plan: StudyPlan) -> list[str]:
    """Make a ledger in which most runs are finished, with their curves; returns the keys of the others."""
    rng, unfinished = np.random.default_rng(0), []
    with Ledger.open(folder) as ledger:
        ledger.join(plan)
        for i, row in enumerate(plan.rows):
            if i % _SHARE == 0:
                unfinished.append(row.key)
                continue
            record = random_record(row.key, plan.requests[row.key], plan.networks[row.network], rng, EPOCHS)
            ledger.start_attempt(row.key, 1, "cpu 0")
            for epoch in record.epochs:
                ledger.record_epoch(row.key, 1, epoch)
            ledger.finish(row.key, 1, record)
    return unfinished


@dataclass(frozen=True)
class Paced:
    """A run that computes nothing, and takes a second for each epoch."""

    run: Nothing

    def __call__(self) -> Iterator[Event]:
        for event in self.run():
            if isinstance(event, EpochDone):
                time.sleep(EPOCH_S)
            yield event


def train(folder: Path, requests: Mapping[str, RunRequest], workers: int) -> None:
    """Train runs with so many worker processes."""
    keys = {(request.seeds, request.label, str(request.recipe)): key for key, request in requests.items()}

    def paced(request: RunRequest, folder: Path, until: int | None) -> Callable[[], Iterator[Event]]:
        return Paced(Nothing(keys[request.seeds, request.label, str(request.recipe)], request))

    with Ledger.open(folder) as ledger, LocalExecutor(workers) as executor:
        train_all(ledger, requests, executor, work=paced)


def recorded(folder: Path) -> tuple[int, int]:
    """The number of epochs that the ledger has, and of attempts at runs."""
    with closing(sqlite3.connect(folder / "ledger.sqlite", timeout=60)) as database:
        epochs = database.execute("SELECT count(*) FROM curves WHERE split = 'train'").fetchone()[0]
        attempts = database.execute("SELECT count(*) FROM attempts").fetchone()[0]
    return epochs, attempts


def while_training(
    folder: Path, requests: Mapping[str, RunRequest], workers: int, commands: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, dict[str, float]], float]:
    """What commands cost while workers train, and how many epochs a second were recorded meanwhile."""
    # Workers find the runs under this name, however this file was started.
    from benchmarks import scale

    process = multiprocessing.get_context("spawn").Process(target=scale.train, args=(folder, requests, workers))
    epochs, attempts = recorded(folder)
    process.start()
    try:
        # Each worker has begun a run, and reported an epoch of it.
        while True:
            before, begun = recorded(folder)
            if before >= epochs + workers and begun >= attempts + workers:
                break
            if not process.is_alive():
                raise SystemExit("the training process ended")
            time.sleep(1)
        began = time.monotonic()
        found = {name: measure(*words) for name, words in commands.items()}
        rate = (recorded(folder)[0] - before) / (time.monotonic() - began)
    finally:
        process.kill()  # and with it its workers
        process.join()
    return found, rate


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    workers = 2 if given.quick else WORKERS
    with tempfile.TemporaryDirectory() as name:
        folder, file, page = Path(name) / "study", Path(name) / "study.yaml", Path(name) / "report.html"
        study = study_of(given.quick)
        file.write_text(study.to_yaml())
        dry_run = ("ablate", str(file), "--dry-run", "--no-calibrate")
        found = {"ablate --dry-run": measure(*dry_run)}
        plan = plan_study(study)
        began = time.process_time()
        unfinished = fill(folder, plan)
        filled_s = time.process_time() - began
        # Its target in seconds of CPU time, and the command.
        commands: dict[str, tuple[float, tuple[str, ...]]] = {
            "ablate --dry-run, with a folder": (20, (*dry_run, "-o", str(folder))),
            "status": (5, ("status", str(folder))),
            "report": (30, ("report", str(folder))),
            "report --html": (60, ("report", str(folder), "--html", str(page))),
        }
        found |= {name: measure(*words) for name, (_, words) in commands.items()}
        watched = {f"{name}, while training": commands[name][1] for name in ("status", "report")}
        requests = {key: plan.requests[key] for key in unfinished}
        training, rate = while_training(folder, requests, workers, watched)
        found |= training
        size, page_size = (folder / "ledger.sqlite").stat().st_size, page.stat().st_size
    targets = {"ablate --dry-run": 20.0, **{name: target for name, (target, _) in commands.items()}}
    targets |= {name: targets[name.partition(", while")[0]] for name in watched}
    rows = [
        (
            name,
            f"{cost['wall_s']:.1f} s",
            f"{cost['cpu_s']:.1f} s",
            f"<= {targets[name]:g} s",
            verdict(cost["cpu_s"], targets[name]),
            f"{cost['bytes'] / 1e9:.2f} GB",
            verdict(cost["bytes"], TARGET_BYTES),
        )
        for name, cost in found.items()
    ]
    head = ("`hrg`", "wall", "CPU", "target", "", "peak memory", f"target <= {TARGET_BYTES / 1e9:g} GB")
    runs = len(plan.requests)
    text = (
        f"{runs:,} runs, {len(plan.networks):,} networks with settings, {runs - len(unfinished):,} runs finished.\n\n"
        f"{table(head, rows)}\n\n"
        f"{workers} workers report {workers / EPOCH_S:g} epochs a second; {rate:.1f} a second were recorded while "
        f"`status` and `report` read the ledger.\n"
        f"Ledger: {size / 1e6:.1f} MB, {1e6 * filled_s / (runs * EPOCHS):.0f} µs of CPU time for each epoch. "
        f"Page of the report: {page_size / 1e6:.2f} MB."
    )
    results: dict[str, Any] = {
        "runs": runs,
        "commands": found,
        "epochs_per_s": rate,
        "ledger_bytes": size,
        "page_bytes": page_size,
    }
    finish("scale", text, results, given)


if __name__ == "__main__":
    main()
