"""Every benchmark runs and writes what it should. No time is asserted: that is what the benchmarks are read for."""

from __future__ import annotations

import json
import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())


@pytest.fixture(autouse=True)
def _in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not NAMES:
        pytest.skip("benchmarks are not part of the installed package")
    monkeypatch.syspath_prepend(str(ROOT))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_all_are_there() -> None:
    assert {"build", "cli_start", "graph_size", "step"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"{name}.json"
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--quick", "--json", str(file)])
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    printed = capsys.readouterr().out
    data = json.loads(file.read_text())
    assert data["benchmark"] == name
    assert data["command"] == f"python -m benchmarks.{name} --quick"
    assert data["quick"] is True
    assert data["machine"]["processor"] and data["machine"]["versions"]["torch"]
    assert all(math.isfinite(number) and number >= 0 for number in numbers(data["results"]))
    assert sum(number > 0 for number in numbers(data["results"])) >= 5
    assert printed.startswith(f"# {name}\n") and "target" in printed
    assert file.with_suffix(".md").read_text().strip() == printed.strip()


@pytest.mark.parametrize("name", NAMES)
def test_kept_result(name: str) -> None:
    folder = ROOT / "benchmarks" / "results"
    data = json.loads((folder / f"{name}.json").read_text())
    assert data["benchmark"] == name and data["quick"] is False
    assert str(data["machine"]["processor"]) in (folder / f"{name}.md").read_text()


def test_random_graph_has_the_asked_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.random_graph import random_spec

    for size in (50, 213, 1000):
        spec = random_spec(size, seed=1)
        assert len(spec["nodes"]) == size
        assert abs(len(spec["edges"]) - 3 * size) <= 20
        pairs = [(edge["from"], edge["to"]) for edge in spec["edges"]]
        assert len(set(pairs)) == len(pairs)
        assert random_spec(size, seed=1) == spec != random_spec(size, seed=2)


def test_fits() -> None:
    from benchmarks.graph_size import exponent, n_log_n

    sizes = (1000, 2000, 5000, 10000)
    a, error = n_log_n({n: 3e-6 * n * math.log(n) for n in sizes})
    assert a == pytest.approx(3e-6) and error == pytest.approx(0, abs=1e-9)
    assert exponent({n: 2e-9 * n**2 for n in sizes}) == pytest.approx(2)


def test_spread_holds_the_median() -> None:
    from benchmarks.measure import Spread

    spread = Spread.of([float(value) for value in range(100, 0, -1)])
    assert (spread.median, spread.best, spread.rounds) == (50.5, 1.0, 100)
    assert 35 < spread.low < spread.median < spread.high < 66
    one = Spread.of([2.0])
    assert one.low == one.high == 2.0
