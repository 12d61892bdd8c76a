"""Describe, draw, compile, train and ablate neural architectures as graphs.

    import hiresnet_graph as hrg

    net = hrg.load("hiresnet18").variant("full")
    print(net.cost().parameters)
    module = net.build(seed=0)

The names in `__all__` are the public verbs and types. They are imported on first use, so that `hrg` can be interrupted
from its start; none but those for training and importing imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hiresnet_graph.version import __version__ as __version__

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture, from_dict, from_networkx, load, loads
    from hiresnet_graph.errors import HrgError, SpecError
    from hiresnet_graph.importing import Imported, from_module
    from hiresnet_graph.matching import adjust
    from hiresnet_graph.models import create_model, list_models
    from hiresnet_graph.registry import Kind
    from hiresnet_graph.report import summarize
    from hiresnet_graph.sweep import Study, ablate, enumerate_variants, plan_study, read_results, read_study
    from hiresnet_graph.sweep.search import search
    from hiresnet_graph.train import Recipe, from_pretrained, load_run, save_pretrained

__all__ = [
    "Architecture",
    "HrgError",
    "Imported",
    "Kind",
    "Recipe",
    "SpecError",
    "Study",
    "ablate",
    "adjust",
    "create_model",
    "enumerate_variants",
    "from_dict",
    "from_module",
    "from_networkx",
    "from_pretrained",
    "list_models",
    "load",
    "load_run",
    "loads",
    "plan_study",
    "read_results",
    "read_study",
    "save_pretrained",
    "search",
    "summarize",
]

_ON_FIRST_USE = {
    "Architecture": "hiresnet_graph.architecture",
    "HrgError": "hiresnet_graph.errors",
    "Imported": "hiresnet_graph.importing",
    "Kind": "hiresnet_graph.registry",
    "Recipe": "hiresnet_graph.train",
    "SpecError": "hiresnet_graph.errors",
    "Study": "hiresnet_graph.sweep",
    "ablate": "hiresnet_graph.sweep",
    "adjust": "hiresnet_graph.matching",
    "create_model": "hiresnet_graph.models",
    "enumerate_variants": "hiresnet_graph.sweep",
    "from_dict": "hiresnet_graph.architecture",
    "from_module": "hiresnet_graph.importing",
    "from_networkx": "hiresnet_graph.architecture",
    "from_pretrained": "hiresnet_graph.train",
    "list_models": "hiresnet_graph.models",
    "load": "hiresnet_graph.architecture",
    "load_run": "hiresnet_graph.train",
    "loads": "hiresnet_graph.architecture",
    "plan_study": "hiresnet_graph.sweep",
    "read_results": "hiresnet_graph.sweep",
    "read_study": "hiresnet_graph.sweep",
    "save_pretrained": "hiresnet_graph.train",
    "search": "hiresnet_graph.sweep.search",
    "summarize": "hiresnet_graph.report",
}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        value = getattr(importlib.import_module(_ON_FIRST_USE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
