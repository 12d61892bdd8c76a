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

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

import hiresnet_graph as hrg
from benchmarks.handwritten import HiResNet18
from benchmarks.measure import Options, finish, options, table
from hiresnet_graph.data import data_source, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe
from hiresnet_graph.train.events import EpochDone
from hiresnet_graph.train.program import run
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

TARGETS = {"fp32": 1.4, "bf16": 2.0}
_WORKER = "--worker"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def images(train: int) -> tuple[Dataset, str]:
    """A data set cut to so many training images, a tenth as many for validation; and where it is from."""
    try:
        whole, origin = load_dataset("cifar10"), "CIFAR-10"
    except UsageError:
        whole, origin = load_dataset(f"synthetic:images={2 * train},channels=3,size=32,classes=10"), "random images"
    split = whole.split
    held = max(train // 10, 10)
    cut = Split(split.train[:train], split.validation[:held], split.test[:held])
    return dataclasses.replace(whole, split=cut), origin


# ------------------------------------------------------------------------------------------------- the plain script


class Pictures(TorchDataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's CIFAR10 gives them: a PIL image through the transforms."""

    def __init__(self, data: Dataset, places: tuple[int, ...], transform: transforms.Compose) -> None:
        chosen = torch.tensor(places)
        self.arrays = data.images_NCHW[chosen].permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.labels_N[chosen].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(np.asarray(self.arrays[place]))), self.labels[place]


def script_epochs(data: Dataset) -> Iterator[None]:
    """Train as in the tutorial "Training a Classifier"; one `next` is one epoch."""
    plain = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augmented = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain]
    train_set = Pictures(data, data.split.train, transforms.Compose(augmented))
    validation_set = Pictures(data, data.split.validation, transforms.Compose(plain))
    train_loader = DataLoader(train_set, batch_size=100, shuffle=True, num_workers=2)
    validation_loader = DataLoader(validation_set, batch_size=100, shuffle=False, num_workers=2)
    network: nn.Module = HiResNet18()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    while True:
        network.train()
        running_loss = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = cross_entropy(network(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            running_loss += loss.item()
        network.eval()
        correct = total = 0
        with torch.no_grad():
            for inputs, labels in validation_loader:
                predicted = network(inputs).argmax(1)
                total += labels.size(0)
                correct += int((predicted == labels).sum())
        yield


# ------------------------------------------------------------------------------------------------------------ ours


def our_epochs(data: Dataset, precision: str, threads: int, folder: Path) -> Iterator[None]:
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
    for event in run(request, folder, dataset=data):
        if isinstance(event, EpochDone):
            yield


# -------------------------------------------------------------------------------------------------- processes in turns


def work(kind: str, threads: int, train: int) -> None:
    """A contender's process: an epoch for each line that is read."""
    torch.set_num_threads(threads)
    data, _ = images(train)
    with tempfile.TemporaryDirectory() as folder:
        epochs = script_epochs(data) if kind == "script" else our_epochs(data, kind, threads, Path(folder))
        for _line in sys.stdin:
            next(epochs)
            print("done", flush=True)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to train, with its processes."""

    kind: str
    threads: int
    workers: tuple[subprocess.Popen[str], ...]

    def epoch(self) -> float:
        """Seconds until every process has done an epoch."""
        start = time.perf_counter()
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        for worker in self.workers:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            assert line == "done\n", f"{self.kind}: a process ended"
        return time.perf_counter() - start


def started(kind: str, processes: int, threads: int, train: int, stack: ExitStack) -> Contender:
    """A contender; its processes end with the stack."""
    command = [sys.executable, "-m", "benchmarks.throughput", _WORKER, kind, str(threads), str(train)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = []
    for _ in range(processes):
        worker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
        stack.callback(_end, worker)
        workers.append(worker)
    return Contender(kind, threads, tuple(workers))


def _end(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.close()
    worker.stdout.close()
    worker.kill()
    worker.wait()


def measured(given: Options, train: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Images a second of each contender, in each arrangement, round by round."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    arrangements = {f"1 process x {cores} threads": (1, cores), f"{cores} processes x 1 thread": (cores, 1)}
    if given.quick:
        arrangements = {"1 process x 1 thread": (1, 1)}
    speeds: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in arrangements} for kind in ("script", *TARGETS)
    }
    for name, (processes, threads) in arrangements.items():
        with ExitStack() as stack:
            contenders = [started(kind, processes, threads, train, stack) for kind in speeds]
            for contender in contenders:  # the first epoch allocates and chooses kernels
                contender.epoch()
            for turn in range(rounds):
                for contender in contenders if turn % 2 == 0 else reversed(contenders):
                    speeds[contender.kind][name].append(processes * train / contender.epoch())
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
