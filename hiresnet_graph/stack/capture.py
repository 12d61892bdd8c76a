"""A computation of a GPU that is recorded once, and from then on launched as one (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

# Libraries choose their kernels, and allocate what they need, in the first calls.
_WARM_UP = 3


class Recorder(NamedTuple):
    """Where computations are recorded of which nothing is kept from one call to the next: they share their memory.

    Memory is shared on one stream alone.
    """

    stream: torch.cuda.Stream
    pool: Any

    @classmethod
    def on(cls, device: torch.device) -> Recorder:
        """One of a GPU."""
        return cls(torch.cuda.Stream(device), torch.cuda.graph_pool_handle())  # type: ignore[no-untyped-call]


class Captured:
    """A computation over tensors that keep their places: what it reads and writes besides its inputs is always there.

    Args:
        compute: Called with the inputs; must not wait for the device, nor draw random numbers.
        inputs: As it will be called with; recorded are their shapes.
        held: All that it changes. What is done to find out how it goes is undone.
        recorder: What records it.
    """

    def __init__(
        self,
        compute: Callable[..., object],
        inputs: Sequence[torch.Tensor],
        held: Sequence[torch.Tensor],
        recorder: Recorder | None,
    ) -> None:
        self._inputs = [value.clone() for value in inputs]
        before = [value.detach().clone() for value in held]

        def tried() -> None:
            compute(*self._inputs)
            with torch.no_grad():
                for value, old in zip(held, before, strict=True):
                    value.copy_(old)

        self._launch = self._recorded(lambda: compute(*self._inputs), tried, recorder)

    def __call__(self, *inputs: torch.Tensor) -> None:
        """Compute; the host waits for nothing."""
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._launch()

    def _recorded(
        self, compute: Callable[[], object], tried: Callable[[], None], recorder: Recorder | None
    ) -> Callable[[], object]:
        """What launches the computation, which is tried a few times before."""
        assert recorder is not None
        device, (stream, pool) = self._inputs[0].device, recorder
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                tried()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            compute()
        return graph.replay
