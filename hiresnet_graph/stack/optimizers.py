"""Adam, AdamW and SGD for many replicas at once, each with its own rate, weight decay, momentum and largest norm.

All is done on flat tensors, elementwise and without fusing two roundings into one, so that what becomes of a replica
does not depend on where it lies. torch's optimizers have one rate for all that they hold.

Axes: N elements of all parameters, M replicas, H settings of a step, T tensors, P steps of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.train.recipe import Recipe

_BETAS, _EPS = (0.9, 0.999), 1e-8


class FlatOptimizer:
    """The optimizer of all replicas.

    Source: Kingma & Ba 2015 (Adam), Loshchilov & Hutter 2019 (AdamW), Sutskever et al. 2013 (momentum), with the
    constants and the order of operations of `torch.optim`.

    Args:
        recipes: Of each replica; they agree in `optimizer` and `nesterov`.
    """

    def __init__(self, recipes: Sequence[Recipe], replicas: Replicas) -> None:
        self.recipes, self.replicas = tuple(recipes), replicas
        self.kind, self.nesterov = recipes[0].optimizer, recipes[0].nesterov
        self.clips = any(recipe.clip_norm is not None for recipe in recipes)
        self.decays = any(recipe.weight_decay for recipe in recipes)
        names = ("exp_avg", "exp_avg_sq") if self.kind != "sgd" else ("momentum_buffer",)
        self.kept = {name: torch.zeros_like(replicas.flat) for name in names}

    # ----------------------------------------------------------------------------------------------------------- rates

    def rates(self, steps: Sequence[int], count: int, steps_per_epoch: int) -> torch.Tensor:
        """What changes from step to step, for each replica: a table [P, H, M] for `count` steps, on the device.

        Args:
            steps: Of each replica, counted from 0 over its whole run: the first of the table.
        """
        rows = [
            [self._settings(recipe, first + place, steps_per_epoch) for place in range(count)]
            for recipe, first in zip(self.recipes, steps, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64).permute(1, 2, 0).contiguous().to(self.replicas.flat)

    def _settings(self, recipe: Recipe, step: int, steps_per_epoch: int) -> tuple[float, float, float, float]:
        """Size of the step, what divides the root of the second moment (or momentum), decay, largest norm."""
        rate, decay = recipe.lr_at(step, steps_per_epoch), recipe.weight_decay
        clip = float("inf") if recipe.clip_norm is None else recipe.clip_norm
        if self.kind == "sgd":
            return rate, recipe.momentum, decay, clip
        first, second = (1 - beta ** (step + 1) for beta in _BETAS)
        return rate / first, second**0.5, decay if self.kind == "adam" else 1 - rate * decay, clip

    # ------------------------------------------------------------------------------------------------------------ steps

    @torch.no_grad()
    def step(self, rates_HM: torch.Tensor) -> None:
        """Clip the gradients of each replica and change its parameters; the host waits for nothing.

        Args:
            rates_HM: A row of `rates`.
        """
        own = self.replicas
        value_N, grad_N = own.flat, own.grad
        if own.absent is not None:
            grad_N.masked_fill_(own.absent, 0)
        if self.clips:
            grad_N.mul_(self._shares(rates_HM[3])[own.owner])
        size_N, second_N = rates_HM[0][own.owner], rates_HM[1][own.owner]
        if self.decays:
            decay_N = rates_HM[2][own.owner]
            if self.kind == "adamw":
                value_N.mul_(decay_N)
            else:
                grad_N = value_N.mul(decay_N).add_(grad_N)
        if self.kind == "sgd":
            kept_N = self.kept["momentum_buffer"].mul_(second_N).add_(grad_N)
            value_N.sub_(kept_N.mul(second_N).add_(grad_N).mul_(size_N) if self.nesterov else kept_N.mul(size_N))
            return
        mean_N, square_N = self.kept["exp_avg"], self.kept["exp_avg_sq"]
        mean_N.add_(grad_N.sub(mean_N).mul_(1 - _BETAS[0]))
        square_N.mul_(_BETAS[1]).add_(grad_N.square().mul_(1 - _BETAS[1]))
        value_N.sub_(square_N.sqrt().div_(second_N).add_(_EPS).reciprocal_().mul_(mean_N).mul_(size_N))

    def _shares(self, largest_M: torch.Tensor) -> torch.Tensor:
        """How much is left of each replica's gradients, as `torch.nn.utils.clip_grad_norm_` has it."""
        # One after another: tensors that a replica does not have add 0, and change no bit of the others' sum.
        squares_M = torch.zeros_like(largest_M)
        for grad_MN in self.replicas.gradients():
            squares_M = squares_M + torch.linalg.vector_norm(grad_MN, dim=1).square()
        norms_M = squares_M.sqrt()
        return (largest_M / (norms_M + 1e-6)).clamp(max=1.0)

    # ----------------------------------------------------------------------------------------------- to and from others

    def state(self, k: int, steps: int) -> dict[str, dict[str, torch.Tensor]]:
        """What torch's optimizer would keep for each parameter of replica k after so many steps; copies."""
        if self.kind == "sgd" and not self.recipes[k].momentum:
            return {}
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, kept_N in self.kept.items():
            for parameter, value in self.replicas.spread(k, kept_N).items():
                counter = {} if self.kind == "sgd" else {"step": torch.tensor(float(steps))}
                found.setdefault(parameter, counter)[name] = value.clone()
        return found

    def load(self, k: int, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Go on with what `state` has given for a network like replica k's."""
        for name, kept_N in self.kept.items():
            for parameter, value in self.replicas.spread(k, kept_N).items():
                if parameter in state:
                    value.copy_(state[parameter][name])
                else:
                    value.zero_()
