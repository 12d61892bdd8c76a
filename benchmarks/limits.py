"""What a machine can do at most: bytes that it moves in a second."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

_ROUNDS = 11


def events() -> tuple[Any, Any]:
    """Two marks on a GPU, between which time is taken."""
    first, second = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    return first, second


def copy_bytes_per_s(device: torch.device, *, small: bool = False) -> float:
    """Bytes read and written in a second by a copy that is far larger than the caches; the median of some copies."""
    numbers = (1 << 20) if small else (1 << 29) if device.type == "cuda" else (1 << 26)
    source = torch.rand(numbers, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = []
    for _ in range(_ROUNDS):
        if device.type == "cuda":
            begin, end = events()
            begin.record()
            target.copy_(source)
            end.record()
            end.synchronize()
            times.append(float(begin.elapsed_time(end)) / 1000)
        else:
            start = time.perf_counter()
            target.copy_(source)
            times.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(times)
