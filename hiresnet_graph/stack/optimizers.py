"""Adam, AdamW and SGD for many replicas, each with its own learning rate, weight decay, momentum and maximum norm.

Axes: N elements of all parameters, M replicas, H hyperparameters of a step, P steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.train.optimizer_state import StateByParameter, load_state, state_by_name
from hiresnet_graph.train.parameter_rules import undecayed_parameters
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.trainer import make_optimizer

_BETAS, _EPS = (0.9, 0.999), 1e-8


class StackOptimizer(ABC):
    """The optimizer of all replicas of a stack.

    Attributes:
        tensors: What it changes besides parameters and gradients.
    """

    tensors: Sequence[torch.Tensor] = ()

    @abstractmethod
    def rates(self, steps: Sequence[int], count: int, steps_per_epoch: int) -> torch.Tensor:
        """The hyperparameters that change from step to step [P, H, M], for the next `count` steps.

        Args:
            steps: The first step of each replica, counted from 0 over its whole run.
        """

    @abstractmethod
    def step(self, rates_HM: torch.Tensor) -> None:
        """Clip the gradients of each replica and change its parameters, with one row of `rates`."""

    @abstractmethod
    def state(self, k: int, steps: int) -> StateByParameter:
        """The state of torch's optimizer for each parameter of replica k, after a number of steps."""

    @abstractmethod
    def load(self, k: int, state: StateByParameter) -> None:
        """Continue with a `state` of replica k."""


