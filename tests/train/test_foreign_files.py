"""Files of networks and runs that others have made: each is refused with one message that names the file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.train import Recipe, from_pretrained, load_run, save_pretrained, train
from hiresnet_graph.train.checkpoint import Counters, delete_checkpoints, load_checkpoint, save_checkpoint
from hiresnet_graph.train.record import BEST, CHECKPOINTS, SPEC

TEXT = """
name: net
input: {channels: 1, height: 8, width: 8}
nodes: {a: {block: conv, width: 2}, head: {block: classifier, classes: 3}}
flow: a -> head
"""
SECRET = "secret-of-this-machine"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a network that was saved."""
    arch = hrg.loads(TEXT)
    return save_pretrained(arch.build(), tmp_path / "net", arch=arch)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change its config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def message_of(folder: Path) -> str:
    """The message with which the network is refused."""
    with pytest.raises(RunError) as caught:
        from_pretrained(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)
    return str(caught.value)


def test_nested_json(saved: Path) -> None:
    for text in ("[" * 100_000, '{"spec": ' * 100_000):
        (saved / "config.json").write_text(text)
        assert "config.json: this was not written by save_pretrained" in message_of(saved)


def test_a_spec_reads_no_other_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(SECRET)
    edit(saved, lambda config: config["spec"].update(extends=str(tmp_path / "secret.yaml")))
    message = message_of(saved)
    assert "config.json: the spec cannot be read: it extends another file" in message and SECRET not in message


def header(entry: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entry).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header({"a": {"dtype": "X7", "shape": [1], "data_offsets": [0, 1]}}, b"0"), "not a safetensors file"),
        (header({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"0"), "model.safetensors: "),
        (header({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}, b"0"), "model.safetensors: "),
        (b"[" * 100_000, "not a safetensors file"),
        (b"", "model.safetensors: the file is empty."),
    ],
    ids=["X7", "F4", "F8_E8M0", "brackets", "empty"],
)
def test_odd_weights(saved: Path, content: bytes, words: str) -> None:
    (saved / "model.safetensors").write_bytes(content)
    assert words in message_of(saved)


def test_a_huge_network_is_not_built_before_its_weights_are_read(saved: Path) -> None:
    edit(saved, lambda config: config["spec"]["nodes"]["a"].update(width=1_000_000, kernel_size=99))
    assert "these weights belong to another network: 'a.conv.weight' is [2, 1, 3, 3], not [" in message_of(saved)


PREPROCESSING = {"shape": [1, 8, 8], "mean": [1.0], "std": [2.0], "class_names": ["x", "y", "z"]}


def test_preprocessing_that_fits(saved: Path) -> None:
    edit(saved, lambda config: config.update(preprocessing=PREPROCESSING))
    module = from_pretrained(saved)
    preprocessing = module.meta["preprocessing"]
    assert isinstance(module.meta, dict)
    assert module(preprocessing(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"shape": [3, 8, 8], "mean": [1.0] * 3, "std": [1.0] * 3},
            "it gives images of 3x8x8, but the network expects",
        ),
        ({"shape": [1, 16, 16]}, "it gives images of 1x16x16, but the network expects 1x8x8."),
        ({"class_names": ["x"]}, "it names 1 classes, but the network gives 3"),
        ({"mean": [1.0, 2.0]}, "'mean' and 'std' must have one number for each of 1 channels"),
        ({"std": [0.0]}, "'std' greater than 0"),
        ({"shape": [1, 8]}, "config.json: preprocessing: "),
    ],
)
def test_preprocessing_of_another_network(saved: Path, change: dict[str, Any], words: str) -> None:
    edit(saved, lambda config: config.update(preprocessing={**PREPROCESSING, **change}))
    assert words in message_of(saved)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = "synthetic:classes=3,images=60,size=8,channels=1"
    train(hrg.loads(TEXT), out=folder, data=data, recipe=Recipe(epochs=1, batch_size=20))
    return folder


def test_the_spec_of_a_run_reads_no_other_file(run: Path, tmp_path: Path) -> None:
    original = (run / SPEC).read_text()
    (tmp_path / "secret.yaml").write_text(SECRET)
    (run / SPEC).write_text(f"name: x\nextends: {tmp_path / 'secret.yaml'}\n")
    with pytest.raises(RunError, match=r"spec\.yaml: the spec of a run extends no other file") as caught:
        load_run(run).model()
    assert SECRET not in str(caught.value)
    (run / SPEC).write_text(original)
    assert (run / BEST).exists() and load_run(run).model() is not None


def test_metrics_of_brackets(run: Path) -> None:
    original = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: a line is damaged"):
        load_run(run).metrics()
    (run / "metrics.jsonl").write_text(original)


def counters(epoch: int) -> Counters:
    return Counters(key="k", epoch=epoch, step=0, epochs=(), time_s=0, epoch_time_s=0)


def test_a_checkpoint_of_brackets_is_damaged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, counters(1), {"x": torch.ones(2)})
    save_checkpoint(tmp_path, counters(2), {"x": torch.ones(2)})
    (tmp_path / CHECKPOINTS / "2-0.json").write_text("[" * 100_000)
    found = load_checkpoint(tmp_path)
    assert found is not None and found.counters.epoch == 1


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_checkpoints_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINTS).symlink_to(tmp_path / "scratch")
    save_checkpoint(tmp_path / "run", counters(1), {"x": torch.ones(2)})
    assert load_checkpoint(tmp_path / "run") is not None
    delete_checkpoints(tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINTS).is_symlink() and not list((tmp_path / "scratch").iterdir())
