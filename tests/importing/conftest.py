"""What the tests of imports share."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def memory_is_given_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a slow test, whose network may be large: the allocator would keep its memory."""
    yield
    if request.node.get_closest_marker("slow") is not None:
        gc.collect()
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
