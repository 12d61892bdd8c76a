"""The run loop, for one run or for several in lockstep: trains, writes checkpoints and results, and yields events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from hiresnet_graph.train.checkpoint import save_checkpoint
from hiresnet_graph.train.environment import deferred_interrupt
from hiresnet_graph.train.events import EpochDone, Event, Finished, Paused, Saved, Started
from hiresnet_graph.train.trainer import Condition, OnStep, StepOutcome, Trainer


def train_runs(
    trainer: Trainer,
    *,
    until: int | None = None,
    stop: Condition | None = None,
    on_step: OnStep | None = None,
    ship_files: bool = False,
) -> Generator[tuple[int, Event], None, None]:
    """Train the runs of a trainer until all have ended, or a stop is requested: the index of a run, and its event.

    The trainer is closed at the end. A run that has not ended is paused.

    Args:
        until: Pause after this epoch.
        stop: Called after each step.
        on_step: Called after each step.
        ship_files: Whether events carry the files that they announce.

    Raises:
        RunError: A file cannot be written, or memory is short (OutOfMemory).
        KeyboardInterrupt: Ctrl-C; checkpoints were written before.
    """
    checkpointer = Checkpointer(trainer, ship_files)
    with closing(trainer):
        for k, state in enumerate(trainer.states):
            yield k, Started(state.epoch, trainer.environment)
            yield from ((k, EpochDone(epoch)) for epoch in state.epochs)  # the listener may not have received them
        while trainer.active and (until is None or until >= trainer.recipe.epochs or trainer.state.epoch < until):
            events: list[tuple[int, Event]] = []
            with deferred_interrupt() as is_interrupted:

                def must_stop(is_interrupted: Condition = is_interrupted) -> bool:
                    return (stop is not None and stop()) or is_interrupted()

                outcome = trainer.advance(must_stop, checkpointer.is_due, on_step)
                events += checkpointer.finish(trainer.take_ended())
                if outcome == "epoch":
                    events += checkpointer.log_epoch()
                if checkpointer.is_due_after(outcome) or is_interrupted():
                    events += checkpointer.save()
            try:
                yield from events
            except (GeneratorExit, KeyboardInterrupt):  # nobody listens any more
                deque(checkpointer.save(), maxlen=0)
                raise
            if trainer.active and is_interrupted():
                raise KeyboardInterrupt
            if outcome == "stopped":
                break
        yield from checkpointer.save()
        yield from checkpointer.pause()


class Checkpointer:
    """Writes the progress of the runs of a trainer into their folders.

    Checkpoints are due where the runs stop, and otherwise when the interval since the last one has passed.
    """

    def __init__(self, trainer: Trainer, ship_files: bool) -> None:
        self._trainer, self._ship_files = trainer, ship_files
        self._every_s = trainer.runs[0].request.checkpoint_s
        self._time, self._cursor = time.monotonic(), trainer.state.cursor

    def is_due(self) -> bool:
        """Whether the interval since the last checkpoint has passed."""
        return 0 < self._every_s <= time.monotonic() - self._time

    def is_due_after(self, outcome: StepOutcome) -> bool:
        """Whether a checkpoint is due after what the trainer has returned."""
        return outcome in ("stopped", "due") or (outcome == "epoch" and (self.is_due() or not self._every_s))

    def save(self) -> Iterator[tuple[int, Event]]:
        """Write a checkpoint of each active run, unless the last ones are of this very step."""
        trainer = self._trainer
        if not trainer.active or self._cursor == (cursor := trainer.state.cursor):
            return
        for k in trainer.active:
            checkpoint = trainer.checkpoint(k)  # needs all processes
            files = save_checkpoint(trainer.runs[k].folder, *checkpoint) if trainer.processes.is_first else ()
            yield k, Saved(cursor[0], files if self._ship_files else ())
        self._time, self._cursor = time.monotonic(), cursor

    def log_epoch(self) -> Iterator[tuple[int, Event]]:
        """Write the metrics of the last epoch of each active run."""
        for k in self._trainer.active:
            epoch = self._trainer.states[k].epochs[-1]
            if self._trainer.processes.is_first:
                self._trainer.runs[k].append_metrics(epoch)
            yield k, EpochDone(epoch)

    def finish(self, runs: Iterable[int]) -> Iterator[tuple[int, Event]]:
        """Write the results of runs that have ended."""
        for k in runs:
            state, run = self._trainer.states[k], self._trainer.runs[k]
            record = run.make_record(state, self._trainer.environment)
            # Needs all processes.
            final = self._trainer.checkpoint(k) if record.outcome == "complete" else None
            if self._trainer.processes.is_first:
                run.write_result(record, state, final)
            yield k, Finished(record, run.result_files() if self._ship_files else ())

    def pause(self) -> Iterator[tuple[int, Event]]:
        """Report that each active run is paused."""
        for k in self._trainer.active:
            yield k, Paused(self._trainer.state.epoch)
