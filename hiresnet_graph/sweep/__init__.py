"""Studies: which variants of a network are compared, and training each of them with several seeds.

Reading and enumerating needs no torch; `ablate` loads it on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan, plan_study
from hiresnet_graph.sweep.results import NetworkInfo, Results, RunRow, read_results
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.sweep.subsets import RULES, count_subsets, subsets
from hiresnet_graph.sweep.variants import Variant, enumerate_variants

if TYPE_CHECKING:
    from hiresnet_graph.sweep.ablation import ablate
    from hiresnet_graph.sweep.options import ExecutionOptions
    from hiresnet_graph.sweep.prepare import PreparedStudy, prepare_study

__all__ = [
    "RULES",
    "ExecutionOptions",
    "NetworkInfo",
    "PlannedRow",
    "PreparedStudy",
    "Results",
    "RunRow",
    "Study",
    "StudyPlan",
    "Variant",
    "ablate",
    "count_subsets",
    "enumerate_variants",
    "plan_study",
    "prepare_study",
    "read_results",
    "read_study",
    "subsets",
]

_ON_FIRST_USE = {
    "ExecutionOptions": "options",
    "PreparedStudy": "prepare",
    "ablate": "ablation",
    "prepare_study": "prepare",
}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return getattr(importlib.import_module(f"hiresnet_graph.sweep.{_ON_FIRST_USE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
