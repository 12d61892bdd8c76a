"""A plan as source that a person would have written; torch is not imported for it."""

from hiresnet_graph.emit.source import emit

__all__ = ["emit"]
