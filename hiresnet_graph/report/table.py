"""The table of a study: one row a variant, with mean and spread over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep.study import StudyVariant, read_study, run_folder
from hiresnet_graph.train import Recipe, RunRecord, read_record


class Spread(NamedTuple):
    """Mean and standard deviation (ddof 1; None for one value)."""

    mean: float
    std: float | None


class Row(NamedTuple):
    """A variant.

    Attributes:
        n: Runs that ended with an accuracy.
        runs: Runs that were asked for: those that diverged or are still missing are among them.
        diverged: Runs that diverged.
        test: Test accuracy in percent at the epoch of best validation; None without runs.
        last: The same at the last epoch.
        same_as: The variant that is the same network, so that its runs are shown; or empty.
    """

    variant: str
    parameters: int
    n: int
    runs: int
    diverged: int
    test: Spread | None
    last: Spread | None
    same_as: str


class Table(NamedTuple):
    """The rows in the order in which the variants were given, and what all of them were trained with.

    Attributes:
        machines: Every different combination of software, device and processor that computed a run.
    """

    architecture: str
    data: str
    recipe: Recipe
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    machines: tuple[str, ...]

    @property
    def caption(self) -> str:
        """What the numbers are and where they come from, in a few sentences."""
        seeds = ", ".join(str(seed) for seed in self.seeds)
        recipe = self.recipe
        text = (
            f"{self.architecture} on {self.data}: {recipe.epochs} epochs, batch {recipe.batch_size}, learning rate "
            f"{recipe.lr:g} halved every {recipe.halve_every} epochs, seeds {seeds}. "
            "Test accuracy in percent at the epoch of best validation, and at the last epoch: "
            "mean (standard deviation, ddof 1)."
        )
        if not self.machines:
            return text
        if len(self.machines) == 1:
            return f"{text} Computed with {self.machines[0]}."
        return f"{text} Mixed: computed with {'; and with '.join(self.machines)}."


def summarize(folder: Path | str) -> Table:
    """The table of a study's folder, or of the folder of a single run.

    Raises:
        RunError: The folder is neither, or a file in it cannot be read.
    """
    folder = Path(folder)
    study = read_study(folder)
    if study is None:
        record = read_record(folder) if folder.is_dir() else None
        if record is None:
            raise RunError(f"{folder} holds no study and no finished run. 'hrg ablate ... -o {folder}' makes one.")
        row = _row(record.variant or record.architecture, record.parameters, [record], 1, "")
        return Table(record.architecture, record.data, record.recipe, (record.seed,), (row,), _machines([record]))
    rows, everything = [], []
    for variant in study.variants:
        found = (read_record(run_folder(folder, variant.runs_as, seed)) for seed in study.seeds)
        records = [record for record in found if record is not None]
        everything += records
        rows.append(_row(variant.label, variant.parameters, records, len(study.seeds), _same_as(variant)))
    return Table(study.architecture, study.data, study.recipe, study.seeds, tuple(rows), _machines(everything))


def _row(variant: str, parameters: int, records: Sequence[RunRecord], runs: int, same_as: str) -> Row:
    return Row(
        variant=variant,
        parameters=parameters,
        n=sum(record.outcome == "complete" for record in records),
        runs=runs,
        diverged=sum(record.outcome == "diverged" for record in records),
        test=_spread(record.test_accuracy for record in records),
        last=_spread(record.last_test_accuracy for record in records),
        same_as=same_as,
    )


def _spread(accuracies: Iterable[float | None]) -> Spread | None:
    percent = [100 * accuracy for accuracy in accuracies if accuracy is not None]
    if not percent:
        return None
    return Spread(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


def _same_as(variant: StudyVariant) -> str:
    return variant.runs_as if variant.runs_as != variant.label else ""


def _machines(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """What computed the runs, each once, in order."""
    texts = (
        f"hiresnet_graph {machine.hiresnet_graph}, torch {machine.torch}, Python {machine.python}, "
        f"{machine.device} with {machine.threads} thread{'s' if machine.threads != 1 else ''}, {machine.platform}"
        for machine in (record.machine for record in records)
    )
    return tuple(dict.fromkeys(texts))
