"""Every benchmark runs and writes what it should. No time is asserted: that is what the benchmarks are read for."""

from __future__ import annotations

import argparse
import json
import math
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
# `benchmarks.gpu` runs other programs, and measures nothing itself.
NAMES = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text() and path.stem != "gpu"
)


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
    assert {"build", "cli_start", "conv_table", "equivalence", "graph_size", "step", "sweep"} <= set(NAMES)


LONG = {
    "alternatives",
    "checkouts",
    "conv_table",
    "equivalence",
    "graph_size",
    "memory",
    "report",
    "scale",
    "sweep",
    "throughput",
    "unroll",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NAMES])
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


def test_parts_for_a_gpu_continue_in_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu

    wait = "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]); p.exists() or (p.touch(), time.sleep(60))"
    report = tmp_path / "sweep.md"
    told = (
        f"import pathlib; pathlib.Path({str(report)!r}).write_text('- a / graph: 1.20, target >= 1.5: missed by 20 %')"
    )
    parts = [
        gpu.Part("doctor", ("-c", "raise SystemExit(3)"), 60, least_s=0),
        gpu.Part("sweep", ("-c", told), 60, least_s=0, report="sweep.md"),
        gpu.Part("conv_table", ("-c", wait, str(tmp_path / "begun")), 1, least_s=0),
        gpu.Part("equivalence", ("-c", ""), 60, least_s=0, report="equivalence.md"),
        gpu.Part("table2", ("-c", ""), 60, least_s=0, requires_data=True),
    ]
    monkeypatch.setattr(gpu, "parts_of", lambda *_: parts)
    monkeypatch.setenv("HRG_DATA", str(tmp_path))
    command = ["--out", str(tmp_path), "--device", "cpu", "--minutes", "5"]

    def states() -> list[str]:
        assert gpu.main(command) == 1
        return [part["state"] for part in json.loads((tmp_path / "parts.json").read_text())["parts"].values()]

    assert states() == ["failed", "finished", "interrupted", "failed", "skipped"]
    assert states() == ["failed", "finished", "finished", "failed", "skipped"]
    text = (tmp_path / "summary.md").read_text()
    assert "Targets: 0 met, 1 missed, 1 not measured." in text and "propose its removal" in text
    assert "exit code 3, see doctor.log" in text and "set HRG_DATA" in text
    with pytest.raises(SystemExit):
        gpu.main([*command, "--quick"])
    assert "give another --out" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_part_for_a_gpu_ends_with_its_command_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from benchmarks import gpu

    stop = (
        "import os, sys, time, pathlib\np = pathlib.Path(sys.argv[1])\n"
        "if not p.exists():\n    p.write_text(str(os.getpid()))\n    os.kill(os.getppid(), int(sys.argv[2]))\n"
        "    time.sleep(60)"
    )
    begun = tmp_path / "begun"
    parts = [gpu.Part(name, ("-c", stop, str(begun), str(int(number))), 60, least_s=0) for name in ("doctor", "table2")]
    monkeypatch.setattr(gpu, "parts_of", lambda *_: parts)
    assert gpu.main(["--out", str(tmp_path), "--device", "cpu"]) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
    assert gpu.main(["--out", str(tmp_path), "--device", "cpu"]) == 0
    assert "- table2: finished" in (tmp_path / "summary.md").read_text()


def test_missing_packages_for_a_gpu_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "_PACKAGES", ("numpy", "no-such-package", "nor-this"))
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and "lacks: no-such-package nor-this." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


# ---------------------------------------------------------------------------------------------------- many runs at once


def asked(file: Path | None, parts: str | None = None, minutes: float | None = None) -> Any:
    from benchmarks.measure import Options

    return Options("", False, file, 1, argparse.Namespace(parts=parts, minutes=minutes))


