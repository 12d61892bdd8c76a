"""A computation of a GPU that is recorded once, and from then on launched as one (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

# Libraries choose their kernels, and allocate what they need, in the first calls.
_WARM_UP = 3


class Captured:
    """A computation over tensors that keep their places: what it reads and writes besides its inputs is always there.

    Args:
        compute: Called with the inputs; must not wait for the device, nor draw random numbers.
        inputs: As it will be called with; recorded are their shapes.
        held: All that it changes. What is done to find out how it goes is undone.
        pool: Memory that it shares with others of which nothing is kept from one call to the next.
    """

    def __init__(
        self,
        compute: Callable[..., object],
        inputs: Sequence[torch.Tensor],
        held: Sequence[torch.Tensor],
        pool: Any,
    ) -> None:
        self._inputs = [value.clone() for value in inputs]
        before = [value.detach().clone() for value in held]

        def tried() -> None:
            compute(*self._inputs)
            with torch.no_grad():
                for value, old in zip(held, before, strict=True):
                    value.copy_(old)

        self._launch = self._recorded(lambda: compute(*self._inputs), tried, pool)

    def __call__(self, *inputs: torch.Tensor) -> None:
        """Compute; the host waits for nothing."""
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._launch()

    def _recorded(self, compute: Callable[[], object], tried: Callable[[], None], pool: Any) -> Callable[[], object]:
        """What launches the computation, which is tried a few times before."""
        device = self._inputs[0].device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                tried()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            compute()
        return graph.replay
