"""Devices, CPU cores and memory of this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

# The share of the free memory that is used; the rest is for other programs, and for errors of the prediction.
_SHARE = 0.8
_CGROUP, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# By the controllers of a line in the second file, of versions 2 and 1: limit, use, and prefix of sums over subgroups.
_CGROUP_FILES = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def local_devices(device: str) -> tuple[str, ...]:
    """The devices of this machine that a name refers to: `auto` and `cuda` are all of its GPUs.

    Raises:
        UsageError: There is no such device.
    """
    import torch

    from hiresnet_graph.train.environment import choose_device

    chosen = choose_device(device)
    if chosen.type == "cpu" or ":" in device:
        return (str(chosen),)
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def device_kind(devices: Sequence[str]) -> str:
    """`cpu` or `cuda`: the devices of a study are of one kind."""
    return devices[0].split(":")[0]


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_budget(devices: Sequence[str], workers: int) -> int | None:
    """Bytes that the programs of each worker may allocate; None if unknown."""
    if devices[0].startswith("cuda"):
        import torch

        free = min(torch.cuda.mem_get_info(device)[0] for device in devices)
        return int(_SHARE * free / math.ceil(workers / len(devices)))
    known = [size for size in (_available_memory(), _cgroup_memory()) if size is not None]
    return int(_SHARE * min(known) / workers) if known else None


def _available_memory() -> int | None:
    """Memory that programs can allocate without swapping, as Linux estimates it."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def _cgroup_memory() -> int | None:
    """The free part of the memory limits of this process's control group and those above it; None without any limit."""
    try:
        lines = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
    except (OSError, ValueError):
        return None
    found = []
    for _, controllers, path in lines:
        if controllers in ("", "memory"):
            # A container may see its own group as the root, under the path that it has outside.
            groups = [PurePosixPath(path), *PurePosixPath(path).parents]
            for group in groups:
                found.append(_free(_CGROUP / controllers / str(group).lstrip("/"), *_CGROUP_FILES[controllers]))
    return min((size for size in found if size is not None), default=None)


def _free(group: Path, limit: str, used: str, prefix: str) -> int | None:
    """The free part of a control group's memory limit; None without one."""
    try:
        size = int((group / limit).read_text()) - int((group / used).read_text())
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Cached files are dropped as soon as the memory is needed.
        return size + int(fields[f"{prefix}inactive_file"]) + int(fields[f"{prefix}active_file"])
    except (OSError, ValueError, KeyError):  # of no limit, "max"
        return None
