"""Many replicas of a network in one memory, the base of the programs that compute them together.

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
"""Bytes: a cache line, and the longest vector of a CPU. The slots of each replica are aligned to it."""
_UNROLLED = 2
"""Vectors per iteration of elementwise loops; elements left over at the end would use other instructions."""


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """The memory of a tensor for all replicas: [M, padded].

    Attributes:
        start: Start in the flat tensor, if it is trained.
        size: Elements of one replica, without padding.
    """

    tensor: Tensor
    start: int
    size: int
    padded: int


class Replicas(ABC):
    """M replicas of one network, or of subgraphs of one network, computed as one program.

    Attributes:
        count: M.
        flat: All parameters [N]: tensor after tensor, each [M, padded to 64 bytes].
        grad: Their gradients [N], accumulated until `zero_grad`.
        owner: The replica of each element [N].
        absent: Elements of weights that their replica does not have [N]; None if there are none.
        fallback_ops: Kinds of operations that are computed replica by replica.
        generators: Random generators of the replicas, for dropout.

    Args:
        supergraph: A network that contains all of them.
        subgraphs: The network of each replica.

    Raises:
        ValueError: A subgraph is not the supergraph without operands of merges.
    """

    fallback_ops: tuple[str, ...] = ()

    def __init__(
        self,
        supergraph: Plan,
        subgraphs: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.supergraph, self.subgraphs, self.count = supergraph, tuple(subgraphs), len(subgraphs)
        self.device, self.dtype = torch.device(device), dtype
        self.masks = [_mask(supergraph, subgraph) for subgraph in subgraphs]
        self._names = [tuple(subgraph.tensors()) for subgraph in subgraphs]
        used = set().union(*self._names)
        types = _types(supergraph, dtype)
        self.slots: dict[str, TensorSlot] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        end = 0
        for name, tensor in supergraph.tensors().items():
            if name not in used:
                continue
            aligned = _ALIGNMENT // types[name].itemsize
            padded = -(-tensor.elements // aligned) * aligned
            self.slots[name] = TensorSlot(tensor, end, tensor.elements, padded)
            if tensor.trainable:
                end += self.count * padded
            else:
                self.buffers[name] = torch.zeros(self.count, padded, dtype=types[name], device=self.device)
        vectors = _UNROLLED * _ALIGNMENT // dtype.itemsize
        end = -(-end // vectors) * vectors
        self.flat = torch.zeros(end, dtype=dtype, device=self.device)
        self.grad = torch.zeros_like(self.flat)
        self.owner = torch.zeros(end, dtype=torch.int64, device=self.device)
        numbers_M1 = torch.arange(self.count, device=self.device)[:, None]
        for name in self._trained():
            self.view(name, self.owner).copy_(numbers_M1)
        self.absent = self._absent()
        self.generators = [torch.Generator(self.device) for _ in subgraphs]

    def _trained(self) -> list[str]:
        return [name for name, slot in self.slots.items() if slot.tensor.trainable]

    def view(self, name: str, flat: torch.Tensor) -> torch.Tensor:
        """The part of a flat tensor that belongs to a parameter, as a view [M, padded]."""
        slot = self.slots[name]
        return flat[slot.start : slot.start + self.count * slot.padded].view(self.count, slot.padded)

    def _absent(self) -> torch.Tensor | None:
        absent = torch.zeros_like(self.flat, dtype=torch.bool)
        for name in self._trained():
            has_M = torch.tensor([name in names for names in self._names], device=self.device)
            self.view(name, absent).copy_(has_M.logical_not()[:, None])
        return absent if bool(absent.any()) else None

    def gradients(self) -> list[torch.Tensor]:
        """The gradients of each parameter, as views [M, padded]."""
        return [self.view(name, self.grad) for name in self._trained()]

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        self.grad.zero_()

    # ----------------------------------------------------------------------------------------------------- one replica

    def spread(self, k: int, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters of replica k by name, as views of `flat` or of a tensor like it (as in an optimizer)."""
        return {
            name: self._tensor(name, self.view(name, flat)[k])
            for name in self._names[k]
            if self.slots[name].tensor.trainable
        }

    def parameters_of(self, k: int) -> dict[str, torch.Tensor]:
        """The parameters of replica k by name, as views."""
        return self.spread(k, self.flat)

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """The `state_dict` of the network of replica k, as views."""
        parameters = self.parameters_of(k)
        return {
            name: parameters[name] if name in parameters else self._tensor(name, self.buffers[name][k])
            for name in self._names[k]
        }

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, torch.Tensor]) -> None:
        """Copy the `state_dict` of a network like that of replica k into the memory of replica k."""
        for name, value in self.state(k).items():
            value.copy_(state[name])

    def _tensor(self, name: str, slot_N: torch.Tensor) -> torch.Tensor:
        """The slot of one replica [padded] in the shape of its tensor."""
        slot = self.slots[name]
        return slot_N[: slot.size].view(slot.tensor.shape)

    # ------------------------------------------------------------------------------------------------------- computing

    @abstractmethod
    def __call__(self, *inputs_MB: torch.Tensor, training: bool) -> Any:
        """The outputs of the networks for inputs [M, B, ...]: [M, B, ...], or a dict of these."""


def _mask(supergraph: Plan, subgraph: Plan) -> Mask:
    mask = mask_of(supergraph, subgraph)
    if mask is None:
        raise ValueError(f"'{subgraph.name}' is not '{supergraph.name}' without operands of its merges.")
    return mask


def _types(plan: Plan, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The type of each tensor: `dtype`, but for counters."""
    found = {}
    for name, (layer, call) in layers_by_weight(plan).items():
        with torch.device("meta"):
            module: nn.Module = find(layer.target)(*layer.args, **layer.kwargs)
        for tensor in call.tensors:
            own = getattr(module, tensor.name).dtype
            found[f"{name}.{tensor.name}"] = dtype if own.is_floating_point else own
    return found
