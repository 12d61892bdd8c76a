"""Networks in time: how long unrolling takes, what the straight line costs to run, and what a long sequence needs.

    python -m benchmarks.unroll [--quick] [--json FILE] [--threads N]

A fully recurrent network of three states, each of which leads to each (Liao & Poggio 2016, arXiv:1604.03640), with
norm for each step, is compiled with 25 to 400 steps: CPU seconds to plan it and to build the module, and the exponent k
of a fit a T^k. With 100 steps, forward and backward of the module are timed in turns with a loop over steps
that is written by hand over the same layers; outputs and gradients must be equal bit for bit before. The streaming
module then runs 10,000 steps: memory and time at the beginning and at the end.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hiresnet_graph as hrg
from benchmarks.measure import Options, Pair, finish, in_turns, mebibytes, options, ratio_row, table, verdict
from hiresnet_graph.lower import Recurrent, State

TARGET = 1.05
LINEAR = 1.1
STATES = ("s1", "s2", "s3")
SPEC = """
name: three_states
params: {steps: 100, width: 16, size: 32, norm: batch, per_step: norm}
input: {channels: 3, height: $size, width: $size}
nodes:
  pre: {block: conv, width: $width}
  s1: {block: state, shape: [$width, $size, $size]}
  s2: {block: state, shape: [$(2 * width), $(size // 2), $(size // 2)]}
  s3: {block: state, shape: [$(4 * width), $(size // 4), $(size // 4)]}
  post: {block: classifier, classes: 10}
flow: [pre -> s1, s3 -> post]
blocks:
  same: {block: brc2, identity: true, norm: $norm}
  down: {block: brc2, norm: $norm}
  up: {block: brd2, norm: $norm}
transitions:
  s1: {s1: same, s2: down, s3: down}
  s2: {s1: up, s2: same, s3: down}
  s3: {s1: up, s2: up, s3: same}
time: {steps: $steps, input: first, per_step: $per_step}
"""


def network(**params: int | str) -> hrg.Architecture:
    """The network with these params."""
    return hrg.loads(SPEC).override(params)


# ----------------------------------------------------------------------------------------------------------- compiling


def compile_seconds(steps: int, rounds: int) -> tuple[float, float]:
    """CPU seconds to plan and to build the network with so many steps: the best of some rounds."""
    found = []
    for _ in range(rounds):
        arch = network(steps=steps)
        _ = arch.graph
        gc.collect()
        start = time.process_time()
        _ = arch.plan
        middle = time.process_time()
        arch.build()
        found.append((middle - start, time.process_time() - middle))
    return min(plan for plan, _ in found), min(build for _, build in found)


def exponent(times: dict[int, float]) -> float:
    """k of a T^k, by least squares on logarithms."""
    xs = [math.log(steps) for steps in times]
    ys = [math.log(seconds) for seconds in times.values()]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


# ------------------------------------------------------------------------------------------------------------- running


class ByHand(nn.Module):
    """The network as a loop over the steps, with the layers of a compiled one."""

    def __init__(self, module: nn.Module, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.pre = nn.ModuleList([module.get_submodule("pre.conv"), module.get_submodule("pre.norm.step0")])
        self.head = module.get_submodule("post.linear")
        self.convs = nn.ModuleDict()
        self.norms: dict[str, nn.ModuleDict] = {}
        for source in STATES:
            for target in STATES:
                for i in (1, 2):
                    name = f"{source}{target}{i}"
                    self.convs[name] = module.get_submodule(f"edges.{source}__{target}.conv{i}")
                    copies = module.get_submodule(f"edges.{source}__{target}.norm{i}")
                    self.norms[name] = nn.ModuleDict(dict(copies.named_children()))
                    self.add_module(f"norms_{name}", self.norms[name])

    def way(self, source: str, target: str, x: Tensor, step: int) -> Tensor:
        """One transition at a step."""
        out = x
        for i in (1, 2):
            name = f"{source}{target}{i}"
            out = self.convs[name](F.relu(self.norms[name][f"step{step}"](out), inplace=True))
        return out + x if source == target else out

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 10]."""
        held = {"s1": F.relu(self.pre[1](self.pre[0](image)), inplace=True)}
        for step in range(1, self.steps):
            targets = STATES if step < self.steps - 1 else STATES[-1:]
            new = {}
            for target in targets:
                terms = [self.way(source, target, x, step) for source, x in held.items()]
                total = terms[0]
                for term in terms[1:]:
                    total = total + term
                new[target] = total
            held = new
        out: Tensor = self.head(F.adaptive_avg_pool2d(held["s3"], 1).flatten(1))
        return out


def step_of(module: nn.Module, parameters: Sequence[Tensor], image: Tensor) -> Callable[[], object]:
    """Forward and backward."""

    def step() -> None:
        torch.autograd.grad(module(image).square().sum(), parameters)

    return step


def run_pair(steps: int, width: int, size: int, batch: int, rounds: int) -> Pair:
    """The compiled network and the loop in turns; both have the same layers, and must agree in every bit."""
    module = network(steps=steps, width=width, size=size).build().train()
    loop = ByHand(module, steps).train()
    image = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    parameters = list(module.parameters())
    results = []
    for one in (module, loop):
        out = one(image)
        results.append([out, *torch.autograd.grad(out.square().sum(), parameters)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), "the loop computes something else"
    return in_turns(step_of(module, parameters, image), step_of(loop, parameters, image), rounds)


# ----------------------------------------------------------------------------------------------------------- streaming


def resident() -> int | None:
    """Resident size of this process in bytes; None where the system cannot tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def held_bytes(state: State) -> int:
    """Of the tensors in a state."""
    return sum(v.nbytes for values in state.past.values() for v in values if isinstance(v, Tensor))


@torch.no_grad()
def stream(steps: int, early: int) -> dict[str, Any]:
    """Memory and seconds a step after `early` steps and after all."""
    module = network(steps=10, width=8, size=16, norm="group", per_step="none").build().eval()
    assert isinstance(module, Recurrent)
    image = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    marks, state, out = [], None, None
    start = time.process_time()
    for step in range(steps):
        out, state = module.step(image, state)
        if step + 1 in (early, steps):
            gc.collect()
            marks.append((resident(), held_bytes(state), time.process_time() - start))
    assert out is not None and bool(torch.isfinite(out).all()), "the state has run away"
    (first, kept, seconds), (last, kept_last, whole) = marks
    return {
        "steps": steps,
        "early": early,
        "resident_bytes": {"early": first, "end": last},
        "state_bytes": {"early": kept, "end": kept_last},
        "seconds_a_step": {"early": seconds / early, "later": (whole - seconds) / (steps - early)},
    }


def main() -> None:
    """Run the benchmark."""
    given: Options = options(__doc__)
    torch.set_num_threads(given.threads)
    counts = (5, 10, 20) if given.quick else (25, 50, 100, 200, 400)
    times = {steps: compile_seconds(steps, 1 if given.quick else 3) for steps in counts}
    k = exponent({steps: sum(seconds) for steps, seconds in times.items()})
    compiled = [
        (str(steps), f"{plan:.3f} s", f"{build:.3f} s", f"{1000 * (plan + build) / steps:.2f} ms")
        for steps, (plan, build) in times.items()
    ]

    steps = 6 if given.quick else 100
    rows, pairs = [], {}
    for label, width, size, batch, rounds in (
        ("16 to 64 channels at 32 to 8, batch 4", 16, 32, 4, 20),
        ("4 to 16 channels at 8 to 2, batch 2", 4, 8, 2, 60),
    ):
        pair = run_pair(steps, width, size, batch, 2 if given.quick else rounds)
        pairs[label] = pair
        rows.append(ratio_row(label, pair, TARGET, verdict(pair.ratio.median, TARGET)))

    streamed = stream(60, 20) if given.quick else stream(10_000, 1_000)
    sizes, kept, seconds = (streamed[key] for key in ("resident_bytes", "state_bytes", "seconds_a_step"))
    ends = [
        (f"after {streamed['early']:,} steps", mebibytes(sizes["early"]), mebibytes(kept["early"]), seconds["early"]),
        (f"after {streamed['steps']:,} steps", mebibytes(sizes["end"]), mebibytes(kept["end"]), seconds["later"]),
    ]
    text = "\n\n".join(
        [
            f"Threads: {given.threads}.",
            table(("steps", "plan", "build", "both, a step"), compiled),
            f"Fit a T^k of plan and build: k = {k:.3f}, target <= {LINEAR} (linear): {verdict(k, LINEAR)}.",
            f"Forward and backward of {steps} steps; outputs and gradients equal bit for bit.",
            table(("network", "ours", "loop by hand", "ratio (95 %)", "of CPU time", "target", ""), rows),
            "Streaming, batch 4, no gradient:",
            table(
                ("", "process", "state", "a step"),
                [(name, size, held, f"{1000 * each:.2f} ms") for name, size, held, each in ends],
            ),
        ]
    )
    results = {
        "threads": given.threads,
        "compile_s": {str(n): {"plan": plan, "build": build} for n, (plan, build) in times.items()},
        "exponent": k,
        "run": pairs,
        "stream": streamed,
    }
    finish("unroll", text, results, given)


if __name__ == "__main__":
    main()
