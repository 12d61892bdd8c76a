"""Describe, draw, compile, train and ablate neural architectures as graphs.

    import hiresnet_graph as hrg

    net = hrg.load("hiresnet18").variant("full")
    module = net.build(seed=0)
"""

from hiresnet_graph.architecture import Architecture, from_dict, load, loads
from hiresnet_graph.errors import HrgError, SpecError

__all__ = ["Architecture", "HrgError", "SpecError", "from_dict", "load", "loads"]
__version__ = "0.1.0"
