"""Small requests, and runs that are stopped and resumed, for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.data import data_source
from hiresnet_graph.train import Event, Finished, Recipe, RunRequest, Seeds, run

ZERO = Seeds(0, 0)

# Everything whose state must survive an interruption: dropout, momentum, moments, a schedule that moves at each step.
RECIPES: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer": "sgd", "nesterov": True, "weight_decay": 1e-3, "schedule": "one-cycle", "lr": 0.05},
    "adamw": {
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "augment": "crop+flip",
    },
    "bf16": {"precision": "bf16", "schedule": "cosine", "warmup_epochs": 1, "drop_last": True},
}


def request(arch: hrg.Architecture, seeds: Seeds = ZERO, data: str = "digits", **fields: Any) -> RunRequest:
    """A short run of a network; `fields` belong to the recipe or to the request itself."""
    own = {name: fields.pop(name) for name in ("checkpoint_s", "threads", "device", "data_workers") if name in fields}
    recipe = Recipe.model_validate({"epochs": 2, "batch_size": 200, **fields})
    return RunRequest(arch.to_yaml(), arch.name, seeds, data_source(data), recipe, **{"checkpoint_s": 0, **own})


def events_of(requested: RunRequest, folder: Path, **options: Any) -> list[Event]:
    return list(run(requested, folder, **options))


def finish(requested: RunRequest, folder: Path, **options: Any) -> Finished:
    """Train a run to its end."""
    last = events_of(requested, folder, **options)[-1]
    assert isinstance(last, Finished)
    return last


def stop_after(steps: int) -> Callable[[], bool]:
    """A condition that is True after this number of calls."""
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > steps

    return stop


def result_of(folder: Path) -> dict[str, Any]:
    """The results of a run from its files, without what may differ between equal runs."""
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
