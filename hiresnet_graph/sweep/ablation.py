"""Trains every variant with every seed, each pair in a folder of its own, and trains nothing twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, RunError, UsageError
from hiresnet_graph.sweep.study import STUDY, Study, StudyVariant, read_study, run_folder
from hiresnet_graph.sweep.variants import Variant
from hiresnet_graph.train import Recipe, RunRecord, read_record, run_key, train
from hiresnet_graph.train.program import fit
from hiresnet_graph.train.record import make_folder, write_atomic


class Progress(NamedTuple):
    """A run has ended, or was there already.

    Attributes:
        done: Finished runs so far, this one included.
        total: Runs of this call; a run that several variants share counts once.
        reused: It was there already.
    """

    done: int
    total: int
    record: RunRecord
    reused: bool


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a study; its text says what is there and how to go on."""

    def __init__(self, done: int, total: int, out: Path) -> None:
        super().__init__(
            f"Interrupted: {done} of {total} runs are finished and kept in {out}. "
            f"The same command trains the other {total - done}."
        )


@dataclass(frozen=True)
class _Task:
    """A run that is to be trained; goes to a worker process."""

    arch: Architecture
    label: str
    seed: int
    data: str | Dataset
    recipe: Recipe
    folder: Path

    def run(self) -> RunRecord:
        return train(self.arch, out=self.folder, data=self.data, recipe=self.recipe, seed=self.seed, label=self.label)


