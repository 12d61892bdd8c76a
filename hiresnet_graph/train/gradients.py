"""Norms of the gradients of a network, by block and edge, along training.

Axes: P parameters, G blocks and edges with parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from hiresnet_graph.plan import Plan

Norms = dict[str, float | None]
"""Norm by block or edge; None if it is unknown or not finite."""


def gradient_groups(plan: Plan, trained: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
    """The nodes and edges with parameters, in the order of the network, each with the names of its parameters.

    A residual block's own shortcut is an edge. Weights that several nodes share belong to the node that they are named
    after, or to their own name.

    Args:
        trained: The parameters that have gradients; by default all.
    """
    found: dict[str, dict[str, None]] = {}
    for call in plan.calls:
        names = [f"{call.weights}.{tensor.name}" for tensor in call.tensors if tensor.trainable]
        names = [name for name in names if trained is None or name in trained]
        is_own = f"{call.weights}.".startswith(f"{call.owner}.")
        group = call.owner if is_own else call.weights.rpartition(".")[0] or call.weights
        if names:
            found.setdefault(group, {}).update(dict.fromkeys(names))
    return {group: tuple(names) for group, names in found.items()}


@dataclass(frozen=True)
class GradientSums:
    """Sums of norms over the steps of an epoch, of one run.

    Attributes:
        indices: Block or edge -> its index in the sums.
        sums_G: Where a trainer adds the norms of each step; float64.
    """

    indices: Mapping[str, int]
    sums_G: torch.Tensor

    def take_means(self, steps: int) -> Norms:
        """The mean norms over the steps of an epoch that has ended; the sums are 0 again."""
        sums = self.sums_G.tolist()
        self.sums_G.zero_()
        return {name: sums[i] / steps if math.isfinite(sums[i]) else None for name, i in self.indices.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The sums in a checkpoint."""
        return {f"gradients.{name}": self.sums_G[i : i + 1] for name, i in self.indices.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Return to the sums of a checkpoint at a step of an epoch; without them, the epoch has no norms."""
        unknown = torch.tensor([math.nan if step else 0.0], dtype=torch.float64)
        for name, i in self.indices.items():
            self.sums_G[i : i + 1] = tensors.get(name, unknown)


class GradientGroups:
    """The blocks and edges of one network, or of several that are trained together.

    Args:
        plans: The networks; in all of them, a parameter belongs to the same block or edge.
        trained: The parameters that have gradients; by default all.
    """

    def __init__(self, plans: Iterable[Plan], device: torch.device, trained: Collection[str] | None = None) -> None:
        self._trained = trained
        groups: dict[str, dict[str, None]] = {}
        for plan in plans:
            for group, names in gradient_groups(plan, trained).items():
                groups.setdefault(group, {}).update(dict.fromkeys(names))
        self._indices = {group: i for i, group in enumerate(groups)}
        self._group_of = {name: i for i, names in enumerate(groups.values()) for name in names}
        self._index_P = torch.tensor(list(self._group_of.values()), device=device)

    def zeros(self, *runs: int) -> torch.Tensor:
        """Sums of 0 for a number of runs [..., G]."""
        return torch.zeros(*runs, len(self._indices), dtype=torch.float64, device=self._index_P.device)

    def sums_of(self, plan: Plan, sums_G: torch.Tensor) -> GradientSums:
        """The sums of one of the networks."""
        return GradientSums({group: self._indices[group] for group in gradient_groups(plan, self._trained)}, sums_G)

    def norms(self, norm_of: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The norms of all blocks and edges [..., G].

        Args:
            norm_of: Gives the norm of a parameter's gradient by name [...].
        """
        squares_P = torch.stack([norm_of(name).double().square() for name in self._group_of], dim=-1)
        return self.zeros(*squares_P.shape[:-1]).index_add_(-1, self._index_P, squares_P).sqrt()
