"""The command line `hrg`: arguments, one verb of the library, a printed result.

`commands` has one file for each command. They share `arguments` (specs, changes, variants, edge sets), `training`
(options of training), `console` (printed output), `output` (output files), `progress` (progress bars), `summary` (a
network's costs as data), `failure` (errors and exit codes) and `help` (the layout of `--help`). `app` puts them
together.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run `hrg` with the arguments of this process."""
    # Until a command runs there is nothing to save, and an exception may be raised anywhere in the imports. A signal
    # that is ignored, as in the background of a shell, stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)
    from hiresnet_graph.cli.app import run

    run()


def raise_interrupts() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again: a command runs, which handles it."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: object) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(130)
