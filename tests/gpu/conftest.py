"""Tests on a GPU. Without one they are skipped.

`HRG_TEST_DEVICE=cpu pytest tests/gpu` runs them on the CPU instead, except for what exists on GPUs alone.
"""

from __future__ import annotations

import os
from collections import Counter
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of this folder were skipped, and why."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", []) if "tests/gpu/" in report.nodeid]
    reasons = Counter(str(text[2]).removeprefix("Skipped: ") for text in skipped if isinstance(text, tuple))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"tests/gpu: {count} skipped: {reason}")


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
    return torch.device("cuda", torch.device(device).index or 0)  # some functions of torch require the index


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN selects only algorithms that give the same bits each time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
