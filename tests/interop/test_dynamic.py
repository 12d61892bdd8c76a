"""Exported files that accept other heights and widths, and networks that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.interop.dynamic import size_step

SIZES = ((2, 24, 40), (1, 64, 32), (3, 8, 12))


@pytest.mark.parametrize(("suffix", "inference"), [(".pt2", False), (".onnx", True)])
def test_other_sizes_give_the_outputs_of_the_module(suffix: str, inference: bool, tmp_path: Path) -> None:
    network = hrg.load("hiresnet18").variant("full").override({"width": 4, "stage*.depth": 1})
    messages: list[str] = []
    path = network.export(tmp_path / f"net{suffix}", dynamic="hw", inference=inference, message=messages.append)
    assert messages[0] == "Height and width of the inputs must be multiples of 4."
    assert len(messages) == 1 + inference
    module = network.build().eval()
    program = None if suffix == ".onnx" else torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path) if suffix == ".onnx" else None
    for batch, height, width in SIZES:
        x = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = module(x)
            if program is not None:
                found = program(x)
            else:
                assert session is not None
                found = torch.from_numpy(np.asarray(session.run(None, {"input": x.numpy()})[0]))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "step"), [("hiresnet18", 4), ("resnet50", 1), ("unet", 8), ("frnn2", 2), ("vgg16", 1), ("blt", 8)]
)
def test_steps_of_sizes(name: str, step: int) -> None:
    plan = hrg.load(name).plan
    assert size_step(plan) == step


FLAT = """
name: flat
input: {channels: 3, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: flatten, c: {block: linear, width: 3}}
flow: a -> b -> c
"""
VECTOR = """
name: vector
input: {channels: 3}
nodes: {c: {block: linear, width: 3}}
flow: c
"""
TWO = """
name: two
input: {left: {channels: 3, height: 8, width: 8}, right: {channels: 3, height: 4, width: 4}}
nodes: {a: {block: conv, width: 4}, c: {block: classifier, classes: 3}}
flow: left -> a -> c
edges: [{from: right, to: a, projection: {spatial: nearest}}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FLAT, r"height and width cannot be dynamic: 'c' \(linear\) is made for a vector of 256\."),
        (VECTOR, "have no height and width"),
        (TWO, "differ in height and width"),
    ],
    ids=["flattened", "vector", "two sizes"],
)
def test_networks_made_for_one_size_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        hrg.loads(text).export(tmp_path / "net.pt2", dynamic="hw")
    assert not (tmp_path / "net.pt2").exists()


def test_formats_without_weights_have_no_form() -> None:
    network = hrg.load("hiresnet18")
    with pytest.raises(UsageError, match=r"'dynamic' does not apply to \.py files\. Omit it, or"):
        network.export("net.py", dynamic="hw")
    with pytest.raises(UsageError, match=r"'inference' does not apply to \.json files"):
        network.export("net.json", inference=True)
