"""Which steps of a network come out, and whether a recipe goes with them. Needs no torch."""

from __future__ import annotations

from hiresnet_graph.passes.timing import format_steps, timing
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Clip, Series
from hiresnet_graph.train.recipe import Recipe


def readouts(plan: Plan) -> int:
    """How many steps come out: those of a network with `readout: all`, which stacks them; else 1."""
    shapes = [call.shape for call in plan.calls if call.name in plan.outputs.values()]
    return max((shape.steps for shape in shapes if isinstance(shape, Clip | Series)), default=1)


def misfit(recipe: Recipe, plan: Plan) -> str:
    """What is wrong with the `loss_steps` of a recipe for a network; empty if nothing is."""
    number, weights = readouts(plan), recipe.loss_steps
    if isinstance(weights, str) or number == 1 or len(weights) == number:
        return ""
    assert plan.folded is not None
    have = "1 weight" if len(weights) == 1 else f"{len(weights)} weights"
    return (
        f"'loss_steps' has {have}, and '{plan.name}' is read out at {number} steps: "
        f"{format_steps(timing(plan.folded).readouts)}. Give one weight for each, or 'mean' or 'last'."
    )
