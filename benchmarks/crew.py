"""Processes that work in turns: all of a crew do a piece of work at once, while the other crews wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self


class Crew:
    """Some processes of a benchmark: each does a piece of work, and answers a line, for each line that it reads.

    Args:
        module: The benchmark, whose script is called with `words`.
        threads: Of torch in each process.
    """

    def __init__(self, module: str, words: Sequence[str], *, processes: int, threads: int) -> None:
        self.processes, self.threads = processes, threads
        self._command = [sys.executable, "-m", f"benchmarks.{module}", *words]
        self._stack = ExitStack()
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        for _ in range(self.processes):
            worker = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=Path(__file__).parents[1],
            )
            self._stack.callback(_end, worker)
            self._workers.append(worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def turn(self) -> tuple[float, list[str]]:
        """Seconds until every process has done a piece of work, and what they answered."""
        start = time.perf_counter()
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        answers = []
        for worker in self._workers:
            assert worker.stdout is not None
            answers.append(worker.stdout.readline().rstrip("\n"))
        seconds = time.perf_counter() - start
        if not all(answers):
            raise RuntimeError(f"a process has ended: {' '.join(self._command)}")
        return seconds, answers


def _end(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.close()
    worker.stdout.close()
    worker.kill()
    worker.wait()
