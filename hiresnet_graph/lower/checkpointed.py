"""Activation checkpointing: in time, or by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hiresnet_graph.lower.code import GraphWriter
from hiresnet_graph.segments import Segment
from hiresnet_graph.tree import ModuleUse, values_of


class Checkpointed(nn.Module):
    """A network of which only what passes between segments is stored for the backward pass; the rest is computed again.

    Outputs, gradients and random numbers are the same. Batch norms update their statistics in the forward pass, and not
    in the recomputation. The last segment is stored as a whole: the backward pass begins with it.

    Args:
        module: The network itself.
        writer: Of its code.
        segments: All of its items, in order.
    """

    def __init__(self, module: nn.Module, writer: GraphWriter, segments: Sequence[Segment]) -> None:
        super().__init__()
        self.module = module
        root = writer.tree.root
        self._inputs, self._outputs = root.inputs, dict(zip(writer.plan.outputs, root.outputs, strict=True))
        self._segments = list(_segments(module, writer, segments))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Same as the network."""
        values = dict(zip(self._inputs, inputs, strict=True))
        for segment in self._segments:
            operands = [values[name] for name in segment.inputs]
            if segment is self._segments[-1]:
                found = segment.module(*operands)
            else:
                found = checkpoint(segment.module, *operands, use_reentrant=False, context_fn=segment.contexts)
            values |= zip(segment.outputs, found, strict=True)
            for name in segment.last:
                del values[name]
        outputs = {name: values[value] for name, value in self._outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class _Segment(NamedTuple):
    """A segment as a module; `last` are values that no later segment reads."""

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


def _segments(module: nn.Module, writer: GraphWriter, groups: Sequence[Segment]) -> Iterator[_Segment]:
    root = writer.tree.root
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
