"""Stacks on the device: masks, stacked and branches against runs alone, the captured step, interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import OutOfMemory
from hiresnet_graph.stack import trainer as stack_trainer
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.stackable import predicted_bytes
from hiresnet_graph.stack.trainer import StackTrainer
from hiresnet_graph.sweep import Study, ablate
from hiresnet_graph.train import Recipe, Seeds, read_record
from tests.stack.test_program import (
    LIKE,
    Uncaptured,
    assert_like_single_runs,
    difference,
    results,
    seeds,
    stack,
    subsets,
    train,
)
from tests.stack.test_replicas import NETWORKS, assert_equals_single_modules, family, filled
from tests.sweep.works import Inline
from tests.train.runs import request, result_of, stop_after

BACKENDS = ("stacked", "branches")


@pytest.mark.parametrize("program", [Stacked, Branches])
@pytest.mark.parametrize("name", NETWORKS)
def test_masked_replicas_equal_single_modules(name: str, program: Callable[..., Replicas], device: str) -> None:
    make, edges = NETWORKS[name]
    supergraph, networks = family(make(), *edges)
    own = program(supergraph, [one.plan for one in networks], dtype=torch.float64, device=device)
    modules = [module.to(device) for module in filled(own, networks, range(len(networks)))]
    assert_equals_single_modules(own, modules, supergraph, tolerance=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_runs_equal_those_alone(
    tiny: hrg.Architecture, device: str, tmp_path: Path, backend: str, precision: str
) -> None:
    fields = {**LIKE, "device": device, "precision": precision}
    asked = stack([*subsets(tiny, **fields), request(tiny, Seeds(1, 2), **fields)], tmp_path, tiny, backend)
    train(asked)
    assert_like_single_runs(asked, tmp_path, {"fp32": 1e-3, "tf32": 2e-2, "bf16": 0.1}[precision])


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_are_those_of_runs_alone(
    tiny: hrg.Architecture, device: str, tmp_path: Path, backend: str
) -> None:
    noisy = tiny.override({"head.dropout": 0.3})
    asked = stack(seeds(noisy, 3, **LIKE, device=device), tmp_path, noisy, backend)
    train(asked)
    assert_like_single_runs(asked, tmp_path, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupted_stacks_have_the_same_bits(
    tiny: hrg.Architecture, device: str, repeatable: None, tmp_path: Path, backend: str
) -> None:
    whole, pieces = (stack(subsets(tiny, device=device), tmp_path / name, tiny, backend) for name in ("a", "b"))
    train(whole)
    train(pieces, stop=stop_after(9))
    train(pieces)
    assert results(pieces) == results(whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_diverges_leaves_the_others_alone(
    tiny: hrg.Architecture, device: str, tmp_path: Path, backend: str
) -> None:
    usual = subsets(tiny, **LIKE, device=device)[:3]
    spoiled = request(tiny, Seeds(1, 1), **{**LIKE, "lr": 1e30}, device=device)
    without, beside = (
        stack(runs, tmp_path / str(len(runs)), tiny, backend) for runs in (usual, [*usual[:2], spoiled, usual[2]])
    )
    train(without)
    train(beside)
    records = [read_record(run.folder) for run in beside.runs]
    assert [record.outcome for record in records if record] == ["complete", "complete", "diverged", "complete"]
    for ours, theirs in zip(without.runs, [beside.runs[k] for k in (0, 1, 3)], strict=True):
        assert difference(ours.folder, theirs.folder) < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_capturing_the_step_changes_no_bit(
    tiny: hrg.Architecture, gpu: torch.device, repeatable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:  # fmt: skip
    runs = subsets(tiny, device=str(gpu), clip_norm=1.0)
    captured, launched = (stack(runs, tmp_path / name, tiny, backend) for name in ("captured", "launched"))
    train(captured)
    monkeypatch.setattr(stack_trainer, "Captured", Uncaptured)
    train(launched)
    assert results(captured) == results(launched)


def test_a_single_captured_run_is_named_so(tiny: hrg.Architecture, gpu: torch.device, tmp_path: Path) -> None:
    asked = stack([request(tiny, **LIKE, device=str(gpu))], tmp_path, tiny, "branches")
    train(asked)
    record = read_record(asked.runs[0].folder)
    assert record is not None and record.machine.backend == "graph"
    assert_like_single_runs(asked, tmp_path, 1e-3)


RECIPE = Recipe(epochs=1, batch_size=500)


@pytest.fixture
def memory_of_five(tiny: hrg.Architecture, device: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """On a GPU, memory for about five runs of the wide network in one stack; on the CPU, stacks of six or more fail."""
    wide = tiny.override({"width": 64})
    if device == "cpu":
        begin = StackTrainer.__init__

        def limited(self: StackTrainer, runs: Any, *rest: Any) -> None:
            if len(runs) > 5:
                raise OutOfMemory("memory ran out.")
            begin(self, runs, *rest)

        monkeypatch.setattr(StackTrainer, "__init__", limited)
        yield wide
        return
    torch.cuda.empty_cache()
    index = torch.device(device).index or 0
    limit = torch.cuda.memory_reserved(index) + predicted_bytes(wide.plan, 5, RECIPE.batch_size, False)
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(index).total_memory, index)
    yield wide
    torch.cuda.set_per_process_memory_fraction(1.0, index)


def test_a_stack_that_does_not_fit_is_halved(memory_of_five: hrg.Architecture, device: str, tmp_path: Path) -> None:
    study = Study(network=memory_of_five, variants=("full", "none"), seeds=8, recipe=RECIPE)
    found = ablate(study, out=tmp_path, executor=Inline(), stack=16, device=device)
    sizes = {row.record.machine.replicas for row in found.rows if row.record is not None}
    assert len(found.rows) == 16 and all(row.record is not None for row in found.rows)
    assert sizes and max(sizes) < 16, sizes
    assert result_of(tmp_path / "runs" / "full-seed0")["outcome"] == "complete"
