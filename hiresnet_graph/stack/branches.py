"""Replicas of a network as separate modules: the kernels of single runs, over one memory."""

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
    """Replicas that are computed one after another; on a GPU, each on a stream of its own, so that they overlap.

    Operations that draw random numbers use the generator of the device, which is set to the state of each replica in
    turn. They are listed in `fallback_ops`, since that cannot be captured.

    Args:
        memory_format: Memory format of images and of the weights of convolutions (default: channels-last, if the
            network can be trained in it).
    """

    def __init__(
        self,
        supergraph: Plan,
        subgraphs: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format | None = None,
    ) -> None:
        is_last = supergraph.trains_in_channels_last
        self.memory_format = memory_format or (torch.channels_last if is_last else torch.contiguous_format)
        super().__init__(supergraph, subgraphs, device=device, dtype=dtype)
        self.modules = [self._module(k, subgraph) for k, subgraph in enumerate(subgraphs)]
        calls = [call for subgraph in subgraphs for call in subgraph.calls]
        self.fallback_ops = tuple(sorted({call.op.kind for call in calls if call.op.random}))
        is_gpu = self.device.type == "cuda"
        self._streams = [torch.cuda.Stream(self.device) for _ in subgraphs if is_gpu]  # type: ignore[no-untyped-call]

    def _tensor(self, name: str, slot_N: torch.Tensor) -> torch.Tensor:
        slot = self.slots[name]
        shape = slot.tensor.shape
        if len(shape) != 4 or self.memory_format is not torch.channels_last:
            return super()._tensor(name, slot_N)
        out, inner, height, width = shape
        return slot_N[: slot.size].view(out, height, width, inner).permute(0, 3, 1, 2)

    def _module(self, k: int, subgraph: Plan) -> nn.Module:
        """The module of a replica, with its tensors in the shared memory."""
        module: nn.Module = single.build(subgraph) if subgraph.folded is None else recurrent.build(subgraph)
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
        """The outputs of the networks for inputs [M, B, ...]: [M, B, ...], or a dict of these."""
        found = []
        for k, module in enumerate(self.modules):
            module.train(training)
            with self._on_stream(k), self._with_generator(k):
                found.append(module(*(self._laid_out(x_MB[k]) for x_MB in inputs_MB)))
        if self._streams:
            current = torch.cuda.current_stream(self.device)
            for stream in self._streams:
                current.wait_stream(stream)
        if isinstance(found[0], dict):
            return {name: torch.stack([outputs[name] for outputs in found]) for name in found[0]}
        return torch.stack(found)

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=self.memory_format) if x.dim() == 4 else x

    @contextmanager
    def _on_stream(self, k: int) -> Iterator[None]:
        """Run work on the stream of a replica, after all work queued before."""
        if not self._streams:
            yield
            return
        stream = self._streams[k]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            yield

    @contextmanager
    def _with_generator(self, k: int) -> Iterator[None]:
        """Let the generator of the device continue that of a replica."""
        if not self.fallback_ops:
            yield
            return
        of_device = (
            torch.cuda.default_generators[self.device.index or 0]
            if self.device.type == "cuda"
            else torch.default_generator
        )
        of_device.set_state(self.generators[k].get_state())
        yield
        self.generators[k].set_state(of_device.get_state())
