"""What the benchmarks share: arguments, paired rounds, what a machine is, tables, and the JSON that is written.

Times on a machine that does other work too are noisy. So two programs are timed in turns (A B, B A, ...), and what is
reported is the median of the ratios of neighbours, with the interval that holds the median with 95 % confidence.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("hiresnet-graph", "torch", "torchvision", "networkx", "pydantic", "PyYAML", "typer", "rich")
_UNTOLD = ("--base", "--json", "--parts", "--minutes")


@dataclass(frozen=True)
class Options:
    """What the benchmark is about, and what the command line asked for; `more` has what only one benchmark knows."""

    title: str
    quick: bool
    json: Path | None
    threads: int
    more: argparse.Namespace


def options(
    doc: str | None, *, threads: int = 1, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> Options:
    """Read the command line of a benchmark; `doc` is its module docstring, `more` adds arguments of its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds: shows that it runs, not how fast"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, beside the table")
    parser.add_argument(
        "--threads", type=int, default=threads, help="threads of torch, where it computes (default %(default)s)"
    )
    if more is not None:
        more(parser)
    given = parser.parse_args()
    title = (doc or "").strip().partition("\n")[0]
    return Options(title, given.quick, given.json, given.threads, given)


# ---------------------------------------------------------------------------------------------------------- timing


@dataclass(frozen=True)
class Spread:
    """Seconds (or ratios) of several rounds."""

    median: float
    low: float
    high: float
    best: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, its 95 % interval by order statistics (the whole range below 6 values), and the smallest value."""
        ordered = sorted(values)
        n = len(ordered)
        reach = int(0.98 * n**0.5 + 1)
        low, high = max(0, n // 2 - reach), min(n - 1, (n - 1) // 2 + reach)
        return cls(statistics.median(ordered), ordered[low], ordered[high], ordered[0], n)


@dataclass(frozen=True)
class Pair:
    """Two programs timed in turns.

    Attributes:
        ours, theirs: Seconds of wall time a round.
        ratio: Of neighbouring rounds, ours / theirs, wall time.
        cpu_ratio: The same of CPU time, which other programs on the machine disturb less.
    """

    ours: Spread
    theirs: Spread
    ratio: Spread
    cpu_ratio: Spread

    @classmethod
    def of(cls, ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> Pair:
        """From the seconds of wall and CPU time of neighbouring rounds."""
        return cls(
            Spread.of([wall for wall, _ in ours]),
            Spread.of([wall for wall, _ in theirs]),
            Spread.of([a[0] / b[0] for a, b in zip(ours, theirs, strict=True)]),
            Spread.of([a[1] / b[1] for a, b in zip(ours, theirs, strict=True)]),
        )


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, *, warm_up: int = 1) -> Pair:
    """Time two programs A and B in the order A B B A A B B A ..., `rounds` times each."""
    for _ in range(warm_up):
        ours()
        theirs()
    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
    for i in range(rounds):
        pair = ((ours, mine), (theirs, other))
        for run, times in pair if i % 2 == 0 else reversed(pair):
            times.append(timed(run))
    return Pair.of(mine, other)


# --------------------------------------------------------------------------------------------------------- reports


def machine() -> dict[str, Any]:
    """The processor, its load, the GPU that torch sees if torch is in use, and the versions of what was used."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "gpu": _gpu(),
    }


def _gpu() -> dict[str, Any] | None:
    """The first GPU with the versions that its speed depends on; None without one, or where torch is not loaded."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return {
        "name": torch.cuda.get_device_name(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def verdict(value: float, target: float) -> str:
    """`met`, or by how much not."""
    return "met" if value <= target else f"missed by {100 * (value / target - 1):.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows in columns as Markdown: the first column to the left, the others to the right; no column without values."""
    filled = [k for k in range(len(head)) if not rows or any(str(row[k]) for row in rows)]
    cells = [[str(row[k]) for k in filled] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(filled))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def milliseconds(seconds: float) -> str:
    """Seconds as people read them here."""
    return f"{1000 * seconds:.1f} ms"


def mebibytes(size: int | None) -> str:
    """Bytes as people read them."""
    return "unknown" if size is None else f"{size / 2**20:.1f} MiB"


def ratio_row(name: str, pair: Pair, target: float, met: str) -> tuple[str, ...]:
    """A pair as a row: name, both times, the ratio with its interval, that of CPU time, the target."""
    ratio = f"{pair.ratio.median:.3f} ({pair.ratio.low:.3f} to {pair.ratio.high:.3f})"
    cpu = f"{pair.cpu_ratio.median:.3f} ({pair.cpu_ratio.low:.3f} to {pair.cpu_ratio.high:.3f})"
    return (name, milliseconds(pair.ours.median), milliseconds(pair.theirs.median), ratio, cpu, f"<= {target}", met)


def finish(name: str, text: str, results: dict[str, Any], given: Options) -> None:
    """Print the report, and write its numbers if a file was asked for (the text goes beside it, as Markdown)."""
    where = machine()
    line = f"{where['processor']}, {where['cores']} cores, Python {where['python']}, " + ", ".join(
        f"{package} {number}" for package, number in where["versions"].items() if package in ("torch", "torchvision")
    )
    if (gpu := where["gpu"]) is not None:
        line = f"{gpu['name']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}, {line}"
    report = f"# {name}\n\n{given.title}\n\n`{_command(name)}`\n{line}\n\n{text}\n"
    print(report)
    keep(name, results, given)
    if given.json is not None:
        given.json.with_suffix(".md").write_text(report)


def keep(name: str, results: dict[str, Any], given: Options) -> None:
    """Write the numbers of a benchmark, if a file was asked for."""
    if given.json is not None:
        data = {"benchmark": name, "command": _command(name), "quick": given.quick, "machine": machine()}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({**data, "results": results}, indent=2, default=asdict) + "\n")


def _command(name: str) -> str:
    """The command without the file that is written, and without what cuts it into calls: they change no number."""
    kept = []
    skip = False
    for word in sys.argv[1:]:
        if skip:
            skip = False
        elif word.partition("=")[0] in _UNTOLD:
            skip = "=" not in word
        else:
            kept.append(word)
    return f"python -m benchmarks.{name}" + "".join(f" {word}" for word in kept)
