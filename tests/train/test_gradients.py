"""Norms of gradients that a run records: those of autograd, without any effect on training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.gradients import gradient_groups
from hiresnet_graph.train.record import RunRecord
from tests.train.runs import finish, request, result_of, stop_after
from tests.train.states import states

TEXT = """\
name: tiny
input: {channels: 1, height: 4, width: 4}
nodes:
  stem: {block: conv, width: 3}
  stage: {block: basic, width: 4, stride: 2, depth: 1}
  head: {block: classifier, classes: 10}
flow: stem -> stage -> head
skips: {levels: [stem, stage], edges: full}
"""
GROUPS = ["stem", "stage.block1", "stage.block1.shortcut", "edges.stem__stage", "head"]


@pytest.fixture
def tiny() -> hrg.Architecture:
    return hrg.loads(TEXT)


def norms_of(folder: Path) -> list[dict[str, float | None] | None]:
    record = RunRecord.model_validate_json((folder / "result.json").read_bytes())
    return [epoch.gradient_norms for epoch in record.epochs]


def group_of(parameter: str) -> str:
    return max((group for group in GROUPS if parameter.startswith(f"{group}.")), key=len)


def test_norms_are_means_over_the_steps_of_what_autograd_gives(tiny: hrg.Architecture, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "clip_norm": 0.01, "augment": "none"}
    finish(request(tiny, epochs=1, batch_size=600, record_gradients=True, **fields), tmp_path)
    module = tiny.build(0).train()
    dataset = match_input(load_dataset("digits"), tiny.plan)
    batches = list(Loader(dataset, device=torch.device("cpu"), augment="none", seed=0).training(1, 600))
    assert [len(labels_B) for _, labels_B in batches] == [600, 600, 94]
    totals = dict.fromkeys(GROUPS, 0.0)
    for x_BCHW, labels_B in batches:
        parameters = dict(module.named_parameters())
        found = torch.autograd.grad(cross_entropy(module(x_BCHW), labels_B), list(parameters.values()))
        squares = dict.fromkeys(GROUPS, 0.0)
        for name, gradient in zip(parameters, found, strict=True):
            squares[group_of(name)] += gradient.double().square().sum().item()
        for group, square in squares.items():
            totals[group] += square**0.5 / len(batches)
        factor = min(1.0, 0.01 / (sum(squares.values()) ** 0.5 + 1e-6))
        assert factor < 1  # norms are those before clipping
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), found, strict=True):
                parameter -= 0.1 * factor * gradient
    (recorded,) = norms_of(tmp_path)
    assert recorded == pytest.approx(totals, rel=1e-4) and list(recorded or {}) == GROUPS
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["gradient_norms"] == recorded


def test_recording_changes_no_bit_and_no_key(tiny: hrg.Architecture, tmp_path: Path) -> None:
    finish(request(tiny), tmp_path / "plain")
    finish(request(tiny, record_gradients=True), tmp_path / "recorded")
    plain, recorded = result_of(tmp_path / "plain"), result_of(tmp_path / "recorded")
    assert recorded["recipe"].pop("record_gradients") and not plain["recipe"].pop("record_gradients")
    for result in (plain, recorded):
        norms = [entry.pop("gradient_norms", None) for entry in (*result["epochs"], *result["metrics"])]
        assert any(norms) == (result is recorded)
    assert plain == recorded
    assert len({(tmp_path / name / "optimizer.safetensors").read_bytes() for name in ("plain", "recorded")}) == 1


def test_a_resumed_run_records_the_same_norms(tiny: hrg.Architecture, tmp_path: Path) -> None:
    recorded = request(tiny, record_gradients=True)
    finish(recorded, tmp_path / "whole")
    for steps in (2, 6, 7):
        folder = tmp_path / str(steps)
        list(hrg.train.run(recorded, folder, stop=stop_after(steps)))
        assert not (folder / "result.json").exists()
        finish(recorded, folder)
        assert result_of(folder) == result_of(tmp_path / "whole")
    # Started without: the epoch that had begun has no norms.
    folder = tmp_path / "later"
    list(hrg.train.run(request(tiny), folder, stop=stop_after(2)))
    finish(recorded, folder)
    first, second = norms_of(folder)
    assert first == dict.fromkeys(GROUPS) and second == norms_of(tmp_path / "whole")[1]


def test_groups_are_nodes_and_edges_also_with_shared_weights_and_steps() -> None:
    groups = gradient_groups(states().plan)
    assert [group for group in groups if "." not in group] == ["pre", "norm", "head"]
    assert "edges.s1__s2" in groups and len(groups) == 3 + 8
    text = (
        TEXT.replace("{block: conv, width: 3}", "{block: conv, width: 3, weights: both}")
        .replace("stem -> stage", "stem -> again -> stage")
        .replace("  head:", "  again: {block: conv, width: 3, weights: again}\n  head:")
    )
    groups = gradient_groups(hrg.loads(text).plan)
    assert list(groups)[:2] == ["both", "again"]
    assert sorted(sum(groups.values(), ())) == sorted(name for name, _ in hrg.loads(text).build().named_parameters())
