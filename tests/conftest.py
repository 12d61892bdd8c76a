"""What the tests share."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: the workers of pytest-xdist already use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import hiresnet_graph as hrg

# Background jobs of a shell ignore Ctrl-C, and so would the commands that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure of a property.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")

TINY = """
name: tiny
params: {width: 4}
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: $width, stride: 2}
  stage1: {block: conv, width: $width, depth: 1}
  stage2: {block: conv, width: $(2 * width), depth: 1, stride: 2}
  head: {block: classifier, classes: 10}
flow: stem -> stage1 -> stage2 -> head
skips: {levels: [stem, stages], edges: full}
variants:
  original: {edges: none}
  full: {edges: full}
"""


_HANDLED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """What handles signals is as it was before the test: a handler that is left would change the tests after it."""
    before = [signal.getsignal(number) for number in _HANDLED]
    yield
    after = [signal.getsignal(number) for number in _HANDLED]
    for number, handler in zip(_HANDLED, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def tiny() -> hrg.Architecture:
    """A network for the digits that trains in a moment; three levels, so three skips."""
    return hrg.loads(TINY, "tiny.yaml")


PACKED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with CIFAR-10, CIFAR-100 and Tiny-ImageNet (57 classes) as they are published; do not write into it.

    It is that of the environment variable HRG_TEST_DATA, or is unpacked once for all processes and sessions from the
    packed sets that may lie beside the project. Without either, the test is skipped.
    """
    if given := os.environ.get("HRG_TEST_DATA"):
        return Path(given)
    if not (PACKED / "unpack.py").is_file():
        pytest.skip("the real data sets are not here")
    folder = Path(tempfile.gettempdir()) / f"hiresnet-graph-test-data-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    done = folder / "complete"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            spec = importlib.util.spec_from_file_location("unpack", PACKED / "unpack.py")
            assert spec is not None and spec.loader is not None
            unpack = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(unpack)
            unpack.write_cifar("cifar10", folder)
            unpack.write_cifar("cifar100", folder)
            unpack.write_tiny(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of a small network, without skips and with all; do not write into it."""
    from tests.analysis.small import train_study

    folder = tmp_path_factory.mktemp("small") / "study"
    train_study(folder)
    return folder
