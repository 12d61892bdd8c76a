"""Many runs of one network: how many images a second are trained on in each way that there is to run them.

    python -m benchmarks.sweep [--quick] [--json FILE] [--net full|small|both] [--parts A,B] [--minutes N] ...

Two networks: `full` is `hiresnet18` with all skips on CIFAR-10 (random images where that is not at hand), batch 100;
`small` has 4, 8 and 16 channels on the 8x8 digits, batch 32. Adam, crop and flip. An epoch with its validation is
timed, on 9 images of training for each of validation, so that runs an hour follow for the paper's protocol (80 epochs
of 45,000 images, 5,000 for validation). The ways take turns (A B C, C B A, ...); those of one part are in one process,
but for the script, and for processes that share a device. The ways:

- script: a plain DataLoader loop, `script_epochs` of `benchmarks/contenders.py`, in a process of its own;
- eager: our trainer of one run, data on the device; graph: the same as a CUDA graph;
- vmap xM: `torch.func.vmap` over stacked state; grouped xM: grouped convolutions in NCHW, step by step: that is our
  stacked program, not captured (on the CPU nothing is captured, so it is left out there);
- branches xM, stacked xM: `hrg ablate --stack`, on a GPU captured. M runs have five data seeds between them;
- masked xM: stacked, the runs being those of the paper's Table 2, which lack edges of the full network.

On the CPU, part `processes` has worker processes side by side, and what `hrg ablate --stack auto` takes. On a GPU each
type is measured by itself. Every part begins with `eager`; ratios between parts are those to it.

Parts `limits` and `agreement` say how fast memory is copied, and whether a stack computes what runs alone do: one step
in float64, in each type no further from float64 than three times what a run alone is (the median of four), and to the
bit the same whatever M (else `not M-invariant`); then three epochs of small steps in float32, by the programs as they
are timed. The loss of every way must go down. Options cut the work into calls: each part is written to the JSON file
when it is done, and the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

import hiresnet_graph as hrg
from benchmarks.agreement import BACKENDS, agreement
from benchmarks.contenders import (
    CIFAR,
    Grouped,
    Together,
    Vmap,
    cut,
    epochs_by_hand,
    images,
    run_epochs,
    script_epochs,
    stack_epochs,
)
from benchmarks.crew import Crew
from benchmarks.limits import copy_bytes_per_s
from benchmarks.measure import Options, finish, mebibytes, options, table, usable_cores
from benchmarks.parts import part_arguments, results_of, told
from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import data_source, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.stack.request import StackBackend, StackMember, StackRequest
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.environment import choose_device, tf32_products
from hiresnet_graph.train.identity import identify_network, identify_run
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

NETS = ("full", "small")
# Of the paper's protocol: images that one run is trained on.
RUN_IMAGES = 80 * 45_000
# Bytes that `hiresnet18` with all skips moves for an image in bfloat16, with pointwise operations fused, and without.
# Source: counted by hand over the plan, forward and backward; proportional to what the plan holds for other networks.
FUSED_BYTES, UNFUSED_BYTES = 4.8e6, 6.8e6
DATA_SEEDS = 5
_ALL = 10**6
_CREWS = "processes"
VARIANTS = ("full", "original", "in", "out", "p1", "p2", "p3")
_MASKED = DATA_SEEDS * len(VARIANTS)
_EPOCHS_COMPARED, _LOSS_TARGET = 3, 1e-3
_WORKER = "--worker"
# Runs that worker processes on the CPU train at once: those of the full network need much memory.
_RUNS = {"full": 6, "small": 16}
_GPU_TARGETS = {"eager": 4.0, "graph": 1.5, "rivals": 1.2, "runs_per_hour": 240.0}
_CPU_TARGETS = {"full": 0.95, "small": 2.0}


@dataclass(frozen=True)
class Case:
    """What is trained: a network, a type, a device."""

    net: str
    precision: str
    device: str
    images: int
    quick: bool
    lr: float = 0.01

    @cached_property
    def arch(self) -> Architecture:
        """The network."""
        changes = {"full": {}, "small": {"width": 4, "input.channels": 1, "input.height": 8, "input.width": 8}}
        quick = {"width": 4} if self.quick else {}
        return hrg.load("hiresnet18").override({**changes[self.net], **quick}).variant("full")

    @cached_property
    def data(self) -> Dataset:
        """The images, cut to those of an epoch."""
        return images(self.images)[0] if self.net == "full" else cut(load_dataset("digits"), self.images)

    @property
    def train_images(self) -> int:
        """Of an epoch."""
        return len(self.data.split.train)

    @property
    def recipe(self) -> Recipe:
        """The protocol, with a constant rate."""
        batch = (100 if self.net == "full" else 32) if not self.quick else 16
        return Recipe.model_validate(
            {
                "epochs": 1000,
                "batch_size": batch,
                "lr": self.lr,
                "schedule": "constant",
                "augment": "crop+flip",
                "precision": self.precision,
            }
        )

    def request(self, k: int, threads: int, variant: str = "full") -> RunRequest:
        """Run number k."""
        return RunRequest(
            spec=self.arch.variant(variant).to_yaml(),
            label=variant,
            seeds=seeds_of(k),
            data=data_source("synthetic"),
            recipe=self.recipe,
            device=self.device,
            threads=threads,
            checkpoint_s=1e9,
        )

    def bytes_per_image(self, unfused: bool = False) -> float:
        """Of a training step."""
        share = self.arch.cost().memory_bytes / hrg.load("hiresnet18").variant("full").cost().memory_bytes
        wide = 1 if self.precision == "bf16" else 2
        return (UNFUSED_BYTES if unfused else FUSED_BYTES) * share * wide


def seeds_of(k: int) -> Seeds:
    """Of run number k: variants that are compared share the seeds of the data."""
    return Seeds(k, k % DATA_SEEDS)


@dataclass(frozen=True)
class Way:
    """A way to train; with `processes`, in so many worker processes, each of which trains `replicas` runs.

    Attributes:
        processes: 0 for the process of the benchmark itself.
    """

    kind: str
    replicas: int = 1
    processes: int = 0
    threads: int = 1

    def __str__(self) -> str:
        name = f"{self.kind} x{self.replicas}" if self.kind in (*BACKENDS, "masked", "vmap", "grouped") else self.kind
        if not self.processes or self.kind == "script":
            return name
        return f"{name}, {_counted(self.processes, 'process')} x {_counted(self.threads, 'thread')}"

    @property
    def runs(self) -> int:
        """All that are trained at once."""
        return self.replicas * max(1, self.processes)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}{'es' if word.endswith('s') else 's'}"


def member_of(case: Case, k: int, threads: int, variant: str) -> StackMember:
    """Run number k as one of a stack; its folder is given to it later."""
    plan, request = case.arch.variant(variant).plan, case.request(k, threads, variant)
    key = identify_run(identify_network(plan), request.recipe, request.seeds, case.data).key
    return StackMember(key, request, Path())


def epochs_of(case: Case, way: Way) -> Iterator[float]:
    """Train so, in this process: the mean loss of an epoch for each `next`."""
    device, count = torch.device(case.device), way.replicas
    if way.kind == "script":
        low = case.precision == "bf16"
        width = int(case.arch.plan.calls[0].op.width)  # type: ignore[attr-defined]
        batch = case.recipe.batch_size
        return script_epochs(case.data, width=width, batch=batch, device=case.device, low_precision=low)
    if way.kind == "eager":
        return run_epochs(case.request(0, way.threads), case.data)
    if way.kind in ("graph", "masked", *BACKENDS):
        variants = VARIANTS if way.kind == "masked" else VARIANTS[:1]
        members = tuple(member_of(case, k, way.threads, variants[k % len(variants)]) for k in range(count))
        backend: StackBackend = "branches" if way.kind in ("graph", "branches") else "stacked"
        return stack_epochs(StackRequest(members, case.arch.to_yaml(), backend), case.data)
    seeds = [seeds_of(k) for k in range(count)]

    def make() -> Together:
        return (Vmap if way.kind == "vmap" else Grouped)(case.arch, seeds, case.recipe, device)

    return epochs_by_hand(make, seeds, case.recipe, case.data, device)


# -------------------------------------------------------------------------------------------------------------- rounds


class Here:
    """A way in this process."""

    def __init__(self, case: Case, way: Way) -> None:
        self.case, self.way = case, way
        self._on_gpu = case.device.startswith("cuda")
        self._epochs = epochs_of(case, way)
        self.peak_bytes: int | None = None

    def warm_up(self) -> float:
        """The first epoch, which allocates and captures; its loss."""
        if not self._on_gpu:
            return self.epoch()[1]
        before = torch.cuda.memory_allocated(self.case.device)
        torch.cuda.reset_peak_memory_stats(self.case.device)
        loss = self.epoch()[1]
        self.peak_bytes = torch.cuda.max_memory_allocated(self.case.device) - before
        torch.cuda.empty_cache()  # what the warm-up held is for the next way
        return loss

    def epoch(self) -> tuple[float, float]:
        """Seconds and mean loss of an epoch."""
        self._wait()
        torch.set_num_threads(self.way.threads)
        start = time.perf_counter()
        loss = float(next(self._epochs))
        self._wait()
        return time.perf_counter() - start, loss

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self.case.device)

    def close(self) -> None:
        """Give back its memory."""
        self._epochs.close()  # type: ignore[attr-defined]
        del self._epochs
        if self._on_gpu:
            torch.cuda.empty_cache()


class Beside:
    """A way in worker processes; on a GPU, its memory is all that the device has given to them."""

    def __init__(self, case: Case, way: Way) -> None:
        self.case, self.way = case, way
        words = (_WORKER, json.dumps([dataclasses.asdict(case), dataclasses.asdict(way)]))
        self._crew = Crew("sweep", words, processes=way.processes, threads=way.threads)
        self.peak_bytes: int | None = None

    def warm_up(self) -> float:
        """The first epoch; its loss."""
        on_gpu = self.case.device.startswith("cuda")
        before = torch.cuda.mem_get_info(self.case.device)[0] if on_gpu else 0
        self._crew.__enter__()
        _, answers = self._crew.turn()
        if on_gpu:
            self.peak_bytes = before - torch.cuda.mem_get_info(self.case.device)[0]
        else:
            self.peak_bytes = sum(json.loads(answer)["resident_bytes"] for answer in answers)
        return self._loss(answers)

    def epoch(self) -> tuple[float, float]:
        """Seconds until all processes have done an epoch, and their mean loss."""
        seconds, answers = self._crew.turn()
        return seconds, self._loss(answers)

    def _loss(self, answers: Sequence[str]) -> float:
        return statistics.mean(float(json.loads(answer)["loss"]) for answer in answers)

    def close(self) -> None:
        """End the processes."""
        self._crew.__exit__()


def work(case: Case, way: Way) -> None:
    """A worker process: an epoch for each line that is read."""
    here = Here(case, way)
    with tf32_products(case.precision == "tf32"):
        for _line in sys.stdin:
            _, loss = here.epoch()
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"loss": loss, "resident_bytes": peak}), flush=True)


@contextmanager
def _told(entry: dict[str, Any]) -> Iterator[None]:
    """A way that cannot be measured says so in the table, whatever is the matter with it."""
    try:
        yield
    except Exception as error:
        entry["error"] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]


def measured(case: Case, ways: Sequence[Way], rounds: int, seconds: float) -> dict[str, Any]:
    """Images a second of each way, round by round; what fails is told, and the others go on.

    Args:
        seconds: No further round is begun if it would be over later than that.
    """
    start = time.perf_counter()
    found: dict[str, dict[str, Any]] = {}
    alive: dict[str, Here | Beside] = {}
    with ExitStack() as stack:
        for way in ways:
            entry = {"kind": way.kind, "runs": way.runs, "images_per_s": [], "error": ""}
            found[str(way)] = entry
            with _told(entry):
                runner = Beside(case, way) if way.processes else Here(case, way)
                stack.callback(runner.close)
                entry["first_loss"] = runner.warm_up()
                entry["peak_bytes"] = runner.peak_bytes
                alive[str(way)] = runner
        last = 0.0
        for turn in range(rounds):
            began = time.perf_counter()
            if turn and began - start + last > seconds:
                break
            for name in list(alive) if turn % 2 == 0 else list(reversed(alive)):
                with _told(found[name]):
                    took, loss = alive[name].epoch()
                    found[name]["images_per_s"].append(found[name]["runs"] * case.train_images / took)
                    found[name]["last_loss"] = loss
                if found[name]["error"]:
                    del alive[name]
            last = time.perf_counter() - began
    return {"precision": case.precision, "net": case.net, "train_images": case.train_images, "ways": found}


# --------------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    device: str
    nets: tuple[str, ...]
    precisions: tuple[str, ...]
    replicas: tuple[int, ...]
    processes: tuple[int, ...]
    images: int
    rounds: int
    seconds: float
    threads: int
    quick: bool

    def case(self, net: str, precision: str) -> Case:
        """A network in a type."""
        count = self.images if net == "full" or self.quick else _ALL
        return Case(net, precision, self.device, count, self.quick)

    def parts(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What measures each part."""
        device = torch.device(self.device)
        found: dict[str, Callable[[], dict[str, Any]]] = {
            "limits": lambda: {"copy_bytes_per_s": self.copy_bytes_per_s()},
            "agreement": self.agreement,
        }
        for net in self.nets:
            for precision in self.precisions if net == "full" else self.precisions[:1]:
                case = self.case(net, precision)
                for name, ways in (self.on_gpu(net) if device.type == "cuda" else self.on_cpu(net)).items():
                    found[f"{net} {precision} {name}"] = partial(self.side_by_side, case, ways, name == _CREWS)
        return found

    def side_by_side(self, case: Case, ways: Sequence[Way], with_choice: bool) -> dict[str, Any]:
        """A part: these ways, and what `hrg ablate --stack auto` takes if that is wanted."""
        told, chosen = "", None
        if with_choice and not self.quick:
            chosen, told = choice_of(case, _RUNS[case.net])
            ways = list(dict.fromkeys([*ways, chosen]))
        name = "" if chosen is None else str(chosen)
        return {**measured(case, ways, self.rounds, self.seconds), "choice": name, "told": told}

    def copy_bytes_per_s(self) -> float:
        """Of the device; of a CPU with all its cores."""
        torch.set_num_threads(usable_cores())
        found = copy_bytes_per_s(torch.device(self.device), small=self.quick)
        torch.set_num_threads(self.threads)
        return found

    def agreement(self) -> dict[str, Any]:
        """Whether a stack computes what runs alone do."""
        size = {"width": 4, "input.height": 8, "input.width": 8} if self.quick else {}
        arch = hrg.load("hiresnet18").override(size)
        batch = 4 if self.quick else 20
        precisions = ("fp32",) if self.quick else dict.fromkeys(("fp32", *self.precisions, "bf16"))
        found = agreement(arch, batch, torch.device(self.device), tuple(precisions), quick=self.quick)
        return {**found, "epochs": self.lockstep()}

    def lockstep(self) -> dict[str, Any]:
        """Losses of a few epochs of three runs, alone and as one program, with steps so small that rounding stays."""
        case = Case(self.nets[0], "fp32", self.device, 40 if self.quick else 250, self.quick, lr=1e-4)
        alone = [run_epochs(case.request(k, self.threads), case.data) for k in range(3)]
        stacks = {kind: epochs_of(case, Way(kind, 3, threads=self.threads)) for kind in BACKENDS}
        worst, loss = dict.fromkeys(BACKENDS, 0.0), math.nan
        with ExitStack() as stack:
            for epochs in (*alone, *stacks.values()):
                stack.callback(epochs.close)  # type: ignore[attr-defined]
            for _ in range(_EPOCHS_COMPARED):
                loss = statistics.mean(map(next, alone))
                worst = {kind: max(worst[kind], abs(next(epochs) - loss) / loss) for kind, epochs in stacks.items()}
        return {
            kind: {"loss": loss, "difference": value, "allowed": _LOSS_TARGET, "met": value <= _LOSS_TARGET}
            for kind, value in worst.items()
        }

    def together(self, counts: Sequence[int]) -> list[Way]:
        """The ways to train so many runs as one program, in this process."""
        kinds = ("vmap", "grouped", "branches", "stacked") if self.device != "cpu" else ("vmap", "branches", "stacked")
        return [Way(kind, count, threads=self.threads) for count in counts for kind in kinds]

    def on_gpu(self, net: str) -> dict[str, list[Way]]:
        """Parts of a few minutes each."""
        eager, script = Way("eager", threads=self.threads), Way("script", processes=1, threads=self.threads)
        crews = [Way("eager", processes=count, threads=1) for count in self.processes]
        counts = self.replicas if net == "full" else tuple(count for count in self.replicas if count == 16)
        halves = {"few": [m for m in counts if m <= 4], "some": [m for m in counts if 4 < m <= 16]}
        halves["many"] = [m for m in counts if m > 16]
        return {
            "alone": [eager, script, Way("graph", threads=self.threads), *crews],
            **{name: [eager, *self.together(some)] for name, some in halves.items() if some},
            **({"masked": [eager, Way("masked", _MASKED, threads=self.threads)]} if net == "full" else {}),
        }

    def on_cpu(self, net: str) -> dict[str, list[Way]]:
        """Ways in one process; and worker processes, with what `--stack auto` takes."""
        eager, script = Way("eager", threads=self.threads), Way("script", processes=1, threads=self.threads)
        cores, most = (1, 3) if self.quick else (usable_cores(), _RUNS[net])
        crews = [
            Way("eager", processes=1, threads=cores),
            Way("eager", processes=cores, threads=1),
            Way("stacked", max(3, most // cores), cores, 1),
            Way("stacked", most, 1, cores),
        ]
        found = {
            "one process": [eager, script, *self.together(self.replicas), Way("masked", 3, threads=self.threads)],
            _CREWS: list(dict.fromkeys(crews)),
        }
        if self.quick:  # one of them shows that it runs
            del found[_CREWS if net == "full" else "one process"]
        return found


def choice_of(case: Case, runs: int) -> tuple[Way, str]:
    """What `hrg ablate --stack auto` takes for so many runs of a network on this machine, and what it says of it."""
    kind = "digits"
    if case.net == "full":
        kind = (
            "cifar10" if images(case.images)[1] == CIFAR else f"synthetic:images={2 * case.images},channels=3,size=32"
        )
    study = Study.model_validate(
        {"network": case.arch, "variants": ["full"], "seeds": runs, "data": kind, "recipe": case.recipe}
    )
    prepared = prepare_study(study, None, ExecutionOptions(device=case.device, stack="auto"))
    plan = prepared.execution
    return Way(plan.backend, plan.stack, plan.workers, plan.threads), str(prepared.calibration_result)


# -------------------------------------------------------------------------------------------------------------- report


def median(entry: Mapping[str, Any]) -> float | None:
    """Images a second; None if there is no round."""
    return statistics.median(entry["images_per_s"]) if entry["images_per_s"] else None


def ratio(entry: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Speed against another way of the same part: the median of the rounds' ratios."""
    pairs = list(zip(entry["images_per_s"], other["images_per_s"], strict=False))
    return statistics.median(one / two for one, two in pairs) if pairs else None


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The ways of several parts, with their speed against the first way of their part, which is the same in all."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        first = next(iter(part["ways"].values()))
        for name, entry in part["ways"].items():
            found.setdefault(name, {**entry, "to_first": ratio(entry, first)})
    return found


def shown(value: float | None, form: str = ".2f") -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, form)


BASELINES = ("script", "eager", "graph", "processes", "vmap", "grouped")


def kind_of(name: str, entry: Mapping[str, Any]) -> str:
    """What a way is compared as."""
    return "processes" if "process" in name and entry["kind"] == "eager" else str(entry["kind"])


def best_of(ways: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> tuple[str, float] | None:
    """The fastest way of some kinds, and its speed against the first."""
    found = [(n, e["to_first"]) for n, e in ways.items() if kind_of(n, e) in kinds and e["to_first"] is not None]
    return max(found, key=lambda pair: pair[1], default=None)


def way_table(case: Case, ways: Mapping[str, Mapping[str, Any]], bytes_per_s: float | None) -> str:
    """A row for each way."""
    base = {kind: best_of(ways, [kind]) for kind in BASELINES}
    there = [kind for kind in BASELINES if base[kind] is not None]
    rows = []
    for name, entry in ways.items():
        speed = median(entry)
        if speed is None or entry["error"]:
            rows.append((name, entry["error"], *[""] * (len(there) + 4)))
            continue
        against = [shown(entry["to_first"] / (base[kind] or ("", 1.0))[1]) for kind in there]
        hour = f"{3600 * speed / RUN_IMAGES:.1f}" if case.net == "full" else ""
        share = ""
        if bytes_per_s is not None:
            share = f"{100 * speed * case.bytes_per_image() / bytes_per_s:.1f} %"
        loss = f"{entry['first_loss']:.3f} to {entry['last_loss']:.3f}"
        loss += "" if went_down(entry) else " (does not go down)"
        peak = mebibytes(entry["peak_bytes"]) if entry["peak_bytes"] is not None else ""
        rows.append((name, f"{speed:,.0f}", hour, *against, peak, share, loss))
    head = ("way", "images/s", "runs an hour", *(f"x {kind}" for kind in there), "peak memory", "of the limit", "loss")
    return table(head, rows)


def went_down(entry: Mapping[str, Any]) -> bool:
    """Whether it learns."""
    return bool(entry["last_loss"] < entry["first_loss"])


def told_target(what: str, value: float | None, target: float) -> str:
    """A line about a target: at least so much."""
    if value is None:
        return f"- {what}: target >= {target:g}, not measured"
    met = "met" if value >= target else f"missed by {100 * (1 - value / target):.1f} %"
    return f"- {what}: {value:.2f}, target >= {target:g}: {met}"


def gpu_targets(ways: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How far the best of ours is from what it should be."""
    ours = best_of(ways, tuple(BACKENDS))
    speed = None if ours is None else ours[1]
    name = "ours" if ours is None else f"ours ({ours[0]})"

    def against(kinds: Sequence[str]) -> float | None:
        other = best_of(ways, kinds)
        return None if other is None or speed is None else speed / other[1]

    rivals = best_of(ways, ("processes", "vmap", "grouped"))
    hour = None if ours is None else 3600 * (median(ways[ours[0]]) or 0.0) / RUN_IMAGES
    return [
        told_target(f"{name} / eager", against(["eager"]), _GPU_TARGETS["eager"]),
        told_target(f"{name} / graph", against(["graph"]), _GPU_TARGETS["graph"]),
        told_target(
            f"{name} / best of processes, vmap, grouped" + (f" ({rivals[0]})" if rivals else ""),
            against(["processes", "vmap", "grouped"]),
            _GPU_TARGETS["rivals"],
        ),
        told_target(f"{name}, runs of the paper's protocol in an hour", hour, _GPU_TARGETS["runs_per_hour"]),
    ]


def agreement_lines(found: Mapping[str, Any]) -> list[str]:
    """Whether a stack computes what runs alone do."""
    alone = ", ".join(f"{precision} {error:.1e}" for precision, error in found["alone"].items())
    lines = [f"One step against float64, relative. Alone: {alone}."]
    for name in BACKENDS:
        for precision, entry in found[name].items():
            error = "not finite" if entry["error"] is None else f"{entry['error']:.1e}"
            flag = "" if entry["m_invariant"] else "; not M-invariant"
            flag += "" if entry["repeatable"] else ", and not the same twice"
            met = "met" if entry["met"] else "missed"
            lines.append(f"- {name}, {precision}: {error}, target <= {entry['allowed']:.1e}: {met}{flag}")
    lines += [
        f"- {name}, loss of {_EPOCHS_COMPARED} epochs against runs alone, relative: {entry['difference']:.1e}, "
        f"target <= {entry['allowed']:.1e}: {'met' if entry['met'] else 'missed'}"
        for name, entry in found["epochs"].items()
    ]
    return lines


def report(plan: Plan, done: Mapping[str, Any]) -> str:
    """All that was measured."""
    sections = []
    bytes_per_s = done.get("limits", {}).get("copy_bytes_per_s")
    if bytes_per_s is not None:
        case = plan.case("full", plan.precisions[0])
        limits = [f"{bytes_per_s / case.bytes_per_image(unfused):,.0f}" for unfused in (False, True)]
        sections.append(
            f"A copy in memory moves {bytes_per_s / 1e9:.1f} GB/s: for `full` in {case.precision} that is a limit of "
            f"{limits[0]} images/s with pointwise operations fused ('of the limit'), {limits[1]} without."
        )
    if "agreement" in done:
        sections.append("\n".join(agreement_lines(done["agreement"])))
    for net in plan.nets:
        for precision in plan.precisions:
            case = plan.case(net, precision)
            mine = {name: part for name, part in done.items() if name.startswith(f"{net} {precision} ")}
            crews = [part for name, part in mine.items() if name.endswith(f" {_CREWS}")]
            rest = [part for part in mine.values() if part not in crews]
            if rest:
                ways = joined(rest)
                text = way_table(case, ways, bytes_per_s)
                size = f"batch {case.recipe.batch_size}, {rest[0]['train_images']:,} training images an epoch"
                sections += [f"## {net}, {precision}, {size}", text]
                if plan.device != "cpu" and net == "full":
                    sections.append("\n".join(gpu_targets(ways)))
            for part in crews:
                sections.append(f"## {net}, {precision}: worker processes side by side")
                sections.append(way_table(case, joined([part]), bytes_per_s))
                sections.append(cpu_target(net, part))
    return "\n\n".join(sections)


def cpu_target(net: str, part: Mapping[str, Any]) -> str:
    """What `auto` takes against the best without stacking; and the best that there is."""
    ways = joined([part])
    unstacked, best = best_of(ways, ("processes",)), best_of(ways, ("processes", *BACKENDS))
    chosen = ways.get(part["choice"])
    value = None if unstacked is None or chosen is None else chosen["to_first"] / unstacked[1]
    lines = [told_target("what `auto` takes / the best without stacking", value, _CPU_TARGETS[net])]
    if unstacked is not None and best is not None:
        lines.append(f"- {best[0]} / the best without stacking ({unstacked[0]}): {best[1] / unstacked[1]:.2f}")
    return "\n".join([*lines, *([f"- `auto`: {part['told']}"] if part["told"] else [])])


# ---------------------------------------------------------------------------------------------------------------- main


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of this benchmark alone."""
    parser.add_argument("--net", choices=(*NETS, "both"), default="both", help="default both")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; auto: a GPU if there is one")
    parser.add_argument("--precision", metavar="P,P", help="fp32, tf32, bf16; on a GPU all, on a CPU fp32")
    parser.add_argument("--replicas", type=_numbers, metavar="M,M", help="of vmap, branches, stacked")
    parser.add_argument("--processes", type=_numbers, metavar="N,N", help="that share a GPU (default 2,4,8)")
    parser.add_argument("--images", type=int, metavar="N", help="training images of an epoch of `full`")
    parser.add_argument("--rounds", type=int, metavar="N", help="of a part (default 5)")
    parser.add_argument(
        "--part-minutes", type=float, default=7.0, metavar="N", help="no further round of a part after that (default 7)"
    )
    part_arguments(parser)


def plan_of(given: Options) -> Plan:
    """What the command line asks for."""
    more, quick = given.more, given.quick
    device = choose_device(more.device)
    on_gpu = device.type == "cuda"
    precisions = more.precision.split(",") if more.precision else ["bf16", "tf32", "fp32"] if on_gpu else ["fp32"]
    return Plan(
        device=str(device),
        nets=NETS if more.net == "both" else (more.net,),
        precisions=tuple(precisions),
        replicas=more.replicas or ((3,) if quick else (1, 2, 4, 8, 16, 40) if on_gpu else (1, 4, 8)),
        processes=more.processes or (2, 4, 8),
        images=more.images or (32 if quick else 9000 if on_gpu else 1000),
        rounds=more.rounds or (1 if quick else 5),
        seconds=60 * more.part_minutes,
        threads=given.threads,
        quick=quick,
    )


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__, threads=1, more=arguments)
    plan = plan_of(given)
    torch.set_num_threads(plan.threads)
    settings = dataclasses.asdict(plan)
    for name in ("nets", "precisions", "seconds"):  # they say which parts there are, and are no part of a number
        del settings[name]
    done, missing = results_of("sweep", plan.parts(), settings, given)
    results, line = told(settings, done, missing)
    origin = f"`full` is trained on {images(plan.images)[1]}. " if "full" in plan.nets else ""
    text = f"{line}{origin}Medians of {plan.rounds} epochs."
    finish("sweep", f"{text}\n\n{report(plan, done)}", results, given)


if __name__ == "__main__":
    if _WORKER in sys.argv:
        worker_case, worker_way = json.loads(sys.argv[-1])
        work(Case(**worker_case), Way(**worker_way))
    else:
        main()
