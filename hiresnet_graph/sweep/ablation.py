"""Trains all that a study asks for: plan, ledger, executor and driver put together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import RunError, UsageError, did_you_mean
from hiresnet_graph.sweep.calibration import Calibration, Choice
from hiresnet_graph.sweep.driver import Interrupted, Progress, train_all
from hiresnet_graph.sweep.executors import Executor, LocalExecutor
from hiresnet_graph.sweep.ledger import Execution, Ledger, RunState
from hiresnet_graph.sweep.plan import StudyPlan, data_of, networks_of, planned
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.stacks import Bucket, Stack, buckets_of, stacks_of
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.sweep.ways import AUTO, Backend, Crew, Way, room_of, stack_asked
from hiresnet_graph.train.record import START, Cursor

__all__ = [
    "Begun",
    "Interrupted",
    "Progress",
    "ablate",
    "check_asked",
    "crews_of",
    "devices_of",
    "executor_of",
    "kind_of",
    "may_stack",
    "told_stacks",
    "way_asked",
    "way_kept",
]

EXECUTORS = ("local", "ray")
_NOT_ON_RAY = "workers of a Ray cluster compute each run by itself."


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
    threads: int | None = None,
    stack: int | str | None = None,
    address: str | None = None,
    accept_changes: bool = False,
    wait: bool = False,
    measuring: Callable[[], None] | None = None,
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
        threads: Of the CPU for each worker; other numbers round differently. 1 if left out.
        stack: Runs that one program computes at one time, at most: those of networks that differ in edges alone, with
            any seeds and learning rates. `off` computes each run by itself, as a new study does if nothing is said; one
            that has begun goes on as it began. `auto` measures some ways on this machine and takes the fastest, with
            other threads, too, if they were left out; a short study is not worth it. What comes out differs from `off`
            as another number of threads does, and not with the size of a stack.
        address: Of a Ray cluster.
        accept_changes: A label may mean another network, or a run other settings, than in the folder; the runs of
            before are kept and left out of the results.
        wait: If another process is at work in the folder, wait for its end.
        measuring: Called if something is measured first, which takes some 20 seconds.
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
    check_asked(jobs, threads, executor, address, stack)
    devices = devices_of(device, executor)
    networks, source = networks_of(study), data_of(study)
    dataset = load_dataset(source)
    plan = planned(study, networks, source, dataset, device=kind_of(devices), threads=threads or 1)
    with Ledger.open(out, wait=wait) as ledger:
        before = ledger.execution
        if device == "auto" and before is not None and before.device != kind_of(devices):
            devices = devices_of(before.device, executor)
            plan = _on(plan, before.device)
        ledger.join(plan, accept_changes=accept_changes)
        runs = {run.key: run for run in ledger.missing()}
        crews = crews_of(jobs, devices, threads, len(runs))
        buckets = buckets_of(networks, plan, study.group) if may_stack(stack, before) else ()

        def choose() -> Choice:
            if measuring is not None:
                measuring()
            return Calibration(networks, plan, buckets, dataset, runs, devices).choose(crews)

        way, choice = way_asked(stack, threads, crews, before, choose if executor == "local" and runs else None)
        first = dataclasses.replace(next(iter(plan.requests.values())), threads=way.crew.threads)
        execution, note = ledger.settle(Execution.of(first, way.backend, way.stack))
        if executor == "ray" and execution.backend != "eager":
            raise UsageError(f"{out}: {_NOT_ON_RAY} Go on with the executor 'local'.")
        way = way_kept(execution, jobs, devices, len(runs))
        stacks = _stacks(buckets, runs, way, devices, has_begun=before is not None)
        notes = [note, str(choice or ""), told_stacks(stacks, way, len(runs))]
        if stack == AUTO and before is None and executor != "local":
            notes.append("Each run is computed by itself: what is fastest is measured for workers of this machine.")
        if outside := ledger.outside:
            kept = "1 run of an earlier plan is" if outside == 1 else f"{outside} runs of an earlier plan are"
            notes.append(f"{kept} kept, and left out of the results.")
        if begun is not None:
            told = " ".join(filter(None, notes))
            begun(Begun(plan, len(plan.requests), len(plan.requests) - len(runs), told, networks.remarks()))
        if runs:
            tasks = len(stacks) + len(runs) - sum(len(stack.keys) for stack in stacks)
            with executor_of(
                executor, jobs=jobs, device=device, threads=execution.threads, address=address, runs=tasks, on=devices
            ) as workers:
                train_all(ledger, plan.requests, workers, stacks=stacks, execution=execution, progress=progress)
    return read_results(out)


def may_stack(stack: int | str | None, before: Execution | None) -> bool:
    """Whether runs may be computed together, as it is asked for or as the study has begun."""
    return stack_asked(stack) != 1 or (before is not None and before.backend != "eager")


def way_asked(
    stack: int | str | None,
    threads: int | None,
    crews: Sequence[Crew],
    before: Execution | None,
    choose: Callable[[], Choice] | None,
) -> tuple[Way, Choice | None]:
    """The way that is meant for the runs of a study, and how it was chosen, if it was.

    Args:
        stack, threads: As of `ablate`.
        crews: Those that there may be, the usual one first.
        before: How the study has begun.
        choose: Measures what is fastest; None if that cannot be.
    """
    usual, most = crews[0], stack_asked(stack)
    if before is not None and stack in (None, AUTO):
        crew = usual._replace(threads=threads or before.threads)
        return Way(crew, cast(Backend, before.backend), before.stack), None
    if most is not None:
        return Way(usual, "stacked" if most > 1 else "eager", most), None
    if choose is None:
        return Way(usual), None
    choice = choose()
    return choice.way, choice


def way_kept(execution: Execution, jobs: int | None, devices: tuple[str, ...], runs: int) -> Way:
    """The way in which a study goes on."""
    threads = execution.threads
    return Way(
        Crew(workers_of(jobs, devices, threads, runs), threads), cast(Backend, execution.backend), execution.stack
    )


def _stacks(
    buckets: Sequence[Bucket], runs: Mapping[str, RunState], way: Way, devices: tuple[str, ...], *, has_begun: bool
) -> tuple[Stack, ...]:
    """The stacks of the missing runs, each of runs that have come equally far."""
    if way.backend == "eager":
        return ()
    from hiresnet_graph.train.checkpoint import resume_points

    def places(key: str) -> set[Cursor]:
        try:
            return resume_points(runs[key].folder) if runs[key].attempts else {START}
        except (RunError, OSError):  # its worker will say so
            return {START}

    room = room_of(devices, way.crew.workers)
    return stacks_of(buckets, runs, way.backend, way.stack, room=room, has_begun=has_begun, places=places)


def told_stacks(stacks: Sequence[Stack], way: Way, runs: int) -> str:
    """How many of the missing runs are computed together, as a sentence; empty if that was not asked for."""
    together = [len(stack.keys) for stack in stacks]
    if way.backend == "eager" or not runs:
        return ""
    alone = runs - sum(together)
    if not together:
        return (
            "Each run is computed by itself: no two of them go together (other networks, 'compile' or "
            "'checkpoint_steps' in the recipe), or memory is too small."
        )
    programs = "1 program" if len(together) == 1 else f"{len(together)} programs of at most {max(together)}"
    told = f"{sum(together)} run{'' if sum(together) == 1 else 's'} as {programs} ({way.backend})"
    return f"{told}, {alone} by {'itself' if alone == 1 else 'themselves'}." if alone else f"{told}."


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


def crews_of(jobs: int | None, devices: tuple[str, ...], threads: int | None, runs: int) -> tuple[Crew, ...]:
    """The crews that there may be, the usual one first."""
    numbers = [threads or 1]
    if threads is None and kind_of(devices) == "cpu":
        numbers.append(max(1, _cores() // (jobs or 1)))
    return tuple(dict.fromkeys(Crew(workers_of(jobs, devices, number, runs), number) for number in numbers))


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

    from hiresnet_graph.train.environment import choose_device

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


def check_asked(
    jobs: int | None,
    threads: int | None,
    executor: str | Executor,
    address: str | None,
    stack: int | str | None = None,
) -> None:
    """See that workers can be had as they are asked for.

    Raises:
        UsageError: They cannot.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: at least 1 is wanted, not {jobs}.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads: at least 1 is wanted, not {threads}.")
    if isinstance(executor, str) and executor not in EXECUTORS:
        raise UsageError(f"there is no executor '{executor}'. {did_you_mean(executor, EXECUTORS)}")
    if address is not None and executor == "local":
        raise UsageError(f"address '{address}' is one of a Ray cluster. Choose the executor 'ray', or leave it out.")
    if (stack_asked(stack) or 1) > 1 and executor == "ray":
        raise UsageError(f"stack: {_NOT_ON_RAY} Leave it out, or choose the executor 'local'.")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
