"""Activation checkpointing in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hiresnet_graph.errors import UsageError
from hiresnet_graph.lower.code import GraphWriter
from hiresnet_graph.tree import ModuleUse, values_of


class Checkpointed(nn.Module):
    """A recurrent network with activation checkpointing in time; `module` is the network itself.

    Batch norms update their statistics in the forward pass, and not in the recomputation.
    """

    def __init__(self, module: fx.GraphModule, every: int) -> None:
        super().__init__()
        if every < 1:
            raise UsageError(f"'every' must be 1 step or more, not {every}.")
        self.module = module
        writer: GraphWriter = module.meta["writer"]
        root = writer.tree.root
        self._inputs, self._outputs = root.inputs, dict(zip(writer.plan.outputs, root.outputs, strict=True))
        self._segments = list(_segments(module, root, every))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Same as the network."""
        values = dict(zip(self._inputs, inputs, strict=True))
        for segment in self._segments:
            operands = [values[name] for name in segment.inputs]
            found = checkpoint(segment.module, *operands, use_reentrant=False, context_fn=segment.contexts)
            values |= zip(segment.outputs, found, strict=True)
            for name in segment.last:
                del values[name]
        outputs = {name: values[value] for name, value in self._outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class _Segment(NamedTuple):
    """Consecutive steps of a plan; `last` are values that no later segment reads."""

    module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last: tuple[str, ...]

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """The contexts of the forward pass and of its recomputation."""
        return nullcontext(), _frozen_statistics(self.module)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms write their statistics into copies, which are discarded."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    saved = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    try:
        for norm, buffers in zip(norms, saved, strict=True):
            for name, value in buffers.items():
                norm.register_buffer(name, value.clone())
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            for name, value in buffers.items():
                norm.register_buffer(name, value)


def _segments(module: fx.GraphModule, root: ModuleUse, every: int) -> Iterator[_Segment]:
    writer: GraphWriter = module.meta["writer"]
    number, numbers = 0, []
    for item in root.items:  # an item without a step belongs to the segment of the item before it
        number = number if item.step is None else item.step // every
        numbers.append(number)
    pairs = zip(root.items, numbers, strict=True)
    groups = [tuple(item for item, _ in group) for _, group in groupby(pairs, lambda pair: pair[1])]
    read = [dict.fromkeys(name for item in items for name in item.inputs) for items in groups]
    alive = set(root.inputs)
    for i, items in enumerate(groups):
        made = [name for item in items for name in values_of(item)]
        later = set(root.outputs).union(*read[i + 1 :])
        inputs = tuple(name for name in read[i] if name not in made)
        outputs = tuple(name for name in made if name in later)
        alive |= set(outputs)
        last = tuple(alive - later)
        alive &= later
        code = writer.segment(ModuleUse("", None, items, inputs, outputs, ()))
        part = fx.GraphModule(module, code)
        yield _Segment(part, inputs, outputs, last)
