"""How long large graphs take to validate, and how the time grows with their size.

    python -m benchmarks.graph_size [--quick] [--json FILE]

Random layered graphs of conv, identity and relu nodes, three edges a node, are written as YAML and as JSON and
validated from the file on: read, checked against the language (spec), made a graph, expanded into operations with all
shapes, freed of what is there twice or reaches no output (passes), and planned. `validate` is the public verb, which
does all of it; the parts are timed in a run of their own. Two curves are fitted to the times of `validate`:

- t = a n log n, by least squares of relative errors, with the worst one;
- t = a n^k. n log n itself has k a little above 1 over these sizes; this is the bound that is printed.

The fit takes the fastest round of each size in CPU time, since other programs only ever make a round slower.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import hiresnet_graph as hrg
from benchmarks.measure import Spread, finish, options, table, timed, verdict
from benchmarks.random_graph import random_spec
from hiresnet_graph.gc_pause import gc_paused
from hiresnet_graph.passes import desugar, resolve
from hiresnet_graph.plan import make_plan
from hiresnet_graph.spec.document import read_document
from hiresnet_graph.spec.writer import to_json, to_yaml

SIZES = (1_000, 2_000, 5_000, 10_000)
TARGET_S = 5.0
PHASES = ("read", "spec", "graph", "passes", "plan")
WRITERS = {"yaml": to_yaml, "json": to_json}


def _validate(path: Path) -> None:
    hrg.load(path).validate()


def phases(path: Path) -> dict[str, float]:
    """Seconds of wall time of each part, from the file to the plan; garbage collection is paused, as in `validate`."""
    marks = [perf_counter()]
    document = read_document(path)
    marks.append(perf_counter())
    section, problems = document.section()
    marks.append(perf_counter())
    graph = desugar(section, problems)
    problems.raise_if_any()
    assert graph is not None
    marks.append(perf_counter())
    operations = resolve(graph)
    marks.append(perf_counter())
    make_plan(operations)
    marks.append(perf_counter())
    return {name: end - start for name, start, end in zip(PHASES, marks[:-1], marks[1:], strict=True)}


def n_log_n(times: Mapping[int, float]) -> tuple[float, float]:
    """The a of t = a n log n, and the largest relative error."""
    shares = [t / (n * math.log(n)) for n, t in times.items()]
    a = sum(share**2 for share in shares) / sum(shares)
    return a, max(abs(share / a - 1) for share in shares)


def exponent(times: Mapping[int, float]) -> float:
    """The k of t = a n^k, by least squares of logarithms."""
    xs, ys = [math.log(n) for n in times], [math.log(t) for t in times.values()]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    sizes = (50, 100, 200) if given.quick else SIZES
    rounds = 1 if given.quick else 7
    specs = {size: random_spec(size, seed=size) for size in sizes}
    wall: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    parts: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[tuple[str, int], Path] = {}
        for size, spec in specs.items():
            for kind, write in WRITERS.items():
                paths[kind, size] = Path(folder) / f"random{size}.{kind}"
                paths[kind, size].write_text(write(spec))
        hrg.load(paths["yaml", sizes[0]]).validate()
        for _ in range(rounds):
            for key, path in paths.items():
                gc.collect()
                seconds = timed(partial(_validate, path))
                wall.setdefault(key, []).append(seconds[0])
                cpu.setdefault(key, []).append(seconds[1])
                gc.collect()
                with gc_paused():
                    parts.setdefault(key, []).append(phases(path))

    rows: list[tuple[str, ...]] = []
    fits: list[tuple[str, ...]] = []
    results: dict[str, Any] = {}
    for kind in WRITERS:
        for size in sizes:
            key = (kind, size)
            validate = Spread.of(wall[key])
            medians = {name: Spread.of([part[name] for part in parts[key]]).median for name in PHASES}
            last = size == sizes[-1] and not given.quick
            met = verdict(validate.median, TARGET_S) if last else ""
            edges = len(specs[size]["edges"])
            rows.append(
                (
                    kind,
                    f"{size:,}",
                    f"{edges:,}",
                    f"{validate.median:.2f} s",
                    f"{min(cpu[key]):.2f} s",
                    *(f"{seconds:.2f} s" for seconds in medians.values()),
                    f"<= {TARGET_S:g} s" if last else "",
                    met,
                )
            )
            results[f"{kind}/{size}"] = {
                "nodes": size,
                "edges": edges,
                "validate_s": validate,
                "validate_cpu_s": Spread.of(cpu[key]),
                "phases_s": medians,
                "met": met,
            }
        best = {size: min(cpu[kind, size]) for size in sizes}
        a, error = n_log_n(best)
        k, bound = exponent(best), exponent({n: n * math.log(n) for n in sizes})
        met = verdict(k, bound)
        fits.append((kind, f"{1e6 * a:.2f} us", f"{100 * error:.0f} %", f"{k:.3f}", f"<= {bound:.3f}", met))
        results[f"{kind}/fit"] = {
            "a_s": a,
            "worst_error": error,
            "exponent": k,
            "exponent_of_n_log_n": bound,
            "met": met,
        }
    head = ("file", "nodes", "edges", "validate", "CPU, best", *PHASES, "target", "")
    fit_head = ("file", "a of a n log n", "worst error", "k of a n^k", "k of n log n", "")
    finish("graph_size", f"{table(head, rows)}\n\n{table(fit_head, fits)}", results, given)


if __name__ == "__main__":
    main()
