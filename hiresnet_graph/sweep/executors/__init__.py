"""Where the runs of a sweep are worked on: processes of this machine, or a Ray cluster."""

from hiresnet_graph.sweep.executors.base import Executor, Failure, Lost, Report, StackTraining, Task, Training
from hiresnet_graph.sweep.executors.local import LocalExecutor

__all__ = ["Executor", "Failure", "LocalExecutor", "Lost", "Report", "StackTraining", "Task", "Training"]
