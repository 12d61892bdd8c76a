"""From a plan to torch: one module (`build`), and the interpreter that it is held against."""

from hiresnet_graph.lower.interpreter import interpret
from hiresnet_graph.lower.single import build
from hiresnet_graph.plan import class_name

__all__ = ["build", "class_name", "interpret"]
