"""What else a training step on a CPU could be, against what it is.

    python -m benchmarks.alternatives [--quick] [--json FILE]

`hiresnet18` with all skips, on batches of 100. What it is: float32, the memory format channels-last, module by module,
one fused optimizer. The alternatives take turns with it, one step each; the ratio is theirs over ours, so above 1 the
alternative is slower; the target is that none is faster by more than 2 %. Likewise the evaluation of 2,000 images, in
other batches and in the form for inference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import hiresnet_graph as hrg
from benchmarks.measure import Pair, finish, in_turns, milliseconds, options, table
from hiresnet_graph.train.environment import retain_freed_memory
from hiresnet_graph.train.evaluation import BATCH as EVALUATION_BATCH
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.trainer import compute_logits, make_optimizer, move_to

BATCH, EVALUATED = 100, 2000
TARGET = 0.98
CPU = torch.device("cpu")
Step = Callable[[], object]


def training_step(
    recipe: Recipe,
    memory_format: torch.memory_format = torch.channels_last,
    *,
    compiled: bool = False,
    fused: bool = True,
) -> Step:
    """A step of the network as `hrg train` computes it, or in another way."""
    module = move_to(hrg.load("hiresnet18").variant("full").build(), CPU, memory_format)
    forward = torch.compile(module, dynamic=False) if compiled else module
    optimizer = make_optimizer(recipe, module) if fused else torch.optim.Adam(module.parameters(), lr=recipe.lr)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=memory_format)
    labels = torch.randint(10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        (logits,) = compute_logits(forward, images, recipe)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def evaluation(module: torch.nn.Module, images: torch.Tensor, batch: int) -> None:
    """The outputs for all images."""
    with torch.inference_mode():
        for part in images.split(batch):
            module(part)


def row(label: str, pair: Pair) -> tuple[str, ...]:
    """An alternative beside what it would replace."""
    ratio = pair.cpu_ratio
    times = milliseconds(pair.ours.median), milliseconds(pair.theirs.median)
    met = "met" if ratio.median >= TARGET else f"faster by {1 - ratio.median:.1%}"
    return (label, *times, f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})", f">= {TARGET:g}", met)


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    torch.set_num_threads(given.threads)
    retain_freed_memory()
    rounds = 2 if given.quick else 20
    fp32, bf16 = Recipe(), Recipe(precision="bf16")
    ours = training_step(fp32)
    alternatives: dict[str, Step] = {
        "contiguous": training_step(fp32, torch.contiguous_format),
        "one optimizer step per tensor": training_step(fp32, fused=False),
        "bf16": training_step(bf16),
    }
    if not given.quick:
        alternatives["torch.compile"] = training_step(fp32, compiled=True)
        alternatives["torch.compile, contiguous"] = training_step(fp32, torch.contiguous_format, compiled=True)
        alternatives["torch.compile, bf16"] = training_step(bf16, compiled=True)
    pairs = {f"step: {name}": in_turns(step, ours, rounds, warm_up=2) for name, step in alternatives.items()}

    network = hrg.load("hiresnet18").variant("full")
    module = move_to(network.build().eval(), CPU, torch.channels_last)
    images = torch.randn(200 if given.quick else EVALUATED, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    usual = EVALUATION_BATCH["cpu"]
    evaluated = partial(evaluation, module, images, usual)
    for batch in (usual // 4, 2 * usual, 5 * usual, 10 * usual):
        pairs[f"evaluation: batches of {batch}"] = in_turns(
            partial(evaluation, module, images, batch), evaluated, rounds
        )
    form = move_to(network.build_inference(module), CPU, torch.channels_last)
    pairs["evaluation: form for inference"] = in_turns(partial(evaluation, form, images, usual), evaluated, rounds)

    head = ("alternative", "it", "ours", "ratio of CPU time (95 %)", "target", "")
    results: dict[str, Any] = {**pairs, "evaluation batch": usual}
    finish("alternatives", table(head, [row(name, pair) for name, pair in pairs.items()]), results, given)


if __name__ == "__main__":
    main()
