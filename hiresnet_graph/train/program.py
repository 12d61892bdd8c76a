"""The training program: one network, one data set, one recipe, and on the CPU the same bits every time.

A run is an iterator of events. Between two of them nothing of torch's global state is changed; what the next step
depends on is all in a checkpoint, so that a run that was stopped anywhere goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.train.checkpoint import Pace, load_checkpoint, save_checkpoint
from hiresnet_graph.train.environment import choose_device, deferred_interrupt, retain_freed_memory
from hiresnet_graph.train.events import EpochDone, Event, Finished, Paused, Saved, Started
from hiresnet_graph.train.parallel import SINGLE_PROCESS, Processes
from hiresnet_graph.train.prepare import PreparedRun, prepare_run
from hiresnet_graph.train.record import Epoch
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.trainer import Ask, Trainer, Watch


def run(
    request: RunRequest,
    folder: Path,
    *,
    until: int | None = None,
    stop: Ask | None = None,
    arch: Architecture | None = None,
    dataset: Dataset | None = None,
    ship_files: bool = False,
    fresh: bool = False,
    watch: Watch | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Iterator[Event]:
    """Train a network in a folder, going on from the newest checkpoint that it has.

    Test images are seen after training only: with the weights of the best validation epoch, and with the last ones.

    Args:
        until: Pause after this epoch, with a checkpoint.
        stop: Asked after each step; when it says yes, the run saves a checkpoint and pauses.
        arch: The network of `request.spec`, if it is there already.
        dataset: The data of `request.data`, likewise.
        ship_files: Let events carry the files that they speak of.
        fresh: Start over, in place of any run in the folder.
        watch: Called after each step.
        processes: Those that train this one network together.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data, recipe and device do not go together, or the folder holds another run.
        RunError: A file cannot be written, memory is short, or a batch cannot be computed.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved before.
    """
    arch = arch or loads(request.spec, request.label)
    device = choose_device(request.device)
    if processes.world > 1 and device.type == "cuda":
        device = choose_device(f"cuda:{processes.local}")
    assigned = prepare_run(request, folder, arch=arch, dataset=dataset)
    finished = None if fresh else assigned.finished()
    if finished is not None:
        yield Started(len(finished.epochs), finished.machine)
        yield Finished(finished, assigned.files() if ship_files else ())
        return
    retain_freed_memory()
    trainer = Trainer(arch, assigned.dataset, assigned.recipe, request, device, processes)
    if fresh and processes.first:
        assigned.clear()
    point = processes.shared(load_checkpoint(folder) if processes.first else None)
    if point is not None:
        trainer.restore(assigned.own(point))
    if processes.first:
        assigned.begin(trainer.course.epochs)

    keeper = _Keeper(assigned, trainer, ship_files)
    yield Started(trainer.epoch, trainer.machine)
    for epoch in trainer.course.epochs:  # whoever listens may not have heard of them
        yield EpochDone(epoch)
    with closing(trainer):
        is_over = yield from _until_over(trainer, keeper, until, stop or (lambda: False), watch)
    if not is_over:
        yield Paused(trainer.epoch)
        return
    record = assigned.record(trainer.course, trainer.machine)
    if processes.first:
        assigned.end(record, trainer.course)
    yield Finished(record, assigned.files() if ship_files else ())


class _Keeper:
    """Writes what a run has reached into its folder, when it is time."""

    def __init__(self, assigned: PreparedRun, trainer: Trainer, ship_files: bool) -> None:
        self._assigned, self._trainer, self._ship_files = assigned, trainer, ship_files
        self.pace = Pace(assigned.request.checkpoint_s, trainer.course.place)

    def save(self) -> Iterator[Saved]:
        """Write a checkpoint, unless the last one is of this very place."""
        trainer, place = self._trainer, self._trainer.course.place
        if self.pace.is_new(place):
            counters, tensors = trainer.state(self._assigned.key)
            files = save_checkpoint(self._assigned.folder, counters, tensors) if trainer.processes.first else ()
            self.pace.made(place)
            yield Saved(trainer.epoch, files if self._ship_files else ())

    def log(self, epoch: Epoch) -> None:
        """Write the curves of an epoch."""
        if self._trainer.processes.first:
            self._assigned.log(epoch)


def _until_over(
    trainer: Trainer, keeper: _Keeper, until: int | None, stop: Ask, watch: Watch | None
) -> Generator[Event, None, bool]:
    """Train until all is done, or a stop is asked for; gives which of them."""
    while until is None or until >= trainer.recipe.epochs or trainer.epoch < until:
        events: list[Event] = []
        with deferred_interrupt() as interrupted:

            def asked(interrupted: Ask = interrupted) -> bool:
                return stop() or interrupted()

            turn = trainer.advance(asked, keeper.pace.is_due, watch)
            if turn in ("diverged", "tested"):
                return True
            if turn == "epoch":
                keeper.log(trainer.course.epochs[-1])
                events.append(EpochDone(trainer.course.epochs[-1]))
            if keeper.pace.wants(turn) or interrupted():
                events += keeper.save()
        try:
            yield from events
        except (GeneratorExit, KeyboardInterrupt):  # nobody listens any more
            for _ in keeper.save():
                pass
            raise
        if interrupted():
            raise KeyboardInterrupt
        if turn == "stopped":
            return False
    yield from keeper.save()
    return False
