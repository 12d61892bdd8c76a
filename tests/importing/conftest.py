"""What the tests of imports share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.importing.tables import give_memory_back


@pytest.fixture(autouse=True)
def memory_is_given_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a slow test, whose network may be large."""
    yield
    if request.node.get_closest_marker("slow") is not None:
        give_memory_back()
