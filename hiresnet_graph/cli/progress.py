"""The progress of a long command: a bar on a terminal, lines elsewhere; and the remaining time of a study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hiresnet_graph.cli.console import has_colors, write_message

if TYPE_CHECKING:
    from hiresnet_graph.sweep.training import Progress as RunProgress

_BAR, _WIDE_BAR = 10, 40


class Meter:
    """Shows how many of something are done.

    A call reports that one more is done, with a text: it prints a line, or moves the bar. `between` reports progress
    within one, and shows on the bar only. The `brief` text replaces one that is too wide for the terminal.
    """

    def __init__(self, noun: str, move: Callable[[float, int | None, str, str], None] | None = None) -> None:
        self._noun, self._move = noun, move

    def __call__(self, done: int, total: int, text: str, brief: str = "") -> None:
        """Report that `done` of `total` are done."""
        if self._move is None:
            write_message(f"{self._noun} {done}/{total}  {text}")
        else:
            self._move(done, total, text, brief)

    def start(self, done: int, total: int) -> None:
        """Show on the bar how many are done at the start, and of how many."""
        if self._move is not None:
            self._move(done, total, "", "")

    def between(self, done: float, text: str, brief: str = "") -> None:
        """Report the progress of the next one: `done` need not be a whole number."""
        if self._move is not None:
            self._move(done, None, text, brief)


@contextmanager
def progress(noun: str, total: int) -> Iterator[Meter]:
    """A meter of progress: a bar on a terminal, else lines."""
    if not has_colors(sys.stderr):
        yield Meter(noun)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console, meter = Console(stderr=True), BarColumn()
    columns = (TextColumn(noun), meter, MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}", markup=False), console=console) as bar:
        task = bar.add_task(noun, total=total, last="")

        def move(done: float, of: int | None, text: str, brief: str) -> None:
            count = f"{int(done)}/{bar.tasks[0].total if of is None else of:.0f}"
            # Four spaces between five columns, and h:mm:ss.
            room = console.width - len(noun) - len(count) - len("0:00:00") - 4
            shown = fitting(text, brief, room - _BAR)
            meter.bar_width = max(_BAR, min(_WIDE_BAR, room - len(shown)))
            bar.update(task, completed=done, total=of, last=shown)

        yield Meter(noun, move)


def fitting(text: str, brief: str, room: int) -> str:
    """The text if it fits into `room` columns, else the brief one, truncated if necessary."""
    if len(text) <= room:
        return text
    shown = brief or text
    return shown if len(shown) <= room else f"{shown[: max(0, room - 1)]}…"


@dataclass
class RemainingTime:
    """The remaining time of a study, estimated from the epochs that its runs have finished.

    Workers take time to start, and runs that are computed together finish an epoch at the same time. Therefore time is
    counted from the first epoch, and the first epochs of all runs are not counted until one of the runs is further.

    Attributes:
        epochs: Epochs that are left of each run, by its key.
    """

    epochs: dict[str, int]
    _start_s: float | None = None
    _begun: set[str] = field(default_factory=set)
    _counted: int = 0
    _counts: bool = False

    def __post_init__(self) -> None:
        self._left = sum(self.epochs.values())

    def left_s(self, step: RunProgress, now_s: float) -> float:
        """Register what happened to a run; returns the remaining seconds, 0 if they are unknown."""
        before = left = self.epochs[step.key]
        if step.epoch is not None:
            left = min(before, step.request.recipe.epochs - step.epoch.epoch)  # one that lost its worker repeats epochs
            self._start_s = now_s if self._start_s is None else self._start_s
        elif step.state != "waiting":
            left = 0  # the run has ended
        self._counts = self._counts or (step.key in self._begun and (left < before or step.epoch is None))
        self._counted += self._counts and step.epoch is not None and left < before
        self._begun.add(step.key)
        self._left += left - before
        self.epochs[step.key] = left
        if self._start_s is None or not self._counted:
            return 0.0
        return (now_s - self._start_s) / self._counted * self._left
