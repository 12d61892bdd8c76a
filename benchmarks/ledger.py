"""What a run costs beside its training: ledger, scheduling, and the way to a worker process and back.

    python -m benchmarks.ledger [--quick] [--json FILE]

10,000 runs that compute nothing, each with a start, two epochs, and a record, go through the whole of a sweep: joined
into a ledger on disk, handed to worker processes, reported, noted. Wall time and CPU time of the driver for each run,
and its memory after each tenth of them; then how long the study takes to be opened anew, with nothing left to do, and
to be read for a report.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread, finish, mebibytes, milliseconds, options, table, timed, verdict
from hiresnet_graph.data import data_source
from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan
from hiresnet_graph.sweep.results import NetworkInfo, read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.sweep.training import Progress, train_all
from hiresnet_graph.train.events import EpochDone, Event, Finished, Started
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Environment, Epoch, RunRecord, Seeds
from hiresnet_graph.train.request import RunRequest

TARGET_S = 0.002
SEEDS = 5
_TENTHS = 10

_MACHINE = Environment(
    device="cpu",
    threads=1,
    channels_last=False,
    backend="eager",
    platform="none",
    python="none",
    torch="none",
    hiresnet_graph="none",
)


@dataclass(frozen=True)
class Nothing:
    """A run that computes nothing, and says what a run of two epochs says."""

    key: str
    request: RunRequest

    def __call__(self) -> Iterator[Event]:
        request, epochs = self.request, []
        yield Started(0, _MACHINE)
        for number in range(1, request.recipe.epochs + 1):
            epochs.append(
                Epoch(
                    epoch=number,
                    lr=0.01,
                    train_loss=1.0,
                    train_accuracy=0.5,
                    validation_loss=1.0,
                    validation_accuracy=0.5,
                    validation_top_k=0.9,
                    time_s=0.0,
                )
            )
            yield EpochDone(epochs[-1])
        yield Finished(
            RunRecord(
                key=self.key,
                architecture="none",
                variant=request.label,
                seeds=request.seeds,
                data="digits",
                data_fingerprint="none",
                recipe=request.recipe,
                plan=request.label,
                parameters=1,
                macs=1,
                outcome="complete",
                test_accuracy=0.5,
                epochs=tuple(epochs),
                machine=_MACHINE,
                time_s=0.0,
            )
        )


def study(runs: int) -> StudyPlan:
    """A study of so many runs; each request carries a spec of a usual size."""
    recipe, data, spec = Recipe(epochs=2), data_source("digits"), "# a spec\n" * 100
    labels = [f"variant {i}" for i in range(runs // SEEDS)]
    rows = tuple(
        PlannedRow(i, Seeds(seed, seed), f"{i:012}{seed:012}") for i in range(len(labels)) for seed in range(SEEDS)
    )
    return StudyPlan(
        name="nothing",
        architecture="none",
        data="digits",
        data_fingerprint="none",
        recipe=recipe.model_dump(mode="json"),
        baseline=None,
        networks=tuple(NetworkInfo(label, {}, label, 1, 1) for label in labels),
        rows=rows,
        requests={
            row.key: RunRequest(spec=spec, label=labels[row.network], seeds=row.seeds, data=data, recipe=recipe)
            for row in rows
        },
        subsets_of=(),
        text="",
    )


def memory() -> int | None:
    """Bytes of this process that are in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Watch:
    """Notes time and memory after each tenth of the runs."""

    tenth: int
    times: list[float]
    memories: list[int]

    def __call__(self, step: Progress) -> None:
        if step.state == "complete" and step.done % self.tenth == 0:
            self.times.append(time.perf_counter())
            self.memories.append(memory() or 0)


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    runs = 200 if given.quick else 10_000
    rows: list[tuple[str, ...]] = []
    results: dict[str, Any] = {"runs": runs}
    with tempfile.TemporaryDirectory() as folder:
        plan = study(runs)
        keys = {(row.seeds, plan.networks[row.network].label): row.key for row in plan.rows}

        def nothing(request: RunRequest, folder: Path, until: int | None) -> Callable[[], Iterator[Event]]:
            # Workers find it under this name, however this file was started.
            from benchmarks.ledger import Nothing

            return Nothing(keys[request.seeds, request.label], request)

        for workers in (1, 2):
            place = Path(folder) / str(workers)
            with Ledger.open(place) as ledger, LocalExecutor(workers) as executor:
                joined_s, _ = timed(partial(ledger.join, plan))
                # One run first, so that the workers are there.
                first = dict(list(plan.requests.items())[: 2 * workers])
                train_all(ledger, first, executor, work=nothing)
                watch = Watch(runs // _TENTHS, [time.perf_counter()], [])
                wall, cpu = timed(partial(train_all, ledger, plan.requests, executor, work=nothing, progress=watch))
            left = runs - len(first)
            tenths = Spread.of(
                [
                    (after - before) / watch.tenth
                    for before, after in zip(watch.times[1:], watch.times[2:], strict=False)
                ]
            )
            growth = (watch.memories[-1] - watch.memories[0]) / 2**20
            name = f"{workers} worker{'s' if workers > 1 else ''}"
            met = verdict(wall / left, TARGET_S)
            rows.append(
                (
                    name,
                    milliseconds(wall / left),
                    f"{milliseconds(tenths.low)} to {milliseconds(tenths.high)}",
                    milliseconds(cpu / left),
                    f"<= {milliseconds(TARGET_S)}",
                    met,
                    f"{mebibytes(watch.memories[0])} to {mebibytes(watch.memories[-1])}",
                )
            )
            results[name] = {
                "wall_s": wall / left,
                "tenths_s": tenths,
                "driver_cpu_s": cpu / left,
                "target_s": TARGET_S,
                "met": met,
                "memory": watch.memories,
                "joined_s": joined_s,
                "grown_mebibytes": max(0.0, growth),
            }

        def again() -> None:
            with Ledger.open(place) as ledger, LocalExecutor(1) as executor:
                ledger.join(replace(plan, name="again"))
                train_all(ledger, plan.requests, executor, work=nothing)

        opened_s, read_s, status_s = (
            timed(call)[0] for call in (again, lambda: read_results(place), lambda: read_status(place))
        )
        size = (place / "ledger.sqlite").stat().st_size
        results |= {"again_s": opened_s, "read_s": read_s, "status_s": status_s, "bytes_per_run": size / runs}
    head = ("", "a run", "95 % of tenths", "CPU of the driver", "target", "", "memory after 1/10 and all")
    text = "\n\n".join(
        [
            f"{runs:,} runs that compute nothing.",
            table(head, rows),
            table(
                ("the whole study", ""),
                [
                    ("opened and joined anew, nothing left to do", milliseconds(opened_s)),
                    ("read for a report", milliseconds(read_s)),
                    ("read for `hrg status`", milliseconds(status_s)),
                    ("on disk, for each run", f"{size / runs / 1024:.1f} KiB"),
                ],
            ),
        ]
    )
    finish("ledger", text, results, given)


if __name__ == "__main__":
    main()
