"""An executor with given validation accuracies, and searches on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.files import make_folder
from hiresnet_graph.sweep.driver import Driver
from hiresnet_graph.sweep.executors.base import TaskReport, Training
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.search import SearchLoop
from hiresnet_graph.sweep.search_prepare import prepare_search
from hiresnet_graph.sweep.search_trials import Trial, read_trials
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.train.events import EpochDone, Event, Finished, Paused, Started
from hiresnet_graph.train.record import Epoch, RunRecord
from tests.sweep.works import MACHINE, Inline, epoch, record

NAN = math.nan
EPOCHS = 4
Curves = dict[int, Sequence[float]]


@dataclass
class Scripted(Inline):
    """An executor whose runs have given validation accuracies; NaN is an epoch in which a run diverges.

    Attributes:
        curves: The accuracies after each epoch, by number of the run in the order of proposals.
        limit: Number of tasks before Ctrl-C.
    """

    ledger: Ledger | None = None
    curves: Curves | None = None
    limit: int = -1

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        if not self.tasks:
            return []
        if self.limit == 0:
            raise KeyboardInterrupt
        self.limit -= 1
        task = self.tasks.popleft()
        assert self.ledger is not None and self.curves is not None and isinstance(task.work, Training)
        number = [run.key for run in self.ledger.runs()].index(task.key)
        events = list(self._train(task.work, task.key, self.curves[number]))
        return [TaskReport(task.key, task.attempt, event, "here") for event in events]

    @staticmethod
    def _train(work: Training, key: str, curve: Sequence[float]) -> Iterator[Event]:
        saved = make_folder(work.folder) / "saved"
        done = int(saved.read_text()) if saved.exists() else 0
        yield Started(done, MACHINE)
        epochs = [epoch(i + 1).model_copy(update={"validation_accuracy": value}) for i, value in enumerate(curve)]
        for number in range(done + 1, (work.until or EPOCHS) + 1):
            if math.isnan(curve[number - 1]):
                yield Finished(_record(work, key, epochs[: number - 1], "diverged"))
                return
            yield EpochDone(epochs[number - 1])
            saved.write_text(str(number))
        if work.until is not None:
            yield Paused(work.until)
        else:
            yield Finished(_record(work, key, epochs, "complete"))


def _record(work: Training, key: str, epochs: Sequence[Epoch], outcome: str) -> RunRecord:
    return record(work.request, outcome=outcome).model_copy(update={"key": key, "epochs": tuple(epochs)})


def searched(
    arch: hrg.Architecture,
    folder: Path,
    curves: Curves,
    stop: int = -1,
    progress: Callable[[Trial, int], None] | None = None,
    **how: Any,
) -> tuple[Trial, ...]:
    """The trials of a search of as many networks as there are curves, in one batch unless another size is given."""
    settings = {"space": {"edges": "full"}, "sampler": "random", "runs": len(curves), "batch": len(curves), **how}
    study = Study.model_validate({"network": arch, "recipe": {"epochs": EPOCHS}, "seeds": 1, "search": settings})
    with Ledger.open(folder) as ledger:
        loop = SearchLoop(prepare_search(study, None).with_ledger(ledger), ledger)
        with Driver(ledger, Scripted(ledger=ledger, curves=curves, limit=stop)) as driver:
            loop.run(driver, progress)
    return read_trials(folder)
