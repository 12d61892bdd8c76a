"""The machine that a run is computed on: its device, its settings while we compute, and what is written down of it."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hiresnet_graph.errors import UsageError
from hiresnet_graph.train.record import Environment


def choose_device(name: str) -> torch.device:
    """The device that a name means; `auto` is a GPU if there is one.

    Raises:
        UsageError: It is no name of a device, or there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device: 'cpu', 'cuda', 'cuda:N' or 'auto' is wanted, not '{name}'.")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        there = f"there are {count} of them here" if count else "torch sees none here ('hrg doctor' says more)"
        raise UsageError(f"device '{name}' is a GPU, and {there}. Choose '--device cpu' or 'auto'.")
    return torch.device("cuda", device.index or 0)


def describe(
    device: torch.device,
    threads: int,
    channels_last: bool,
    backend: str,
    *,
    replicas: int = 1,
    looped: tuple[str, ...] = (),
) -> Environment:
    """The record of this machine."""
    return Environment(
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=threads,
        channels_last=channels_last,
        backend=backend,
        replicas=replicas,
        looped=looped,
        platform=f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        python=platform.python_version(),
        torch=torch.__version__,
        hiresnet_graph=version("hiresnet-graph"),
        commit=_commit(),
    )


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that the package is run from, with `+changes` if files differ from it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@contextmanager
def settings(device: torch.device, threads: int, tf32: bool) -> Iterator[None]:
    """Within, torch computes as a run wants it; afterwards all is as before, the global random state included."""
    gpus = [device] if device.type == "cuda" else []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tf32_products(tf32) if gpus else nullcontext(), torch.random.fork_rng(devices=gpus):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tf32_products(tf32: bool) -> Iterator[None]:
    """Within, GPUs multiply float32 numbers as TF32, or in full (torch's default is the former for convolutions)."""
    # The older of torch's two ways to say so: it keeps both in step, while the newer one breaks whoever asks the older.
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [place.allow_tf32 for place in places]
        for place in places:
            place.allow_tf32 = tf32
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for place, value in zip(places, before, strict=True):
                place.allow_tf32 = value


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C waits until a good moment: gives a function that says whether it came. Another acts at once.

    Where Ctrl-C means something else already, or in a thread that it does not reach, nothing is changed.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: False
        return
    first = math.inf

    def note(number: int, frame: Any) -> None:
        nonlocal first
        # torchrun sends the signal on to processes that have had it from the terminal: that is no second one.
        if time.monotonic() - first > 1:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: first < math.inf
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def retain_freed_memory() -> None:
    """Make this process keep memory that it has freed for the next step, instead of handing it back to the system.

    Source: measured on hiresnet18; each training step allocates the same large blocks, and glibc would otherwise unmap
    them and have the system zero them anew every time, a tenth of the time of a step.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    libc.mallopt(m_mmap_threshold, 32 << 20)  # the highest that glibc takes
    libc.mallopt(m_trim_threshold, 1 << 30)
    libc.mallopt(m_top_pad, 64 << 20)
