"""Training many runs as one program: replicas of one network, or subgraphs of one supergraph.

Which runs can share a program, the memory that takes, and requests need no torch; `run_stack` and the programs are
loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hiresnet_graph.stack.request import StackBackend, StackMember, StackRequest
from hiresnet_graph.stack.stackable import predicted_bytes, stack_group
from hiresnet_graph.stack.supergraph import mask_of

if TYPE_CHECKING:
    from hiresnet_graph.stack.branches import Branches
    from hiresnet_graph.stack.lowering import Stacked
    from hiresnet_graph.stack.program import run_stack
    from hiresnet_graph.stack.replicas import Replicas

__all__ = [
    "Branches",
    "Replicas",
    "StackBackend",
    "StackMember",
    "StackRequest",
    "Stacked",
    "mask_of",
    "predicted_bytes",
    "run_stack",
    "stack_group",
]

_ON_FIRST_USE = {"Branches": "branches", "Replicas": "replicas", "Stacked": "lowering", "run_stack": "program"}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        value = getattr(importlib.import_module(f"hiresnet_graph.stack.{_ON_FIRST_USE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
