"""What makes training slow on this machine is said before it starts."""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from hiresnet_graph.sweep.calibration import Calibration, Measurement
from hiresnet_graph.sweep.execution import ExecutionPlan

Hrg = Callable[..., Result]
SMALL = ("hiresnet18", "width=4", "input.channels=1", "input.height=8", "input.width=8", "--epochs", "1")
BF16 = ("--recipe", "precision=bf16", "--device", "cpu")
START = "Warning: 'precision: bf16' is emulated on this CPU, and takes 20 times as long as fp32 or more: torch finds "
STUDY = ("ablate", *SMALL, "--variants", "none", "--seeds", "1", "--jobs", "1", "--dry-run", "--no-calibrate")


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what torch says of the instructions of this CPU."""

    def claim(name: str) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)

    return claim


@pytest.mark.parametrize(("name", "is_slow"), [("DEFAULT", True), ("AVX2", True), ("AVX512", False)])
def test_bf16_on_a_cpu_without_its_instructions(
    hrg: Hrg, capability: Callable[[str], None], name: str, is_slow: bool
) -> None:
    capability(name)
    assert (f"{START}{name}" in hrg(*STUDY, *BF16).stderr) == is_slow
    remarks = json.loads(hrg(*STUDY, *BF16, "--json").stdout)["remarks"]
    assert [remark for remark in remarks if "precision" in remark][:1] == [
        f"{START}{name}, and AVX512 is required. Set 'precision: fp32', or use another machine."
    ] * is_slow
    assert (f"{name} (bf16 is emulated)" in hrg("doctor").stdout) == is_slow


def test_training_starts_with_the_remark(hrg: Hrg, capability: Callable[[str], None], tmp_path: Path) -> None:
    capability("AVX2")
    assert START not in hrg(*STUDY).stderr, "fp32"
    trained = hrg("train", *SMALL, *BF16, "-o", tmp_path)
    assert trained.exit_code == 0 and trained.stderr.count(START) == 1


@pytest.mark.parametrize(
    ("speed", "load", "line"),
    [
        (None, 0.0, "Time: unknown. A few steps of 'none' took too long to be measured."),
        (50.0, 0.0, "(50 images per second in total), scaled"),
        (50.0, 9999.0, "(50 images per second in total while other programs used the CPU, load 9999.0), scaled"),
    ],
)
def test_a_dry_run_says_how_far_its_time_can_be_trusted(
    hrg: Hrg, monkeypatch: pytest.MonkeyPatch, speed: float | None, load: float, line: str
) -> None:
    def measured(self: Calibration, plan: ExecutionPlan) -> Measurement | None:
        return None if speed is None else Measurement(plan, speed, 60.0)

    monkeypatch.setattr(Calibration, "estimate", measured)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert line in hrg(*STUDY[:-1]).stderr
