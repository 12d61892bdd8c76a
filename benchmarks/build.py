"""How long it takes to build `resnet50` from its spec, beside torchvision's constructor.

    python -m benchmarks.build [--quick] [--json FILE]

Both end with an initialised module on the CPU: ours reads the file, checks it, makes the plan and the module; theirs is
`torchvision.models.resnet50()`. They take turns in one process. The parts of ours follow, and the first call of each
in this process (ours also makes the validators of the spec language then; theirs has nothing to make).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision.models

import hiresnet_graph as hrg
from benchmarks.measure import Spread, finish, in_turns, milliseconds, options, ratio_row, table, timed, verdict
from hiresnet_graph.lower import build as lower
from hiresnet_graph.lower.weights import make_layers
from hiresnet_graph.passes import resolve
from hiresnet_graph.plan import make_plan

TARGET = 1.2
PARTS = (
    "read the file",
    "check it, make the graph",
    "expand it into operations",
    "plan",
    "draw the weights",
    "the module, weights drawn again",
)


def parts(name: str, rounds: int) -> dict[str, Spread]:
    """Seconds of each step from the file to the module."""
    times: dict[str, list[float]] = {}

    for _ in range(rounds):
        marks = [time.perf_counter()]
        arch = hrg.load(name)
        marks.append(time.perf_counter())
        graph = arch.graph
        marks.append(time.perf_counter())
        expanded = resolve(graph)
        marks.append(time.perf_counter())
        plan = make_plan(expanded)
        marks.append(time.perf_counter())
        make_layers(plan, 0)
        marks.append(time.perf_counter())
        lower(plan)
        marks.append(time.perf_counter())
        for part, start, end in zip(PARTS, marks[:-1], marks[1:], strict=True):
            times.setdefault(part, []).append(end - start)
    return {part: Spread.of(values) for part, values in times.items()}


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    torch.set_num_threads(given.threads)
    name = "resnet18" if given.quick else "resnet50"
    theirs: Callable[[], Any] = getattr(torchvision.models, name)
    first = {"ours": timed(lambda: hrg.load(name).build())[0], "torchvision": timed(theirs)[0]}
    pair = in_turns(lambda: hrg.load(name).build(), theirs, 2 if given.quick else 40)
    steps = parts(name, 2 if given.quick else 20)
    met = verdict(pair.ratio.median, TARGET)
    text = "\n\n".join(
        [
            table(
                ("network", "ours", "torchvision", "ratio (95 %)", "of CPU time", "target", ""),
                [ratio_row(name, pair, TARGET, met)],
            ),
            table(("part of ours", "median"), [(part, milliseconds(spread.median)) for part, spread in steps.items()]),
            f"First call in this process: ours {milliseconds(first['ours'])}, "
            f"torchvision {milliseconds(first['torchvision'])}.",
        ]
    )
    finish(
        "build",
        text,
        {"network": name, "target": TARGET, "met": met, "pair": pair, "parts": steps, "first_s": first},
        given,
    )


if __name__ == "__main__":
    main()
