"""Which runs can share a program, and how much memory that takes. Needs no torch."""

from __future__ import annotations

from hiresnet_graph.cost import count
from hiresnet_graph.memory import FLOAT32_BYTES, step_memory
from hiresnet_graph.plan import Plan
from hiresnet_graph.train.recipe import Recipe

MIN_REPLICAS = 3
"""Replicas of the smallest stack. A stack of fewer runs is padded with copies that are ignored: with fewer replicas,
libraries use other kernels, which round differently."""

# Recipe fields in which the runs of a stack may differ: numbers that only the optimizer uses.
OWN_FIELDS = frozenset(
    {"clip_norm", "lr", "momentum", "schedule", "step_every", "step_factor", "warmup_epochs", "weight_decay"}
)

# Numbers stored for each parameter: value, gradient, two moments, best value so far, and six temporary ones in a step.
_STORED = 11


def stack_group(recipe: Recipe) -> tuple[tuple[str, object], ...] | None:
    """The recipe fields that are equal for all runs of a stack; None if the run cannot be in a stack.

    Runs with one of `UNSTACKED_FIELDS` are trained on their own.
    """
    if recipe.unstacked_fields:
        return None
    return tuple((name, value) for name, value in recipe if name not in OWN_FIELDS)


def predicted_bytes(supergraph: Plan, replicas: int, batch: int, low_precision: bool) -> int:
    """An estimate, rather too high, of the memory for training a stack, without the images of the data set.

    Args:
        supergraph: The network that contains those of all runs.
        replicas: Number of runs.
        batch: Images of a step.
        low_precision: Whether activations are stored as 16-bit numbers.
    """
    cost, step = count(supergraph), step_memory(supergraph, batch, low_precision=low_precision)
    weights = FLOAT32_BYTES * (_STORED * cost.parameters + 2 * cost.buffers)
    return max(replicas, MIN_REPLICAS) * (step.peak + weights)
