"""Numbers that are too large, or no numbers, wherever a number is accepted: refused with position and limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.errors import OutOfMemory, SpecError, UsageError
from hiresnet_graph.sweep import subsets
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.study import read_study
from hiresnet_graph.train import train
from hiresnet_graph.train.recipe import make_recipe

BASE = "name: s\nnetwork: hiresnet18\n"
HUGE = str(2**63)
STUDIES = {
    "seeds: true": r"3:8: seeds: expected a whole number or a list or a mapping, got true",
    "seeds: ['1']": r"3:10: seeds\[0\]: expected a whole number, got '1'",
    f"seeds: [{HUGE}]": r"seeds\[0\]: expected a number of at most 9,223,372,036,854,775,807",
    "seeds: 1000000000": r"seeds: expected a number of at most 10,000",
    "seeds: {init: true}": r"seeds",
    "seeds: {init: 9000, data: 9000}": r"3:8: .*init and data make more than 10,000 pairs of seeds",
    f"recipe: {{epochs: {HUGE}}}": r"3:18: recipe\.epochs: expected a number of at most 1,000,000",
    "recipe: {epochs: true}": r"3:18: recipe\.epochs: expected a whole number, got true",
    "recipe: {top_k: 1000000000000}": r"recipe\.top_k: expected a number of at most 1,000,000",
    "recipe: {warmup_epochs: 10000000}": r"recipe\.warmup_epochs: expected a number of at most 1,000,000",
    "recipe: {loss_steps: [1e308, 1e308]}": r"3:22: recipe\.loss_steps: .* weights \(0 to 1e\+30, one above 0\)",
    f"search: {{space: {{edges: full}}, seed: {HUGE}}}": r"search\.seed: expected a number of at most 9,223",
    "search: {space: {edges: full}, runs: 1000000000}": r"search\.runs: expected a number of at most 100,000",
    "search: {space: {edges: full}, batch: 1000000000}": r"search\.batch: expected a number of at most 1,000",
    "search: {space: {width: {low: 1, high: 1000000000000000000}}}": r"3:25: search.space.width: low and high must be",
    "search: {space: {lr: {low: 0.1, high: .inf}}}": r"search\.space\.lr\.high: expected a finite number, got inf",
}


@pytest.mark.parametrize("line", STUDIES)
def test_a_study_refuses_a_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}{line}\n")
    with pytest.raises(SpecError, match=STUDIES[line]):
        read_study(path)


def test_the_largest_numbers_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}seeds: [{2**63 - 1}]\nrecipe: {{epochs: 1000000, loss_steps: [1e30, 1e30]}}\n")
    study = read_study(path)
    assert study.seed_pairs[0].init == 2**63 - 1
    assert study.recipe.step_weights(2) == (0.5, 0.5)


def test_a_grid_has_a_limited_number_of_combinations(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    rates = ", ".join(f"0.{k:03}" for k in range(1, 201))
    path.write_text(f"{BASE}grid: {{lr: [{rates}], weight_decay: [{rates}]}}\n")
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert "study.yaml:3:7: the grid has 40,000 combinations; the limit is 10,000." in done.output


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "threads": (lambda: ExecutionOptions(threads=100_000).check(), r"threads: .* from 1 to 1,024, not 100000"),
    "jobs": (lambda: ExecutionOptions(jobs=10**9).check(), r"jobs: must be a number from 1 to 10,000"),
    "stack": (lambda: ExecutionOptions(stack="9" * 5000).check(), r"stack: must be .* \(2 to 10,000\), not '9{40}'"),
    "one run": (lambda: train(hrg.load("hiresnet18"), out="x", threads=10**6), r"threads: .* from 1 to 1,024"),
    "its seed": (lambda: train(hrg.load("hiresnet18"), out="x", seed=2**63), r"seed: must be a number from 0 to 9,223"),
    "random subsets": (lambda: subsets("ab", "random:" + "9" * 5000), r"there is no subset rule"),
    "all subsets": (lambda: subsets([f"a{k}" for k in range(20_000)], "all"), r"gives more than 10\^30 subsets"),
    "a recipe": (lambda: make_recipe({"batch_size": 10**12}), r"recipe\.batch_size: .* at most 1,000,000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_refuses_a_number(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args",
    [
        ["compile", "hiresnet18", "--seed", HUGE, "-o", "x.pt2"],
        ["train", "hiresnet18", "--seed", HUGE],
        ["train", "hiresnet18", "--threads", "100000"],
        ["train", "hiresnet18", "--epochs", HUGE],
        ["ablate", "hiresnet18", "--variants", "none", "--seeds", "9" * 5000],
        ["ablate", "hiresnet18", "--variants", "none", "--seeds", HUGE],
        ["ablate", "hiresnet18", "--variants", "none", "--threads", "100000", "--dry-run"],
        ["enumerate", "hiresnet18", "--subsets", "random:" + "9" * 5000],
        ["show", "hiresnet18", "width=1000000000000"],
        ["show", "cornet_s", "time.steps=1000000000"],
    ],
    ids=lambda args: " ".join(args)[:50],
)
def test_a_command_refuses_a_number(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, args)
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit), done.exception
    assert "internal error" not in done.output


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_network_larger_than_the_memory_is_refused(suffix: str, tmp_path: Path) -> None:
    nodes = "{a: {block: conv2d, width: 1000000}, b: {block: conv2d, width: 1000000}}"
    arch = hrg.loads(f"name: n\ninput: {{channels: 1, height: 1, width: 1}}\nnodes: {nodes}\nflow: a -> b\n")
    with pytest.raises(OutOfMemory, match=r"the weights of 'n' take 32\.7 TiB; this machine has .* Reduce the width"):
        arch.export(tmp_path / f"n.{suffix}")
    assert not list(tmp_path.iterdir())
