"""Trains all that a study asks for: plan, ledger, executor and driver put together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.sweep.driver import Interrupted, Progress, train_all
from hiresnet_graph.sweep.executors import Executor, LocalExecutor
from hiresnet_graph.sweep.ledger import Execution, Ledger
from hiresnet_graph.sweep.plan import StudyPlan, networks_of, plan_study
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.study import Study, read_study

__all__ = ["Begun", "Interrupted", "Progress", "ablate", "check_asked", "devices_of", "executor_of", "kind_of"]

EXECUTORS = ("local", "ray")


@dataclasses.dataclass(frozen=True)
class Begun:
    """A study is about to be trained.

    Attributes:
        total: Runs of the study; one that several variants share counts once.
        done: Those that are finished.
        note: For people, if the study does not go on as it was asked, or leaves out runs of before; else empty.
        remarks: As of `Networks.remarks`.
    """

    plan: StudyPlan
    total: int
    done: int
    note: str
    remarks: tuple[str, ...] = ()


def ablate(
    study: Study | str | Path,
    *,
    out: Path | str,
    executor: str | Executor = "local",
    jobs: int | None = None,
    device: str = "auto",
    threads: int = 1,
    address: str | None = None,
    accept_changes: bool = False,
    wait: bool = False,
    begun: Callable[[Begun], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Results:
    """Train every network of a study with all its seeds, and nothing twice.

    The same call goes on after an interruption; a study that has grown is added to. What comes out does not depend on
    `jobs`, nor on what else the study trains. A script needs `if __name__ == "__main__":` around the call, because
    workers are processes of their own.

    Args:
        study: A study; or its file, or the name of a shipped one.
        out: Folder of the study.
        executor: `local` (processes of this machine), `ray`, or one of your own.
        jobs: Runs at one time. If left out: one for each GPU, or as many as the cores have room for.
        device: `cpu`, `cuda` (all GPUs), `cuda:1`; or `auto`: what the study began on, else GPUs if there are any.
        threads: Of the CPU for each run; other numbers round differently.
        address: Of a Ray cluster.
        accept_changes: A label may mean another network, or a run other settings, than in the folder; the runs of
            before are kept and left out of the results.
        wait: If another process is at work in the folder, wait for its end.
        begun: Called once, before anything is trained.
        progress: Called for each epoch and each run that ends.

    Raises:
        SpecError: The study or a network of it is wrong. Nothing was trained.
        UsageError: Something asked for cannot be, or the folder holds another study. Nothing was trained.
        RunError: Some runs failed; the others were trained.
        Interrupted: Ctrl-C. Finished runs are kept, others have saved a checkpoint.
    """
    if isinstance(study, str | Path):
        study = read_study(study)
    check_asked(jobs, threads, executor, address)
    devices = devices_of(device, executor)
    networks = networks_of(study)
    plan = plan_study(study, networks, device=kind_of(devices), threads=threads)
    with Ledger.open(out, wait=wait) as ledger:
        before = ledger.execution
        if device == "auto" and before is not None and before.device != kind_of(devices):
            devices = devices_of(before.device, executor)
            plan = _on(plan, before.device)
        ledger.join(plan, accept_changes=accept_changes)
        execution, note = ledger.settle(Execution.of(next(iter(plan.requests.values()))))
        if outside := ledger.outside:
            kept = "1 run of an earlier plan is" if outside == 1 else f"{outside} runs of an earlier plan are"
            note = f"{note} {kept} kept, and left out of the results.".lstrip()
        missing = len(ledger.missing())
        if begun is not None:
            begun(Begun(plan, len(plan.requests), len(plan.requests) - missing, note, networks.remarks()))
        if missing:
            with executor_of(
                executor, jobs=jobs, device=device, threads=execution.threads, address=address, runs=missing, on=devices
            ) as workers:
                train_all(ledger, plan.requests, workers, progress=progress)
    return read_results(out)


def executor_of(
    executor: str | Executor,
    *,
    jobs: int | None = None,
    device: str = "auto",
    threads: int = 1,
    address: str | None = None,
    runs: int | None = None,
    on: tuple[str, ...] = (),
) -> Executor:
    """The executor of this name, not entered yet.

    Args:
        runs: How many there are to train; no more workers are started.
        on: The devices that `device` means, if they are known.

    Raises:
        UsageError: There is no such executor or device, or no room for a worker.
    """
    if not isinstance(executor, str):
        return executor
    check_asked(jobs, threads, executor, address)
    if executor == "ray":
        from hiresnet_graph.sweep.executors.ray import RayExecutor

        gpus = 1.0 if kind_of(on or devices_of(device, executor)) == "cuda" else 0.0
        return RayExecutor(address, workers=jobs, threads=threads, gpus=gpus)
    devices = on or devices_of(device)
    return LocalExecutor(workers_of(jobs, devices, threads, runs), devices=devices, threads=threads)


def workers_of(jobs: int | None, devices: tuple[str, ...], threads: int, runs: int | None = None) -> int:
    """How many processes of this machine train at one time."""
    room = len(devices) if kind_of(devices) == "cuda" else max(1, _cores() // threads)
    wanted = jobs or room
    return max(1, wanted if runs is None else min(wanted, runs))


def devices_of(device: str, executor: str | Executor = "local") -> tuple[str, ...]:
    """The devices that are meant: `auto` and `cuda` are all GPUs of this machine; on Ray, `cuda` is a worker's own.

    Raises:
        UsageError: There is no such device.
    """
    if executor == "ray" and device.startswith("cuda"):
        if device != "cuda":
            raise UsageError(f"device '{device}': on Ray, which GPU a worker has is not ours to say. Write 'cuda'.")
        return ("cuda",)
    import torch

    from hiresnet_graph.train.machine import choose_device

    chosen = choose_device(device)
    if chosen.type == "cpu" or ":" in device:
        return (str(chosen),)
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def kind_of(devices: tuple[str, ...]) -> str:
    """`cpu` or `cuda`: the devices of a study are of one kind."""
    return devices[0].split(":")[0]


def _on(plan: StudyPlan, device: str) -> StudyPlan:
    requests = {key: dataclasses.replace(request, device=device) for key, request in plan.requests.items()}
    return dataclasses.replace(plan, requests=requests)


def check_asked(jobs: int | None, threads: int, executor: str | Executor, address: str | None) -> None:
    """See that workers can be had as they are asked for.

    Raises:
        UsageError: They cannot.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: at least 1 is wanted, not {jobs}.")
    if threads < 1:
        raise UsageError(f"threads: at least 1 is wanted, not {threads}.")
    if isinstance(executor, str) and executor not in EXECUTORS:
        raise UsageError(f"there is no executor '{executor}'. {did_you_mean(executor, EXECUTORS)}")
    if address is not None and executor == "local":
        raise UsageError(f"address '{address}' is one of a Ray cluster. Choose the executor 'ray', or leave it out.")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
