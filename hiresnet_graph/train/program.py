"""The training program: one network, one data set, one recipe, and on the CPU the same bits every time.

A run is an iterator of events. A checkpoint contains everything that the next step depends on, so that a run that was
stopped anywhere resumes as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import torch

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.files import make_folder
from hiresnet_graph.train.checkpoint import delete_checkpoints, load_checkpoint
from hiresnet_graph.train.environment import choose_device, retain_freed_memory
from hiresnet_graph.train.events import Event, Finished, Started
from hiresnet_graph.train.lock import FolderLock
from hiresnet_graph.train.loop import train_runs
from hiresnet_graph.train.parallel import SINGLE_PROCESS, Processes
from hiresnet_graph.train.prepare import PreparedRun, prepare_run
from hiresnet_graph.train.record import START, Cursor
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.single_trainer import SingleTrainer
from hiresnet_graph.train.trainer import Condition, OnStep


def run(
    request: RunRequest,
    folder: Path,
    *,
    until: int | None = None,
    stop: Condition | None = None,
    arch: Architecture | None = None,
    dataset: Dataset | None = None,
    ship_files: bool = False,
    fresh: bool = False,
    lock: Path | None = None,
    check: Callable[[PreparedRun], None] = lambda prepared: None,
    on_data: Callable[[Dataset], None] | None = None,
    on_resume: Callable[[Cursor], None] | None = None,
    on_step: OnStep | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Generator[Event, None, None]:
    """Train a network in a folder, resuming from its newest checkpoint, or from the end of a shorter run.

    Test images are used only after training: with the weights of the best validation epoch, and with the last ones.

    Args:
        until: Pause after this epoch, with a checkpoint.
        stop: Called after each step; when it returns True, the run writes a checkpoint and pauses.
        arch: The network of `request.spec`, if it is loaded already.
        dataset: The data of `request.data`, if they are loaded already.
        ship_files: Whether events carry the files that they announce.
        fresh: Start over, replacing any run in the folder.
        lock: Folder whose lock is held during training, if its file system has locks.
        check: Called with the prepared run, before its folder is read and anything is written.
        on_data: Called with the data before training.
        on_resume: Called with the finished epochs, and steps of the next one, where a run is resumed.
        on_step: Called after each step.
        processes: Those that train this one network together.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data, recipe and device do not go together, or the folder holds another run or is in use.
        RunError: A file cannot be written, or memory is short (OutOfMemory).
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
    """
    device = _device(request, processes)
    prepared = prepare_run(request, folder, arch=arch, dataset=dataset, processes=processes.world)
    check(prepared)
    finished = prepared.finished_record(fresh=fresh)
    if finished is not None:
        yield Started(len(finished.epochs), finished.machine)
        yield Finished(finished, prepared.result_files() if ship_files else ())
        return
    with _locked(lock if processes.is_first else None):
        if on_data is not None:
            on_data(prepared.dataset)
        retain_freed_memory()
        trainer = SingleTrainer(prepared, device, processes)
        _start(prepared, trainer, processes, fresh)
        if on_resume is not None and trainer.state.cursor != START:
            on_resume(trainer.state.cursor)
        events = train_runs(trainer, until=until, stop=stop, on_step=on_step, ship_files=ship_files)
        with closing(events):
            for _, event in events:
                yield event


def _device(request: RunRequest, processes: Processes) -> torch.device:
    """The device of this process."""
    device = choose_device(request.device)
    return choose_device(f"cuda:{processes.local}") if processes.world > 1 and device.type == "cuda" else device


def _locked(folder: Path | None) -> AbstractContextManager[object]:
    """The lock of a folder; without one, nothing."""
    return nullcontext() if folder is None else FolderLock(make_folder(folder), is_required=False)


def _start(prepared: PreparedRun, trainer: SingleTrainer, processes: Processes, fresh: bool) -> None:
    """Restore the newest checkpoint, or initialise the network; then write the files that a run begins with."""
    checkpoint = None
    if processes.is_first and not fresh:
        prepared.continue_shorter()
        checkpoint = load_checkpoint(prepared.folder)
    checkpoint = processes.broadcast(checkpoint)
    if checkpoint is not None:
        prepared.check_checkpoint(checkpoint)
        trainer.restore(0, checkpoint)
    else:
        trainer.initialize(0)
    if processes.is_first:
        # Last: what makes the start fail deletes nothing.
        if fresh:
            prepared.clear_folder()
        else:
            delete_checkpoints(prepared.folder, after=trainer.state.cursor)  # damaged ones would displace good ones
        prepared.write_start(trainer.state.epochs)
