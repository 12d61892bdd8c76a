"""Many runs: which variants of a network to compare, and training each of them with several seeds.

Enumerating needs no torch; `ablate` loads it on first use.
"""

from typing import TYPE_CHECKING, Any

from hiresnet_graph.sweep.study import Study, StudyVariant, read_study
from hiresnet_graph.sweep.subsets import RULES, count_subsets, subsets
from hiresnet_graph.sweep.variants import Variant, choose_variants, enumerate_variants

if TYPE_CHECKING:
    from hiresnet_graph.sweep.ablation import Interrupted, Progress, ablate

__all__ = [
    "RULES",
    "Interrupted",
    "Progress",
    "Study",
    "StudyVariant",
    "Variant",
    "ablate",
    "choose_variants",
    "count_subsets",
    "enumerate_variants",
    "read_study",
    "subsets",
]


def __getattr__(name: str) -> Any:
    if name in ("Interrupted", "Progress", "ablate"):
        from hiresnet_graph.sweep import ablation

        return getattr(ablation, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
