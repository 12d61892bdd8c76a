"""Networks for other programs: exported programs, ONNX, source, plain data, and networkx graphs."""

from hiresnet_graph.interop.export import export
from hiresnet_graph.interop.networkx import spec_from_networkx, to_networkx

__all__ = ["export", "spec_from_networkx", "to_networkx"]