class FlatOptimizer(StackOptimizer):
    """All replicas at once on flat tensors; torch's optimizers have one learning rate for all their tensors.

    Computes elementwise and without fusing two roundings into one, so that the result for a replica does not depend on
    its index.

    Source: Kingma & Ba 2015 (Adam), Loshchilov & Hutter 2019 (AdamW), Sutskever et al. 2013 (momentum), with the
    constants and the order of operations of `torch.optim`.

    Args:
        recipes: Of each replica, with equal `optimizer`, `nesterov` and `no_decay`.
    """

    def __init__(self, recipes: Sequence[Recipe], replicas: Replicas) -> None:
        self.recipes, self.replicas = tuple(recipes), replicas
        self.kind, self.nesterov = recipes[0].optimizer, recipes[0].nesterov
        self.clips = any(recipe.clip_norm is not None for recipe in recipes)
        self.decays = any(recipe.weight_decay for recipe in recipes)
        self._undecayed = _undecayed_elements(recipes[0], replicas)
        names = ("exp_avg", "exp_avg_sq") if self.kind != "sgd" else ("momentum_buffer",)
        self._moments = {name: torch.zeros_like(replicas.flat) for name in names}
        self.tensors = tuple(self._moments.values())

    def rates(self, steps: Sequence[int], count: int, steps_per_epoch: int) -> torch.Tensor:
        """The hyperparameters of the next `count` steps [P, H, M], on the device."""
        rows = [
            [self._settings(recipe, first + i, steps_per_epoch) for i in range(count)]
            for recipe, first in zip(self.recipes, steps, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64).permute(1, 2, 0).contiguous().to(self.replicas.flat)

    def _settings(self, recipe: Recipe, step: int, steps_per_epoch: int) -> tuple[float, float, float, float]:
        """Step size, divisor of the root of the second moment (for SGD: momentum), weight decay, maximum norm."""
        rate, decay = recipe.lr_at(step, steps_per_epoch), recipe.weight_decay
        clip = float("inf") if recipe.clip_norm is None else recipe.clip_norm
        if self.kind == "sgd":
            return rate, recipe.momentum, decay, clip
        first, second = (1 - beta ** (step + 1) for beta in _BETAS)
        return rate / first, second**0.5, decay if self.kind == "adam" else 1 - rate * decay, clip

    @torch.no_grad()
    def step(self, rates_HM: torch.Tensor) -> None:
        """Clip the gradients of each replica and change its parameters, without waiting for the device."""
        own = self.replicas
        value_N, grad_N = own.flat, own.grad
        if own.absent is not None:
            grad_N.masked_fill_(own.absent, 0)
        if self.clips:
            grad_N.mul_(self._clip_factors(rates_HM[3])[own.owner])
        size_N, second_N = rates_HM[0][own.owner], rates_HM[1][own.owner]
        if self.decays:
            decay_N = rates_HM[2][own.owner]
            if self._undecayed is not None:
                decay_N.masked_fill_(self._undecayed, 1.0 if self.kind == "adamw" else 0.0)
            if self.kind == "adamw":
                value_N.mul_(decay_N)
            else:
                grad_N = value_N.mul(decay_N).add_(grad_N)
        if self.kind == "sgd":
            momentum_N = self._moments["momentum_buffer"].mul_(second_N).add_(grad_N)
            value_N.sub_(
                momentum_N.mul(second_N).add_(grad_N).mul_(size_N) if self.nesterov else momentum_N.mul(size_N)
            )
            return
        mean_N, square_N = self._moments["exp_avg"], self._moments["exp_avg_sq"]
        mean_N.add_(grad_N.sub(mean_N).mul_(1 - _BETAS[0]))
        square_N.mul_(_BETAS[1]).add_(grad_N.square().mul_(1 - _BETAS[1]))
        value_N.sub_(square_N.sqrt().div_(second_N).add_(_EPS).reciprocal_().mul_(mean_N).mul_(size_N))

    def _clip_factors(self, max_norm_M: torch.Tensor) -> torch.Tensor:
        """The factor of each replica's gradients, as in `torch.nn.utils.clip_grad_norm_`."""
        # Summed one by one: tensors that a replica lacks add 0, and change no bit of the sum.
        squares_M = torch.zeros_like(max_norm_M)
        for grad_MN in self.replicas.gradients():
            squares_M = squares_M + torch.linalg.vector_norm(grad_MN, dim=1).square()
        norms_M = squares_M.sqrt()
        return (max_norm_M / (norms_M + 1e-6)).clamp(max=1.0)

    def state(self, k: int, steps: int) -> StateByParameter:
        """The state of torch's optimizer for each parameter of replica k, after a number of steps; copies."""
        if self.kind == "sgd" and not self.recipes[k].momentum:
            return {}
        found: StateByParameter = {}
        for name, moment_N in self._moments.items():
            for parameter, value in self.replicas.spread(k, moment_N).items():
                counter = {} if self.kind == "sgd" else {"step": torch.tensor(float(steps))}
                found.setdefault(parameter, counter)[name] = value.clone()
        return found

    def load(self, k: int, state: StateByParameter) -> None:
        """Continue with a `state` of replica k."""
        for name, moment_N in self._moments.items():
            for parameter, value in self.replicas.spread(k, moment_N).items():
                if parameter in state:
                    value.copy_(state[parameter][name])
                else:
                    value.zero_()


def _undecayed_elements(recipe: Recipe, replicas: Replicas) -> torch.Tensor | None:
    """Which elements have no weight decay [N]; None if all have."""
    names = undecayed_parameters(recipe, replicas.supergraph) & replicas.slots.keys()
    if not names:
        return None
    found = torch.zeros_like(replicas.flat, dtype=torch.bool)
    for name in names:
        replicas.view(name, found).fill_(True)
    return found


class SeparateOptimizers(StackOptimizer):
    """One optimizer of torch for each replica: the same bits as for a single run.

    On CPUs, torch's fused optimizers round differently from a computation operation by operation.
    """

    def __init__(self, recipes: Sequence[Recipe], replicas: Branches) -> None:
        self._recipes, self._modules = tuple(recipes), replicas.modules
        self._optimizers = [
            make_optimizer(recipe, module, undecayed=undecayed_parameters(recipe, plan))
            for recipe, module, plan in zip(recipes, replicas.modules, replicas.subgraphs, strict=True)
        ]

    def rates(self, steps: Sequence[int], count: int, steps_per_epoch: int) -> torch.Tensor:
        """The learning rates of the next `count` steps [P, 1, M]."""
        pairs = zip(self._recipes, steps, strict=True)
        rates_MP = [[recipe.lr_at(first + i, steps_per_epoch) for i in range(count)] for recipe, first in pairs]
        return torch.tensor(rates_MP, dtype=torch.float64).T[:, None]

    def step(self, rates_HM: torch.Tensor) -> None:
        """Clip the gradients of each replica and change its parameters."""
        for module, recipe, optimizer, rate in zip(
            self._modules, self._recipes, self._optimizers, rates_HM[0].tolist(), strict=True
        ):
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state(self, k: int, steps: int) -> StateByParameter:
        """The state of torch's optimizer for each parameter of replica k."""
        return state_by_name(self._optimizers[k], self._modules[k])

    def load(self, k: int, state: StateByParameter) -> None:
        """Continue with a `state` of replica k."""
        load_state(self._optimizers[k], self._modules[k], state)
