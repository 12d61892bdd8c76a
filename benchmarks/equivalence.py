"""Whether runs that are trained as one program come out as good as runs alone.

    python -m benchmarks.equivalence [--quick] [--json FILE] [--folder DIR] [--runs N] [--stack N] [--minutes N] ...

One network with many seeds is trained twice, each time by `hrg ablate`: without stacking, and with it. First come the
runs alone: the standard deviation of their test accuracy is the margin, which is fixed before a stacked run is seen.
Then two one-sided tests (TOST, Welch) say whether the means differ by less than the margin: p below 0.05 is
equivalence. On a GPU: `hiresnet18` with all skips on CIFAR-10, the paper's protocol shortened; on the CPU: the small
network on the digits.

Runs are in the folder, and a call goes on with those that are missing: with `--minutes` the work is cut into calls.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hiresnet_graph as hrg
from benchmarks.measure import Options, finish, options, table
from benchmarks.parts import part_arguments, results_of, told
from hiresnet_graph.report.scores import test_scores
from hiresnet_graph.sweep.ablation import ablate
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.environment import choose_device

ALPHA = 0.05
ARMS = ("alone", "stacked")


def study_of(seeds: int, epochs: int, precision: str, on_gpu: bool, quick: bool) -> Study:
    """So many runs of one network."""
    recipe: dict[str, Any] = {"epochs": epochs, "precision": precision}
    if on_gpu and not quick:
        # The paper halves the rate after each quarter of its 80 epochs.
        recipe["step_every"] = max(1, epochs // 4)
        return Study.model_validate(
            {"network": "hiresnet18", "variants": ["full"], "seeds": seeds, "data": "cifar10", "recipe": recipe}
        )
    arch = hrg.load("hiresnet18").override({"width": 4, "input.channels": 1, "input.height": 8, "input.width": 8})
    recipe |= {"batch_size": 32, "schedule": "cosine"}
    return Study.model_validate(
        {"network": arch, "variants": ["full"], "seeds": seeds, "data": "digits", "recipe": recipe}
    )


def tost(alone: list[float], stacked: list[float]) -> dict[str, Any]:
    """Two one-sided Welch tests, the margin one standard deviation of the runs alone."""
    from statsmodels.stats.weightstats import ttost_ind

    margin = statistics.stdev(alone)
    difference = statistics.mean(stacked) - statistics.mean(alone)
    p = 1.0
    if margin > 0 and statistics.stdev(stacked) > 0:
        p = float(ttost_ind(stacked, alone, -margin, margin, usevar="unequal")[0])
    return {
        "margin": margin,
        "distance": abs(difference),
        "stacked_is_higher": difference > 0,
        "p": p,
        "equivalent": p < ALPHA,
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of this benchmark alone."""
    parser.add_argument("--folder", type=Path, metavar="DIR", help="of the runs (default: beside the JSON file)")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="of each arm (default %(default)s)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of a run (default 8 on a GPU, 12 on a CPU)")
    parser.add_argument("--precision", default="fp32", help="fp32 (default), tf32, bf16")
    parser.add_argument("--stack", type=int, default=10, metavar="N", help="runs of a stack (default %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; auto: a GPU if there is one")
    part_arguments(parser)


def main() -> None:
    """Run the benchmark."""
    given: Options = options(__doc__, more=arguments)
    more, quick = given.more, given.quick
    on_gpu = choose_device(more.device).type == "cuda"
    runs, epochs = (3, 1) if quick else (more.runs, more.epochs or (8 if on_gpu else 12))
    size = 3 if quick else more.stack
    with ExitStack() as stack:
        folder = more.folder or (given.json.with_suffix(".runs") if given.json is not None and not quick else None)
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def part(arm: str, upto: int) -> dict[str, Any]:
            results = ablate(
                study_of(upto, epochs, more.precision, on_gpu, quick),
                out=folder / arm,
                device=more.device,
                threads=given.threads,
                jobs=1 if quick else None,
                stack="off" if arm == "alone" else size,
            )
            (scores,) = test_scores(results)
            return {"accuracy": {str(seeds.init): accuracy for seeds, accuracy in scores.items()}}

        steps = [*range(size, runs, size), runs]
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            f"{arm} {upto}": lambda arm=arm, upto=upto: part(arm, upto)  # type: ignore[misc]
            for arm in ARMS
            for upto in steps
        }
        settings = {"epochs": epochs, "precision": more.precision, "stack": size, "device": more.device}
        done, missing = results_of("equivalence", parts, settings, given)
    results, text = told(settings, done, missing)
    found: dict[str, list[float]] = {}
    for arm in ARMS:
        newest = [entry["accuracy"] for name, entry in done.items() if name.startswith(arm)]
        found[arm] = list(max(newest, key=len, default={}).values())
    rows = [
        (arm, len(values), f"{statistics.mean(values):.2f}", f"{statistics.stdev(values):.2f}")
        for arm, values in found.items()
        if len(values) > 1
    ]
    what = "hiresnet18 with all skips on CIFAR-10" if on_gpu and not quick else "the small network on the digits"
    text += f"Test accuracy in percent of {what}, {epochs} epochs, {more.precision}, stacks of {size}.\n\n"
    text += table(("", "runs", "mean", "sd"), rows)
    if len(rows) == len(ARMS):
        results["tost"] = verdict = tost(found["alone"], found["stacked"])
        sign = "higher" if verdict["stacked_is_higher"] else "lower"
        text += (
            f"\n\nStacked runs are {verdict['distance']:.3f} points {sign}; the margin is {verdict['margin']:.3f}. "
            f"Equivalence: p = {verdict['p']:.2g}, target < {ALPHA}: {'met' if verdict['equivalent'] else 'missed'}."
        )
    finish("equivalence", text, results, given)


if __name__ == "__main__":
    main()
