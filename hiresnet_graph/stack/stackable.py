"""Which runs can be computed as one program, and what memory that takes. Needs no torch."""

from __future__ import annotations

from hiresnet_graph.cost import count
from hiresnet_graph.plan import Plan
from hiresnet_graph.train.recipe import Recipe

FEWEST = 3
"""Replicas of the smallest stack that is computed, filled up with copies that nobody looks at: libraries have other
kernels for fewer of them, which round differently."""

# What may differ between the runs of a stack: all of it is numbers of the optimizer.
OWN_FIELDS = frozenset(
    {"clip_norm", "lr", "momentum", "schedule", "step_every", "step_factor", "warmup_epochs", "weight_decay"}
)

# Numbers held for each parameter: it, its gradient, two moments, the best so far, and six while a step is made.
_HELD = 11


def stackable(recipe: Recipe) -> tuple[tuple[str, object], ...] | None:
    """What must be equal between the recipes of runs that are computed as one program; None if such a run is not.

    Runs whose steps are compiled, or computed once more in the backward pass, are trained alone.
    """
    if recipe.compile or recipe.checkpoint_steps is not None:
        return None
    return tuple((name, value) for name, value in recipe if name not in OWN_FIELDS)


def predicted_bytes(whole: Plan, replicas: int, batch: int, low_precision: bool) -> int:
    """About the memory that a stack takes in training, without the images of the data set; rather too much.

    Args:
        whole: The network that holds those of all runs.
        replicas: How many runs.
        batch: Images of a step.
        low_precision: Whether values are kept as 16-bit numbers.
    """
    cost, images = count(whole), sum(shape.elements for shape in whole.inputs.values())
    values = batch * (cost.memory * (2 if low_precision else 4) + images * 4)
    return max(replicas, FEWEST) * (values + 4 * (_HELD * cost.parameters + 2 * cost.buffers))
