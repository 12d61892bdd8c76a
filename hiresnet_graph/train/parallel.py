"""Several processes that train one model, as torchrun starts them: each computes a slice of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hiresnet_graph.errors import UsageError
from hiresnet_graph.train.environment import choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those of a run. The first one (rank 0) evaluates and writes files.

    Attributes:
        local: Rank among the processes of this machine, which selects the GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates and writes files."""
        return self.rank == 0

    def sum(self, parameters: Iterable[torch.nn.Parameter], more: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Replace gradients by their sums over all processes, and return the sums of a few more numbers."""
        held = list(parameters)
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in held]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.stack(list(more))])
        dist.all_reduce(flat)
        *parts, sums = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(more)])
        for value, gradient, part in zip(held, gradients, parts, strict=True):
            value.grad = gradient.copy_(part.view(gradient.shape))
        return torch.unbind(sums)

    def broadcast(self, value: Any) -> Any:
        """The value of the first process, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in all of them."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box


SINGLE_PROCESS = Processes()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun has started; without torchrun, a single one.

    Args:
        device: Selects how they communicate: `cpu` by gloo, GPUs by NCCL.

    Raises:
        UsageError: The environment of torchrun is incomplete or wrong, or there are fewer GPUs than processes.
    """
    world = _number("WORLD_SIZE", 1)
    if world <= 1:
        yield SINGLE_PROCESS
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(f"WORLD_SIZE is set, but not {', '.join(missing)}. Start several processes with torchrun.")
    rank, local = _number("RANK"), _number("LOCAL_RANK")
    is_gpu = device != "cpu" and torch.cuda.is_available()
    if is_gpu:
        torch.cuda.set_device(choose_device(f"cuda:{local}"))
    dist.init_process_group("nccl" if is_gpu else "gloo")
    try:
        yield Processes(rank, world, local)
    finally:
        dist.destroy_process_group()


def _number(name: str, default: int = 0) -> int:
    """A number in the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"the environment variable {name} must be a whole number, not '{text}'. torchrun sets it.")
    return int(text)
