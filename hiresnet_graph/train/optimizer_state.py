"""The state of an optimizer by names of parameters, as checkpoints have it.

torch numbers the parameters of an optimizer in the order of their groups, so a number means another parameter when they
are grouped differently.
"""

from __future__ import annotations

import torch
from torch import nn

from hiresnet_graph.train.state import Weights, below

StateByParameter = dict[str, dict[str, torch.Tensor]]
"""The tensors that an optimizer of torch keeps for each parameter, such as `exp_avg`."""

PREFIX = "optimizer"


def state_by_name(optimizer: torch.optim.Optimizer, module: nn.Module) -> StateByParameter:
    """The state of torch's optimizer for each parameter of a network, not copied."""
    held = optimizer.state
    return {
        name: {entry: value for entry, value in held[parameter].items() if torch.is_tensor(value)}
        for name, parameter in module.named_parameters()
        if parameter in held
    }


def load_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: StateByParameter) -> None:
    """Continue with a `state_by_name`; parameters that it does not name start without state."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbered: dict[int, dict[str, torch.Tensor]] = {}
    for index, parameter in enumerate(parameters):
        for entry, value in state.get(names[parameter], {}).items():
            # In the memory format of the parameter, as the optimizer expects; it may have been another one before.
            own = torch.empty_like(parameter if value.shape == parameter.shape else value, requires_grad=False)
            numbered.setdefault(index, {})[entry] = own.copy_(value)
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def to_tensors(state: StateByParameter) -> Weights:
    """The tensors of a checkpoint: `optimizer.`, the name of the parameter, and that of the entry."""
    return {f"{PREFIX}.{name}.{entry}": value for name, entries in state.items() for entry, value in entries.items()}


def from_tensors(tensors: Weights) -> StateByParameter:
    """The state in the tensors of a checkpoint."""
    state: StateByParameter = {}
    for key, value in below(tensors, PREFIX).items():
        name, _, entry = key.rpartition(".")
        state.setdefault(name, {})[entry] = value
    return state
