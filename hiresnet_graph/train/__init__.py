"""The training program, its recipe, and the record of a run.

Records, recipes, requests and events need no torch; `run`, `train` and what reads weights load it on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hiresnet_graph.train.events import (
    EpochDone,
    Event,
    Finished,
    Paused,
    Saved,
    Started,
)
from hiresnet_graph.train.recipe import Recipe, make_recipe
from hiresnet_graph.train.record import Environment, Epoch, Preprocessing, RunRecord, Seeds, read_record
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from hiresnet_graph.train.evaluation import Scores
    from hiresnet_graph.train.identity import RunIdentity, identify_request
    from hiresnet_graph.train.pretrained import from_pretrained, save_pretrained
    from hiresnet_graph.train.program import run
    from hiresnet_graph.train.readout import ReadoutPoint
    from hiresnet_graph.train.run_folder import Run, load_run
    from hiresnet_graph.train.single import train

__all__ = [
    "Environment",
    "Epoch",
    "EpochDone",
    "Event",
    "Finished",
    "Paused",
    "Preprocessing",
    "ReadoutPoint",
    "Recipe",
    "Run",
    "RunIdentity",
    "RunRecord",
    "RunRequest",
    "Saved",
    "Scores",
    "Seeds",
    "Started",
    "from_pretrained",
    "identify_request",
    "load_run",
    "make_recipe",
    "read_record",
    "run",
    "save_pretrained",
    "train",
]

_ON_FIRST_USE = {
    "ReadoutPoint": "readout",
    "Run": "run_folder",
    "RunIdentity": "identity",
    "Scores": "evaluation",
    "from_pretrained": "pretrained",
    "identify_request": "identity",
    "load_run": "run_folder",
    "run": "program",
    "save_pretrained": "pretrained",
    "train": "single",
}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        value = getattr(importlib.import_module(f"hiresnet_graph.train.{_ON_FIRST_USE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
