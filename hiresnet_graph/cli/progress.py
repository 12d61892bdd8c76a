"""How far a long command has come: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hiresnet_graph.cli.screen import has_colors, note


class Meter:
    """Shows how many of something are done.

    Calling it says that one more is, with a word about it: a line, or the bar moves. `between` is for what happens
    meanwhile, and shows on the bar alone.
    """

    def __init__(self, noun: str, move: Callable[[float, int | None, str], None] | None = None) -> None:
        self._noun, self._move = noun, move

    def __call__(self, done: int, total: int, text: str) -> None:
        """Say that `done` of `total` are done."""
        if self._move is None:
            note(f"{self._noun} {done}/{total}  {text}")
        else:
            self._move(done, total, text)

    def between(self, done: float, text: str) -> None:
        """Say how far the next one has come: `done` is no whole number."""
        if self._move is not None:
            self._move(done, None, text)


@contextmanager
def progress(noun: str, total: int) -> Iterator[Meter]:
    """Something that shows progress: a bar on a terminal, else lines."""
    if not has_colors(sys.stderr):
        yield Meter(noun)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(noun), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(noun, total=total, last="")

        def move(done: float, of: int | None, text: str) -> None:
            bar.update(task, completed=done, total=of, last=text)

        yield Meter(noun, move)


def duration(time_s: float) -> str:
    """A time as people say it: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes = round(time_s / 60)
    if time_s < 100:
        return f"{time_s:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
