"""The training program for many runs that are computed as one: each has its own folder, with the files of a run alone.

All runs of a stack stand at the same step, and write their checkpoints one after another. Where that was interrupted,
they go back to the newest place that they have in common.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.stack.stackable import OWN_FIELDS, stackable
from hiresnet_graph.stack.trainer import StackTrainer
from hiresnet_graph.train.checkpoint import (
    Checkpoint,
    Pace,
    drop_checkpoints,
    load_checkpoint,
    resume_points,
    save_checkpoint,
)
from hiresnet_graph.train.environment import choose_device, deferred_interrupt, retain_freed_memory
from hiresnet_graph.train.events import (
    EpochDone,
    Event,
    Finished,
    Paused,
    Refused,
    RunEvent,
    Saved,
    StackEnded,
    Started,
)
from hiresnet_graph.train.prepare import PreparedRun, prepare_run
from hiresnet_graph.train.record import START, Cursor
from hiresnet_graph.train.request import RunRequest, StackBackend, StackRequest
from hiresnet_graph.train.trainer import Ask


def run_stack(
    request: StackRequest, *, stop: Ask | None = None, dataset: Dataset | None = None
) -> Iterator[RunEvent | StackEnded]:
    """Train the runs of a stack, each in its folder, going on from the newest checkpoints that they have in common.

    Runs without such a place are trained as stacks of their own, one after the other. A run that cannot be trained is
    refused alone; one that is finished is given at once. Times of a run are those of its stack, divided by its runs.

    Args:
        stop: Asked after each step; when it says yes, all runs save a checkpoint and pause.
        dataset: The data of the runs, if they are there already.

    Raises:
        SpecError: The network that holds all of theirs is wrong.
        UsageError: The runs do not go together, or the device is not here.
        RunError: A file cannot be written, memory is short (OutOfMemory), or a batch cannot be computed.
        KeyboardInterrupt: Ctrl-C; checkpoints were saved before.
    """
    _check([member.request for member in request.runs])
    first, stop = request.runs[0].request, stop or (lambda: False)
    device, whole = choose_device(first.device), loads(request.whole, "whole").plan
    dataset = dataset or load_dataset(first.data)
    archs: dict[tuple[str, str], Architecture] = {}
    waiting: list[_Member] = []
    for asked in request.runs:
        try:
            arch = _arch(asked.request, archs)
            assigned = prepare_run(asked.request, asked.folder, arch=arch, dataset=dataset)
            record = assigned.finished()
            point = load_checkpoint(asked.folder)
            if point is not None:
                assigned.own(point)
            member = _Member(asked.key, assigned, resume_points(asked.folder))
        except OutOfMemory:
            raise
        except HrgError as error:
            yield RunEvent(asked.key, _refused(error))
            continue
        if record is None:
            waiting.append(member)
        else:
            yield RunEvent(asked.key, Started(len(record.epochs), record.machine))
            yield RunEvent(asked.key, Finished(record))

    is_over = True
    for place, together in _groups(waiting):
        if is_over:
            is_over = yield from _train(together, place, whole, request.backend, device, stop)
        else:
            yield from (RunEvent(member.key, Paused(place[0])) for member in together)
    yield StackEnded()


def _refused(error: HrgError) -> Refused:
    """What is told of a run that cannot be trained; what has to do with files may pass."""
    return Refused(str(error), is_final=not isinstance(error, RunError))


def _check(requests: Sequence[RunRequest]) -> None:
    """Stop if runs cannot be computed together.

    Raises:
        UsageError: They cannot.
    """
    if not requests:
        raise UsageError("a stack wants one run or more.")
    first = requests[0]
    for request in requests:
        if stackable(request.recipe) is None:
            raise UsageError(
                "a run with 'compile' or 'checkpoint_steps' in its recipe is trained alone, not in a stack."
            )
        if stackable(request.recipe) != stackable(first.recipe):
            ours, theirs = (dict(stackable(one.recipe) or ()) for one in (first, request))
            different = [f"{name} is {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
            raise UsageError(
                f"the runs of a stack differ in their recipes: {', '.join(different)}. They may in "
                f"{', '.join(sorted(OWN_FIELDS))}; train the others apart."
            )
        for field in ("data", "device", "threads"):
            if getattr(request, field) != getattr(first, field):
                raise UsageError(
                    f"the runs of a stack have one {field}, not {getattr(first, field)} and {getattr(request, field)}."
                )


def _arch(request: RunRequest, known: dict[tuple[str, str], Architecture]) -> Architecture:
    """The network of a run: runs that differ in their seeds have one."""
    name = (request.spec, request.label)
    if name not in known:
        known[name] = loads(*name)
    return known[name]


@dataclass(frozen=True)
class _Member:
    """A run that waits to be trained, or is.

    Attributes:
        places: Where it can go on from.
    """

    key: str
    assigned: PreparedRun
    places: set[Cursor]

    def begun(self, place: Cursor) -> Checkpoint | None:
        """Bring the folder to where the run stood at a place; gives the checkpoint of it, unless it is the start."""
        folder = self.assigned.folder
        point = None if place == START else load_checkpoint(folder, place)
        if point is None and place != START:
            raise RunError(f"{folder}: the checkpoint {place[0]}-{place[1]} was there, and cannot be read any more.")
        # Later ones would be kept in place of those that are to come.
        drop_checkpoints(folder, after=place)
        self.assigned.begin(() if point is None else point.counters.epochs)
        return point


def _groups(members: Sequence[_Member]) -> Iterator[tuple[Cursor, list[_Member]]]:
    """Runs that can go on from one place, with that place: the one of most runs first, and of those the newest."""
    left = list(members)
    while left:
        count = Counter(place for member in left for place in member.places)
        best = max(count, key=lambda place: (count[place], place))
        yield best, [member for member in left if best in member.places]
        left = [member for member in left if best not in member.places]


def _train(
    members: Sequence[_Member],
    place: Cursor,
    whole: Plan,
    backend: StackBackend,
    device: torch.device,
    stop: Ask,
) -> Generator[RunEvent, None, bool]:
    """Train runs from a place that they have in common; gives whether all are over."""
    begun: list[_Member] = []
    points: list[Checkpoint | None] = []
    for member in members:
        try:
            points.append(member.begun(place))
        except HrgError as error:  # its folder cannot be written
            yield RunEvent(member.key, _refused(error))
        else:
            begun.append(member)
    if not begun:
        return True
    retain_freed_memory()
    trainer = StackTrainer([member.assigned for member in begun], whole, backend, device)
    for k, point in enumerate(points):
        if point is not None:
            trainer.restore(k, point)
    points.clear()
    keeper = _Keeper(begun, trainer, place)
    for member, course in zip(begun, trainer.courses, strict=True):
        yield RunEvent(member.key, Started(course.epoch, trainer.machine))
        yield from (RunEvent(member.key, EpochDone(epoch)) for epoch in course.epochs)
    with closing(trainer):
        return (yield from _until_over(trainer, keeper, stop))


class _Keeper:
    """Writes what the runs of a stack have reached into their folders, when it is time."""

    def __init__(self, members: Sequence[_Member], trainer: StackTrainer, place: Cursor) -> None:
        self._members, self._trainer = members, trainer
        self.pace = Pace(members[0].assigned.request.checkpoint_s, place)

    def save(self) -> Iterator[RunEvent]:
        """Write a checkpoint of each run that goes on, unless the last ones are of this very place."""
        trainer = self._trainer
        if not trainer.alive or not self.pace.is_new(place := trainer.course.place):
            return
        for k in trainer.alive:
            save_checkpoint(self._members[k].assigned.folder, *trainer.state(k))
            yield self._said(k, Saved(place[0]))
        self.pace.made(place)

    def log(self) -> Iterator[RunEvent]:
        """Write the curves of the last epoch."""
        for k in self._trainer.alive:
            epoch = self._trainer.courses[k].epochs[-1]
            self._members[k].assigned.log(epoch)
            yield self._said(k, EpochDone(epoch))

    def end(self, places: Iterable[int]) -> Iterator[RunEvent]:
        """Write what runs that are over have come to."""
        for k in places:
            course, assigned = self._trainer.courses[k], self._members[k].assigned
            record = assigned.record(course, self._trainer.machine)
            assigned.end(record, course)
            yield self._said(k, Finished(record))

    def pause(self) -> Iterator[RunEvent]:
        """Say of each run that goes on that it pauses."""
        for k in self._trainer.alive:
            yield self._said(k, Paused(self._trainer.course.epoch))

    def _said(self, k: int, event: Event) -> RunEvent:
        return RunEvent(self._members[k].key, event)


def _until_over(trainer: StackTrainer, keeper: _Keeper, stop: Ask) -> Generator[RunEvent, None, bool]:
    """Train until all runs are over, or a stop is asked for; gives which of them."""
    while True:
        events: list[RunEvent] = []
        with deferred_interrupt() as interrupted:

            def asked(interrupted: Ask = interrupted) -> bool:
                return stop() or interrupted()

            turn = trainer.advance(asked, keeper.pace.is_due)
            events += keeper.end(trainer.take_lost())
            is_over = turn == "tested" or not trainer.alive
            if is_over:
                events += keeper.end(trainer.alive)
            else:
                events += keeper.log() if turn == "epoch" else ()
                events += keeper.save() if keeper.pace.wants(turn) or interrupted() else ()
        try:
            yield from events
        except (GeneratorExit, KeyboardInterrupt):  # nobody listens any more
            if not is_over:
                deque(keeper.save(), maxlen=0)
            raise
        if is_over:
            return True
        if interrupted():
            raise KeyboardInterrupt
        if turn == "stopped":
            yield from keeper.pause()
            return False
