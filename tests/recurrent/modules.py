"""Modules with random tensors, and random inputs."""

from __future__ import annotations

import torch
from torch import nn

import hiresnet_graph as hrg


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with random norms, biases and running statistics, so that none has a trivial value."""
    module = module.double()
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for name, tensor in sorted(module.state_dict().items()):
            if name.endswith("running_var"):
                tensor.copy_(0.5 + drawn(tensor).square())
            elif name.endswith("running_mean"):
                tensor.copy_(0.3 * drawn(tensor))
            elif tensor.dim() <= 1 and tensor.is_floating_point():
                tensor.add_(0.3 * drawn(tensor))
    return module


def images(
    arch: hrg.Architecture, seed: int = 0, batch: int = 3, steps: int | None = None, sequence: bool | None = None
) -> tuple[torch.Tensor, ...]:
    """Random inputs of a network, float64; `steps` and `sequence` override the spec."""
    generator = torch.Generator().manual_seed(1000 + seed)
    time = arch.graph.time
    if sequence is None:
        sequence = time is not None and time.input == "sequence"
    lead = (batch, steps or (time.steps if time is not None else 1)) if sequence else (batch,)
    return tuple(
        torch.randn(*lead, *node.shape, generator=generator, dtype=torch.float64)
        for node in arch.graph.inputs
        if node.shape is not None
    )
