"""From a plan to a torch module (`build`), and an interpreter of plans as a reference."""

from torch import fx

from hiresnet_graph.lower import recurrent, single
from hiresnet_graph.lower.interpreter import interpret
from hiresnet_graph.lower.recurrent import Recurrent, State
from hiresnet_graph.plan import Plan

__all__ = ["Recurrent", "State", "build", "interpret"]


def build(plan: Plan, seed: int = 0) -> fx.GraphModule:
    """The module of a plan; a `Recurrent` for a network with `time`.

    Args:
        seed: Seed of the initial weights; each is drawn from (seed, its name) alone.
    """
    return single.build(plan, seed) if plan.folded is None else recurrent.build(plan, seed)
