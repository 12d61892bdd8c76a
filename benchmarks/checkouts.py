"""How fast one checkout of the project is beside another one, in one run: for changes that must cost no time.

    python -m benchmarks.checkouts --base DIR [--quick] [--json FILE]

Every workload runs in a process of its own, in turns with the same workload in the checkout DIR (without --base: in
this checkout again, which shows the noise of the machine). Processes measure themselves and print CPU seconds, so that
imports do not count, but for `start`, which is the whole process. Workloads use only public verbs and the command
line, so that they run in checkouts whose inner names differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Options, Pair, finish, milliseconds, options, table, timed, verdict
from benchmarks.random_graph import random_spec

ROOT = Path(__file__).parents[1]
TARGET = 1.05

PROLOGUE = """
import sys, time
import hiresnet_graph as hrg
nodes, steps, rounds, epochs = map(int, sys.argv[1:5])
def best(run):
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    print(min(times))
"""
TRAINING_STEP = """
import torch
torch.set_num_threads(1)
module = hrg.load("hiresnet18").variant("full").build()
x = torch.randn(20, 3, 32, 32)
def run():
    for _ in range(2):
        module.zero_grad()
        module(x).logsumexp(1).sum().backward()
run()
"""
STUDY = [
    *("ablate", "hiresnet18", "width=8", "input.channels=1", "input.height=8", "input.width=8"),
    *("--variants", "none,full", "--data", "digits", "--jobs", "1", "-o", "study"),
]
WORKLOADS = {
    "validate a large graph": "best(lambda: hrg.load('random.yaml').validate())",
    "plan resnet101": "best(lambda: hrg.load('resnet101').plan)",
    "draw densenet121": "best(lambda: hrg.load('densenet121').render('net.dot'))",
    "source of densenet121": "best(lambda: hrg.load('densenet121').source())",
    "build resnet50": "best(lambda: hrg.load('resnet50').build())",
    "unroll frnn3": "best(lambda: hrg.load('frnn3').override({'time.steps': steps}).plan)",
    "training step": TRAINING_STEP + "best(run)",
}


def main() -> None:
    """Time all workloads and print the table."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--base", type=Path, metavar="DIR", default=ROOT, help="the other checkout")

    given = options(__doc__, more=more)
    base = given.more.base.resolve()
    sizes = ["100", "10", "1", "1"] if given.quick else ["3000", "60", "3", "2"]
    pairs: dict[str, Pair] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "random.yaml").write_text(json.dumps(random_spec(int(sizes[0]))))
        rounds = 1 if given.quick else 5
        pairs["start: hrg validate"] = _compared(base, folder, ["-m", "hiresnet_graph.cli", "validate", "unet"], rounds)
        for workload, code in WORKLOADS.items():
            pairs[workload] = _compared(base, folder, ["-c", PROLOGUE + code, *sizes], rounds, itself=True)
        runs = ["--seeds", "1" if given.quick else "4", "--epochs", sizes[3]]
        study = ["-m", "hiresnet_graph.cli", *STUDY, *runs]
        pairs["study of small runs"] = _compared(base, folder, study, 1 if given.quick else 3)
    _report(pairs, given)


def _compared(base: Path, folder: Path, arguments: list[str], rounds: int, *, itself: bool = False) -> Pair:
    """A workload in both checkouts, in the order A B B A A B ...

    Args:
        itself: The process prints its own CPU seconds; else the whole process is measured.
    """
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for i in range(-1, rounds):  # the first round writes byte code, and does not count
        turns = ((ROOT, ours), (base, theirs))
        for checkout, times_ in turns if i % 2 == 0 else reversed(turns):
            measured = _measure(checkout, folder, arguments, itself)
            if i >= 0:
                times_.append(measured)
    return Pair.of(ours, theirs)


def _measure(checkout: Path, folder: Path, arguments: list[str], itself: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one process; of its own, printed measurement twice the CPU time."""
    shutil.rmtree(folder / "study", ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = os.times()
    output = ""

    def run() -> None:
        nonlocal output
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{checkout}: {' '.join(arguments)[-300:]} failed:\n{done.stderr[-3000:]}")
        output = done.stdout

    wall, _ = timed(run)
    if itself:
        return float(output), float(output)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def _report(pairs: dict[str, Pair], given: Options) -> None:
    rows = []
    for name, pair in pairs.items():
        ratio = f"{pair.cpu_ratio.median:.3f} ({pair.cpu_ratio.low:.3f} to {pair.cpu_ratio.high:.3f})"
        met = verdict(pair.cpu_ratio.low, TARGET)
        rows.append((name, milliseconds(pair.ours.best), milliseconds(pair.theirs.best), ratio, f"<= {TARGET}", met))
    head = ("workload", "this checkout", "base", "ratio of CPU time", "target", "")
    text = (
        table(head, rows) + "\n\nTimes are the fastest round, ratios the median of neighbouring rounds (95 % interval)."
    )
    finish("checkouts", f"{text}\nThe target is missed where the whole interval lies above it.", pairs, given)


if __name__ == "__main__":
    main()
