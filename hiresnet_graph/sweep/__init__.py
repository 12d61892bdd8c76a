"""Studies: which variants of a network are compared, and training each of them with several seeds.

Reading and enumerating needs no torch; `ablate` loads it on first use.
"""

from typing import TYPE_CHECKING, Any

from hiresnet_graph.sweep.plan import PlannedRow, StudyPlan, plan_study
from hiresnet_graph.sweep.results import NetworkInfo, Results, RunRow, read_results
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.sweep.subsets import RULES, count_subsets, subsets
from hiresnet_graph.sweep.variants import Variant, enumerate_variants

if TYPE_CHECKING:
    from hiresnet_graph.sweep.ablation import ablate

__all__ = [
    "RULES",
    "NetworkInfo",
    "PlannedRow",
    "Results",
    "RunRow",
    "Study",
    "StudyPlan",
    "Variant",
    "ablate",
    "count_subsets",
    "enumerate_variants",
    "plan_study",
    "read_results",
    "read_study",
    "subsets",
]


def __getattr__(name: str) -> Any:
    if name == "ablate":
        from hiresnet_graph.sweep.ablation import ablate

        return ablate
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
