"""In which ways the runs of a study can be computed on a machine, and the memory that there is for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hiresnet_graph.errors import UsageError

Backend = Literal["eager", "graph", "branches", "stacked"]
"""How steps are computed: each run by itself, as one launch of a GPU, or with others. See `Environment.backend`."""
AUTO, OFF = "auto", "off"
# What other programs, and what is not predicted, may take of the memory that is free.
_SHARE = 0.8
_GROUP = Path("/sys/fs/cgroup")


class Crew(NamedTuple):
    """Workers at one time, and threads of the CPU for each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        workers, threads = ("" if number == 1 else "s" for number in self)
        return f"{self.workers} worker{workers} x {self.threads} thread{threads}"


class Way(NamedTuple):
    """How the runs of a study are computed.

    Attributes:
        stack: Runs of one program, at most.
    """

    crew: Crew
    backend: Backend = "eager"
    stack: int = 1

    def __str__(self) -> str:
        together = f", {self.stack} runs as one program" if self.stack > 1 else ", each run by itself"
        return f"{self.crew}{together} ({self.backend})"


def stack_asked(stack: int | str | None) -> int | None:
    """How many runs are to be computed together at most: 1 for `off` and where nothing is said, None for `auto`.

    Raises:
        UsageError: It is neither of these nor a number of 2 or more.
    """
    if stack == AUTO:
        return None
    if stack is None or stack == OFF:
        return 1
    number = int(stack) if isinstance(stack, int) or str(stack).isdecimal() else 0
    if number < 2:
        raise UsageError(f"stack: 'auto', 'off' or a number of runs (2 or more) is wanted, not '{stack}'.")
    return number


def room_of(devices: Sequence[str], workers: int) -> int | None:
    """Bytes that the programs of each of so many workers may take; None if that is not known."""
    if devices[0].startswith("cuda"):
        import torch

        free = min(torch.cuda.mem_get_info(device)[0] for device in devices)
        return int(_SHARE * free / math.ceil(workers / len(devices)))
    known = [bytes_ for bytes_ in (_available(), _left_of_limit()) if bytes_ is not None]
    return int(_SHARE * min(known) / workers) if known else None


def _available() -> int | None:
    """Memory that programs can have without others being moved to the disk, as Linux tells."""
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(told["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def _left_of_limit() -> int | None:
    """What is left of the memory that this process and its neighbours may have together, if there is a limit."""
    try:
        most, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        # Files that were read stay in memory until somebody wants it.
        return most - used + int(told["inactive_file"]) + int(told["active_file"])
    except (OSError, ValueError, KeyError):
        return None
