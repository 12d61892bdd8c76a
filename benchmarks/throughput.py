"""How many images a second are trained on, against a plain script written as the PyTorch tutorial does.

    python -m benchmarks.throughput [--quick] [--json FILE]

`hiresnet18` with all skips and the paper's protocol (Adam, batch 100, crop and flip) on CIFAR-10, looked for where
`--data cifar10` does (`HRG_DATA`, `./data`); without it, on random images of the same size, and the report says so. An
epoch, its validation included, is timed. Every contender keeps its processes; they take turns, one at work while the
others wait:

- the script: DataLoader with two workers, torchvision's transforms, eager float32, `benchmarks/handwritten.py`;
- ours: `hiresnet_graph.train`, as `hrg train` and the workers of `hrg ablate` use it, in float32 and in bfloat16.

Each as one process with as many threads as there are cores, and as one process with one thread for each core, since a
sweep has many runs to do. Targets: the best of ours is at least 1.4 times the best of the script in float32, and 2.0
times in bfloat16.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch

import hiresnet_graph as hrg
from benchmarks.contenders import images, run_epochs, script_epochs
from benchmarks.crew import Crew
from benchmarks.measure import Options, finish, options, table, usable_cores
from hiresnet_graph.data import data_source
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.train import Recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

TARGETS = {"fp32": 1.4, "bf16": 2.0}
_WORKER = "--worker"


def our_epochs(data: Dataset, precision: str, threads: int) -> Iterator[float]:
    """Train with this package; one `next` is one epoch."""
    recipe = Recipe.model_validate({"epochs": 1000, "precision": precision, "schedule": "constant"})
    request = RunRequest(
        spec=hrg.load("hiresnet18").variant("full").to_yaml(),
        label="full",
        seeds=Seeds(0, 0),
        data=data_source("synthetic"),
        recipe=recipe,
        threads=threads,
    )
    return run_epochs(request, data)


# -------------------------------------------------------------------------------------------------- processes in turns


def work(kind: str, threads: int, train: int) -> None:
    """A contender's process: an epoch for each line that is read."""
    torch.set_num_threads(threads)
    data, _ = images(train)
    epochs = script_epochs(data) if kind == "script" else our_epochs(data, kind, threads)
    for _line in sys.stdin:
        next(epochs)
        print("done", flush=True)


def measured(given: Options, train: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Images a second of each contender, in each arrangement, round by round."""
    cores = usable_cores()
    arrangements = {f"1 process x {cores} threads": (1, cores), f"{cores} processes x 1 thread": (cores, 1)}
    if given.quick:
        arrangements = {"1 process x 1 thread": (1, 1)}
    speeds: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in arrangements} for kind in ("script", *TARGETS)
    }
    for name, (processes, threads) in arrangements.items():
        with ExitStack() as stack:
            crews = {}
            for kind in speeds:
                words = (_WORKER, kind, str(threads), str(train))
                crews[kind] = stack.enter_context(Crew("throughput", words, processes=processes, threads=threads))
                crews[kind].turn()  # the first epoch allocates and chooses kernels
            for turn in range(rounds):
                for kind in crews if turn % 2 == 0 else reversed(crews):
                    speeds[kind][name].append(processes * train / crews[kind].turn()[0])
    return speeds


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    train, rounds = (100, 1) if given.quick else (2000, 5)
    _, origin = images(train)
    speeds = measured(given, train, rounds)
    medians = {kind: {name: statistics.median(values) for name, values in by.items()} for kind, by in speeds.items()}
    best = {kind: max(by.values()) for kind, by in medians.items()}
    results: dict[str, Any] = {"images": origin, "train_images": train, "images_per_s": speeds}
    rows = []
    for kind, by in medians.items():
        ratio = best[kind] / best["script"]
        target = TARGETS.get(kind)
        met = "" if target is None else "met" if ratio >= target else f"missed by {100 * (1 - ratio / target):.1f} %"
        goal = "" if target is None else f">= {target}"
        rows.append((kind, *(f"{speed:.0f}" for speed in by.values()), f"{ratio:.2f}", goal, met))
        results[kind] = {"best_images_per_s": best[kind], "ratio": ratio, "target": target or 0.0, "met": met}
    head = ("images/s", *medians["script"], "ratio of the best", "target", "")
    text = f"{origin}, {train} training images an epoch, median of {rounds} epochs.\n\n{table(head, rows)}"
    finish("throughput", text, results, given)


if __name__ == "__main__":
    if _WORKER in sys.argv:
        work(sys.argv[-3], int(sys.argv[-2]), int(sys.argv[-1]))
    else:
        main()
