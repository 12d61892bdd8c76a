"""An estimate of the memory that training takes. Needs no torch."""

from __future__ import annotations

from typing import NamedTuple

from hiresnet_graph.memory import FLOAT32_BYTES, step_memory
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.segments import calls_by_block, calls_by_step
from hiresnet_graph.train.parameter_rules import lr_factors
from hiresnet_graph.train.recipe import Recipe


class TrainingMemory(NamedTuple):
    """Bytes in a training step of one run, without the images of the data set.

    Attributes:
        weights_bytes: Parameters and buffers; a copy of those of the best epoch so far; with `ema`, their average.
        optimizer_bytes: Its state: the moments of each parameter.
        gradients_bytes: Of the weights.
        stored_bytes: What the forward pass keeps for the backward pass.
        peak_bytes: The most that all take at one time, with the images of the batch and the values in progress.
    """

    weights_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    stored_bytes: int
    peak_bytes: int


def training_memory(plan: Plan, recipe: Recipe) -> TrainingMemory:
    """The memory of a training step, estimated from the live ranges of the values.

    Within 15 % of what torch allocates on a CPU (`python -m benchmarks.memory`). The workspace of libraries is not
    included.
    """
    tensors = plan.tensors()
    trained = lr_factors(recipe, plan)
    elements = sum(tensors[name].elements for name in trained)
    moments = (1 if recipe.momentum else 0) if recipe.optimizer == "sgd" else 2
    step = step_memory(
        plan,
        -(-recipe.batch_size // recipe.accumulate),
        low_precision=recipe.precision in ("bf16", "fp16"),
        trained=trained,
        segments=_segments(plan, recipe),
    )
    copies = 2 if recipe.ema is None else 3
    weights = copies * FLOAT32_BYTES * sum(tensor.elements for tensor in tensors.values())
    gradients = FLOAT32_BYTES * elements
    held = gradients if recipe.accumulate > 1 else 0  # of the parts of the batch before
    optimizer = FLOAT32_BYTES * moments * elements
    return TrainingMemory(weights, optimizer, gradients, step.stored, weights + optimizer + held + step.peak)


def _segments(plan: Plan, recipe: Recipe) -> tuple[tuple[Call, ...], ...]:
    """The parts of the network that are computed again in the backward pass."""
    if recipe.checkpoint == "blocks":
        return calls_by_block(plan)
    if recipe.checkpoint_steps is not None and plan.folded is not None:
        return calls_by_step(plan, recipe.checkpoint_steps)
    return ()