def ablate(
    arch: Architecture,
    variants: Sequence[Variant],
    *,
    out: Path | str,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    data: str | Dataset = "digits",
    recipe: Recipe | None = None,
    jobs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[RunRecord]:
    """Train every variant with every seed, and return the records, variant by variant.

    A finished run in the folder is taken as it is. Variants that compile to the same network share their runs. What
    comes out does not depend on `jobs`.

    Args:
        out: Folder of the study; one that has other variants or seeds of it is added to.
        jobs: Worker processes, one thread each; as many as there are cores, if left out. With 1, this process trains.
        progress: Called for each run that is there already, and then as each one ends.

    Raises:
        SpecError: A variant is wrong. Nothing was trained.
        UsageError: Data and network do not go together, or the folder holds runs with other settings. Nothing was
            trained.
        RunError: Some runs failed; the others were trained.
        Interrupted: Ctrl-C. Finished runs are kept.
    """
    recipe, folder, seeds = recipe or Recipe(), Path(out), tuple(dict.fromkeys(seeds))
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: at least 1 is wanted, not {jobs}.")
    if not variants or not seeds:
        raise UsageError("a study wants at least one variant and one seed.")
    networks = {variant.label: variant.of(arch) for variant in variants}
    if len(networks) < len(variants):
        raise UsageError("two variants have one label. Leave one out.")
    dataset = load_dataset(data) if isinstance(data, str) else data
    fingerprints = {fit(dataset, network.plan).fingerprint() for network in networks.values()}
    if len(fingerprints) > 1:
        raise UsageError("the variants take images of different shapes, so they cannot be compared in one study.")
    study = _joined(folder, arch, variants, networks, seeds, dataset.name, fingerprints.pop(), recipe)
    runs_as = {entry.label: entry.runs_as for entry in study.variants}

    records: dict[tuple[str, int], RunRecord] = {}
    tasks: list[_Task] = []
    for label in dict.fromkeys(runs_as[variant.label] for variant in variants):
        network = next(network for name, network in networks.items() if runs_as[name] == label)
        plan = network.plan.digest()
        for seed in seeds:
            run = run_folder(folder, label, seed)
            record = read_record(run)
            if record is None:
                tasks.append(_Task(network, label, seed, data, recipe, run))
            elif record.key == run_key(plan, recipe, seed, study.data_fingerprint):
                records[label, seed] = record
            else:
                raise UsageError(f"{run} holds a run with other settings. Delete it or choose another folder.")
    make_folder(folder)
    write_atomic(folder / STUDY, (study.model_dump_json(indent=2) + "\n").encode())

    total = len(records) + len(tasks)
    if progress is not None:
        for done, record in enumerate(records.values(), 1):
            progress(Progress(done, total, record, reused=True))
    failures: list[str] = []
    try:
        with closing(_trained(tasks, min(jobs or _cores(), len(tasks)))) as outcomes:
            for task, outcome in outcomes:
                if isinstance(outcome, RunRecord):
                    records[task.label, task.seed] = outcome
                    if progress is not None:
                        progress(Progress(len(records), total, outcome, reused=False))
                else:
                    failures.append(f"run '{task.label}', seed {task.seed}: {outcome}")
    except KeyboardInterrupt:
        raise Interrupted(len(records), total, folder) from None
    if failures:
        raise RunError("\n".join([*failures, f"{len(records)} of {total} runs are finished and kept in {folder}."]))
    return [records[runs_as[variant.label], seed] for variant in variants for seed in seeds]


def _joined(
    folder: Path,
    arch: Architecture,
    variants: Sequence[Variant],
    networks: dict[str, Architecture],
    seeds: tuple[int, ...],
    data: str,
    fingerprint: str,
    recipe: Recipe,
) -> Study:
    """The study of this call, together with what the folder has of it.

    Raises:
        UsageError: The folder holds a study with other settings, or another network under one of the labels.
    """
    old = read_study(folder)
    if old is not None:
        new_settings = {"architecture": arch.name, "data": data, "data_fingerprint": fingerprint, "recipe": recipe}
        for name, value in new_settings.items():
            if getattr(old, name) != value:
                raise UsageError(
                    f"{folder} holds a study with another {name.replace('_', ' ')} ({_short(getattr(old, name))}, "
                    f"now {_short(value)}). Choose another folder."
                )
    entries = {entry.label: entry for entry in old.variants} if old is not None else {}
    first = {entry.plan: entry.runs_as for entry in entries.values()}
    for variant in variants:
        network = networks[variant.label]
        plan = network.plan.digest()
        known = entries.get(variant.label)
        if known is not None and known.plan != plan:
            raise UsageError(f"{folder} has another network as '{variant.label}'. Choose another folder.")
        entries[variant.label] = StudyVariant(
            label=variant.label,
            edges=variant.edges,
            group=variant.group,
            plan=plan,
            parameters=network.cost().parameters,
            runs_as=first.setdefault(plan, variant.label),
        )
    return Study(
        architecture=arch.name,
        data=data,
        data_fingerprint=fingerprint,
        recipe=recipe,
        seeds=tuple(dict.fromkeys([*(old.seeds if old is not None else ()), *seeds])),
        variants=tuple(entries.values()),
    )


def _short(value: object) -> str:
    return str(value)[:80]


def _trained(tasks: Sequence[_Task], jobs: int) -> Generator[tuple[_Task, RunRecord | str], None, None]:
    """Each task with its record, or with what went wrong, as they end."""
    if jobs <= 1:
        for task in tasks:
            try:
                yield task, task.run()
            except HrgError as error:
                yield task, str(error)
        return
    others = set(multiprocessing.active_children())
    # Fresh processes: a fork of one that has used torch or threads may hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_end_with_driver) as pool:
        with _workers_without_ctrl_c():
            futures: dict[Future[RunRecord], _Task] = {pool.submit(task.run): task for task in tasks}
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except HrgError as error:
                    yield futures[future], str(error)
                except BrokenProcessPool:
                    yield futures[future], "not trained: a worker process was killed, perhaps for want of memory."
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _end_with_driver() -> None:
    """Make this worker process end when the process that started it is gone, however it went."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        wait([driver.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _workers_without_ctrl_c() -> Iterator[None]:
    """Start processes in here that never see Ctrl-C: this process sees it, and ends them. None is lost meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
