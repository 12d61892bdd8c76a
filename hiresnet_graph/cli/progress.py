"""Progress of a long command: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hiresnet_graph.cli.console import has_colors, write_message

_BAR, _WIDE_BAR = 10, 40


class Meter:
    """Shows how many of something are done.

    Calling it says that one more is, with a word about it: a line, or the bar moves. `between` is for what happens
    meanwhile, and shows on the bar alone. A `brief` text takes the place of one that the terminal is too narrow for.
    """

    def __init__(self, noun: str, move: Callable[[float, int | None, str, str], None] | None = None) -> None:
        self._noun, self._move = noun, move

    def __call__(self, done: int, total: int, text: str, brief: str = "") -> None:
        """Say that `done` of `total` are done."""
        if self._move is None:
            write_message(f"{self._noun} {done}/{total}  {text}")
        else:
            self._move(done, total, text, brief)

    def between(self, done: float, text: str, brief: str = "") -> None:
        """Say how far the next one has come: `done` is no whole number."""
        if self._move is not None:
            self._move(done, None, text, brief)


@contextmanager
def progress(noun: str, total: int) -> Iterator[Meter]:
    """Something that shows progress: a bar on a terminal, else lines."""
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
    """The text if there is room for it, else the brief one, cut off if it must be."""
    if len(text) <= room:
        return text
    shown = brief or text
    return shown if len(shown) <= room else f"{shown[: max(0, room - 1)]}…"
