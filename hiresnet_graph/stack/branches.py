"""Replicas of a network as its ordinary modules side by side: the kernels of a run alone, over one memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hiresnet_graph.lower import recurrent, single
from hiresnet_graph.plan import Plan
from hiresnet_graph.stack.replicas import Replicas


class Branches(Replicas):
    """Replicas that are computed one after another; on a GPU each on a stream of its own, so that they overlap.

    Dropout draws from the random numbers of the device, as in a run alone, which are those of each replica in turn:
    such networks are told as `looped`, since that cannot be captured.

    Args:
        memory_format: Of images and of the weights of convolutions.
    """

    def __init__(
        self,
        whole: Plan,
        parts: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.memory_format = memory_format
        super().__init__(whole, parts, device=device, dtype=dtype)
        self.modules = [self._module(k, part) for k, part in enumerate(parts)]
        self.looped = tuple(
            sorted({call.op.kind for part in parts for call in part.calls if call.op.kind == "dropout"})
        )
        is_gpu = self.device.type == "cuda"
        self._streams = [torch.cuda.Stream(self.device) for _ in parts if is_gpu]  # type: ignore[no-untyped-call]

    def _viewed(self, name: str, slot: torch.Tensor) -> torch.Tensor:
        shape = self.blocks[name].tensor.shape
        if len(shape) != 4 or self.memory_format is not torch.channels_last:
            return super()._viewed(name, slot)
        out, inner, height, width = shape
        return slot[: self.blocks[name].size].view(out, height, width, inner).permute(0, 3, 1, 2)

    def _module(self, k: int, part: Plan) -> nn.Module:
        """The module of a replica, its tensors in the memory of all."""
        module: nn.Module = single.build(part) if part.folded is None else recurrent.build(part)
        grads = self.spread(k, self.grad)
        for name, value in self.state(k).items():
            path, _, last = name.rpartition(".")
            layer = module.get_submodule(path)
            if name in grads:
                parameter = nn.Parameter(value)
                parameter.grad = grads[name]
                layer._parameters[last] = parameter
            else:
                layer._buffers[last] = value
        return module

    def __call__(self, *inputs_MB: torch.Tensor, training: bool) -> Any:
        """What the networks give for inputs [M, B, ...]: [M, B, ...], or a dict of outputs."""
        found = []
        for k, module in enumerate(self.modules):
            module.train(training)
            with self._beside(k), self._drawing(k):
                found.append(module(*(self._laid_out(x_MB[k]) for x_MB in inputs_MB)))
        if self._streams:
            here = torch.cuda.current_stream(self.device)
            for stream in self._streams:
                here.wait_stream(stream)
        if isinstance(found[0], dict):
            return {name: torch.stack([outputs[name] for outputs in found]) for name in found[0]}
        return torch.stack(found)

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=self.memory_format) if x.dim() == 4 else x

    @contextmanager
    def _beside(self, k: int) -> Iterator[None]:
        """Within, work goes to the stream of a replica, after all that was given to the device before."""
        if not self._streams:
            yield
            return
        stream = self._streams[k]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            yield

    @contextmanager
    def _drawing(self, k: int) -> Iterator[None]:
        """Within, the random numbers of the device are those of a replica."""
        if not self.looped:
            yield
            return
        everybody = (
            torch.cuda.default_generators[self.device.index or 0]
            if self.device.type == "cuda"
            else torch.default_generator
        )
        everybody.set_state(self.noise[k].get_state())
        yield
        self.noise[k].set_state(everybody.get_state())
