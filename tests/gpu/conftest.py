"""Tests on a GPU. Without one they are skipped.

`HRG_TEST_DEVICE=cpu pytest tests/gpu` runs them on the CPU instead, except for what exists on GPUs alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DEVICE = "HRG_TEST_DEVICE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder. Warnings depend on the GPU and its libraries, and are no errors here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def device() -> str:
    """The device of the tests: `HRG_TEST_DEVICE`, or the first GPU. Without either, the test is skipped."""
    name = os.environ.get(DEVICE) or ("cuda" if torch.cuda.is_available() else "")
    if not name:
        pytest.skip(f"no GPU; {DEVICE}=cpu runs these tests on the CPU")
    return name


@pytest.fixture(scope="session")
def gpu(device: str) -> torch.device:
    """The GPU, for what exists on GPUs alone. On the CPU the test is skipped."""
    if device == "cpu":
        pytest.skip("requires a GPU: the device of the tests is the CPU")
    return torch.device(device)


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN selects only algorithms that give the same bits each time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
