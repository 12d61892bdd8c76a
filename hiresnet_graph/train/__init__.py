"""One training program, its recipe, and the record that it leaves.

Records and recipes need no torch; `train` loads it on first use.
"""

from typing import TYPE_CHECKING, Any

from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Epoch, Machine, RunRecord, read_record, run_key

if TYPE_CHECKING:
    from hiresnet_graph.train.program import train

__all__ = ["Epoch", "Machine", "Recipe", "RunRecord", "read_record", "run_key", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from hiresnet_graph.train.program import train

        return train
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
