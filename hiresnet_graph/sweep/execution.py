"""How the runs of a study are computed: device, workers, threads, backend and stack size, as one `ExecutionPlan`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import NamedTuple, Self

from hiresnet_graph.formats import format_count
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Backend
from hiresnet_graph.train.request import RunRequest


class WorkerLayout(NamedTuple):
    """Workers that train at one time, and CPU threads per worker."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{format_count(self.workers, 'worker')} x {format_count(self.threads, 'thread')}"


@dataclass(frozen=True)
class ExecutionPlan:
    """How the runs of a study are computed.

    The ledger freezes it with the first run, so that the results of all runs are rounded in the same way; only `stack`
    and `workers`, which change no bit of a result, may change when a study is resumed.

    Attributes:
        device: `cpu` or `cuda`.
        threads: CPU threads per worker.
        channels_last: Memory layout of images; None leaves the choice to the training program.
        compile: Whether steps are compiled.
        backend: How steps are computed.
        stack: Maximum number of runs that one program computes together.
        workers: Workers at one time. Not stored in the ledger.
    """

    device: str = "cpu"
    threads: int = 1
    channels_last: bool | None = None
    compile: bool = False
    backend: Backend = "eager"
    stack: int = 1
    workers: int = 1

    @classmethod
    def of(cls, recipe: Recipe, device: str, layout: WorkerLayout) -> Self:
        """The plan that computes each run by itself."""
        return cls(device, layout.threads, recipe.channels_last, recipe.compile, workers=layout.workers)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that a ledger stores."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The plan as a ledger stores it."""
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items() if name != "workers"})

    @property
    def layout(self) -> WorkerLayout:
        """Workers and threads."""
        return WorkerLayout(self.workers, self.threads)

    def using(self, layout: WorkerLayout, backend: Backend = "eager", stack: int = 1) -> Self:
        """The same plan with another layout, backend and stack size."""
        return dataclasses.replace(self, workers=layout.workers, threads=layout.threads, backend=backend, stack=stack)

    def reconciled(self, requested: Self) -> tuple[Self, str]:
        """The plan that resumes a study, where this is the frozen plan.

        Returns:
            The plan, and a sentence that lists the requested settings that were not applied.
        """
        resumed = dataclasses.replace(self, stack=requested.stack) if requested.backend == self.backend else self
        frozen, wanted = (dataclasses.asdict(plan) for plan in (resumed, requested))
        differences = ", ".join(
            f"{name}={frozen[name]}, not {wanted[name]}"
            for name in frozen
            if name != "workers" and frozen[name] != wanted[name]
        )
        message = f"The study keeps the settings it was started with, so that all runs are comparable: {differences}."
        return resumed, f"{message} Choose another folder to change that." if differences else ""

    def apply(self, request: RunRequest) -> RunRequest:
        """The request with this plan; the key of the run does not change."""
        recipe = request.recipe.model_copy(update={"channels_last": self.channels_last, "compile": self.compile})
        return dataclasses.replace(request, recipe=recipe, device=self.device, threads=self.threads)

    def __str__(self) -> str:
        together = f", {self.stack} runs as one program" if self.stack > 1 else ", each run by itself"
        return f"{self.layout}{together} ({self.backend})"
