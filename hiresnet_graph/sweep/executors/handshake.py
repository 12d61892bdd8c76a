"""How workers on other machines are accepted: versions, sources, data and keys of runs must equal the driver's."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.sweep.executors.base import Task, Training
from hiresnet_graph.version import __version__


class Fingerprint(NamedTuple):
    """Versions that must be equal on all machines that train runs of a study.

    Attributes:
        code: Hash of all source files of this package.
    """

    code: str
    hiresnet_graph: str
    torch: str
    python: str


@functools.cache
def own_fingerprint() -> Fingerprint:
    """The versions of this process."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    python = ".".join(platform.python_version_tuple()[:2])
    return Fingerprint(digest.hexdigest()[:12], __version__, version("torch"), python)


class Probe(NamedTuple):
    """A file with a random token, by which a worker shows that it sees the driver's folder."""

    path: Path
    token: str


class Handshake(NamedTuple):
    """The first answer of a worker."""

    fingerprint: Fingerprint
    pid: int
    sees_probe: bool


class TaskAccepted(NamedTuple):
    """A worker has accepted a task."""


class Mismatch(NamedTuple):
    """A worker cannot compute the requested run: the reason, or its own key and data fingerprint."""

    message: str = ""
    key: str = ""
    fingerprint: str = ""


def find_differences(here: Fingerprint, there: Fingerprint) -> Iterator[str]:
    """How the versions of a worker differ from the driver's, as clauses."""
    for name in ("hiresnet_graph", "torch", "python"):
        expected, found = getattr(here, name), getattr(there, name)
        if expected != found:
            yield f"{name} is {found} there and {expected} here"
    if here.code != there.code and here.hiresnet_graph == there.hiresnet_graph:
        yield f"the source of hiresnet_graph {here.hiresnet_graph} has hash {there.code} there and {here.code} here"


def explain_mismatch(task: Task, there: Mismatch) -> str:
    """Why a worker's key of a run is not the driver's."""
    if there.message:
        return there.message
    assert isinstance(task.work, Training)
    from hiresnet_graph.train.identity import identify_request

    request = task.work.request
    fingerprint = identify_request(request).data_fingerprint
    if fingerprint != there.fingerprint:
        return (
            f"data '{request.data.kind}' is other data there: its fingerprint is {there.fingerprint[:12]} there and "
            f"{fingerprint[:12]} here. Copy the same files to all machines."
        )
    return (
        f"run '{request.label}' has key {there.key[:12]} there and {task.key[:12]} here: the code of your own blocks "
        "and operations differs. Install the same on all machines."
    )
