"""Training a study: prepared study, ledger, executor and driver put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hiresnet_graph.errors import MissingDataError
from hiresnet_graph.sweep.driver import Interrupted
from hiresnet_graph.sweep.executors import Executor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.prepare import PreparedStudy, prepare_study
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.training import Progress, train_all

__all__ = ["Interrupted", "Progress", "ablate"]


def ablate(
    study: Study | str | Path,
    *,
    out: Path | str,
    executor: str | Executor = "local",
    jobs: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    stack: int | str | None = None,
    address: str | None = None,
    slurm: str | None = None,
    accept_changes: bool = False,
    wait: bool = False,
    measuring: Callable[[], None] = lambda: None,
    started: Callable[[PreparedStudy], None] = lambda prepared: None,
    progress: Callable[[Progress], None] | None = None,
) -> Results:
    """Train every network of a study with all its seeds, and nothing twice.

    The same call resumes an interrupted study; an extended study is added to. Results do not depend on `jobs`, nor on
    the other networks of the study. Scripts need `if __name__ == "__main__":` around the call, because workers are
    separate processes.

    Args:
        study: A study; or its file, or the name of a shipped one.
        out: Folder of the study.
        executor, jobs, device, threads, stack, address, slurm: As for `ExecutionOptions`.
        accept_changes: A label may refer to another network, or a run to other settings, than in the folder; the
            previous runs are kept and left out of the results.
        wait: Wait for the end of another process that trains in the folder.
        measuring: Called before throughput is measured, which takes about 20 seconds.
        started: Called once, before training.
        progress: Called for each epoch and each run that ends.

    Raises:
        SpecError: The study or one of its networks is wrong. Nothing was trained.
        UsageError: The request is invalid, or the folder holds another study. Nothing was trained.
        RunError: Some runs failed; the others were trained.
        Interrupted: Ctrl-C. Finished runs are kept, running ones have saved a checkpoint.
    """
    options = ExecutionOptions(executor, jobs, device, threads, stack, address, slurm)
    prepared = prepare_study(study, out, options, accept_changes=accept_changes, measuring=measuring)
    if prepared.data_error:
        raise MissingDataError(prepared.data_error)
    with Ledger.open(out, wait=wait) as ledger:
        prepared = prepared.with_ledger(ledger, accept_changes=accept_changes)
        ledger.join(prepared.plan, accept_changes=accept_changes)
        ledger.freeze_execution(prepared.execution)
        started(prepared)
        if prepared.missing:
            _train(ledger, prepared, progress)
    return read_results(out)


def _train(ledger: Ledger, prepared: PreparedStudy, progress: Callable[[Progress], None] | None) -> None:
    execution, stacks = prepared.execution, prepared.stacks
    tasks = len(stacks) + len(prepared.missing) - sum(len(stack.keys) for stack in stacks)

    def start(key: str) -> None:
        """Give a run its start, if it continues a shorter one."""
        from hiresnet_graph.train.continuation import continue_run

        if key in prepared.continued:
            continue_run(prepared.continued[key], ledger.run(key).folder, key)

    with prepared.options.make_executor(prepared.devices, execution.threads, ledger.folder, tasks) as workers:
        train_all(
            ledger, prepared.plan.requests, workers, execution, stacks=stacks, submitting=start, progress=progress
        )
