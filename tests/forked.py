"""Commands and Python sessions in processes that begin with torch and the package imported.

They are forked from one process, which imports both once for each test process. A new process would spend seconds on it
for every command of the docs.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import hiresnet_graph as hrg

FORKS = multiprocessing.get_context("forkserver")
_MODULES = [module.name for module in pkgutil.walk_packages(hrg.__path__, f"{hrg.__name__}.")]
FORKS.set_forkserver_preload(
    ["torch._dynamo", "torchvision", *(name for name in _MODULES if not name.endswith("__main__"))]
)


def run_command(arguments: list[str], folder: Path, env: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """Run `hrg` with these arguments in a folder; returns the exit code and all that it printed.

    Raises:
        TimeoutError: It took longer than `timeout_s`.
    """
    output = folder.parent / f"{folder.name}.output"
    process = FORKS.Process(target=_command, args=(arguments, folder, dict(env), output))
    process.start()
    process.join(timeout_s)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"hrg {' '.join(arguments)}")
    assert process.exitcode is not None
    return process.exitcode, output.read_text()


def _command(arguments: list[str], folder: Path, env: dict[str, str], output: Path) -> None:
    with output.open("wb", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    _enter(folder, env)
    sys.argv = ["hrg", *arguments]
    from hiresnet_graph.cli import main

    main()


class Session:
    """An interactive interpreter in a folder, where warnings are errors."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = FORKS.Process(target=_session, args=(theirs, folder, dict(env)))
        self._process.start()
        theirs.close()

    def execute(self, code: str) -> tuple[str, str]:
        """Execute statements; returns what they print and the traceback of an error, or an empty text."""
        self._pipe.send(code)
        return self._pipe.recv()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _session(pipe: Connection, folder: Path, env: dict[str, str]) -> None:
    _enter(folder, env)
    sys.path.insert(0, "")
    warnings.simplefilter("error")
    names = {"__name__": "__main__"}
    while True:
        code = pipe.recv()
        out, error = io.StringIO(), ""
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(code, "<docs>", "exec", dont_inherit=True), names)
            except BaseException:
                error = traceback.format_exc()
        pipe.send((out.getvalue(), error))


def _enter(folder: Path, env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
