"""Connecting to a Ray cluster, and what its nodes offer."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hiresnet_graph.errors import MissingToolError, RunError, UsageError

# Object store of a local Ray: with a shared folder only small events are sent, and Ray requires 75 MiB at least.
_LOCAL_STORE = 128 * 2**20
# Checked first, because Ray tries a wrong address for minutes.
_CONNECT_S = 5.0
# What Ray prints on stdout when a worker or a node has ended, which the executor reports itself.
_PRINTED = (
    "A worker died or was killed|Raylet is terminated|The node with node id|have not registered within the timeout|"
    "running low on memory"
)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        capacity: Workers that it has room for.
    """

    id: str
    host: str
    capacity: int

    @classmethod
    def of(cls, info: Mapping[str, Any], threads: int, gpus: float) -> Node:
        """The node that an entry of `ray.nodes()` describes, for workers with these numbers of CPUs and GPUs."""
        resources = info["Resources"]
        capacity = int(resources.get("CPU", 0) // threads)
        if gpus:
            available = resources.get("GPU", 0)
            # A run shares one GPU with others, or has one or several of its own.
            capacity = min(capacity, int(available) * int(1 / gpus) if gpus < 1 else int(available // gpus))
        return cls(info["NodeID"], info["NodeManagerHostname"], capacity)


def import_ray() -> Any:
    """The module `ray`.

    Raises:
        MissingToolError: Ray is not installed.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _PRINTED)
    try:
        import ray
    except ImportError:
        raise MissingToolError("a Ray cluster needs the package ray. Install: python -m pip install ray.") from None
    return ray


def connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        UsageError: There is no cluster, or it refuses the connection.
    """
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _LOCAL_STORE}
    elif address != "auto":
        _check_address(address)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at '{address}' " if address else ""
        raise UsageError(
            f"the Ray cluster {where}cannot be used: {reason(error)} "
            "Start one with 'ray start --head', or leave the address out to use this machine alone."
        ) from error
    finally:
        if is_main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray installs its own handler


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"the address of a Ray cluster is 'auto', 'HOST:PORT' or 'ray://HOST:PORT', not '{address}'.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at '{address}': {error}. Run 'ray status' on a machine of the cluster, start "
            "one with 'ray start --head', or leave the address out to use this machine alone."
        ) from None


def connection_lost(error: BaseException) -> RunError:
    """The error of a driver that has lost its cluster."""
    return RunError(
        f"the Ray cluster is gone: {reason(error)} Finished runs and checkpoints are kept; "
        "the same command resumes from there."
    )


def reason(error: BaseException) -> str:
    """The essence of an error of Ray, as one sentence."""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d+m", "", str(error)).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("The actor is dead because ")]
    text = causes[0].removeprefix("The actor is dead because ").split(". ")[0] if causes else (lines or [""])[-1]
    return (text or type(error).__name__).rstrip(".") + "."
