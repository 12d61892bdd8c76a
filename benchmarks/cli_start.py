"""How long `hrg` takes from the shell's point of view, and what it spends that time on.

    python -m benchmarks.cli_start [--quick] [--json FILE]

`hrg validate hiresnet18` and `hrg show hiresnet18` as whole processes, in turns with `python -c pass`, which is the
floor. Byte code is written on a first run that does not count, as it is for any user. Below: where the imports of
`hrg validate` go, as `python -X importtime` tells it (its own cost included), by package and by module.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread, finish, milliseconds, options, table, timed, verdict

TARGET_S = 0.5
_SELF_TIME = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")


def program() -> list[str]:
    """The installed `hrg`, or the same function where it is not beside this Python."""
    script = Path(sys.executable).with_name("hrg")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from hiresnet_graph.cli import main; main()"]


def run(command: list[str], cache: str) -> str:
    """Run a command to its end, with byte code in the folder `cache`; gives what it wrote to stderr.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stderr


def cpu_of_children() -> float:
    """Seconds of CPU time of all processes that have ended, in user and system mode."""
    try:
        import resource
    except ImportError:
        times = os.times()
        return times.children_user + times.children_system
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def imports(arguments: list[str], cache: str, rounds: int) -> Counter[str]:
    """Seconds that each module takes to import, without what it imports in turn; the fastest of some rounds."""
    code = f"import sys; sys.argv = ['hrg', *{arguments!r}]; from hiresnet_graph.cli import main; main()"
    best: dict[str, float] = {}
    for _ in range(rounds):
        for time, name in _SELF_TIME.findall(run([sys.executable, "-X", "importtime", "-c", code], cache)):
            best[name] = min(int(time) / 1e6, best.get(name, math.inf))
    return Counter(best)


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    rounds = 1 if given.quick else 15
    commands = {
        "hrg validate hiresnet18": [*program(), "validate", "hiresnet18"],
        "hrg show hiresnet18": [*program(), "show", "hiresnet18"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    wall: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as cache:
        for command in commands.values():
            run(command, cache)
        for _ in range(rounds):
            for name, command in commands.items():
                before = cpu_of_children()
                wall[name].append(timed(partial(run, command, cache))[0])
                cpu[name].append(cpu_of_children() - before)
        modules = imports(["validate", "hiresnet18"], cache, 1 if given.quick else 5)
    rows: list[tuple[str, ...]] = []
    results: dict[str, Any] = {}
    for name in commands:
        spread, used = Spread.of(wall[name]), Spread.of(cpu[name])
        met = verdict(spread.median, TARGET_S) if name.startswith("hrg") else ""
        span = f"{milliseconds(spread.low)} to {milliseconds(spread.high)}"
        rows.append(
            (
                name,
                milliseconds(spread.median),
                span,
                milliseconds(used.median),
                f"<= {milliseconds(TARGET_S)}" if met else "",
                met,
            )
        )
        results[name] = {"wall_s": spread, "cpu_s": used, "target_s": TARGET_S if met else None, "met": met}

    packages: Counter[str] = Counter()
    for module, seconds in modules.items():
        packages[module.partition(".")[0]] += seconds
    text = "\n\n".join(
        [
            table(("command", "median", "95 %", "CPU", "target", ""), rows),
            f"Imports of `hrg validate`: {len(modules)} modules, {milliseconds(sum(modules.values()))}; "
            f"torch is {'' if 'torch' in packages else 'not '}among them.",
            table(("package", "imports"), [(name, milliseconds(s)) for name, s in packages.most_common(12)]),
            table(("module", "imports"), [(name, milliseconds(s)) for name, s in modules.most_common(12)]),
        ]
    )
    results["imports_s"] = {"packages": dict(packages.most_common(30)), "modules": dict(modules.most_common(30))}
    finish("cli_start", text, results, given)


if __name__ == "__main__":
    main()
