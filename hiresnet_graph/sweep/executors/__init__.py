"""Executors train the runs of a study: in processes of this machine, on a Ray cluster, or in Slurm jobs."""

from hiresnet_graph.sweep.executors.base import Executor, Failure, Lost, StackTraining, Task, TaskReport, Training
from hiresnet_graph.sweep.executors.local import LocalExecutor

__all__ = ["Executor", "Failure", "LocalExecutor", "Lost", "StackTraining", "Task", "TaskReport", "Training"]
