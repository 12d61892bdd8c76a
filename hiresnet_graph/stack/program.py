"""The training program of a stack: each run has its own folder, with the same files as a single run.

All runs of a stack are at the same step, and write their checkpoints one after another. If that was interrupted, they
resume from the newest step that all of them have reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, OutOfMemory, RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.stack.request import StackBackend, StackMember, StackRequest
from hiresnet_graph.stack.stackable import OWN_FIELDS, stack_group
from hiresnet_graph.stack.trainer import StackTrainer
from hiresnet_graph.train.checkpoint import Checkpoint, delete_checkpoints, load_checkpoint, resume_points
from hiresnet_graph.train.environment import choose_device, retain_freed_memory
from hiresnet_graph.train.events import Finished, Paused, Refused, RunEvent, StackEnded, Started
from hiresnet_graph.train.loop import train_runs
from hiresnet_graph.train.prepare import PreparedRun, prepare_run
from hiresnet_graph.train.record import START, Cursor, RunRecord
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.trainer import Condition


def run_stack(
    request: StackRequest, *, stop: Condition | None = None, dataset: Dataset | None = None
) -> Iterator[RunEvent | StackEnded]:
    """Train the runs of a stack, each in its folder, resuming from the newest checkpoints that they have in common.

    Runs without common checkpoints are trained as separate stacks, one after the other. A run that cannot be trained is
    refused, without the others; the record of a finished run is returned at once. Times of a run are those of its
    stack, divided by the number of runs.

    Args:
        stop: Called after each step; when it returns True, all runs write a checkpoint and pause.
        dataset: The data of the runs, if they are loaded already.

    Raises:
        SpecError: The supergraph is wrong.
        UsageError: The runs do not go together, or the device does not exist.
        RunError: A file cannot be written, or memory is short (OutOfMemory).
        KeyboardInterrupt: Ctrl-C; checkpoints were written before.
    """
    _check_requests([member.request for member in request.runs])
    device = choose_device(request.runs[0].request.device)
    supergraph = loads(request.supergraph, "supergraph").plan
    dataset = dataset or load_dataset(request.runs[0].request.data)
    archs: dict[tuple[str, str], Architecture] = {}
    waiting: list[_Member] = []
    for requested in request.runs:
        try:
            member, record = _prepare(requested, archs, dataset)
        except OutOfMemory:
            raise
        except HrgError as error:
            yield RunEvent(requested.key, _refused(error))
            continue
        if record is None:
            waiting.append(member)
        else:
            yield RunEvent(requested.key, Started(len(record.epochs), record.machine))
            yield RunEvent(requested.key, Finished(record))
    is_paused = False
    for cursor, members in _groups(waiting):
        if is_paused:
            yield from (RunEvent(member.key, Paused(cursor[0])) for member in members)
        else:
            is_paused = yield from _train(members, cursor, supergraph, request.backend, device, stop)
    yield StackEnded()


def _check_requests(requests: Sequence[RunRequest]) -> None:
    """Refuse runs that cannot be computed together.

    Raises:
        UsageError: They cannot.
    """
    if not requests:
        raise UsageError("a stack requires at least one run.")
    first = requests[0]
    for request in requests:
        if fields := request.recipe.unstacked_fields:
            named = ", ".join(f"'{field}'" for field in fields)
            raise UsageError(f"a run with {named} in its recipe is trained on its own, not in a stack.")
        if stack_group(request.recipe) != stack_group(first.recipe):
            ours, theirs = (dict(stack_group(one.recipe) or ()) for one in (first, request))
            different = [f"{name} is {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
            raise UsageError(
                f"the runs of a stack differ in their recipes: {', '.join(different)}. They may differ only in "
                f"{', '.join(sorted(OWN_FIELDS))}; train the others separately."
            )
        for field in ("data", "device", "threads"):
            if getattr(request, field) != getattr(first, field):
                raise UsageError(
                    f"the runs of a stack have one {field}, not {getattr(first, field)} and {getattr(request, field)}."
                )


def _refused(error: HrgError) -> Refused:
    """The event of a run that cannot be trained; errors of files may be temporary."""
    return Refused(str(error), is_final=not isinstance(error, RunError))


@dataclass(frozen=True)
class _Member:
    """A run that is to be trained.

    Attributes:
        resume_points: Where it can resume.
    """

    key: str
    run: PreparedRun
    resume_points: set[Cursor]

    def start(self, cursor: Cursor) -> Checkpoint | None:
        """Prepare the folder for a cursor; returns the checkpoint there, unless it is the start."""
        folder = self.run.folder
        checkpoint = None if cursor == START else load_checkpoint(folder, cursor)
        if checkpoint is None and cursor != START:
            raise RunError(f"{folder}: the checkpoint {cursor[0]}-{cursor[1]} can no longer be read.")
        # Later ones would be retained in place of those that are to come.
        delete_checkpoints(folder, after=cursor)
        self.run.write_start(() if checkpoint is None else checkpoint.counters.epochs)
        return checkpoint


def _prepare(
    requested: StackMember, archs: dict[tuple[str, str], Architecture], dataset: Dataset
) -> tuple[_Member, RunRecord | None]:
    """A run of a stack, and its record if it is finished.

    Args:
        archs: Networks by spec and label: runs that differ only in their seeds share one.
    """
    request, name = requested.request, (requested.request.spec, requested.request.label)
    if name not in archs:
        archs[name] = loads(*name)
    run = prepare_run(request, requested.folder, arch=archs[name], dataset=dataset)
    record = run.finished_record()
    checkpoint = load_checkpoint(requested.folder)
    if checkpoint is not None:
        run.check_checkpoint(checkpoint)
    return _Member(requested.key, run, resume_points(requested.folder)), record


def _groups(members: Sequence[_Member]) -> Iterator[tuple[Cursor, list[_Member]]]:
    """Runs that can resume at one cursor: first the cursor of most runs, and of several the newest."""
    left = list(members)
    while left:
        count = Counter(cursor for member in left for cursor in member.resume_points)
        best = max(count, key=lambda cursor: (count[cursor], cursor))
        yield best, [member for member in left if best in member.resume_points]
        left = [member for member in left if best not in member.resume_points]


def _train(
    members: Sequence[_Member],
    cursor: Cursor,
    supergraph: Plan,
    backend: StackBackend,
    device: torch.device,
    stop: Condition | None,
) -> Generator[RunEvent, None, bool]:
    """Train runs from a cursor that they have in common; returns whether they were paused."""
    started: list[tuple[_Member, Checkpoint | None]] = []
    for member in members:
        try:
            started.append((member, member.start(cursor)))
        except HrgError as error:  # its folder cannot be written
            yield RunEvent(member.key, _refused(error))
    if not started:
        return False
    retain_freed_memory()
    trainer = StackTrainer([member.run for member, _ in started], supergraph, backend, device)
    for k, (_, checkpoint) in enumerate(started):
        if checkpoint is not None:
            trainer.restore(k, checkpoint)
        else:
            trainer.initialize(k)
    keys = [member.key for member, _ in started]
    started.clear()  # frees the checkpoints
    with closing(train_runs(trainer, stop=stop)) as events:
        for k, event in events:
            yield RunEvent(keys[k], event)
    return bool(trainer.active)