def test_a_second_call_adds_the_parts_that_are_missing(tmp_path: Path) -> None:
    from benchmarks.parts import results_of

    file, calls = tmp_path / "sweep.json", []

    def part(name: str) -> Any:
        return lambda: calls.append(name) or {"value": len(calls)}

    parts = {name: part(name) for name in ("full one", "full two", "small")}
    done, missing = results_of("sweep", parts, {"rounds": 3}, asked(file, "full"))
    assert calls == ["full one", "full two"] and missing == ["small"]
    done, missing = results_of("sweep", parts, {"rounds": 3}, asked(file, minutes=0))
    assert len(calls) == 2 and missing == ["small"], "no part is begun when time is up"
    done, missing = results_of("sweep", parts, {"rounds": 3}, asked(file))
    assert calls == ["full one", "full two", "small"] and not missing
    assert [done[name]["value"] for name in parts] == [1, 2, 3]
    assert json.loads(file.read_text())["results"]["parts"] == done
    results_of("sweep", parts, {"rounds": 3}, asked(file, "full two"))
    assert calls[3:] == ["full two"], "what is asked for by name is done again"
    with pytest.raises(SystemExit, match=r"its settings is .*'rounds': 3.*'rounds': 5"):
        results_of("sweep", parts, {"rounds": 5}, asked(file))
    with pytest.raises(SystemExit, match="begin the name of no part"):
        results_of("sweep", parts, {"rounds": 3}, asked(file, "large"))


def test_convolutions_are_those_of_the_plan() -> None:
    import hiresnet_graph as hrg
    from benchmarks.conv_table import convolutions

    arch = hrg.load("hiresnet18").variant("full")
    stages = convolutions(arch.plan)
    assert list(stages) == ["stem", "stage1", "stage2", "stage3", "skips"]
    assert sum(stages["skips"].values()) == 5 and len({conv for some in stages.values() for conv in some}) == 11
    macs = sum(
        n * conv.width * conv.channels * conv.kernel**2 * conv.out**2
        for some in stages.values()
        for conv, n in some.items()
    )
    assert macs == arch.cost().macs - 640  # of the head


