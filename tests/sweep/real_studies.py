"""Small studies that are trained, to compare executors by the bits of their results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.data import DigitsData
from hiresnet_graph.sweep.executors.base import TaskReport
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan
from hiresnet_graph.sweep.results import NetworkInfo, read_results
from hiresnet_graph.sweep.training import train_all
from hiresnet_graph.train import Recipe, RunRecord, RunRequest, Seeds, identify_request


def real_study(network: hrg.Architecture, epochs: int = 4) -> StudyPlan:
    """Two variants with two seeds, on the digits; each epoch ends with a checkpoint."""
    networks, rows, requests = [], [], {}
    for i, label in enumerate(("original", "full")):
        variant = network.variant(label)
        networks.append(NetworkInfo(label, {}, variant.plan.digest(), 10, 20))
        for seed in (0, 1):
            request = RunRequest(
                spec=variant.to_yaml(),
                label=label,
                seeds=Seeds(seed, seed),
                data=DigitsData(),
                recipe=Recipe(epochs=epochs),
                checkpoint_s=0,
            )
            key = identify_request(request).key
            requests[key] = request
            rows.append(PlannedRow(i, request.seeds, key))
    recipe = Recipe(epochs=epochs).model_dump(mode="json")
    return StudyPlan(
        "study", "tiny", "digits", "data", recipe, None, tuple(networks), tuple(rows), requests, (), "name: study\n"
    )


def trained(folder: Path, plan: StudyPlan, executor: Any) -> dict[str, Mapping[str, Any]]:
    """The results of all runs of a study, without times and machines."""
    with Ledger.open(folder) as ledger, executor:
        ledger.join(plan)
        train_all(ledger, plan.requests, executor)
    results = read_results(folder)
    assert [row.state for row in results.rows] == ["complete"] * len(plan.rows)
    return {row.key: outcome(row.record) for row in results.rows}


def outcome(record: RunRecord | None) -> Mapping[str, Any]:
    assert record is not None
    found = record.model_dump(exclude={"machine", "time_s"})
    return {**found, "epochs": [{**epoch, "time_s": 0} for epoch in found["epochs"]]}


def weights(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("runs/*/model.safetensors"))}


class Watched:
    """An executor that calls a function with each report; stands before the executor among the bases.

    Args:
        where: The first argument of the executor.
    """

    def __init__(self, where: Any, watch: Callable[[TaskReport], None], **options: Any) -> None:
        super().__init__(where, **options)  # type: ignore[call-arg]
        self.watch, self.seen = watch, list[TaskReport]()

    def reports(self, timeout_s: float) -> Sequence[TaskReport]:
        found: Sequence[TaskReport] = super().reports(timeout_s)  # type: ignore[misc]
        for report in found:
            self.seen.append(report)
            self.watch(report)
        return found
