"""The environment of a run: its device, the settings of torch and of signals while it is computed, and their record."""

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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hiresnet_graph.errors import UsageError
from hiresnet_graph.train.record import Environment
from hiresnet_graph.version import __version__


def choose_device(name: str) -> torch.device:
    """The device with a name; `auto` is a GPU if there is one.

    Raises:
        UsageError: The name is wrong, or there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device: expected 'cpu', 'cuda', 'cuda:N' or 'auto', not '{name}'.")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        found = f"this machine has {count}" if count else "torch finds none here (see 'hrg doctor')"
        raise UsageError(f"device '{name}' is a GPU, but {found}. Choose '--device cpu' or 'auto'.")
    return torch.device("cuda", device.index or 0)


def emulates_bf16() -> bool:
    """Whether this CPU has no vector instructions for bfloat16, which takes longer than float32 then.

    Source: measured on an AVX2 CPU: the forward and backward pass of a convolution took 23 times as long, of a linear
    layer 27 times. With AVX512, oneDNN computes bfloat16 with vector instructions.
    """
    return platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def speed_remarks(device: str, precisions: Collection[str]) -> tuple[str, ...]:
    """Sentences on what makes training with these precisions needlessly slow on a device.

    Raises:
        UsageError: There is no such device.
    """
    if "bf16" not in precisions or choose_device(device).type != "cpu" or not emulates_bf16():
        return ()
    return (
        "Warning: 'precision: bf16' is emulated on this CPU, and takes 20 times as long as fp32 or more: torch finds "
        f"{torch.backends.cpu.get_cpu_capability()}, and AVX512 is required. Set 'precision: fp32', or use another "
        "machine.",
    )


def describe_environment(
    device: torch.device,
    threads: int,
    channels_last: bool,
    backend: str,
    *,
    replicas: int = 1,
    looped: tuple[str, ...] = (),
) -> Environment:
    """The record of this environment."""
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
        hiresnet_graph=__version__,
        commit=_commit(),
    )


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that the package is imported from, with `+changes` if files differ from it."""
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
def torch_settings(device: torch.device, threads: int, tf32: bool) -> Iterator[None]:
    """Within, torch has the settings of a run; afterwards all is restored, including the global random state."""
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
    """Within, GPUs multiply float32 numbers as TF32, or exactly (the default of torch is TF32 for convolutions)."""
    # The older of torch's two interfaces keeps both consistent; setting the newer one breaks reading the older one.
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [backend.allow_tf32 for backend in backends]
        for backend in backends:
            backend.allow_tf32 = tf32
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for backend, value in zip(backends, before, strict=True):
                backend.allow_tf32 = value


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C is deferred: yields a function that returns whether it was pressed. A second one acts at once.

    Where Ctrl-C already has another handler, or in a thread that it does not reach, nothing is changed.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: False
        return
    first = math.inf

    def on_interrupt(number: int, frame: Any) -> None:
        nonlocal first
        # torchrun forwards the signal to processes that have received it from the terminal: not a second one.
        if time.monotonic() - first > 1:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: first < math.inf
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def retain_freed_memory() -> None:
    """Make this process keep freed memory for the next step instead of returning it to the system.

    Source: measured on hiresnet18. Each training step allocates the same large blocks; otherwise glibc unmaps them and
    the system zeroes them again every time, which takes a tenth of the time of a step.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    libc.mallopt(m_mmap_threshold, 32 << 20)  # the highest that glibc accepts
    libc.mallopt(m_trim_threshold, 1 << 30)
    libc.mallopt(m_top_pad, 64 << 20)
