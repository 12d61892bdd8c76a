"""The command line `hrg`: arguments, one verb, a printed result.

Commands stand in files by what they are for: `look`, `show`, `make`, `train`, `machine`. What they share is in
`arguments` (what the words of a command line mean), `screen` (how results look), `summary` (what a network amounts to),
`failure` (errors and exit codes) and `help`; `app` puts it together.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `hrg` with the arguments of this process."""
    try:
        from hiresnet_graph.cli.app import run
    except KeyboardInterrupt:  # while modules load; `run` tells of a later one itself
        sys.exit(130)
    run()
