"""The learning curves of a study: one record per run, epoch and split."""

from __future__ import annotations

from typing import NamedTuple

from hiresnet_graph.report.scores import Setting
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds


class CurvePoint(NamedTuple):
    """One epoch of a run on one split.

    Attributes:
        run: Key of the run; variants that are the same network share it.
        split: `train` (augmented images, evaluated during the epoch as the weights change) or `validation`.
        loss: Mean over the images.
        accuracy: In percent.
    """

    run: str
    variant: str
    setting: Setting
    seeds: Seeds
    epoch: int
    split: str
    loss: float
    accuracy: float


def learning_curves(results: Results) -> list[CurvePoint]:
    """The curves of all runs that have ended, those that diverged included, each run once."""
    found: list[CurvePoint] = []
    seen = set()
    for row in results.rows:
        if row.record is None or row.key in seen:
            continue
        seen.add(row.key)
        network = results.networks[row.network]
        for epoch in row.record.epochs:
            for split, loss, accuracy in (
                ("train", epoch.train_loss, epoch.train_accuracy),
                ("validation", epoch.validation_loss, epoch.validation_accuracy),
            ):
                found.append(
                    CurvePoint(
                        row.key, network.label, network.setting, row.seeds, epoch.epoch, split, loss, 100 * accuracy
                    )
                )
    return found
