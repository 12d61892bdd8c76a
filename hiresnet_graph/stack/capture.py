"""GPU computations that are captured once and then launched as a whole (CUDA graphs)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

# In the first calls, libraries select kernels and allocate memory.
_WARM_UP = 3


class CaptureContext(NamedTuple):
    """The stream and the memory pool that captured computations share: none of them stores anything between calls.

    Sharing a pool requires a single stream.
    """

    stream: torch.cuda.Stream
    pool: Any

    @classmethod
    def on(cls, device: torch.device) -> CaptureContext:
        """A new one on a GPU."""
        return cls(torch.cuda.Stream(device), torch.cuda.graph_pool_handle())  # type: ignore[no-untyped-call]


class Captured:
    """A captured computation. Besides its inputs, it reads and writes tensors whose addresses must not change.

    Args:
        compute: Called with the inputs; must not wait for the device, nor draw random numbers.
        inputs: Example inputs, whose shapes are fixed.
        changed: All tensors that it changes; the changes by warm-up calls are undone.
    """

    def __init__(
        self,
        compute: Callable[..., object],
        inputs: Sequence[torch.Tensor],
        changed: Sequence[torch.Tensor],
        context: CaptureContext | None,
    ) -> None:
        self._inputs = [value.clone() for value in inputs]
        before = [value.detach().clone() for value in changed]

        def warm_up() -> None:
            compute(*self._inputs)
            with torch.no_grad():
                for value, old in zip(changed, before, strict=True):
                    value.copy_(old)

        self._launch = self._capture(lambda: compute(*self._inputs), warm_up, context)

    def __call__(self, *inputs: torch.Tensor) -> None:
        """Launch the computation without waiting for it."""
        for own, value in zip(self._inputs, inputs, strict=True):
            own.copy_(value)
        self._launch()

    def _capture(
        self, compute: Callable[[], object], warm_up: Callable[[], None], context: CaptureContext | None
    ) -> Callable[[], object]:
        """A function that launches the computation, captured after a few warm-up calls."""
        assert context is not None
        device, (stream, pool) = self._inputs[0].device, context
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                warm_up()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            compute()
        return graph.replay
