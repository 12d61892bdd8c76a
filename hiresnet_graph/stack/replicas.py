"""Many replicas of a network in one memory: what the programs that compute them together have in common.

Axes: M replicas, N elements of all parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hiresnet_graph.lower.weights import find
from hiresnet_graph.ops import Tensor
from hiresnet_graph.plan import Plan, layers_by_weight
from hiresnet_graph.stack.supergraph import Mask, mask_of

_ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector of a CPU. Each replica's slot of a tensor begins at such a place."""
_EVEN = 2
"""Vectors that elementwise loops take at once: what is left over at the end would go through other instructions."""


@dataclass(frozen=True, slots=True)
class Block:
    """A tensor of all replicas: [M, padded].

    Attributes:
        start: Its place in the flat tensor, if it is trained.
        size: Elements of one replica, without the padding.
    """

    tensor: Tensor
    start: int
    size: int
    padded: int


class Replicas(ABC):
    """M replicas of one network, or of networks that it holds, which are computed as one program.

    Attributes:
        replicas: M.
        flat: All parameters [N]: tensor after tensor, each [M, padded to 64 bytes].
        grad: Their gradients [N], which add up until `zero_grad`.
        owner: The replica that each element belongs to [N].
        absent: Elements of weights that their replica does not have [N]; None if there are none.
        looped: Kinds of operations that are computed replica by replica.
        noise: For each replica what dropout draws from.

    Args:
        whole: A network that holds all of them.
        parts: The network of each replica.

    Raises:
        ValueError: A part is not `whole` without operands of merges.
    """

    looped: tuple[str, ...] = ()

    def __init__(
        self,
        whole: Plan,
        parts: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.whole, self.parts, self.replicas = whole, tuple(parts), len(parts)
        self.device, self.dtype = torch.device(device), dtype
        self.masks = [_mask(whole, part) for part in parts]
        self._names = [tuple(part.tensors()) for part in parts]
        wanted = set().union(*self._names)
        types = _types(whole, dtype)
        self.blocks: dict[str, Block] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        end = 0
        for name, tensor in whole.tensors().items():
            if name not in wanted:
                continue
            slot = _ALIGNMENT // types[name].itemsize
            padded = -(-tensor.elements // slot) * slot
            self.blocks[name] = Block(tensor, end, tensor.elements, padded)
            if tensor.trainable:
                end += self.replicas * padded
            else:
                self.buffers[name] = torch.zeros(self.replicas, padded, dtype=types[name], device=self.device)
        even = _EVEN * _ALIGNMENT // dtype.itemsize
        end = -(-end // even) * even
        self.flat = torch.zeros(end, dtype=dtype, device=self.device)
        self.grad = torch.zeros_like(self.flat)
        self.owner = torch.zeros(end, dtype=torch.int64, device=self.device)
        numbers_M1 = torch.arange(self.replicas, device=self.device)[:, None]
        for name in self._trained():
            self.block(name, self.owner).copy_(numbers_M1)
        self.absent = self._absent()
        self.noise = [torch.Generator(self.device) for _ in parts]

    def _trained(self) -> list[str]:
        return [name for name, block in self.blocks.items() if block.tensor.trainable]

    def block(self, name: str, flat: torch.Tensor) -> torch.Tensor:
        """The part of a flat tensor that belongs to a parameter, as a view [M, padded]."""
        block = self.blocks[name]
        return flat[block.start : block.start + self.replicas * block.padded].view(self.replicas, block.padded)

    def _absent(self) -> torch.Tensor | None:
        absent = torch.zeros_like(self.flat, dtype=torch.bool)
        for name in self._trained():
            has_M = torch.tensor([name in names for names in self._names], device=self.device)
            self.block(name, absent).copy_(has_M.logical_not()[:, None])
        return absent if bool(absent.any()) else None

    def gradients(self) -> list[torch.Tensor]:
        """The gradients of each parameter, as views [M, padded]."""
        return [self.block(name, self.grad) for name in self._trained()]

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        self.grad.zero_()

    # ----------------------------------------------------------------------------------------------------- one replica

    def spread(self, k: int, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters of replica k as views of a flat tensor, like `flat`, or what an optimizer keeps beside it."""
        return {
            name: self._viewed(name, self.block(name, flat)[k])
            for name in self._names[k]
            if self.blocks[name].tensor.trainable
        }

    def parameters_of(self, k: int) -> dict[str, torch.Tensor]:
        """The parameters of replica k by name, as views."""
        return self.spread(k, self.flat)

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """The `state_dict` of replica k's own network, as views."""
        parameters = self.parameters_of(k)
        return {
            name: parameters[name] if name in parameters else self._viewed(name, self.buffers[name][k])
            for name in self._names[k]
        }

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, torch.Tensor]) -> None:
        """Copy the `state_dict` of a network like replica k's into its place."""
        for name, value in self.state(k).items():
            value.copy_(state[name])

    def _viewed(self, name: str, slot: torch.Tensor) -> torch.Tensor:
        """A replica's slot [padded] as its tensor."""
        block = self.blocks[name]
        return slot[: block.size].view(block.tensor.shape)

    # ------------------------------------------------------------------------------------------------------- computing

    @abstractmethod
    def __call__(self, *inputs_MB: torch.Tensor, training: bool) -> Any:
        """What the networks give for inputs [M, B, ...]: [M, B, ...], or a dict of outputs."""


def _mask(whole: Plan, part: Plan) -> Mask:
    mask = mask_of(whole, part)
    if mask is None:
        raise ValueError(f"'{part.name}' is not '{whole.name}' without operands of its merges.")
    return mask


def _types(plan: Plan, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The type of each tensor: counters keep their own."""
    found = {}
    for name, (layer, call) in layers_by_weight(plan).items():
        with torch.device("meta"):
            module: nn.Module = find(layer.target)(*layer.args, **layer.kwargs)
        for tensor in call.tensors:
            own = getattr(module, tensor.name).dtype
            found[f"{name}.{tensor.name}"] = dtype if own.is_floating_point else own
    return found
