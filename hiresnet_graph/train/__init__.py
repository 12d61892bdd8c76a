"""One training program, its recipe, and the record that it leaves.

Records, recipes, requests and events need no torch; `run`, `train` and what reads weights load it on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hiresnet_graph.train.events import (
    EpochDone,
    Event,
    Finished,
    OfRun,
    Paused,
    Refused,
    Saved,
    StackEnded,
    Started,
)
from hiresnet_graph.train.recipe import Recipe, make_recipe
from hiresnet_graph.train.record import Epoch, Machine, Preprocessing, RunRecord, Seeds, read_record, run_key
from hiresnet_graph.train.request import RunRequest, StackBackend, StackMember, StackRequest

if TYPE_CHECKING:
    from hiresnet_graph.train.evaluation import Scores
    from hiresnet_graph.train.key import key_of, kinds_of
    from hiresnet_graph.train.pretrained import from_pretrained, save_pretrained
    from hiresnet_graph.train.program import run
    from hiresnet_graph.train.readout import ReadoutPoint
    from hiresnet_graph.train.run_folder import Run, load_run
    from hiresnet_graph.train.single import train

__all__ = [
    "Epoch",
    "EpochDone",
    "Event",
    "Finished",
    "Machine",
    "OfRun",
    "Paused",
    "Preprocessing",
    "ReadoutPoint",
    "Recipe",
    "Refused",
    "Run",
    "RunRecord",
    "RunRequest",
    "Saved",
    "Scores",
    "Seeds",
    "StackBackend",
    "StackEnded",
    "StackMember",
    "StackRequest",
    "Started",
    "from_pretrained",
    "key_of",
    "kinds_of",
    "load_run",
    "make_recipe",
    "read_record",
    "run",
    "run_key",
    "save_pretrained",
    "train",
]

_ON_FIRST_USE = {
    "ReadoutPoint": "readout",
    "Run": "run_folder",
    "Scores": "evaluation",
    "from_pretrained": "pretrained",
    "key_of": "key",
    "kinds_of": "key",
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
