"""An exponential moving average of the weights of a network along training."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The averages of all weights and buffers of a network, in a network of their own.

    After the first step they are the weights; later, each becomes `decay` times itself plus 1 - decay times the new
    value. Counters are copied.

    Attributes:
        module: The network with the averages, which is evaluated and saved instead of the trained one.

    Args:
        module: The network that is trained.
        decay: Above 0 and below 1.

    Source: Polyak & Juditsky 1992, with the exponential form of Tarvainen & Valpola 2017, arXiv:1703.01780.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, module: nn.Module, *, is_first: bool) -> None:
        """Add the weights after a step."""
        if is_first:
            self.module.load_state_dict(module.state_dict())
            return
        means: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for mean, value in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if mean.is_floating_point():
                means.append(mean)
                values.append(value)
            else:
                mean.copy_(value)
        self._average(means, values, None)
