"""The command line `hrg`: arguments, one verb of the library, a printed result.

`commands` has one file for each command. They share `arguments` (specs, changes, variants, edge sets), `training`
(options of training), `console` (printed output), `output` (output files), `progress` (progress bars), `summary` (a
network's costs as data), `failure` (errors and exit codes) and `help` (the layout of `--help`). `app` puts them
together.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `hrg` with the arguments of this process."""
    try:
        from hiresnet_graph.cli.app import run
    except KeyboardInterrupt:  # while modules are loaded; `run` handles later ones itself
        sys.exit(130)
    run()