@pytest.mark.parametrize(
    ("channels", "width", "kernel", "stride"), [(3, 5, 3, 1), (4, 6, 3, 2), (4, 6, 1, 1), (8, 12, 1, 2)]
)
def test_every_way_to_compute_a_convolution_is_right(channels: int, width: int, kernel: int, stride: int) -> None:
    from benchmarks.conv_table import PASSES, Conv, cell, remarks_of

    conv = Conv(channels, width, kernel, stride, kernel // 2, 8, 8 // stride)
    cells = {str(m): cell(conv, m, 2, "fp32", torch.device("cpu"), 1, 0.0) for m in (1, 3, 4)}
    for entry in cells.values():
        assert len(entry["ways"]) == (6 if kernel == 1 else 4)
        for passes in entry["ways"].values():
            assert all(passes[what]["right"] and passes[what]["seconds"] > 0 for what in PASSES)
    assert not [remark for remark in remarks_of({str(conv): cells}) if not remark.endswith("by M")]


def test_a_way_that_is_wrong_is_told() -> None:
    from benchmarks.conv_table import WAYS, Conv, Grouped, cell, remarks_of

    class Careless(Grouped):
        def run(self, what: str) -> Any:
            return super().run(what) + self.count * 1e-2 * self.given.x_MBCHW[-1].sum()

    conv = Conv(4, 4, 3, 1, 1, 8, 8)
    with pytest.MonkeyPatch.context() as changed:
        changed.setitem(WAYS, "grouped", Careless)
        cells = {str(m): cell(conv, m, 2, "fp32", torch.device("cpu"), 1, 0.0) for m in (3, 4)}
    remarks = remarks_of({str(conv): cells})
    for mistake in ("wrong", "leaks", "by M"):
        assert remarks[f"grouped, forward: {mistake}"] == ["3x3 4 -> 4 at 8"]
    assert not [remark for remark in remarks if remark.startswith("separate")]


def test_all_ways_to_train_compute_the_same() -> None:
    from benchmarks.contenders import Grouped, Vmap, epochs_by_hand, run_epochs
    from benchmarks.sweep import Case, Way, epochs_of, seeds_of

    case = Case("small", "fp32", "cpu", 32, True, lr=1e-4)
    losses = []
    for make in (Vmap, Grouped):
        seeds = [seeds_of(k) for k in range(3)]
        by_hand = epochs_by_hand(
            lambda make=make, seeds=seeds: make(case.arch, seeds, case.recipe, torch.device("cpu")),  # type: ignore[misc]
            seeds,
            case.recipe,
            case.data,
            torch.device("cpu"),
        )
        losses.append([next(by_hand) for _ in range(2)])
    for kind in ("stacked", "branches"):
        epochs = epochs_of(case, Way(kind, 3))
        losses.append([next(epochs) for _ in range(2)])
        epochs.close()  # type: ignore[attr-defined]
    alone = [run_epochs(case.request(k, 1), case.data) for k in range(3)]
    expected = [sum(map(next, alone)) / 3 for _ in range(2)]
    for epochs in alone:
        epochs.close()  # type: ignore[attr-defined]
    assert expected[0] != expected[1]
    for found in losses:
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_backend_that_depends_on_its_neighbours_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    import hiresnet_graph as hrg
    from benchmarks import agreement
    from hiresnet_graph.stack.lowering import Stacked

    class Careless(Stacked):
        def __call__(self, *inputs: torch.Tensor, training: bool) -> Any:
            return super().__call__(*inputs, training=training) + 1e-3 * self.count

    monkeypatch.setattr(agreement, "BACKENDS", {"right": Stacked, "careless": Careless})
    arch = hrg.load("hiresnet18").override({"width": 4, "input.height": 8, "input.width": 8})
    found = agreement.agreement(arch, 4, torch.device("cpu"), (), quick=True)
    assert found["right"]["fp64"]["met"] and found["right"]["fp64"]["m_invariant"]
    assert not found["careless"]["fp64"]["met"] and not found["careless"]["fp64"]["m_invariant"]
    assert found["careless"]["fp64"]["repeatable"]


def test_a_way_that_fails_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sweep

    def epochs(case: Any, way: Any) -> Iterator[float]:
        yield 2.0
        if way.kind == "vmap":
            raise RuntimeError("out of memory")
        yield from (1.5, 1.0)

    monkeypatch.setattr(sweep, "epochs_of", epochs)
    case = sweep.Case("small", "fp32", "cpu", 32, True)
    part = sweep.measured(case, [sweep.Way("eager"), sweep.Way("vmap", 2), sweep.Way("stacked", 4)], 2, 60.0)
    ways = part["ways"]
    assert ways["vmap x2"]["error"] == "RuntimeError: out of memory" and not ways["vmap x2"]["images_per_s"]
    assert len(ways["eager"]["images_per_s"]) == len(ways["stacked x4"]["images_per_s"]) == 2
    assert ways["stacked x4"]["last_loss"] == 1.0 and ways["stacked x4"]["runs"] == 4
    text = sweep.way_table(case, sweep.joined([part]), None)
    assert "out of memory" in text and "2.000 to 1.000" in text


def test_speeds_of_several_parts_are_compared_by_what_they_share() -> None:
    from benchmarks.sweep import gpu_targets, joined

    def way(kind: str, *speeds: float, runs: int = 1) -> dict[str, Any]:
        return {"kind": kind, "runs": runs, "images_per_s": list(speeds)}

    slow = {"ways": {"eager": way("eager", 100, 100, 100), "graph": way("graph", 200, 210, 190)}}
    fast = {"ways": {"eager": way("eager", 200, 200, 200), "stacked x8": way("stacked", 1600, 1500, 1700, runs=8)}}
    lost = {"ways": {"eager": way("eager", 100), "vmap x8": way("vmap")}}
    ways = joined([slow, fast, lost])
    assert (
        ways["stacked x8"]["to_first"] == 8 and ways["graph"]["to_first"] == 2 and ways["vmap x8"]["to_first"] is None
    )
    lines = gpu_targets(ways)
    assert lines[0] == "- ours (stacked x8) / eager: 8.00, target >= 4: met"
    assert lines[1] == "- ours (stacked x8) / graph: 4.00, target >= 1.5: met"
    assert lines[2].endswith("target >= 1.2, not measured")
    assert (
        lines[3]
        == "- ours (stacked x8), runs of the paper's protocol in an hour: 1.60, target >= 240: missed by 99.3 %"
    )


def test_equivalence_wants_more_than_a_large_p_value() -> None:
    from benchmarks.equivalence import tost

    alone = [80 + 0.1 * k for k in range(30)]
    assert tost(alone, [value + 0.05 for value in reversed(alone)])["equivalent"]
    shifted = tost(alone, [value + 0.9 for value in alone])
    assert not shifted["equivalent"] and shifted["distance"] == pytest.approx(0.9) and shifted["stacked_is_higher"]
    assert not tost(alone[::10], alone[::10])["equivalent"], "three runs show nothing"
