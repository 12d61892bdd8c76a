"""Python's collector of cyclic garbage, told to wait while something large is made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No search for cycles inside: what is made here is kept, and has none.

    The collector looks through everything whenever a quarter has been added, which was a third of the time to validate
    a graph of 10,000 nodes, and made that time grow faster than the graph (`benchmarks/graph_size.py`). May be nested;
    a collector that was off stays off.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
