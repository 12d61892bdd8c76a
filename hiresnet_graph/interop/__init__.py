"""Networks for other programs: exported programs, ONNX, source, plain data, and networkx."""

from hiresnet_graph.interop.export import export
from hiresnet_graph.interop.networkx import from_networkx, to_networkx

__all__ = ["export", "from_networkx", "to_networkx"]
