"""Emits a plan as readable Python source, without importing torch."""

from hiresnet_graph.emit.source import emit

__all__ = ["emit"]
