"""The task of a stack, as plain values that any process can receive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hiresnet_graph.train.request import RunRequest

StackBackend = Literal["stacked", "branches"]
"""`stacked` computes all runs with one kernel for each operation; `branches` computes each run with the kernels of a
single run."""


class StackMember(NamedTuple):
    """One run of a stack, with its own folder."""

    key: str
    request: RunRequest
    folder: Path


@dataclass(frozen=True)
class StackRequest:
    """Runs that are computed as one program, in lockstep.

    Their recipes are equal except for the fields that each run may have of its own (see `stack_group`); data, device,
    threads and data workers are equal.

    Attributes:
        supergraph: A network, as a spec in YAML, that contains the network of each run: some edges may be missing.
    """

    runs: tuple[StackMember, ...]
    supergraph: str
    backend: StackBackend = "stacked"
