"""How much memory a training step takes, estimated and measured, with and without activation checkpointing by block.

    python -m benchmarks.memory [--quick] [--json FILE] [--specs NAME ...]

Estimated: `training_memory`, which `hrg show` prints. Measured: the most that torch has allocated at one time in the
last step of two epochs of a real run on the CPU, by the profiler of torch, without the images of the data set. Weights,
gradients, the state of the optimizer and a copy of the best weights are included; scratch memory of libraries that
torch does not allocate is not. Shipped specs of every family, with the default recipe, batches of 16 at 32x32 and of 4
at 224x224, and two classes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import hiresnet_graph as hrg
from benchmarks.measure import finish, mebibytes, options, table, verdict
from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.data.synthetic import SyntheticData
from hiresnet_graph.train.memory import training_memory
from hiresnet_graph.train.program import run
from hiresnet_graph.train.recipe import Recipe, make_recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

TARGET = 1.15
_MARK = "end of step"
_STEPS, _CLASSES = 2, 2
_QUICK = ("hiresnet18", "hiresvit_tiny")
_SPECS = (
    *_QUICK,
    *("hireshybrid_tiny", "hiresnet56", "densenet40", "rcnn", "blt", "frnn3", "resnet18", "cornet_s"),
    *("vit_tiny", "mixer_s16", "swin_tiny", "convnext_tiny", "hiresnet50"),
)


def peaks_of_steps(train: Callable[[Callable[[], None]], None]) -> list[int]:
    """The most bytes that are allocated at one time in each step, of what is allocated after the call.

    Args:
        train: Trains, and calls its argument at the end of each step.
    """

    def mark() -> None:
        with record_function(_MARK):
            pass

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(mark)
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    peaks = []
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
        elif event.name() == _MARK:
            peaks.append(peak)
            peak = live
    return peaks


def measured_bytes(arch: Architecture, recipe: Recipe) -> int:
    """The peak of the last step of a run of two epochs of two steps, with weights and optimizer."""
    (shape,), shapes = arch.plan.inputs.values(), {call.name: call.shape for call in arch.plan.calls}
    (output,) = arch.plan.outputs.values()
    train = _STEPS * recipe.batch_size
    images_NCHW, labels_N = torch.zeros(train + 4, *shape, dtype=torch.uint8), torch.arange(train + 4) % 2
    split = Split(*(tuple(range(*ends)) for ends in ((0, train), (train, train + 2), (train + 2, train + 4))))
    data = Dataset("black", shapes[output].channels, images_NCHW, labels_N, split)
    request = RunRequest(arch.to_yaml(), arch.name, Seeds(0, 0), SyntheticData(), recipe, checkpoint_s=1e6)

    def train_two_epochs(mark: Callable[[], None]) -> None:
        done = itertools.count(1)
        with tempfile.TemporaryDirectory() as folder:
            events = run(
                request,
                Path(folder),
                arch=arch,
                dataset=data,
                on_step=lambda epoch, step, steps: mark(),
                stop=lambda: next(done) == 2 * _STEPS,
            )
            deque(events, maxlen=0)

    return peaks_of_steps(train_two_epochs)[-1]


@dataclass(frozen=True)
class Row:
    """The memory of a training step of one network."""

    name: str
    batch: int
    checkpoint: str
    estimated: int
    measured: int

    @property
    def ratio(self) -> float:
        """Estimated by measured."""
        return self.estimated / self.measured


def rows_of(name: str) -> tuple[Row, Row]:
    """A shipped spec, without and with checkpoints."""
    arch = hrg.load(name).override({"params.classes": _CLASSES})
    (shape,) = arch.plan.inputs.values()
    batch = 4 if max(shape.spatial) > 64 else 16
    found = []
    for fields in ({}, {"checkpoint": "blocks"}):
        recipe = make_recipe({"epochs": 2, "batch_size": batch, "augment": "none", **fields})
        estimated = training_memory(arch.plan, recipe).peak_bytes
        found.append(Row(name, batch, recipe.checkpoint or "", estimated, measured_bytes(arch, recipe)))
    return found[0], found[1]


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specs", nargs="+", metavar="NAME", help="other shipped specs")


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__, more=_more)
    torch.set_num_threads(given.threads)
    names = given.more.specs or (_QUICK if given.quick else _SPECS)
    found = [rows_of(name) for name in names]
    worst = max(abs(row.ratio - 1) for pair in found for row in pair)
    cells = [
        (
            f"{plain.name}, batch {plain.batch}",
            mebibytes(plain.estimated),
            mebibytes(plain.measured),
            f"{plain.ratio:.3f}",
            mebibytes(blocks.estimated),
            mebibytes(blocks.measured),
            f"{blocks.ratio:.3f}",
            f"{round(100 * (1 - blocks.measured / plain.measured))} %",
        )
        for plain, blocks in found
    ]
    head = ("network", "estimated", "measured", "ratio", "with checkpoints", "measured", "ratio", "saved")
    text = f"Largest deviation of an estimate: {100 * worst:.1f} %, target 15 %: {verdict(1 + worst, TARGET)}."
    finish("memory", f"{text}\n\n{table(head, cells)}", {"worst": worst, "rows": found}, given)


if __name__ == "__main__":
    main()
