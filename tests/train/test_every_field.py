"""Each field of the recipe: that it changes what is computed, and that such a run resumes to the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.train import Paused, Recipe, RunRequest
from hiresnet_graph.train.recipe import EXECUTION_FIELDS
from hiresnet_graph.train.record import stored_cursors
from tests.train.runs import events_of, finish, request, result_of
from tests.train.states import states

NET = """
name: net
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 3, stride: 4}
  drop: {block: dropout, p: 0.1}
  head: {block: classifier, classes: 10}
flow: stem -> drop -> head
"""
TWO_OUTPUTS = f"{NET}outputs: [head, aux]\n".replace(
    "flow: stem -> drop -> head", "flow: [stem -> drop -> head, stem -> aux]"
)
TWO_OUTPUTS = TWO_OUTPUTS.replace("flow:", "  aux: {block: classifier, classes: 10}\nflow:")
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 24, "augment": "none"}
"""Two epochs of two steps each."""


class Change(NamedTuple):
    """A field with another value, and what else is set so that it has an effect."""

    value: Any
    given: Mapping[str, Any] = MappingProxyType({})


SGD = {"optimizer": "sgd", "lr": 0.1}
CHANGES: dict[str, Change] = {
    "epochs": Change(3),
    "patience": Change(1, {"epochs": 6, "lr": 1.0}),
    "accumulate": Change(3),
    "batch_size": Change(20),
    "drop_last": Change(True, {"batch_size": 20}),
    "optimizer": Change("sgd"),
    "lr": Change(0.02),
    "momentum": Change(0.5, SGD),
    "nesterov": Change(True, SGD),
    "weight_decay": Change(0.1),
    "no_decay": Change(["norms", "biases"], {"weight_decay": 0.1}),
    "schedule": Change("one-cycle"),
    "step_every": Change(1),
    "step_factor": Change(0.1, {"step_every": 1}),
    "warmup_epochs": Change(1),
    "label_smoothing": Change(0.1),
    "losses": Change({"head": 1, "aux": 0.3}, {"losses": {"head": 1, "aux": 1}}),
    "loss_steps": Change("last"),
    "class_weights": Change("balanced"),
    "ema": Change(0.5),
    "clip_norm": Change(0.05, SGD),
    "freeze": Change(["stem.conv"]),
    "lr_scale": Change({"head": 0.5}),
    "augment": Change("crop+flip"),
    "crop_padding": Change(3, {"augment": "crop"}),
    "rand_augment": Change(15),
    "random_erasing": Change(0.8),
    "mixup": Change(0.4, {"cutmix": 1.0}),
    "cutmix": Change(1.0),
    "precision": Change("bf16"),
}
WITHOUT_EFFECT = {*EXECUTION_FIELDS, "top_k"}
"""Fields that change speed, memory or what is recorded; other tests compare their results."""


@cache
def data() -> Dataset:
    """A few digits."""
    split = Split(tuple(range(48)), tuple(range(48, 88)), tuple(range(88, 128)))
    return dataclasses.replace(load_dataset("digits"), split=split)


def run_of(name: str, fields: Mapping[str, Any]) -> RunRequest:
    if name == "loss_steps":
        arch = states(readout="all", steps=3)
    else:
        arch = hrg.loads(TWO_OUTPUTS if name == "losses" else NET, "net.yaml")
    return request(arch, **{**SHORT, **fields})


def stop_at(requested: RunRequest, folder: Path, epoch: int, step: int) -> None:
    """Train until a step of an epoch, both counted from 1."""
    reached: list[tuple[int, int]] = []
    options = {
        "on_step": lambda *at: reached.append(at[:2]),
        "stop": lambda: reached[-1:] == [(epoch, step)],
    }
    assert isinstance(events_of(requested, folder, dataset=data(), **options)[-1], Paused)
    assert stored_cursors(folder)[0] == (epoch - 1, step)


def test_all_fields_are_tested() -> None:
    assert CHANGES.keys() | WITHOUT_EFFECT == Recipe.model_fields.keys()


@pytest.mark.parametrize(("name", "change"), [*CHANGES.items(), ("precision", Change("fp16"))])
def test_a_field_changes_training_and_resumes_to_the_same_bits(name: str, change: Change, tmp_path: Path) -> None:
    value, given = change
    plain, changed = run_of(name, given), run_of(name, {**given, name: value})
    for requested, folder in ((plain, tmp_path / "plain"), (changed, tmp_path / "changed")):
        finish(requested, folder, dataset=data())
    without, result = result_of(tmp_path / "plain"), result_of(tmp_path / "changed")
    assert without["key"] != result["key"] and result["outcome"] == "complete"
    assert without["last"] != result["last"], f"'{name}' changes nothing"
    for epoch in (1, 2):
        stop_at(changed, tmp_path / "stopped", epoch, 1)
    finish(changed, tmp_path / "stopped", dataset=data())
    assert result_of(tmp_path / "stopped") == result
