"""What the tests of training share: small requests, and runs that are stopped and go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.data import data_source
from hiresnet_graph.train import Event, Finished, Recipe, RunRequest, Seeds, run

ZERO = Seeds(0, 0)


def request(arch: hrg.Architecture, seeds: Seeds = ZERO, data: str = "digits", **fields: Any) -> RunRequest:
    """A short run of a network; `fields` are those of the recipe, and of the request itself."""
    own = {name: fields.pop(name) for name in ("checkpoint_s", "threads", "device", "data_workers") if name in fields}
    recipe = Recipe.model_validate({"epochs": 2, "batch_size": 200, **fields})
    return RunRequest(arch.to_yaml(), arch.name, seeds, data_source(data), recipe, **{"checkpoint_s": 0, **own})


def events_of(asked: RunRequest, folder: Path, **how: Any) -> list[Event]:
    return list(run(asked, folder, **how))


def finish(asked: RunRequest, folder: Path, **how: Any) -> Finished:
    """Let a run go to its end."""
    last = events_of(asked, folder, **how)[-1]
    assert isinstance(last, Finished)
    return last


def stop_after(steps: int) -> Callable[[], bool]:
    """Says yes when it has been asked this often."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    return stop


def result_of(folder: Path) -> dict[str, Any]:
    """All that a run found, as it lies in its files, without what may differ between equal runs."""
    record = json.loads((folder / "result.json").read_text())
    assert record.pop("time_s") > 0 and record.pop("machine")
    for epoch in record["epochs"]:
        assert epoch.pop("time_s") > 0
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2 * len(record["epochs"])
    for row in metrics:
        row.pop("time_s", None)
    weights = {name: (folder / f"{name}.safetensors").read_bytes() for name in ("model", "last")}
    return {**record, "metrics": metrics, **weights}
